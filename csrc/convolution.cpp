#include "convolution.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "cost.h"
#include "mistake.h"
#include "rows.h"
#include "system.h"

namespace convoxel {

double ConvProblem::macs() const {
  const Axes& size = window.transposed ? in_size : out_size;
  const double pixels = static_cast<double>(batch) * size[0] * size[1] * size[2];
  return pixels * window.taps() * in_channels * out_channels / window.groups;
}

bool ConvProblem::is_float32() const {
  return in_element == Element::kFloat32 && out_element == Element::kFloat32 &&
         residual_element.value_or(Element::kFloat32) == Element::kFloat32;
}

int64_t TapPhase::taps() const {
  int64_t n = 1;
  for (const AxisPhase& a : axis) n *= static_cast<int64_t>(a.index.size());
  return n;
}

namespace {

// out = o reads in = o * s + k * d - p for every tap k.
std::vector<AxisPhase> convolution_phases(int64_t kernel, int64_t stride, int64_t dilation, int64_t padding,
                                          int64_t out) {
  AxisPhase phase;
  phase.count = out;
  phase.in_step = stride;
  for (int64_t k = 0; k < kernel; ++k) {
    phase.index.push_back(k);
    phase.offset.push_back(k * dilation - padding);
  }
  return {phase};
}

// in = i reaches out = i * s + k * d - p. So out = r + s * q is reached by the taps k with s | r + p - k * d, from in =
// q + (r + p - k * d) / s. A phase without taps remains: its outputs are the bias.
std::vector<AxisPhase> transposed_phases(int64_t kernel, int64_t stride, int64_t dilation, int64_t padding,
                                         int64_t out) {
  std::vector<AxisPhase> phases;
  for (int64_t r = 0; r < stride; ++r) {
    AxisPhase phase;
    phase.count = r < out ? ceil_div(out - r, stride) : 0;
    phase.out_begin = r;
    phase.out_step = stride;
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t distance = r + padding - k * dilation;
      if (distance % stride != 0) continue;
      phase.index.push_back(k);
      phase.offset.push_back(distance / stride);
    }
    phases.push_back(phase);
  }
  return phases;
}

}  // namespace

std::vector<TapPhase> plan_phases(const Window& window, const Axes& out_size) {
  std::vector<AxisPhase> axes[kSpatialAxes];
  for (int i = 0; i < kSpatialAxes; ++i) {
    const auto phases = window.transposed ? transposed_phases : convolution_phases;
    axes[i] = phases(window.kernel[i], window.stride[i], window.dilation[i], window.padding_low[i], out_size[i]);
  }
  std::vector<TapPhase> all;
  for (const AxisPhase& d : axes[0]) {
    for (const AxisPhase& h : axes[1]) {
      for (const AxisPhase& w : axes[2]) all.push_back(TapPhase{{d, h, w}});
    }
  }
  return all;
}

Layer layer_of(const std::array<int64_t, 5>& weight, const Axes& stride, const Axes& padding_low, const Axes& dilation,
               int64_t groups, bool transposed) {
  for (const int64_t extent : weight) require(extent >= 1, "Convolution: the weight is empty.");
  for (int i = 0; i < kSpatialAxes; ++i) {
    require(stride[i] >= 1 && dilation[i] >= 1, "Convolution: stride and dilation must be at least 1.");
  }
  require(groups >= 1 && weight[0] % groups == 0, "Convolution: groups must divide the weight's first axis.");
  Layer layer;
  layer.window = {{weight[2], weight[3], weight[4]}, stride, dilation, padding_low, groups, transposed};
  layer.in_channels = transposed ? weight[0] : weight[1] * groups;
  layer.out_channels = transposed ? weight[1] * groups : weight[0];
  return layer;
}

void require_bias(const Layer& layer, int64_t count) {
  require(count == layer.out_channels, "Convolution: the bias must have one number per output channel.");
}

Kernels Kernels::dense(const float* first, const Window& window, int64_t in_channels, int64_t out_channels) {
  const int64_t taps = window.taps(), in = in_channels / window.groups, out = out_channels / window.groups;
  return window.transposed ? Kernels{first, in * out * taps, taps, out * taps, 1}
                           : Kernels{first, in * out * taps, in * taps, taps, 1};
}

