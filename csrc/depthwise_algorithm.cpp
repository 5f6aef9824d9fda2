// Depthwise convolution: every channel has its own kernel, so there is no matrix, only vectors over channels.
//
// The work is cut into runs of outputs along w. A run's inputs are lines of positions, one for each tap of the other
// axes; neighbouring outputs share positions, and the kernel loads each of them once.
#include <algorithm>
#include <cmath>

#include "convolution.h"
#include "cost.h"
#include "rows.h"

namespace convoxel {
namespace {

constexpr int64_t kMostOutputs = 128;    // of a run: longer lines (1-D) are cut
constexpr int64_t kChunkFloats = 16384;  // of output: taking a chunk costs nothing beside it

class DepthwiseRun final : public ConvRun {
 public:
  DepthwiseRun(const ConvProblem& problem, const Convolution& conv, const PackedWeights& weights, const KernelSet& set,
               Activation activation, int threads)
      : problem_(problem), conv_(conv), weights_(weights), set_(set), activation_(activation) {
    walks_ = plan_walks(problem.window, problem.out_size);
    int64_t most_runs = 0;
    for (const Walk& walk : walks_) {
      lines_ = std::max(lines_, lines_of(walk));
      most_runs = std::max(most_runs, runs_of(walk));
      taps_ = std::max(taps_, static_cast<int64_t>(walk.axis[2].offset.size()));
    }
    const int64_t floats = std::min(problem.out_size[2], kMostOutputs) * problem.out_channels;
    const int64_t fair = ceil_div(most_runs, 4 * threads);  // fewer would leave threads without work
    step_ = std::clamp<int64_t>(kChunkFloats / std::max<int64_t>(floats, 1), 1, std::max<int64_t>(fair, 1));
    chunks_ = ceil_div(most_runs, step_) * static_cast<int64_t>(walks_.size());
  }

  int64_t chunks(int) const override { return chunks_; }
  int64_t own_bytes() const override {
    return (lines_ + 2 * kMostOutputs) * static_cast<int64_t>(sizeof(float*)) +
           (lines_ + taps_) * static_cast<int64_t>(sizeof(int64_t));
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const size_t index = static_cast<size_t>(chunk) % walks_.size();
    const Walk& walk = walks_[index];
    const AxisWalk& ww = walk.axis[2];
    const float** lines = static_cast<const float**>(scratch.own);
    float** outputs = const_cast<float**>(lines + lines_);
    const float** residuals = lines + lines_ + kMostOutputs;
    int64_t* steps = reinterpret_cast<int64_t*>(residuals + kMostOutputs);
    int64_t* taps = steps + lines_;

    Depthwise work;
    work.a = lines;
    work.a_step = steps;
    work.zeros = conv_.zeros();
    work.lines = lines_of(walk);
    work.taps = taps;
    work.width = static_cast<int64_t>(ww.offset.size());
    work.stride = ww.in_step;
    work.channels = problem_.in_channels;
    work.b = weights_.data.get() + weights_.walk_offset[index];
    work.b_step = round_up(problem_.in_channels, set_.vector_floats);
    work.c = outputs;
    work.residual = p.residual != nullptr ? residuals : nullptr;
    work.bias = conv_.bias();
    work.activation = activation_;
    const int64_t base = ww.offset.empty() ? 0 : *std::min_element(ww.offset.begin(), ww.offset.end());
    for (int64_t t = 0; t < work.width; ++t) taps[t] = ww.offset[t] - base;

    const int64_t begin = chunk / static_cast<int64_t>(walks_.size()) * step_;
    const int64_t end = std::min(begin + step_, runs_of(walk));
    for (int64_t i = begin; i < end; ++i) {
      // Run i is a part of line i / parts of all outputs.
      const int64_t parts = ceil_div(ww.count, kMostOutputs);
      const int64_t q = i % parts * kMostOutputs;
      work.rows = std::min(kMostOutputs, ww.count - q);
      const int64_t first = i / parts * ww.count + q;
      fill_outputs(walk, *p.dst_view, p.dst, first, work.rows, outputs);
      if (p.residual != nullptr) fill_outputs(walk, *p.residual_view, p.residual, first, work.rows, residuals);
      for_runs(walk, first, work.rows, [&](int64_t, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t) {
        const int64_t position = qw * ww.in_step + base;
        work.begin = -position;
        work.end = p.src_view->size[2] - position;
        fill_lines(walk, *p.src_view, p.src + n * p.src_view->batch_stride, qd, qh, position, lines, steps);
      });
      set_.depthwise(work);
    }
  }

