// Convolutions of few outputs: vectors over pixels along w in place of channels, so that every lane has work.
//
// With channels last, four outputs fill a quarter of a vector of AVX-512. Here lines of the image are taken apart into
// planes, one for each channel. A vector of neighbouring pixels then meets one weight, and the sums of a line are
// joined to pixels again. A chunk is a band of lines through some depths: a line is taken apart once for all outputs of
// the chunk that read it. The planes lie in a ring of depths.
#include <algorithm>
#include <cmath>

#include "convolution.h"
#include "cost.h"
#include "rows.h"

namespace convoxel {
namespace {

constexpr int64_t kMostOutputs = 8;               // with more, vectors over channels are full
constexpr int64_t kMostPixels = 192;              // of a line at a time: its planes stay in L1
constexpr int64_t kRingFloats = 64 << 10;         // 256 KB, a part of L2
constexpr int64_t kBandLines = 16, kDepths = 16;  // a chunk reads (16 + 2)² / 16² = 1.3 times its lines
constexpr int64_t kMostReach = 256;               // pixels along w from the first tap to the last

class PlanarRun final : public AlgorithmRun {
 public:
  explicit PlanarRun(const ConvSetup& setup)
      : AlgorithmRun(setup), phase_(plan_phases(problem_.window, problem_.out_size).front()) {
    const auto& [problem, conv, weights, set, activation, threads] = setup;
    for (int i = 0; i < kSpatialAxes; ++i) reach_[i] = (problem.window.kernel[i] - 1) * problem.window.dilation[i] + 1;
    const Axes& out = problem.out_size;
    parts_ = std::max<int64_t>(1, ceil_div(out[2], kMostPixels));
    pixels_ = round_up(ceil_div(out[2], parts_), set.vector_floats);
    plane_ = round_up(pixels_ + reach_[2] - 1, set.vector_floats);
    const int64_t line = problem.in_channels * plane_;
    band_ = std::min(kBandLines, out[1]);
    depths_ = std::min(kDepths, out[0]);
    while (band_ > 1 && reach_[0] * lines_of_band() * line > kRingFloats) band_ = (band_ + 1) / 2;
    while (depths_ > 4 && chunks(0) < 4 * threads) depths_ = (depths_ + 1) / 2;
    while (band_ > 4 && chunks(0) < 4 * threads) band_ = (band_ + 1) / 2;
    taps_ = problem.window.kernel[0] * problem.window.kernel[1];
    ring_ = reach_[0] * lines_of_band() * line;
    joined_ = problem.out_channels * pixels_;
  }

  int64_t chunks(int) const override {
    const Axes& out = problem_.out_size;
    return problem_.batch * ceil_div(out[0], depths_) * ceil_div(out[1], band_) * parts_;
  }

