#include "steps.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "threads.h"

namespace convoxel {
namespace {

// A line: the pixels along w at one (n, d, h) of an output.
struct Line {
  int64_t n, d, h;
};

int64_t line_count(const View& v) { return v.batch * v.size[0] * v.size[1]; }

Line line_at(const View& v, int64_t index) {
  return {index / (v.size[0] * v.size[1]), index / v.size[1] % v.size[0], index % v.size[1]};
}

int64_t at(const View& v, const Line& line, int64_t w) {
  return line.n * v.batch_stride + line.d * v.stride[0] + line.h * v.stride[1] + w * v.stride[2];
}

// Steps that touch each float a few times hand out chunks of about this many floats, so that taking a chunk costs
// nothing beside working on it.
constexpr int64_t kChunkFloats = 8192;

int64_t lines_per_chunk(const View& v) {
  return std::max<int64_t>(1, kChunkFloats / std::max<int64_t>(1, v.size[2] * v.channels));
}

// Calls run(line, worker) for every line of v.
template <class Run>
void for_lines(const RunContext& context, const View& v, const Run& run) {
  const int64_t lines = line_count(v);
  const int64_t step = lines_per_chunk(v);
  parallel_for(context.threads, (lines + step - 1) / step, [&](int64_t chunk, int worker) {
    const int64_t end = std::min(lines, (chunk + 1) * step);
    for (int64_t i = chunk * step; i < end; ++i) run(line_at(v, i), worker);
  });
}

// --- pooling and resampling: each output row from the rows of a window -----------------------------------------------

// Few outputs of many channels (a global average) are shared out by channels as well.
constexpr int64_t kChannelBlock = 64;

int64_t channel_splits(const View& dst) {
  return dst.rows() < 16 ? (dst.channels + kChannelBlock - 1) / kChannelBlock : 1;
}

template <class Run>
void for_lines_and_channels(const RunContext& context, const View& dst, const Run& run) {
  const int64_t splits = channel_splits(dst);
  parallel_for(context.threads, line_count(dst) * splits, [&](int64_t chunk, int worker) {
    const int64_t begin = chunk % splits * kChannelBlock;
    const int64_t count = splits == 1 ? dst.channels : std::min(kChannelBlock, dst.channels - begin);
    run(line_at(dst, chunk / splits), begin, count, worker);
  });
}

class MaxPoolStep final : public Step {
 public:
  MaxPoolStep(const KernelSet& set, View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding)
      : set_(set), src_(src), dst_(dst), kernel_(kernel), stride_(stride), dilation_(dilation), padding_(padding) {}

  const char* op() const override { return "max_pool"; }
  int64_t workspace_bytes() const override {
    return kernel_[0] * kernel_[1] * kernel_[2] * static_cast<int64_t>(sizeof(float*));
  }

  void run(const RunContext& context) const override {
    for_lines_and_channels(context, dst_, [&](const Line& line, int64_t begin, int64_t count, int worker) {
      const float** rows = static_cast<const float**>(context.worker_space(worker));
      const float* src = context.at(src_) + line.n * src_.batch_stride + begin;
      float* dst = context.at(dst_) + begin;
      for (int64_t w = 0; w < dst_.size[2]; ++w) {
        const int64_t taps = collect(src, {line.d, line.h, w}, rows);
        float* out = dst + at(dst_, line, w);
        if (taps > 0) {
          set_.gather_max(out, rows, taps, count);
        } else {  // a window that lies in the padding altogether
          std::fill(out, out + count, -std::numeric_limits<float>::infinity());
        }
      }
    });
  }

 private:
  int64_t collect(const float* src, const Axes& out, const float** rows) const {
    int64_t taps = 0;
    for (int64_t i = 0; i < kernel_[0]; ++i) {
      const int64_t d = out[0] * stride_[0] - padding_[0] + i * dilation_[0];
      if (d < 0 || d >= src_.size[0]) continue;
      for (int64_t j = 0; j < kernel_[1]; ++j) {
        const int64_t h = out[1] * stride_[1] - padding_[1] + j * dilation_[1];
        if (h < 0 || h >= src_.size[1]) continue;
        for (int64_t k = 0; k < kernel_[2]; ++k) {
          const int64_t w = out[2] * stride_[2] - padding_[2] + k * dilation_[2];
          if (w < 0 || w >= src_.size[2]) continue;
          rows[taps++] = src + d * src_.stride[0] + h * src_.stride[1] + w * src_.stride[2];
        }
      }
    }
    return taps;
  }

