#include "index_table.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "buffer.h"
#include "mistake.h"

namespace convoxel {
namespace {

constexpr int64_t kMostEntries = int64_t{1} << 28;  // of a table
constexpr int64_t kMostNumber = int64_t{1} << 31;

// A whole number as near as 64 bits allow; what is no number lies before the axis.
int64_t whole(double x) {
  constexpr double kFar = 1LL << 40;
  return x > -kFar ? static_cast<int64_t>(std::min(x, kFar)) : static_cast<int64_t>(-kFar);
}

class Table {
 public:
  Table(int64_t out, int64_t taps) {
    int64_t count = 0;
    const bool overflows = __builtin_mul_overflow(out, taps, &count);
    require(!overflows && out >= 0 && taps >= 0 && count <= kMostEntries,
            "sums of " + std::to_string(taps) + " positions each for " + std::to_string(out) +
                " positions are more than the engine tabulates");
    axis_.taps = taps;
    axis_.index.assign(static_cast<size_t>(count), -1);
    axis_.weight.assign(static_cast<size_t>(count), 0.0f);
  }

  void set(int64_t o, int64_t tap, int64_t index, double weight) {
    if (index < 0) return;
    const size_t place = static_cast<size_t>(o * axis_.taps + tap);
    axis_.index[place] = static_cast<int32_t>(std::min<int64_t>(index, std::numeric_limits<int32_t>::max()));
    axis_.weight[place] = static_cast<float>(weight);
  }

  ResampleAxis taken() { return std::move(axis_); }

 private:
  ResampleAxis axis_;
};

// Keys' cubic convolution kernel with sharpness a, at distance x >= 0.
double cubic_kernel(double x, double a) {
  if (x <= 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
  return 0.0;
}

double kernel_at(double distance, bool linear, double sharpness) {
  return linear ? std::max(1.0 - distance, 0.0) : cubic_kernel(distance, sharpness);
}

// A table of one tap each, at position(o).
template <class Position>
ResampleAxis copied(int64_t out, const Position& position) {
  Table table(out, 1);
  for (int64_t o = 0; o < out; ++o) table.set(o, 0, position(o), 1.0);
  return table.taken();
}

struct Request {
  const TableRule& rule;
  int64_t size, out;

  const std::string& word(size_t i) const {
    require(i < rule.words.size(), "the table " + rule.words[0] + " has too few words");
    return rule.words[i];
  }
  int64_t number(size_t i) const {
    require(i < rule.numbers.size(), "the table " + rule.words[0] + " has too few numbers");
    require(std::abs(rule.numbers[i]) <= kMostNumber, "a number of the table " + rule.words[0] + " is too large");
    return rule.numbers[i];
  }
  double fraction(size_t i) const {
    require(i < rule.fractions.size(), "the table " + rule.words[0] + " has too few fractions");
    return rule.fractions[i];
  }
};

ResampleAxis average(const Request& r) {
  const int64_t kernel = r.number(0), stride = r.number(1), low = r.number(2), high = r.number(3),
                dilation = r.number(4);
  const bool count_padding = r.number(5) != 0;
  const double divisor = r.fraction(0);
  Table table(r.out, kernel);
  for (int64_t o = 0; o < r.out; ++o) {
    int64_t counted = 0;
    const auto inside = [&](int64_t index) { return index >= 0 && index < r.size; };
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t index = o * stride - low + k * dilation;
      counted += count_padding ? index < r.size + high : inside(index);
    }
    const double weight =
        divisor != 0 ? 1.0f / static_cast<float>(divisor) : 1.0 / static_cast<double>(std::max<int64_t>(counted, 1));
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t index = o * stride - low + k * dilation;
      if (inside(index)) table.set(o, k, index, weight);
    }
  }
  return table.taken();
}

ResampleAxis adaptive_average(const Request& r) {
  const auto first = [&](int64_t o) { return o * r.size / r.out; };
  const auto last = [&](int64_t o) { return ceil_div((o + 1) * r.size, r.out); };
  int64_t most = 0;
  for (int64_t o = 0; o < r.out; ++o) most = std::max(most, last(o) - first(o));
  Table table(r.out, most);
  for (int64_t o = 0; o < r.out; ++o) {
    const int64_t begin = first(o), count = last(o) - begin;
    for (int64_t t = 0; t < count; ++t) table.set(o, t, begin + t, 1.0 / static_cast<double>(count));
  }
  return table.taken();
}

// PyTorch's: around the middle of each output, a kernel as wide as `step` where this is above 1.
ResampleAxis antialiased(const Request& r, bool linear, double step) {
  const double spread = std::max(step, 1.0), reach = (linear ? 1 : 2) * spread;
  const auto middle = [&](int64_t o) { return step * (static_cast<double>(o) + 0.5); };
  const auto first = [&](int64_t o) { return std::max<int64_t>(whole(middle(o) - reach + 0.5), 0); };
  const auto count = [&](int64_t o) { return std::min(whole(middle(o) + reach + 0.5), r.size) - first(o); };
  int64_t most = 1;
  for (int64_t o = 0; o < r.out; ++o) most = std::max(most, count(o));
  Table table(r.out, most);
  std::vector<double> weights;
  for (int64_t o = 0; o < r.out; ++o) {
    const int64_t begin = first(o), taps = count(o);
    weights.clear();
    double total = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const double distance = std::abs((static_cast<double>(begin + t) - middle(o) + 0.5) / spread);
      weights.push_back(kernel_at(distance, linear, -0.5));
      total += weights.back();
    }
    for (int64_t t = 0; t < taps; ++t) {
      table.set(o, t, begin + t, weights[static_cast<size_t>(t)] / (total == 0 ? 1.0 : total));
    }
  }
  return table.taken();
}