  int64_t own_bytes() const override {
    const int64_t pointers = taps_ * static_cast<int64_t>(sizeof(float*) + sizeof(int64_t));
    return round_up(pointers, kAlignBytes) + (ring_ + plane_ + 2 * joined_) * static_cast<int64_t>(sizeof(float));
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const Axes& out = problem_.out_size;
    const int64_t bands = ceil_div(out[1], band_), slabs = ceil_div(out[0], depths_);
    const int64_t w = chunk % parts_ * pixels_, h = chunk / parts_ % bands * band_;
    const int64_t d = chunk / (parts_ * bands) % slabs * depths_, n = chunk / (parts_ * bands * slabs);
    const int64_t h_end = std::min(out[1], h + band_), d_end = std::min(out[0], d + depths_);
    const int64_t count = std::min(pixels_, out[2] - w);
    if (count <= 0) return;  // parts are whole vectors, so the last one may have nothing left

    const float** lines = static_cast<const float**>(scratch.own);
    int64_t* steps = reinterpret_cast<int64_t*>(lines + taps_);
    float* ring = static_cast<float*>(scratch.own) +
                  round_up(taps_ * static_cast<int64_t>(sizeof(float*) + sizeof(int64_t)), kAlignBytes) /
                      static_cast<int64_t>(sizeof(float));
    float* zeros = ring + ring_;
    std::fill(zeros, zeros + plane_, 0.0f);

    Planar work;
    work.a = lines;
    work.a_step = steps;
    work.lines = taps_;
    work.channels = problem_.in_channels;
    work.width = problem_.window.kernel[2];
    work.dilation = problem_.window.dilation[2];
    work.b = weights_.data.get();
    work.bias = conv_.bias();
    work.c = zeros + plane_;
    work.c_step = pixels_;
    work.outputs = problem_.out_channels;
    work.pixels = count;
    work.activation = activation_;
    float* const residual = work.c + joined_;

    const View& src = *p.src_view;
    const int64_t first_line = h * phase_.axis[1].in_step + phase_.axis[1].offset.front();
    const float* image = p.source() + n * src.batch_stride;
    int64_t ready = 0;  // depths before it have been taken apart
    for (int64_t q = d; q < d_end; ++q) {
      const int64_t low = q * phase_.axis[0].in_step + phase_.axis[0].offset.front();
      for (int64_t at = std::max(ready, low); at < std::min(low + reach_[0], src.size[0]); ++at) {
        take_apart(src, image + at * src.stride[0], first_line, (h_end - h - 1) * phase_.axis[1].in_step + reach_[1],
                   w + phase_.axis[2].offset.front(), ring + at % reach_[0] * ring_ / reach_[0]);
      }
      ready = std::max(ready, low + reach_[0]);
      for (int64_t r = h; r < h_end; ++r) {
        find_lines(src, q, r, first_line, ring, zeros, lines, steps);
        if (p.residual != nullptr) {
          const View& view = *p.residual_view;
          const int64_t from = n * view.batch_stride + q * view.stride[0] + r * view.stride[1] + w * view.stride[2];
          set_.transpose(residual, pixels_, p.added() + from, view.stride[2], count, work.outputs);
          work.residual = residual;
        }
        set_.planar(work);
        const View& view = *p.dst_view;
        const int64_t to = n * view.batch_stride + q * view.stride[0] + r * view.stride[1] + w * view.stride[2];
        set_.transpose(p.result() + to, view.stride[2], work.c, pixels_, work.outputs, count);
      }
    }
  }

 private:
  int64_t lines_of_band() const { return (band_ - 1) * problem_.window.stride[1] + reach_[1]; }

  // Takes `count` lines of a depth apart, from line `first` and pixel `w` on; those outside of the image stay as they
  // are, since nothing reads them.
  void take_apart(const View& view, const float* depth, int64_t first, int64_t count, int64_t w, float* planes) const {
    const int64_t begin = std::clamp<int64_t>(-w, 0, plane_);
    const int64_t end = std::clamp<int64_t>(view.size[2] - w, begin, plane_);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t h = first + i;
      if (h < 0 || h >= view.size[1]) continue;
      float* line = planes + i * problem_.in_channels * plane_;
      for (int64_t c = 0; c < problem_.in_channels; ++c) {
        std::fill(line + c * plane_, line + c * plane_ + begin, 0.0f);
        std::fill(line + c * plane_ + end, line + (c + 1) * plane_, 0.0f);
      }
      if (begin == end) continue;
      set_.transpose(line + begin, plane_, depth + h * view.stride[1] + (w + begin) * view.stride[2], view.stride[2],
                     end - begin, problem_.in_channels);
    }
  }

