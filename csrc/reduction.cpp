// Means, maxima and sums over axes that disappear.
#include <algorithm>
#include <limits>

#include "fold.h"
#include "steps.h"

namespace convoxel {
namespace {

// Over space, and perhaps channels as well. Blocks are folded by kernels, their results here: sums in double.
template <class Total>
class ReduceStep final : public Step {
 public:
  ReduceStep(const KernelSet& set, Reduce op, View src, View dst)
      : set_(set),
        op_(op),
        src_(src),
        dst_(dst),
        fold_(src, dst.size),
        centre_(static_cast<size_t>(src.channels), 0.0f),
        factor_(op == Reduce::kMean ? 1.0 / static_cast<double>(fold_.pixels() * src.channels / dst.channels) : 1.0) {}

  const char* op() const override { return kReduceNames[static_cast<int>(op_)]; }
  int64_t shared_bytes() const override { return fold_.slots() * src_.channels * static_cast<int64_t>(sizeof(Total)); }

  void run(const RunContext& context) const override {
    Total* totals = reinterpret_cast<Total*>(context.shared);
    const float* src = context.at(src_);
    const int64_t all = src_.channels;
    fold_.each(
        context,
        [&](int64_t slot, int64_t c, int64_t channels) { std::fill_n(totals + slot * all + c, channels, kStart); },
        [&](int64_t slot, int64_t c, int64_t channels, int64_t offset, int64_t rows, int64_t step) {
          add(totals + slot * all + c, src + offset, rows, step, channels);
        });
    const int64_t together = std::max<int64_t>(1, kPartFloats / (fold_.blocks() * all));
    parallel_for(context.threads, (fold_.outputs() + together - 1) / together, [&](int64_t chunk, int) {
      const int64_t end = std::min(fold_.outputs(), (chunk + 1) * together);
      for (int64_t o = chunk * together; o < end; ++o) finish(totals + o * fold_.blocks() * all, context.at(dst_), o);
    });
  }

 private:
  static constexpr bool kLargest = sizeof(Total) == sizeof(float);
  static constexpr Total kStart = kLargest ? -std::numeric_limits<Total>::infinity() : Total{0};

  void add(float* best, const float* src, int64_t rows, int64_t step, int64_t channels) const {
    set_.largest(best, src, rows, step, channels);
  }
  void add(double* total, const float* src, int64_t rows, int64_t step, int64_t channels) const {
    set_.moment(total, src, rows, step, channels, centre_.data(), 1);
  }
  static Total join(Total a, Total b) {
    if constexpr (kLargest) return b > a || b != b ? b : a;
    return a + b;
  }

  // Joins the blocks of an output, then its channels if they go.
  void finish(Total* totals, float* dst, int64_t output) const {
    const int64_t all = src_.channels;
    for (int64_t b = 1; b < fold_.blocks(); ++b) {
      for (int64_t c = 0; c < all; ++c) totals[c] = join(totals[c], totals[b * all + c]);
    }
    if (dst_.channels < all) {
      for (int64_t c = 1; c < all; ++c) totals[0] = join(totals[0], totals[c]);
    }
    const int64_t line = output / dst_.size[2];
    float* out = dst + at(dst_, line_at(dst_, line), output % dst_.size[2]);
    for (int64_t c = 0; c < dst_.channels; ++c) out[c] = static_cast<float>(totals[c] * static_cast<Total>(factor_));
  }

  const KernelSet& set_;
  Reduce op_;
  View src_, dst_;
  Fold fold_;
  std::vector<float> centre_;
  double factor_;
};

// Over the channels of each pixel.
class ReduceChannelsStep final : public Step {
 public:
  ReduceChannelsStep(const KernelSet& set, Reduce op, View src, View dst)
      : set_(set), op_(op), src_(src), dst_(dst), parts_((join_lines({&src_, &dst_}), src_)) {}

  const char* op() const override { return kReduceNames[static_cast<int>(op_)]; }

  void run(const RunContext& context) const override {
    parts_.each(context, [&](const Part& part) {
      set_.reduce_channels(op_, context.at(dst_) + at(dst_, part.line, part.w_begin), dst_.stride[2],
                           context.at(src_) + at(src_, part.line, part.w_begin), src_.stride[2], part.width(),
                           src_.channels);
    });
  }

 private:
  const KernelSet& set_;
  Reduce op_;
  View src_, dst_;
  Parts parts_;
};

}  // namespace

std::unique_ptr<Step> make_reduce(const KernelSet& set, Reduce op, View src, View dst) {
  if (src.size == dst.size && dst.channels < src.channels) {
    return std::make_unique<ReduceChannelsStep>(set, op, src, dst);
  }
  if (op == Reduce::kMax) return std::make_unique<ReduceStep<float>>(set, op, src, dst);
  return std::make_unique<ReduceStep<double>>(set, op, src, dst);
}

}  // namespace convoxel
