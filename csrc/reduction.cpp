// Means, maxima and sums over axes.
#include <algorithm>
#include <limits>

#include "reduction.h"

namespace convoxel {
namespace {

// Reduces space, and perhaps channels as well. Microkernels reduce blocks; their results are joined here, sums in
// double.
template <class T, class Total>
class Reducer {
 public:
  Reducer(const MicrokernelSet& set, Reduce op, View src, View dst)
      : set_(set),
        src_(src),
        dst_(dst),
        reduction_(src, dst.size),
        centre_(static_cast<size_t>(src.channels), 0.0f),
        factor_(op == Reduce::kMean ? 1.0 / static_cast<double>(reduction_.pixels() * src.channels / dst.channels)
                                    : 1.0) {}

  int64_t shared_bytes() const { return reduction_.slots() * src_.channels * static_cast<int64_t>(sizeof(Total)); }

  void operator()(const RunContext& context) const {
    Total* totals = reinterpret_cast<Total*>(context.shared);
    const T* src = context.at<T>(src_);
    const int64_t all = src_.channels;
    reduction_.each(
        context,
        [&](int64_t slot, int64_t c, int64_t channels) { std::fill_n(totals + slot * all + c, channels, kStart); },
        [&](int64_t slot, int64_t c, int64_t channels, int64_t offset, int64_t rows, int64_t step) {
          add(totals + slot * all + c, src + offset, rows, step, channels);
        });
    const int64_t together = std::max<int64_t>(1, kPartFloats / (reduction_.blocks() * all));
    parallel_for(context.threads, ceil_div(reduction_.outputs(), together), [&](int64_t chunk, int) {
      const int64_t end = std::min(reduction_.outputs(), (chunk + 1) * together);
      for (int64_t o = chunk * together; o < end; ++o) finish(totals + o * reduction_.blocks() * all, context, o);
    });
  }

 private:
  static constexpr bool kLargest = sizeof(Total) == sizeof(float);
  static constexpr Total kStart = kLargest ? -std::numeric_limits<Total>::infinity() : Total{0};

  void add(float* best, const T* src, int64_t rows, int64_t step, int64_t channels) const {
    set_.rows<T>().largest(best, src, rows, step, channels);
  }
  void add(double* total, const T* src, int64_t rows, int64_t step, int64_t channels) const {
    set_.rows<T>().moment(total, src, rows, step, channels, centre_.data(), 1);
  }
  static Total join(Total a, Total b) {
    if constexpr (kLargest) return b > a || b != b ? b : a;
    return a + b;
  }

  // Joins the blocks of an output, then its channels if they are reduced.
  void finish(Total* totals, const RunContext& context, int64_t output) const {
    const int64_t all = src_.channels;
    for (int64_t b = 1; b < reduction_.blocks(); ++b) {
      for (int64_t c = 0; c < all; ++c) totals[c] = join(totals[c], totals[b * all + c]);
    }
    if (dst_.channels < all) {
      for (int64_t c = 1; c < all; ++c) totals[0] = join(totals[0], totals[c]);
    }
    const int64_t line = output / dst_.size[2];
    const int64_t place = at(dst_, line_at(dst_, line), output % dst_.size[2]);
    T* out = context.at<T>(dst_) + place;
    for (int64_t c = 0; c < dst_.channels; ++c) {
      const float result = static_cast<float>(totals[c] * static_cast<Total>(factor_));
      if constexpr (kElementOf<T> == Element::kBfloat16) {
        out[c] = rounded(result);
      } else {
        out[c] = result;
      }
    }
  }

  const MicrokernelSet& set_;
  View src_, dst_;
  Reduction reduction_;
  std::vector<float> centre_;
  double factor_;
};

}  // namespace

void Plan::reduce(std::string op, View src, View dst) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require_same_element(src, dst, "src and dst");
  require(src.batch == dst.batch, "src " + show(src) + " and dst " + show(dst) + " differ in batch");
  require_broadcast(dst, src, "dst");
  require(src.pixels() > 0, "src " + show(src) + " has no pixel to reduce");
  const Reduce kind = static_cast<Reduce>(find_name(kReduceNames, op));
  const char* name = kReduceNames[static_cast<int>(kind)];
  with_element(src.element, [&](auto number) {
    using T = decltype(number);
    if (src.size == dst.size && dst.channels < src.channels) {
      join_lines({&src, &dst});
      add({name, by_parts(src, [=, &set = set_](const RunContext& context, const Part& part) {
             set.rows<T>().reduce_channels(kind, part.of<T>(dst, context), dst.stride[2], part.of<T>(src, context),
                                           src.stride[2], part.width(), src.channels);
           })});
      return;
    }
    const auto add_reducer = [&](auto total) {
      const Reducer<T, decltype(total)> reducer(set_, kind, src, dst);
      add({name, reducer, 0, reducer.shared_bytes()});
    };
    kind == Reduce::kMax ? add_reducer(float{}) : add_reducer(double{});
  });
}

}  // namespace convoxel