// As PyTorch maps positions: by the factor that the user gave, if any, not by out / size.
ResampleAxis resize(const Request& r) {
  const std::string& mode = r.word(1);
  const bool align_corners = r.number(0) != 0;
  const double scale = r.fraction(0), size = static_cast<double>(r.size), out = static_cast<double>(r.out);
  const double step = scale != 0 ? 1.0 / scale : size / out;
  const double aligned_step = r.out > 1 ? (size - 1) / (out - 1) : 0.0;
  const bool linear = mode == "linear" || mode == "linear_antialiased";
  if (mode == "linear_antialiased" || mode == "cubic_antialiased") {
    return antialiased(r, linear, align_corners ? aligned_step : step);
  }
  if (mode == "nearest" || mode == "nearest_exact") {
    // float32 as in PyTorch: at exact boundaries another rounding would pick the neighbour.
    const float shift = mode == "nearest_exact" ? 0.5f : 0.0f, single_step = static_cast<float>(step);
    return copied(r.out, [&](int64_t o) {
      return std::min(whole(std::floor((static_cast<float>(o) + shift) * single_step)), r.size - 1);
    });
  }
  require(linear || mode == "cubic", "there is no mode '" + mode + "' of resizing");
  Table table(r.out, linear ? 2 : 4);
  for (int64_t o = 0; o < r.out; ++o) {
    const double at =
        align_corners ? static_cast<double>(o) * aligned_step : (static_cast<double>(o) + 0.5) * step - 0.5;
    if (linear) {
      const double inside = std::max(at, 0.0);
      const int64_t low = std::min(whole(std::floor(inside)), r.size - 1);
      const double fraction = std::clamp(inside - static_cast<double>(low), 0.0, 1.0);
      table.set(o, 0, low, 1.0 - fraction);
      table.set(o, 1, std::min(low + 1, r.size - 1), fraction);
      continue;
    }
    const int64_t low = whole(std::floor(at));
    const double fraction = at - static_cast<double>(low);
    const double distance[] = {1.0 + fraction, fraction, 1.0 - fraction, 2.0 - fraction};
    for (int64_t t = 0; t < 4; ++t) {
      table.set(o, t, std::clamp<int64_t>(low + t - 1, 0, r.size - 1), cubic_kernel(distance[t], -0.75));
    }
  }
  return table.taken();
}

// Where output o lies on the axis, by the modes' names in ONNX; float32 as in ONNX Runtime, whose roundings decide
// between equal neighbours. factor: the one that was asked for. begin, end: the part that tf_crop_and_resize takes.
double coordinate(const Request& r, const std::string& mode, double factor, double begin, double end, int64_t o) {
  const double size = static_cast<double>(r.size), out = static_cast<double>(r.out);
  const float position = static_cast<float>(o), single_factor = static_cast<float>(factor);
  if (mode == "tf_crop_and_resize") {
    if (r.out == 1) return 0.5 * (begin + end) * (size - 1);
    return begin * (size - 1) + static_cast<double>(o) * (end - begin) * (size - 1) / (out - 1);
  }
  if ((mode == "align_corners" || mode == "pytorch_half_pixel") && r.out == 1) return 0.0;
  if (mode == "align_corners") {  // the resized length counts before it is rounded down
    return position * static_cast<float>(size - 1) / static_cast<float>(size * factor - 1);
  }
  if (mode == "asymmetric") return position / single_factor;
  const double middle = mode == "half_pixel_symmetric" ? size / 2 * (1 - out / (factor * size)) : 0.0;
  const float around = (position + 0.5f) / single_factor - 0.5f;
  return static_cast<double>(around) + middle;
}

int64_t nearest(double position, const std::string& rounding, double factor) {
  if (rounding == "round_prefer_floor") return whole(std::ceil(position - 0.5));
  if (rounding == "round_prefer_ceil") return whole(std::floor(position + 0.5));
  const bool up = rounding == "ceil" || (rounding == "ceil_where_smaller" && factor < 1);
  return whole(up ? std::ceil(position) : std::floor(position));
}

