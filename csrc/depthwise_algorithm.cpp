// Depthwise convolution: every channel has its own kernel, so vectors over channels take the place of matrices.
//
// The work is divided into runs of outputs along w (depthwise.h); a chunk is several runs.
#include <algorithm>
#include <cmath>

#include "convolution.h"
#include "cost.h"
#include "depthwise.h"
#include "rows.h"

namespace convoxel {
namespace {

constexpr int64_t kChunkFloats = 16384;  // of output: enough to hide the cost of taking a chunk

class DepthwiseRun final : public AlgorithmRun {
 public:
  explicit DepthwiseRun(const ConvSetup& setup) : AlgorithmRun(setup), lines_(setup) {
    int64_t most_runs = 0;
    for (const TapPhase& phase : lines_.phases()) most_runs = std::max(most_runs, runs_of(phase));
    const int64_t floats = std::min(problem_.out_size[2], DepthwiseLines::kMostOutputs) * problem_.out_channels;
    const int64_t fair = ceil_div(most_runs, 4 * setup.threads);  // more in a chunk would leave threads without work
    step_ = std::clamp<int64_t>(kChunkFloats / std::max<int64_t>(floats, 1), 1, std::max<int64_t>(fair, 1));
    chunks_ = ceil_div(most_runs, step_) * static_cast<int64_t>(lines_.phases().size());
  }

  int64_t chunks(int) const override { return chunks_; }
  int64_t own_bytes() const override {
    return lines_.scratch_bytes() + 2 * DepthwiseLines::kMostOutputs * static_cast<int64_t>(sizeof(float*));
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    with_element(problem_.in_element, [&](auto number) { run_lines<decltype(number)>(chunk, p, scratch); });
  }

 private:
  template <class T>
  void run_lines(int64_t chunk, const ConvPointers& p, ConvScratch scratch) const {
    const int64_t phases = static_cast<int64_t>(lines_.phases().size());
    const size_t index = static_cast<size_t>(chunk % phases);
    const TapPhase& phase = lines_.phases()[index];
    T** outputs = static_cast<T**>(scratch.own);
    const T** residuals = const_cast<const T**>(outputs + DepthwiseLines::kMostOutputs);
    void* own = residuals + DepthwiseLines::kMostOutputs;

    const int64_t begin = chunk / phases * step_;
    const int64_t end = std::min(begin + step_, runs_of(phase));
    const int64_t width = phase.axis[2].count;
    for (int64_t i = begin; i < end; ++i) {
      // Run i is a part of line i / parts.
      const int64_t parts = ceil_div(width, DepthwiseLines::kMostOutputs);
      const int64_t q = i % parts * DepthwiseLines::kMostOutputs;
      const int64_t rows = std::min(DepthwiseLines::kMostOutputs, width - q);
      const int64_t first = i / parts * width + q;
      fill_outputs(phase, *p.dst_view, p.result<T>(), first, rows, outputs);
      if (p.residual != nullptr) fill_outputs(phase, *p.residual_view, p.added<T>(), first, rows, residuals);
      lines_.run(index, first, rows, p.source<T>(), *p.src_view, {}, outputs,
                 p.residual != nullptr ? residuals : nullptr, own);
    }
  }

  int64_t runs_of(const TapPhase& phase) const {
    return problem_.batch * phase.axis[0].count * phase.axis[1].count *
           ceil_div(phase.axis[2].count, DepthwiseLines::kMostOutputs);
  }

  DepthwiseLines lines_;
  int64_t step_ = 1;  // runs of a chunk
  int64_t chunks_ = 0;
};

// Packs weights by phase, tap, channel; the channels of each tap are padded to whole vectors.
PackedWeights pack(const Convolution& conv, const ConvProblem&, const MicrokernelSet& set, int) {
  const Window& window = conv.window();
  const int64_t channels = conv.in_channels();
  const int64_t padded = round_up(channels, set.vector_floats);
  PackedWeights packed;
  const std::vector<TapPhase> phases = plan_phases(window, Axes{1, 1, 1});
  for (const TapPhase& phase : phases) {
    packed.phase_offset.push_back(packed.size);
    packed.group_step.push_back(0);
    packed.size += phase.taps() * padded;
  }
  packed.data = allocate_floats(packed.size);
  float* out = packed.data.get();
  for (const TapPhase& phase : phases) {
    for_taps(phase, window, [&](int64_t tap) {
      for (int64_t c = 0; c < padded; ++c) *out++ = c < channels ? conv.kernels(c).at(0, 0, tap) : 0.0f;
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

bool stores(const ConvProblem& p) {
  return p.in_element == p.out_element && p.residual_element.value_or(p.out_element) == p.out_element;
}

double cost_of(const ConvProblem& p, const MicrokernelSet& set) {
  const double vectors = std::ceil(static_cast<double>(p.in_channels) / set.vector_floats);
  return tap_rows(p) * vectors * cost::kDepthwise +
         image_bytes(p) * cost::image_byte(reference_machine(set.name).rates);
}

}  // namespace

std::vector<Algorithm> depthwise_algorithms() {
  return {
      {"depthwise",
       "one weight per tap and channel, vectors over channels; groups = in_channels = out_channels, any window", true,
       unsupported, cost_of, pack, make_run<DepthwiseRun>, false, nullptr, false, 24, stores},
  };
}

}  // namespace convoxel
