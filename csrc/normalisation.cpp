// Normalisation by statistics of the input itself.
#include <algorithm>
#include <cmath>

#include "reduction.h"

namespace convoxel {
namespace {

// Calls add(part of the sums, first channel, channels, offset of rows from the view's first number, rows, step) for the
// blocks of a reduction over space, and returns the sums of all blocks: `width` of them per sample and channel.
template <class Add>
std::vector<double> add_blocks(const RunContext& context, const Reduction& reduction, int64_t batch, int64_t channels,
                               int64_t width, const Add& add) {
  const int64_t all = width * channels;
  std::vector<double> parts(static_cast<size_t>(reduction.slots() * all), 0.0);
  reduction.each(
      context, [](int64_t, int64_t, int64_t) {},
      [&](int64_t slot, int64_t c, int64_t count, int64_t offset, int64_t rows, int64_t step) {
        add(parts.data() + slot * all + c, slot / reduction.blocks() * channels + c, count, offset, rows, step);
      });
  std::vector<double> total(static_cast<size_t>(batch * all), 0.0);
  for (int64_t slot = 0; slot < reduction.slots(); ++slot) {
    for (int64_t i = 0; i < all; ++i) total[slot / reduction.blocks() * all + i] += parts[slot * all + i];
  }
  return total;
}

// The sum over pixels of (x - centre) ** power, per sample and channel.
template <class T>
std::vector<double> moments(const RunContext& context, const MicrokernelSet& set, const Reduction& reduction,
                            const View& src, const std::vector<float>& centre, int power) {
  return add_blocks(context, reduction, src.batch, src.channels, 1,
                    [&](double* total, int64_t first, int64_t count, int64_t offset, int64_t rows, int64_t step) {
                      set.rows<T>().moment(total, context.at<T>(src) + offset, rows, step, count, centre.data() + first,
                                           power);
                    });
}

// squares: the mean of (x - rounded mean) ** 2, which is too large by the square of the rounding.
double inverse_deviation(double squares, double rounding, float eps) {
  const double spread = squares - rounding * rounding;
  const double variance = spread < 0 ? 0 : spread;  // infinity among the numbers makes it NaN, which stays
  return 1.0 / std::sqrt(variance + static_cast<double>(eps));
}

// (x - mean) / sqrt(variance + eps) * weight + bias, with mean and variance of each sample over space and the channels
// of a group. Makes three passes over the input: the mean; the variance about it (exact where E[x^2] - E[x]^2 cancels);
// the result.
template <class T>
class Normalise {
 public:
  Normalise(const MicrokernelSet& set, View src, View dst, int64_t groups, std::vector<float> weight,
            std::vector<float> bias, float eps, Activation activation)
      : set_(set),
        src_(src),
        dst_(dst),
        groups_(groups),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        eps_(eps),
        activation_(activation),
        partition_((join_lines({&src_, &dst_}), dst_)),
        reduction_(src_, {1, 1, 1}) {}

  void operator()(const RunContext& context) const {
    const int64_t channels = src_.channels;
    const size_t total = static_cast<size_t>(src_.batch * channels);
    std::vector<float> mean(total, 0.0f), scale(total), shift(total);
    const std::vector<double> sums = moments<T>(context, set_, reduction_, src_, mean, 1);
    const double count = static_cast<double>(src_.pixels()) * (channels / groups_);
    std::vector<double> exact(total);
    over_groups([&](int64_t first, int64_t members) {
      double sum = 0;
      for (int64_t i = 0; i < members; ++i) sum += sums[first + i];
      for (int64_t i = 0; i < members; ++i) mean[first + i] = static_cast<float>(sum / count);
      for (int64_t i = 0; i < members; ++i) exact[first + i] = sum / count;
    });
    const std::vector<double> squares = moments<T>(context, set_, reduction_, src_, mean, 2);
    over_groups([&](int64_t first, int64_t members) {
      double sum = 0;
      for (int64_t i = 0; i < members; ++i) sum += squares[first + i];
      const double rounding = exact[first] - static_cast<double>(mean[first]);
      const double inverse = inverse_deviation(sum / count, rounding, eps_);
      for (int64_t i = 0; i < members; ++i) {
        const int64_t c = (first + i) % channels;
        scale[first + i] = static_cast<float>(inverse * weight_[c]);
        shift[first + i] = static_cast<float>(bias_[c] - exact[first] * inverse * weight_[c]);
      }
    });
    partition_.each(context, [&](const Part& part) {
      const int64_t first = part.line.n * channels;
      set_.rows<T>().affine(part.of<T>(dst_, context), dst_.stride[2], part.of<T>(src_, context), src_.stride[2],
                            scale.data() + first, shift.data() + first, part.width(), channels, activation_);
    });
  }

