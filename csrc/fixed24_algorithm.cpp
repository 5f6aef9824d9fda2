// Convolutions with few outputs, such as fully connected layers, whose weights are whole numbers of 24 bits times a
// power of two for each output. Such a layer takes as long as its weights take to come from memory, and 24 bits are a
// quarter fewer bytes. A weight is off by at most 2**-23 of the largest one of its output.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "convolution.h"
#include "cost.h"
#include "rows.h"
#include "threads.h"

namespace convoxel {
namespace {

constexpr int64_t kGroup = Fixed24Product::kGroup, kGroupWords = Fixed24Product::kWords;
constexpr int64_t kChunkBytes = 32768;  // of weights: enough to hide the cost of taking a chunk

int64_t panel_columns(const MicrokernelSet& set) { return Fixed24Product::kPanelVectors * set.vector_floats; }

// The words of so many columns: scales, and weights with the channels of each tap padded to groups.
int64_t panel_words(const Window& window, int64_t channels, int64_t columns) {
  return columns * (1 + window.taps() * ceil_div(channels, kGroup) * kGroupWords);
}

class Fixed24Run final : public AlgorithmRun {
 public:
  explicit Fixed24Run(const ConvSetup& setup)
      : AlgorithmRun(setup),
        phase_(plan_phases(problem_.window, problem_.out_size).front()),
        rows_(problem_.batch * phase_.pixels()) {
    const auto& [problem, conv, weights, set, activation, threads] = setup;
    const int64_t panels = ceil_div(problem.out_channels, panel_columns(set));
    const int64_t bytes = 4 * panel_words(problem.window, problem.in_channels, panel_columns(set));
    const int64_t least = ceil_div(kChunkBytes, std::max<int64_t>(bytes, 1));
    const int64_t fair = std::max<int64_t>(panels / (4 * threads), 1);  // more would leave threads without work
    columns_ = std::min(least, fair) * panel_columns(set);
  }

  int64_t chunks(int) const override { return rows_ > 0 ? ceil_div(problem_.out_channels, columns_) : 0; }
  int64_t own_bytes() const override {
    return round_up((phase_.taps() + 2) * rows_ * static_cast<int64_t>(sizeof(float*)), kAlignBytes);
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const float** inputs = static_cast<const float**>(scratch.own);
    const float** residuals = inputs + phase_.taps() * rows_;
    float** outputs = const_cast<float**>(residuals + rows_);
    fill_inputs(phase_, *p.src_view, p.source(), conv_.zeros(), 0, rows_, inputs, rows_);
    fill_outputs(phase_, *p.dst_view, p.result(), 0, rows_, outputs);
    if (p.residual != nullptr) fill_outputs(phase_, *p.residual_view, p.added(), 0, rows_, residuals);

    Fixed24Product product;
    product.a = inputs;
    product.a_step = rows_;
    product.rows = rows_;
    product.taps = phase_.taps();
    product.channels = problem_.in_channels;
    product.b = weights_.data.get();
    product.columns = problem_.out_channels;
    product.column_begin = chunk * columns_;
    product.column_end = std::min(product.columns, product.column_begin + columns_);
    product.c = outputs;
    product.residual = p.residual != nullptr ? residuals : nullptr;
    product.bias = conv_.bias();
    product.activation = activation_;
    set_.fixed24_product(product);
  }