void Kernels::copy_columns(const MicrokernelSet& set, int64_t t, int64_t c_begin, int64_t c_end, int64_t begin,
                           int64_t end, float* out, int64_t step) const {
  if (in == 1) {  // a column's channels lie side by side
    set.transpose(out, step, &at(begin, c_begin, t), this->out, end - begin, c_end - c_begin);
  } else {
    for (int64_t c = c_begin; c < c_end; ++c) {
      for (int64_t k = begin; k < end; ++k) out[(c - c_begin) * step + k - begin] = at(k, c, t);
    }
  }
  if (end - begin == set.vector_floats) return;
  for (int64_t c = 0; c < c_end - c_begin; ++c) {
    std::fill(out + c * step + end - begin, out + c * step + set.vector_floats, 0.0f);
  }
}

Convolution::Convolution(Window window, int64_t in_channels, int64_t out_channels, std::shared_ptr<const float> weight,
                         const float* bias, bool from_file, std::optional<Kernels> kernels)
    : window_(window),
      in_channels_(in_channels),
      out_channels_(out_channels),
      weight_(std::move(weight)),
      kernels_(kernels ? *kernels : Kernels::dense(weight_.get(), window, in_channels, out_channels)),
      from_file_(from_file) {
  if (bias != nullptr) {
    bias_ = allocate_floats(out_channels);
    std::copy(bias, bias + out_channels, bias_.get());
  }
  zeros_ = allocate_floats(in_channels);
  std::fill(zeros_.get(), zeros_.get() + in_channels, 0.0f);
}

void Convolution::give_back(int64_t begin, int64_t end) const {
  // The weights of a transposed convolution's output channel are scattered: only all channels together are contiguous.
  if (!from_file_ || (window_.transposed && end - begin < out_channels_)) return;
  const int64_t row = window_.taps() * in_channels_ / window_.groups;
  give_back_pages(weight_.get() + begin * row, static_cast<size_t>((end - begin) * row) * sizeof(float));
}

const PackedWeights& Convolution::packed(const Algorithm& algorithm, const ConvProblem& problem,
                                         const MicrokernelSet& set, int threads) const {
  const std::string packing = algorithm.packing != nullptr ? algorithm.packing(problem, set) : "";
  std::lock_guard<ForkMutex> lock(mutex_);
  std::unique_ptr<PackedWeights>& slot = packed_[std::string(algorithm.name) + "/" + set.name + "/" + packing];
  if (!slot) {
    slot = std::make_unique<PackedWeights>(algorithm.pack(*this, problem, set, threads));
    give_back(0, out_channels_);
  }
  return *slot;
}

int64_t Convolution::packed_bytes() const {
  std::lock_guard<ForkMutex> lock(mutex_);
  int64_t bytes = 0;
  for (const auto& entry : packed_) bytes += entry.second->size * static_cast<int64_t>(sizeof(float));
  return bytes;
}

std::string problem_text(const Window& window, const std::array<int64_t, 5>& in_shape,
                         const std::array<int64_t, 5>& out_shape, const std::string& activation, bool residual,
                         bool gated, Element in_element, Element out_element) {
  const auto joined = [](const auto& numbers) {
    std::string text;
    for (const int64_t number : numbers) text += (text.empty() ? "" : "x") + std::to_string(number);
    return text;
  };
  const auto stored = [](Element element) {
    return element == Element::kFloat32 ? std::string() : std::string(" ") + element_name(element);
  };
  return (window.transposed ? "conv_transpose " : "conv ") + joined(window.kernel) + " s" + joined(window.stride) +
         " p" + joined(window.padding_low) + " d" + joined(window.dilation) + " g" + std::to_string(window.groups) +
         " " + joined(in_shape) + stored(in_element) + " -> " + joined(out_shape) + stored(out_element) +
         (gated ? " gated " : " ") + activation + (residual ? " residual" : "");
}

const std::vector<Algorithm>& algorithms() {
  // Never destroyed, since threads may run plans while the process exits.
  static const auto& table = *new std::vector<Algorithm>([] {
    std::vector<Algorithm> all = product_algorithms();
    for (const Algorithm& algorithm : fixed24_algorithms()) all.push_back(algorithm);
    for (const Algorithm& algorithm : planar_algorithms()) all.push_back(algorithm);
    for (const Algorithm& algorithm : depthwise_algorithms()) all.push_back(algorithm);
    for (const Algorithm& algorithm : winograd_algorithms()) all.push_back(algorithm);
    for (const Algorithm& algorithm : fft_algorithms()) all.push_back(algorithm);
    for (const Algorithm& algorithm : bfloat_algorithms()) all.push_back(algorithm);
    return all;
  }());
  return table;
}

const Algorithm& algorithm_called(const std::string& name) {
  for (const Algorithm& algorithm : algorithms()) {
    if (name == algorithm.name) return algorithm;
  }
  throw std::logic_error("there is no algorithm " + name);
}