 private:
  template <class Run>
  void over_groups(const Run& run) const {
    const int64_t members = src_.channels / groups_;
    for (int64_t i = 0; i < src_.batch * groups_; ++i) run(i * members, members);
  }

  const MicrokernelSet& set_;
  View src_, dst_;
  int64_t groups_;
  std::vector<float> weight_, bias_;
  float eps_;
  Activation activation_;
  Partition partition_;
  Reduction reduction_;
};

// Normalises samples of one pixel over all their channels: layer normalisation of every position. A sample is so small
// that one thread makes all passes over it, from L1.
template <class T>
class NormaliseRows {
 public:
  NormaliseRows(const MicrokernelSet& set, View src, View dst, std::vector<float> weight, std::vector<float> bias,
                float eps, Activation activation)
      : set_(set),
        src_(src),
        dst_(dst),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        eps_(eps),
        activation_(activation) {}

  void operator()(const RunContext& context) const {
    const int64_t channels = src_.channels, rows = std::max<int64_t>(1, kPartFloats / channels);
    parallel_for(context.threads, ceil_div(src_.batch, rows), [&](int64_t chunk, int) {
      std::vector<float> scale(static_cast<size_t>(channels)), shift(scale.size()), row(scale.size());
      for (int64_t n = chunk * rows; n < std::min(src_.batch, (chunk + 1) * rows); ++n) {
        const T* const from = context.at<T>(src_) + n * src_.batch_stride;
        set_.rows<T>().widen(row.data(), 0, from, 0, 1, channels);
        const float* x = row.data();
        const double mean = sum_of(x, [](double value) { return value; }) / channels;
        const double variance = sum_of(x, [&](double value) { return (value - mean) * (value - mean); }) / channels;
        const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(eps_));
        for (int64_t c = 0; c < channels; ++c) {
          const double factor = inverse * weight_[c];
          scale[c] = static_cast<float>(factor);
          shift[c] = static_cast<float>(bias_[c] - mean * factor);
        }
        set_.rows<T>().affine(context.at<T>(dst_) + n * dst_.batch_stride, 0, from, 0, scale.data(), shift.data(), 1,
                              channels, activation_);
      }
    });
  }

 private:
  // Adds eight sums side by side, always the same ones; the compiler keeps them in registers.
  template <class Of>
  double sum_of(const float* x, const Of& of) const {
    constexpr int64_t kLanes = 8;
    double sums[kLanes] = {};
    int64_t c = 0;
    for (; c + kLanes <= src_.channels; c += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += of(static_cast<double>(x[c + lane]));
    }
    for (; c < src_.channels; ++c) sums[0] += of(static_cast<double>(x[c]));
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  }

  const MicrokernelSet& set_;
  View src_, dst_;
  std::vector<float> weight_, bias_;
  float eps_;
  Activation activation_;
};

// Of each sample and channel: the mean as a float, what its rounding took away, and 1 / sqrt(variance + eps).
class Statistics {
 public:
  Statistics(const MicrokernelSet& set, View src, View dst, float eps)
      : set_(set), src_(src), dst_(dst), eps_(eps), reduction_((join_lines({&src_}), src_), {1, 1, 1}) {}

  void operator()(const RunContext& context) const {
    const int64_t channels = src_.channels;
    const double count = static_cast<double>(src_.pixels());
    std::vector<float> mean(static_cast<size_t>(src_.batch * channels), 0.0f);
    const std::vector<double> sums = moments<float>(context, set_, reduction_, src_, mean, 1);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] = static_cast<float>(sums[i] / count);
    const std::vector<double> squares = moments<float>(context, set_, reduction_, src_, mean, 2);
    for (int64_t n = 0; n < src_.batch; ++n) {
      float* const to = context.at(dst_) + n * dst_.batch_stride;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = n * channels + c;
        const double rounding = sums[i] / count - static_cast<double>(mean[i]);
        to[c] = mean[i];
        to[channels + c] = static_cast<float>(rounding);
        to[2 * channels + c] = static_cast<float>(inverse_deviation(squares[i] / count, rounding, eps_));
      }
    }
  }

 private:
  const MicrokernelSet& set_;
  View src_, dst_;
  float eps_;
  Reduction reduction_;
};