 private:
  TapPhase phase_;
  int64_t rows_;
  int64_t columns_ = 0;  // of a chunk
};

// The power of two that makes whole numbers of 24 bits of an output's weights; none if a weight is not finite.
std::optional<int> power_of(const Convolution& conv, int64_t column) {
  constexpr int kBits = 23, kMost = 118;  // beside the sign; beyond kMost the factor may be no float
  const Kernels weights = conv.kernels(0);
  float largest = 0;
  for (int64_t k = 0; k < conv.in_channels(); ++k) {
    for (int64_t tap = 0; tap < conv.window().taps(); ++tap) {
      const float size = std::abs(weights.at(column, k, tap));
      if (!std::isfinite(size)) return std::nullopt;
      largest = std::max(largest, size);
    }
  }
  int exponent = 0;
  if (std::frexp(largest, &exponent) == 0) return 0;
  const bool rounds_up = std::nearbyint(std::ldexp(largest, kBits - exponent)) == std::ldexp(1.0f, kBits);
  return std::min(kBits - exponent - (rounds_up ? 1 : 0), kMost);
}

// Packs weights by panel: scales, then by group of four channels, vector of columns, word, column (see Fixed24Product).
// An output with a weight that is not finite computes NaN.
PackedWeights pack(const Convolution& conv, const ConvProblem&, const MicrokernelSet& set, int threads) {
  const int64_t channels = conv.in_channels(), columns = conv.out_channels(), v = set.vector_floats;
  const int64_t panel = panel_columns(set);
  const TapPhase phase = plan_phases(conv.window(), Axes{1, 1, 1}).front();
  PackedWeights packed;
  packed.phase_offset = {0};
  packed.group_step = {0};
  packed.size = panel_words(conv.window(), channels, round_up(columns, v));
  packed.data = allocate_floats(packed.size);
  const Kernels weights = conv.kernels(0);
  parallel_for(threads, ceil_div(columns, panel), [&](int64_t chunk, int) {
    const int64_t begin = chunk * panel, end = std::min(begin + panel, columns), width = round_up(end - begin, v);
    float* const scales = packed.data.get() + panel_words(conv.window(), channels, begin);
    std::vector<float> factors(static_cast<size_t>(width), 0.0f);
    for (int64_t j = 0; j < width; ++j) {
      const std::optional<int> power = begin + j < end ? power_of(conv, begin + j) : 0;
      scales[j] =
          power ? std::ldexp(1.0f, Fixed24Product::kPlaces - 8 - *power) : std::numeric_limits<float>::quiet_NaN();
      factors[static_cast<size_t>(j)] = power ? std::ldexp(1.0f, *power) : 0.0f;
    }
    uint32_t* out = reinterpret_cast<uint32_t*>(scales + width);
    const auto number = [&](int64_t j, int64_t k, int64_t tap) -> uint32_t {
      const float factor = factors[static_cast<size_t>(j)];
      if (begin + j >= end || k >= channels || factor == 0) return 0;
      return static_cast<uint32_t>(static_cast<int32_t>(std::nearbyint(weights.at(begin + j, k, tap) * factor)));
    };
    for_taps(phase, conv.window(), [&](int64_t tap) {
      for (int64_t k = 0; k < channels; k += kGroup) {
        for (int64_t j = 0; j < width; ++j) {
          uint32_t* const at = out + j / v * kGroupWords * v + j % v;
          const uint32_t last = number(j, k + kGroupWords, tap);
          for (int64_t i = 0; i < kGroupWords; ++i) {
            at[i * v] = number(j, k + i, tap) << 8 | (last >> (16 - 8 * i) & 0xFF);
          }
        }
        out += width * kGroupWords;
      }
    });
    conv.give_back(begin, end);
  });
  return packed;
}

std::string unsupported(const ConvProblem& p) {
  if (p.window.transposed) return "it runs no transposed convolution";
  return p.window.groups == 1 ? "" : "groups must be 1";
}

double cost_of(const ConvProblem& p, const MicrokernelSet& set) {
  const double rows = tap_rows(p) / p.window.taps(), passes = std::ceil(4 * rows / set.registers);
  const double words =
      static_cast<double>(panel_words(p.window, p.in_channels, round_up(p.out_channels, set.vector_floats)));
  const double vectors = words / set.vector_floats * kGroup / kGroupWords;
  const Rates& rates = reference_machine(set.name).rates;
  return vectors * (rows * cost::kProduct + passes * cost::kUnpack) + rows * cost::kRow +
         4 * words * passes * cost::fixed24_byte(4 * words, rates) + image_bytes(p) * cost::image_byte(rates);
}

}  // namespace

std::vector<Algorithm> fixed24_algorithms() {
  return {
      {"fixed24",
       "a few outputs from weights as whole numbers of 24 bits; any window, stride, dilation and padding, groups 1",
       false, unsupported, cost_of, pack, make_run<Fixed24Run>},
  };
}

}  // namespace convoxel