  const KernelSet& set_;
  View src_, dst_;
  Axes kernel_, stride_, dilation_, padding_;
};

class ResampleStep final : public Step {
 public:
  ResampleStep(const KernelSet& set, View src, View dst, std::vector<ResampleAxis> axes)
      : set_(set), src_(src), dst_(dst), axes_(std::move(axes)) {}

  const char* op() const override { return "resample"; }
  int64_t taps() const { return axes_[0].taps * axes_[1].taps * axes_[2].taps; }
  int64_t workspace_bytes() const override { return taps() * static_cast<int64_t>(sizeof(float*) + sizeof(float)); }

  void run(const RunContext& context) const override {
    for_lines_and_channels(context, dst_, [&](const Line& line, int64_t begin, int64_t count, int worker) {
      const float** rows = static_cast<const float**>(context.worker_space(worker));
      float* weights = reinterpret_cast<float*>(rows + taps());
      const float* src = context.at(src_) + line.n * src_.batch_stride + begin;
      float* dst = context.at(dst_) + begin;
      for (int64_t w = 0; w < dst_.size[2]; ++w) {
        const int64_t found = collect(src, {line.d, line.h, w}, rows, weights);
        set_.gather_sum(dst + at(dst_, line, w), rows, weights, found, count);
      }
    });
  }

 private:
  int64_t collect(const float* src, const Axes& out, const float** rows, float* weights) const {
    int64_t found = 0;
    const ResampleAxis& ad = axes_[0];
    const ResampleAxis& ah = axes_[1];
    const ResampleAxis& aw = axes_[2];
    for (int64_t i = out[0] * ad.taps; i < (out[0] + 1) * ad.taps; ++i) {
      if (ad.index[i] < 0) continue;
      for (int64_t j = out[1] * ah.taps; j < (out[1] + 1) * ah.taps; ++j) {
        if (ah.index[j] < 0) continue;
        const float* row = src + ad.index[i] * src_.stride[0] + ah.index[j] * src_.stride[1];
        const float weight = ad.weight[i] * ah.weight[j];
        for (int64_t k = out[2] * aw.taps; k < (out[2] + 1) * aw.taps; ++k) {
          if (aw.index[k] < 0) continue;
          rows[found] = row + aw.index[k] * src_.stride[2];
          weights[found++] = weight * aw.weight[k];
        }
      }
    }
    return found;
  }

  const KernelSet& set_;
  View src_, dst_;
  std::vector<ResampleAxis> axes_;
};

// --- element by element ----------------------------------------------------------------------------------------------

class CombineStep final : public Step {
 public:
  CombineStep(const KernelSet& set, Combine op, View a, View b, View dst, Activation activation)
      : set_(set), op_(op), a_(a), b_(b), dst_(dst), activation_(activation) {
    // A size-1 axis of b is repeated: its stride becomes 0.
    if (b.batch == 1) b_.batch_stride = 0;
    for (int i = 0; i < kSpatialAxes; ++i) {
      if (b.size[i] == 1) b_.stride[i] = 0;
    }
    b_step_ = b.channels == 1 && dst.channels > 1 ? 0 : 1;
    const int64_t c = dst.channels;
    whole_lines_ = b_step_ == 1 && a.stride[2] == c && b_.stride[2] == c && dst.stride[2] == c;
  }

  const char* op() const override { return op_ == Combine::kAdd ? "add" : "multiply"; }

  void run(const RunContext& context) const override {
    const int64_t width = whole_lines_ ? 1 : dst_.size[2];
    const int64_t count = whole_lines_ ? dst_.size[2] * dst_.channels : dst_.channels;
    for_lines(context, dst_, [&](const Line& line, int) {
      for (int64_t w = 0; w < width; ++w) {
        set_.combine(op_, context.at(dst_) + at(dst_, line, w), context.at(a_) + at(a_, line, w),
                     context.at(b_) + at(b_, line, w), b_step_, count, activation_);
      }
    });
  }