namespace {

// Whether a name stands for the algorithm (see Family). "winograd(m,r)" also asks for kernels of 1 or r:
// *kernel is r, or 0.
bool is_asked_for(const std::string& name, const Algorithm& algorithm, int64_t* kernel) {
  *kernel = 0;
  if (name == "auto" || name == algorithm.name) return true;
  if (name == "direct") return algorithm.exact || algorithm.digits < 24;
  if (name == "winograd") return std::strncmp(algorithm.name, "winograd", 8) == 0;
  const size_t comma = name.find(',');
  if (comma == std::string::npos || name.substr(0, comma) + ")" != algorithm.name) return false;
  const std::string r = name.substr(comma + 1);
  if (r.size() != 2 || r[0] < '2' || r[0] > '9' || r[1] != ')') return false;
  *kernel = r[0] - '0';
  return true;
}

std::string why_not(const Algorithm& algorithm, int digits, const ConvProblem& problem, const MicrokernelSet& set,
                    int64_t kernel) {
  if (algorithm.digits < digits) {
    return "it multiplies numbers of " + std::to_string(algorithm.digits) +
           " binary digits, and the precision asks for " + std::to_string(digits);
  }
  for (const int64_t k : problem.window.kernel) {
    if (kernel > 0 && k != 1 && k != kernel) return "each axis of the kernel must be 1 or " + std::to_string(kernel);
  }
  if (problem.gated && !algorithm.gates) return "it applies no gate";
  if (algorithm.needs_matrix_unit && set.matrix_unit == nullptr) {
    return std::string("the instruction set '") + set.name + "' multiplies no bfloat16";
  }
  return algorithm.unsupported(problem);
}

// Widening what is read and rounding what is written, in passes of their own over memory.
double conversion_cost(const ConvProblem& p, const MicrokernelSet& set) {
  return 2 * image_bytes(p) * cost::image_byte(reference_machine(set.name).rates) / element_bytes(Element::kBfloat16) *
         (element_bytes(Element::kFloat32) + element_bytes(Element::kBfloat16));
}

double packing_cost(const Algorithm& algorithm, const ConvProblem& p) {
  const double weight = algorithm.packed_numbers == nullptr
                            ? cost::kPack * static_cast<double>(p.window.taps())
                            : cost::kPackPoint * static_cast<double>(algorithm.packed_numbers(p));
  return weight * static_cast<double>(p.in_channels * p.out_channels / p.window.groups);
}

}  // namespace

std::vector<Candidate> rank_algorithms(const Family& family, const ConvProblem& problem, const MicrokernelSet& set) {
  const std::string& name = family.name;
  ConvProblem image = problem;
  image.batch = 1;
  const double runs = family.once ? static_cast<double>(problem.batch) : 1;
  std::vector<Candidate> found;
  std::string refusal;
  for (const Algorithm& algorithm : algorithms()) {
    int64_t kernel = 0;
    if (!is_asked_for(name, algorithm, &kernel)) continue;
    const std::string reason = why_not(algorithm, family.digits, problem, set, kernel);
    if (reason.empty()) {
      const double conversion = algorithm.converts(image) ? conversion_cost(image, set) : 0;
      const double packing = family.once ? packing_cost(algorithm, image) : 0;
      found.push_back({&algorithm, runs * (algorithm.cost(image, set) + conversion) + packing});
    } else if (refusal.empty()) {
      refusal = "algorithm '" + name + "' does not support this problem: " + reason;
    }
  }
  if (!refusal.empty() && found.empty()) throw Mistake("UnsupportedError", refusal);
  if (found.empty()) {
    std::string names = "auto, direct, winograd";
    for (const Algorithm& algorithm : algorithms()) names += std::string(", ") + algorithm.name;
    throw Mistake("ConfigError", "there is no algorithm '" + name + "'; give one of " + names);
  }
  std::stable_sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  return found;
}

const Algorithm& choose_algorithm(const Family& family, const std::string& chosen, const ConvProblem& problem,
                                  const MicrokernelSet& set) {
  for (const Algorithm& algorithm : algorithms()) {
    int64_t kernel = 0;
    if (chosen != algorithm.name || !is_asked_for(family.name, algorithm, &kernel)) continue;
    if (!why_not(algorithm, family.digits, problem, set, kernel).empty()) continue;
    if (std::isfinite(algorithm.cost(problem, set))) return algorithm;  // else it loses too many digits
  }
  return *rank_algorithms(family, problem, set).front().algorithm;
}

}  // namespace convoxel