// Scale and shift of each sample and channel by which its statistics, weight and bias change it.
struct Affine {
  std::vector<float> scale, shift;

  Affine(const RunContext& context, const View& statistics, const std::vector<float>& weight,
         const std::vector<float>& bias) {
    const size_t channels = weight.size();
    for (int64_t n = 0; n < statistics.batch; ++n) {
      const float* const from = context.at(statistics) + n * statistics.batch_stride;
      for (size_t c = 0; c < channels; ++c) {
        const double mean = static_cast<double>(from[c]) + static_cast<double>(from[channels + c]);
        const double factor = static_cast<double>(from[2 * channels + c]) * static_cast<double>(weight[c]);
        scale.push_back(static_cast<float>(factor));
        shift.push_back(static_cast<float>(static_cast<double>(bias[c]) - mean * factor));
      }
    }
  }
};

class NormaliseBy {
 public:
  NormaliseBy(const MicrokernelSet& set, View src, View statistics, View dst, std::vector<float> weight,
              std::vector<float> bias)
      : set_(set),
        src_(src),
        statistics_(statistics),
        dst_(dst),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        partition_((join_lines({&src_, &dst_}), dst_)) {}

  void operator()(const RunContext& context) const {
    const Affine by(context, statistics_, weight_, bias_);
    partition_.each(context, [&](const Part& part) {
      const int64_t first = part.line.n * src_.channels;
      set_.floats.affine(part.of(dst_, context), dst_.stride[2], part.of(src_, context), src_.stride[2],
                         by.scale.data() + first, by.shift.data() + first, part.width(), src_.channels, Activation{});
    });
  }

 private:
  const MicrokernelSet& set_;
  View src_, statistics_, dst_;
  std::vector<float> weight_, bias_;
  Partition partition_;
};

// The gradient of normalisation, and of an activation behind it that lets through what is not positive times a slope.
// With g the gradient of the normalised, z = (x - mean) / deviation, and means over the pixels of a sample:
// dx = weight / deviation * (g - mean of g - z * mean of g z).
class NormaliseGradient {
 public:
  NormaliseGradient(const MicrokernelSet& set, View src, View gradient, View statistics, View dst, View sums,
                    std::vector<float> weight, std::vector<float> bias, float slope)
      : set_(set),
        src_(src),
        gradient_(gradient),
        statistics_(statistics),
        dst_(dst),
        sums_(sums),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        slope_(slope),
        partition_((join_lines({&src_, &gradient_, &dst_}), dst_)),
        reduction_(src_, {1, 1, 1}) {}

  void operator()(const RunContext& context) const {
    const int64_t channels = src_.channels;
    const size_t total = static_cast<size_t>(src_.batch * channels);
    const double count = static_cast<double>(src_.pixels());
    const Affine by(context, statistics_, weight_, bias_);
    const auto gate_at = [&](int64_t at) { return Gate{by.scale.data() + at, by.shift.data() + at, slope_}; };
    std::vector<float> mean(total), of_gradient(total), of_src(total), shift(total);
    for (int64_t n = 0; n < src_.batch; ++n) {
      const float* const from = context.at(statistics_) + n * statistics_.batch_stride;
      std::copy(from, from + channels, mean.begin() + n * channels);
    }
    // Of each sample, sums of g, then sums of g (x - mean).
    const std::vector<double> sums =
        add_blocks(context, reduction_, src_.batch, channels, 2,
                   [&](double* to, int64_t at, int64_t lanes, int64_t offset, int64_t rows, int64_t step) {
                     set_.gradient_moments(to, to + channels, context.at(gradient_) + offset, context.at(src_) + offset,
                                           rows, step, lanes, mean.data() + at, gate_at(at));
                   });
    std::vector<double> weights(static_cast<size_t>(2 * channels), 0.0);
    for (int64_t i = 0; i < src_.batch * channels; ++i) {
      const int64_t c = i % channels, at = i / channels * 2 * channels + c;
      const float* const statistics = context.at(statistics_) + i / channels * statistics_.batch_stride;
      const double rounding = statistics[channels + c], inverse = statistics[2 * channels + c];
      const double plain = sums[at], product = (sums[at + channels] - rounding * plain) * inverse;
      const double scale = inverse * weight_[c], slope = -scale * inverse * product / count;
      of_gradient[i] = static_cast<float>(scale);
      of_src[i] = static_cast<float>(slope);
      shift[i] = static_cast<float>(-scale * plain / count - slope * (mean[i] + rounding));
      weights[c] += product;
      weights[channels + c] += plain;
    }
    std::copy(weights.begin(), weights.end(), context.at(sums_));
    partition_.each(context, [&](const Part& part) {
      const int64_t at = part.line.n * channels;
      set_.add_affine(part.of(dst_, context), dst_.stride[2], part.of(gradient_, context), part.of(src_, context),
                      of_gradient.data() + at, of_src.data() + at, shift.data() + at, part.width(), channels,
                      gate_at(at));
    });
  }