  // Points at the planes of the lines that outputs at (q, r) read; a line outside of the image is zeros.
  void find_lines(const View& view, int64_t q, int64_t r, int64_t first_line, const float* ring, const float* zeros,
                  const float** lines, int64_t* steps) const {
    for (const int64_t offset_d : phase_.axis[0].offset) {
      const int64_t d = q * phase_.axis[0].in_step + offset_d;
      for (const int64_t offset_h : phase_.axis[1].offset) {
        const int64_t h = r * phase_.axis[1].in_step + offset_h;
        const bool inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
        const int64_t place = inside ? d % reach_[0] * (ring_ / reach_[0]) : 0;
        *lines++ = inside ? ring + place + (h - first_line) * problem_.in_channels * plane_ : zeros;
        *steps++ = inside ? plane_ : 0;
      }
    }
  }

  TapPhase phase_;
  Axes reach_{1, 1, 1};  // positions from the first tap to the last
  int64_t parts_ = 1;    // of a line
  int64_t pixels_ = 0;   // of a part, whole vectors
  int64_t plane_ = 0;    // floats of a plane of one line
  int64_t band_ = 1;     // lines of a chunk
  int64_t depths_ = 1;   // of a chunk
  int64_t taps_ = 1;     // of the axes other than w
  int64_t ring_ = 0;     // floats of all planes
  int64_t joined_ = 0;   // floats of a line's outputs
};

// Packs weights by group of outputs, line, input channel, tap along w, output.
PackedWeights pack(const Convolution& conv, const ConvProblem&, const MicrokernelSet&, int) {
  const Window& window = conv.window();
  const int64_t lines = window.kernel[0] * window.kernel[1], width = window.kernel[2];
  PackedWeights packed;
  packed.phase_offset.push_back(0);
  packed.group_step.push_back(0);
  packed.size = window.taps() * conv.in_channels() * conv.out_channels();
  packed.data = allocate_floats(packed.size);
  float* out = packed.data.get();
  const Kernels weights = conv.kernels(0);
  for (int64_t first = 0; first < conv.out_channels();) {
    const int64_t outputs = Planar::group(conv.out_channels(), first);
    for (int64_t line = 0; line < lines; ++line) {
      for (int64_t c = 0; c < conv.in_channels(); ++c) {
        for (int64_t t = 0; t < width; ++t) {
          for (int64_t k = 0; k < outputs; ++k) *out++ = weights.at(first + k, c, line * width + t);
        }
      }
    }
    first += outputs;
  }
  return packed;
}

std::string unsupported(const ConvProblem& p) {
  const Window& w = p.window;
  if (w.transposed) return "it runs no transposed convolution";
  if (w.groups != 1) return "groups must be 1";
  if (w.taps() == 1) return "the kernel must be larger than 1, since each line is taken apart";
  if (w.stride[2] != 1) return "the stride along the last axis must be 1";
  if (p.out_channels > kMostOutputs) return "out_channels must be at most " + std::to_string(kMostOutputs);
  const auto reach = [&](int i) { return (w.kernel[i] - 1) * w.dilation[i] + 1; };
  if (reach(2) > kMostReach || reach(0) * reach(1) * p.in_channels > kRingFloats / kMostPixels) {
    return "the lines that an output reads must fit into cache";
  }
  return "";
}

double cost_of(const ConvProblem& p, const MicrokernelSet& set) {
  const Axes& out = p.out_size;
  const double vectors = std::ceil(static_cast<double>(out[2]) / set.vector_floats);
  const double lines = static_cast<double>(p.batch) * out[0] * out[1];
  const double products = lines * vectors * p.window.taps() * p.in_channels * p.out_channels;
  const double moved = lines * vectors * (cost::kTakeApart * p.in_channels + cost::kJoin * p.out_channels);
  return products * cost::kPlanar + moved + image_bytes(p) * cost::image_byte(reference_machine(set.name).rates);
}

}  // namespace

std::vector<Algorithm> planar_algorithms() {
  return {
      {"planar",
       "vectors over pixels along w in place of channels; out_channels <= 8, stride 1 along w, groups 1, kernels above "
       "1",
       true, unsupported, cost_of, pack, make_run<PlanarRun>},
  };
}

}  // namespace convoxel