 private:
  const KernelSet& set_;
  Combine op_;
  View a_, b_, dst_;
  Activation activation_;
  int b_step_;
  bool whole_lines_;
};

class AffineStep final : public Step {
 public:
  AffineStep(const KernelSet& set, View src, View dst, std::vector<float> scale, std::vector<float> shift,
             Activation activation)
      : set_(set), src_(src), dst_(dst), scale_(std::move(scale)), shift_(std::move(shift)), activation_(activation) {}

  const char* op() const override { return "affine"; }

  void run(const RunContext& context) const override {
    for_lines(context, dst_, [&](const Line& line, int) {
      for (int64_t w = 0; w < dst_.size[2]; ++w) {
        set_.affine(context.at(dst_) + at(dst_, line, w), context.at(src_) + at(src_, line, w), scale_.data(),
                    shift_.data(), dst_.channels, activation_);
      }
    });
  }

 private:
  const KernelSet& set_;
  View src_, dst_;
  std::vector<float> scale_, shift_;
  Activation activation_;
};

// (x - mean) / sqrt(variance + eps) * weight + bias, mean and variance of each sample over space and the channels of
// a group. Three passes over the input: mean, then variance about it (exact where E[x^2] - E[x]^2 cancels), then the
// result. Sums are taken over fixed blocks of lines, added in order: the number of threads changes nothing.
class NormaliseStep final : public Step {
 public:
  NormaliseStep(const KernelSet& set, View src, View dst, int64_t groups, std::vector<float> weight,
                std::vector<float> bias, float eps, Activation activation)
      : set_(set),
        src_(src),
        dst_(dst),
        groups_(groups),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        eps_(eps),
        activation_(activation) {}

  const char* op() const override { return "normalise"; }

  void run(const RunContext& context) const override {
    const int64_t channels = src_.channels;
    const size_t total = static_cast<size_t>(src_.batch * channels);
    std::vector<float> mean(total, 0.0f), scale(total), shift(total);
    const std::vector<double> sums = moments(context, mean, 1);
    const double count = static_cast<double>(src_.pixels()) * (channels / groups_);
    std::vector<double> exact(total);
    over_groups([&](int64_t first, int64_t members) {
      double sum = 0;
      for (int64_t i = 0; i < members; ++i) sum += sums[first + i];
      for (int64_t i = 0; i < members; ++i) mean[first + i] = static_cast<float>(sum / count);
      for (int64_t i = 0; i < members; ++i) exact[first + i] = sum / count;
    });
    const std::vector<double> squares = moments(context, mean, 2);
    over_groups([&](int64_t first, int64_t members) {
      double sum = 0;
      for (int64_t i = 0; i < members; ++i) sum += squares[first + i];
      // The variance about the rounded mean is too large by the square of the rounding.
      const double rounding = exact[first] - static_cast<double>(mean[first]);
      const double variance = std::max(0.0, sum / count - rounding * rounding);
      const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(eps_));
      for (int64_t i = 0; i < members; ++i) {
        const int64_t c = (first + i) % channels;
        scale[first + i] = static_cast<float>(inverse * weight_[c]);
        shift[first + i] = static_cast<float>(bias_[c] - exact[first] * inverse * weight_[c]);
      }
    });
    for_lines(context, dst_, [&](const Line& line, int) {
      for (int64_t w = 0; w < dst_.size[2]; ++w) {
        set_.affine(context.at(dst_) + at(dst_, line, w), context.at(src_) + at(src_, line, w),
                    scale.data() + line.n * channels, shift.data() + line.n * channels, channels, activation_);
      }
    });
  }

 private:
  template <class Run>
  void over_groups(const Run& run) const {
    const int64_t members = src_.channels / groups_;
    for (int64_t i = 0; i < src_.batch * groups_; ++i) run(i * members, members);
  }