 private:
  const MicrokernelSet& set_;
  View src_, gradient_, statistics_, dst_, sums_;
  std::vector<float> weight_, bias_;
  float slope_;
  Partition partition_;
  Reduction reduction_;
};

}  // namespace

void Plan::normalise(View src, View dst, int64_t groups, std::vector<float> weight, std::vector<float> bias, float eps,
                     std::string activation, Slope slope) {
  use_alike(src, dst, Takes::kFloats);
  require(groups >= 1 && src.channels % groups == 0,
          std::to_string(groups) + " groups do not divide the channels of " + show(src));
  require(static_cast<int64_t>(weight.size()) == src.channels && static_cast<int64_t>(bias.size()) == src.channels,
          "weight and bias need one number per channel of " + show(src));
  const Activation act = activation_of(activation, slope);
  with_element(src.element, [&](auto number) {
    using T = decltype(number);
    if (groups == 1 && src.pixels() == 1) {
      add({"normalise", NormaliseRows<T>(set_, src, dst, std::move(weight), std::move(bias), eps, act)});
    } else {
      add({"normalise", Normalise<T>(set_, src, dst, groups, std::move(weight), std::move(bias), eps, act)});
    }
  });
}

namespace {

void require_statistics(const View& src, const View& statistics, const std::vector<float>& weight,
                        const std::vector<float>& bias) {
  require(statistics.batch == src.batch && statistics.pixels() == 1 && statistics.channels == 3 * src.channels,
          "statistics " + show(statistics) + " needs three numbers per sample and channel of " + show(src));
  require(static_cast<int64_t>(weight.size()) == src.channels && static_cast<int64_t>(bias.size()) == src.channels,
          "weight and bias need one number per channel of " + show(src));
}

}  // namespace

void Plan::statistics(View src, View dst, float eps) {
  read(src, "src");
  write(dst, "dst");
  require(dst.batch == src.batch && dst.pixels() == 1 && dst.channels == 3 * src.channels,
          "dst " + show(dst) + " needs three numbers per sample and channel of " + show(src));
  add({"statistics", Statistics(set_, src, dst, eps)});
}

void Plan::normalise_by(View src, View statistics, View dst, std::vector<float> weight, std::vector<float> bias) {
  use_alike(src, dst);
  read(statistics, "statistics");
  require_statistics(src, statistics, weight, bias);
  add({"normalise_by", NormaliseBy(set_, src, statistics, dst, std::move(weight), std::move(bias))});
}

void Plan::normalise_gradient(View src, View gradient, View statistics, View dst, View sums, std::vector<float> weight,
                              std::vector<float> bias, float slope) {
  use_alike(src, dst);
  read(gradient, "gradient");
  read(statistics, "statistics");
  write(sums, "sums");
  require_same_shape(src, gradient, "src and gradient");
  require(src.is_dense() && gradient.is_dense() && dst.is_dense(), "src, gradient and dst must have no gaps");
  require(sums.batch == 1 && sums.pixels() == 1 && sums.channels == 2 * src.channels,
          "sums " + show(sums) + " needs two numbers per channel of " + show(src));
  require_statistics(src, statistics, weight, bias);
  add({"normalise_gradient",
       NormaliseGradient(set_, src, gradient, statistics, dst, sums, std::move(weight), std::move(bias), slope)});
}

}  // namespace convoxel