// Resizing in any of ONNX's coordinate modes; beyond the ends of the axis lies its nearest element.
ResampleAxis interpolate(const Request& r) {
  const std::string &mode = r.word(1), &coordinates = r.word(2), &rounding = r.word(3);
  const bool exclude_outside = r.number(0) != 0, antialias = r.number(1) != 0;
  const bool crop = coordinates == "tf_crop_and_resize";
  const double factor = r.fraction(0) != 0 ? r.fraction(0) : static_cast<double>(r.out) / static_cast<double>(r.size);
  if (r.size == r.out && factor == 1 && !crop) return copied(r.out, [](int64_t o) { return o; });
  const auto at = [&](int64_t o) { return coordinate(r, coordinates, factor, r.fraction(2), r.fraction(3), o); };
  const auto outside = [&](double position) {
    return crop && !(position >= 0 && position <= static_cast<double>(r.size - 1));
  };
  if (mode == "nearest") {
    return copied(r.out, [&](int64_t o) {
      return outside(at(o)) ? -1 : std::clamp<int64_t>(nearest(at(o), rounding, factor), 0, r.size - 1);
    });
  }
  const bool linear = mode == "linear";
  require(linear || mode == "cubic", "there is no mode '" + mode + "' of interpolation");
  const double spread = antialias ? std::max(1.0 / factor, 1.0) : 1.0, reach = (linear ? 1 : 2) * spread;
  const int64_t taps = whole(std::ceil(2 * reach)) + 1;
  require(taps <= kMostEntries, "a kernel of " + std::to_string(taps) + " positions is more than the engine tabulates");
  std::vector<double> weights(static_cast<size_t>(taps));
  const auto weigh = [&](int64_t o) {
    const int64_t first = whole(std::floor(at(o) - reach)) + 1;
    double total = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const bool counts = !exclude_outside || (first + t >= 0 && first + t < r.size);
      const double distance = std::abs(static_cast<double>(first + t) - at(o)) / spread;
      total += weights[static_cast<size_t>(t)] = counts ? kernel_at(distance, linear, r.fraction(1)) : 0.0;
    }
    for (double& weight : weights) weight = exclude_outside || spread > 1 ? weight / total : weight;
    return first;
  };
  // Taps that never count are none: their elements, which may be no numbers, stay out of the sums.
  std::vector<bool> counts(weights.size());
  for (int64_t o = 0; o < r.out; ++o) {
    weigh(o);
    for (size_t t = 0; t < weights.size(); ++t) counts[t] = counts[t] || weights[t] != 0;
  }
  Table table(r.out, std::count(counts.begin(), counts.end(), true));
  for (int64_t o = 0; o < r.out; ++o) {
    const int64_t first = weigh(o);
    if (outside(at(o))) continue;
    for (int64_t t = 0, tap = 0; t < taps; ++t) {
      if (!counts[static_cast<size_t>(t)]) continue;
      table.set(o, tap++, std::clamp<int64_t>(first + t, 0, r.size - 1), weights[static_cast<size_t>(t)]);
    }
  }
  return table.taken();
}

ResampleAxis pad(const Request& r) {
  const std::string& mode = r.word(1);
  const int64_t low = r.number(0), size = r.size;
  const auto modulo = [](int64_t a, int64_t b) { return a - floor_div(a, b) * b; };
  return copied(r.out, [&](int64_t o) -> int64_t {
    const int64_t index = o - low;
    if (mode == "constant") return index < size ? index : -1;
    if (mode == "replicate") return std::clamp<int64_t>(index, 0, size - 1);
    if (mode == "circular") return modulo(index, size);
    require(mode == "reflect", "there is no mode '" + mode + "' of padding");
    const int64_t period = std::max<int64_t>(2 * (size - 1), 1), folded = modulo(index, period);
    return folded < size ? folded : period - folded;
  });
}

struct Maker {
  const char* name;
  ResampleAxis (*make)(const Request&);
};

constexpr Maker kMakers[] = {
    {"identity", [](const Request& r) { return copied(r.out, [](int64_t o) { return o; }); }},
    {"none", [](const Request& r) { return copied(r.out, [](int64_t) { return int64_t{-1}; }); }},
    {"average", &average},
    {"adaptive_average", &adaptive_average},
    {"resize", &resize},
    {"interpolate", &interpolate},
    {"pad", &pad},
};

}  // namespace

ResampleAxis make_table(const TableRule& rule, int64_t size, int64_t out) {
  require(size >= 1 && out >= 1 && size <= kMostNumber, "a table needs positions");
  require(out <= kMostEntries, "the engine tabulates no more than " + std::to_string(kMostEntries) + " positions");
  require(!rule.words.empty(), "a table has no rule");
  for (const Maker& maker : kMakers) {
    if (rule.words[0] == maker.name) return maker.make({rule, size, out});
  }
  throw Mistake("ConfigError", "there is no table '" + rule.words[0] + "'");
}

bool is_mean(const std::vector<AxisTable>& axes, const int64_t* sizes, const int64_t* outs) {
  bool averages = false;
  for (size_t i = 0; i < axes.size(); ++i) {
    const TableRule* rule = std::get_if<TableRule>(&axes[i]);
    if (rule == nullptr || rule->words.empty() || (outs[i] != 1 && outs[i] != sizes[i])) return false;
    const bool adaptive = rule->words[0] == "adaptive_average";
    if (!adaptive && rule->words[0] != "identity") return false;
    averages |= adaptive;
  }
  return averages;
}

}  // namespace convoxel