  // Per sample and channel, the sum over pixels of (x - centre) ** power.
  std::vector<double> moments(const RunContext& context, const std::vector<float>& centre, int power) const {
    const int64_t channels = src_.channels;
    const int64_t lines = src_.size[0] * src_.size[1];  // of one sample
    const int64_t step = lines_per_chunk(src_);
    const int64_t blocks = (lines + step - 1) / step;
    std::vector<double> parts(static_cast<size_t>(src_.batch * blocks * channels), 0.0);
    parallel_for(context.threads, src_.batch * blocks, [&](int64_t chunk, int) {
      const int64_t n = chunk / blocks;
      const int64_t end = std::min(lines, (chunk % blocks + 1) * step);
      for (int64_t i = chunk % blocks * step; i < end; ++i) {
        set_.moment(parts.data() + chunk * channels, context.at(src_) + at(src_, line_at(src_, n * lines + i), 0),
                    src_.size[2], src_.stride[2], channels, centre.data() + n * channels, power);
      }
    });
    std::vector<double> total(static_cast<size_t>(src_.batch * channels), 0.0);
    for (int64_t chunk = 0; chunk < src_.batch * blocks; ++chunk) {
      for (int64_t c = 0; c < channels; ++c) total[chunk / blocks * channels + c] += parts[chunk * channels + c];
    }
    return total;
  }

  const KernelSet& set_;
  View src_, dst_;
  int64_t groups_;
  std::vector<float> weight_, bias_;
  float eps_;
  Activation activation_;
};

// --- between channels-first buffers and views ------------------------------------------------------------------------

class ImportStep final : public Step {
 public:
  ImportStep(const KernelSet& set, int buffer, View dst) : set_(set), buffer_(buffer), dst_(dst) {}
  const char* op() const override { return "import"; }

  void run(const RunContext& context) const override {
    const int64_t pixels = dst_.pixels();
    for_lines(context, dst_, [&](const Line& line, int) {
      const float* src =
          context.buffers[buffer_] + line.n * dst_.channels * pixels + (line.d * dst_.size[1] + line.h) * dst_.size[2];
      set_.transpose(context.at(dst_) + at(dst_, line, 0), dst_.stride[2], src, pixels, dst_.channels, dst_.size[2]);
    });
  }

 private:
  const KernelSet& set_;
  int buffer_;
  View dst_;
};

class ExportStep final : public Step {
 public:
  ExportStep(const KernelSet& set, View src, int buffer) : set_(set), src_(src), buffer_(buffer) {}
  const char* op() const override { return "export"; }

  void run(const RunContext& context) const override {
    const int64_t pixels = src_.pixels();
    for_lines(context, src_, [&](const Line& line, int) {
      float* dst =
          context.buffers[buffer_] + line.n * src_.channels * pixels + (line.d * src_.size[1] + line.h) * src_.size[2];
      set_.transpose(dst, pixels, context.at(src_) + at(src_, line, 0), src_.stride[2], src_.size[2], src_.channels);
    });
  }

 private:
  const KernelSet& set_;
  View src_;
  int buffer_;
};

}  // namespace

std::unique_ptr<Step> make_max_pool(const KernelSet& set, View src, View dst, Axes kernel, Axes stride, Axes dilation,
                                    Axes padding_low) {
  return std::make_unique<MaxPoolStep>(set, src, dst, kernel, stride, dilation, padding_low);
}
std::unique_ptr<Step> make_resample(const KernelSet& set, View src, View dst, std::vector<ResampleAxis> axes) {
  return std::make_unique<ResampleStep>(set, src, dst, std::move(axes));
}
std::unique_ptr<Step> make_combine(const KernelSet& set, Combine op, View a, View b, View dst, Activation activation) {
  return std::make_unique<CombineStep>(set, op, a, b, dst, activation);
}
std::unique_ptr<Step> make_affine(const KernelSet& set, View src, View dst, std::vector<float> scale,
                                  std::vector<float> shift, Activation activation) {
  return std::make_unique<AffineStep>(set, src, dst, std::move(scale), std::move(shift), activation);
}
std::unique_ptr<Step> make_normalise(const KernelSet& set, View src, View dst, int64_t groups,
                                     std::vector<float> weight, std::vector<float> bias, float eps,
                                     Activation activation) {
  return std::make_unique<NormaliseStep>(set, src, dst, groups, std::move(weight), std::move(bias), eps, activation);
}
std::unique_ptr<Step> make_import(const KernelSet& set, int buffer, View dst) {
  return std::make_unique<ImportStep>(set, buffer, dst);
}
std::unique_ptr<Step> make_export(const KernelSet& set, View src, int buffer) {
  return std::make_unique<ExportStep>(set, src, buffer);
}

}  // namespace convoxel