 private:
  static int64_t lines_of(const Walk& walk) {
    return static_cast<int64_t>(walk.axis[0].offset.size() * walk.axis[1].offset.size());
  }
  int64_t runs_of(const Walk& walk) const {
    return problem_.batch * walk.axis[0].count * walk.axis[1].count * ceil_div(walk.axis[2].count, kMostOutputs);
  }
  // The lines that the outputs at (qd, qh) read; one outside of the image is a row of zeros, repeated.
  void fill_lines(const Walk& walk, const View& view, const float* image, int64_t qd, int64_t qh, int64_t position,
                  const float** lines, int64_t* steps) const {
    for (const int64_t offset_d : walk.axis[0].offset) {
      const int64_t d = qd * walk.axis[0].in_step + offset_d;
      for (const int64_t offset_h : walk.axis[1].offset) {
        const int64_t h = qh * walk.axis[1].in_step + offset_h;
        const bool inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
        *steps++ = inside ? view.stride[2] : 0;
        *lines++ = inside ? image + d * view.stride[0] + h * view.stride[1] + position * view.stride[2] : conv_.zeros();
      }
    }
  }

  ConvProblem problem_;
  const Convolution& conv_;
  const PackedWeights& weights_;
  const KernelSet& set_;
  Activation activation_;
  std::vector<Walk> walks_;
  int64_t lines_ = 1;  // of a run
  int64_t taps_ = 1;   // of a line
  int64_t step_ = 1;   // runs of a chunk
  int64_t chunks_ = 0;
};

// Weights by walk, tap, channel, each tap's channels rounded up to whole vectors.
PackedWeights pack(const Convolution& conv, const ConvProblem&, const KernelSet& set, int) {
  const Window& window = conv.window();
  const int64_t channels = conv.in_channels();
  const int64_t padded = round_up(channels, set.vector_floats);
  PackedWeights packed;
  const std::vector<Walk> walks = plan_walks(window, Axes{1, 1, 1});
  for (const Walk& walk : walks) {
    packed.walk_offset.push_back(packed.size);
    packed.group_step.push_back(0);
    packed.size += walk.taps() * padded;
  }
  packed.data = allocate_floats(packed.size);
  float* out = packed.data.get();
  for (const Walk& walk : walks) {
    for_taps(walk, window, [&](int64_t tap) {
      for (int64_t c = 0; c < padded; ++c) *out++ = c < channels ? conv.weight(c, 0, tap) : 0.0f;
    });
  }
  return packed;
}

std::string unsupported(const ConvProblem& p) {
  if (p.window.groups != p.in_channels || p.window.groups != p.out_channels) {
    return "groups, in_channels and out_channels must be equal";
  }
  return "";
}

double cost_of(const ConvProblem& p, const KernelSet& set) {
  const double vectors = std::ceil(static_cast<double>(p.in_channels) / set.vector_floats);
  return tap_rows(p) * vectors * cost::kDepthwise + image_bytes(p) * cost::image_byte();
}

std::unique_ptr<ConvRun> plan(const ConvProblem& problem, const Convolution& conv, const PackedWeights& weights,
                              const KernelSet& set, Activation activation, int threads) {
  return std::make_unique<DepthwiseRun>(problem, conv, weights, set, activation, threads);
}

}  // namespace

std::vector<Algorithm> depthwise_algorithms() {
  return {
      {"depthwise",
       "one weight per tap and channel, vectors over channels; groups = in_channels = out_channels, any window", true,
       unsupported, cost_of, pack, plan},
  };
}

}  // namespace convoxel
