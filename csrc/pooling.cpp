// Maximum pooling: the largest value of each window.
#include <algorithm>
#include <limits>

#include "partition.h"

namespace convoxel {
namespace {

// Output w of a line reads pixels w * stride - padding + k * dilation, k < kernel, of kernel[0] * kernel[1] lines.
//
// Where windows overlap along w, the maximum over those lines is taken first, pixel by pixel, and then the maximum
// along w: a window of 5 x 5 reads 5 + 5 values instead of 25. Elsewhere that would only move data.
template <class T>
class MaxPool {
 public:
  MaxPool(const MicrokernelSet& set, View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding)
      : set_(set),
        src_(src),
        dst_(dst),
        kernel_(kernel),
        stride_(stride),
        dilation_(dilation),
        padding_(padding),
        partition_(dst, std::max<int64_t>(1, src.pixels() / std::max<int64_t>(1, dst.pixels())), true) {
    const int64_t lines = kernel[0] * kernel[1];
    by_axis_ = lines * (kernel[2] - stride[2]) > kernel[2];
    // The outputs whose taps along w all exist.
    inside_begin_ = std::clamp(ceil_div(padding[2], stride[2]), int64_t{0}, dst.size[2]);
    const int64_t last = src.size[2] - 1 + padding[2] - (kernel[2] - 1) * dilation[2];
    inside_end_ = std::clamp(floor_div(last, stride[2]) + 1, inside_begin_, dst.size[2]);
    taps_ = lines + kernel[2] * (by_axis_ ? 1 : lines);
    span_ = (partition_.width() - 1) * stride[2] + (kernel[2] - 1) * dilation[2] + 1;
  }

  int64_t workspace_bytes() const {
    return round_up(taps_ * static_cast<int64_t>(sizeof(T*)), kAlignBytes) +
           (by_axis_ ? span_ * src_.channels * static_cast<int64_t>(sizeof(T)) : 0);
  }

  void operator()(const RunContext& context) const {
    partition_.each(context, [&](const Part& part) {
      const T** lines = static_cast<const T**>(context.worker_space(part.worker));
      const int64_t count = find_lines(context.at<T>(src_) + part.c_begin, part.line, lines);
      T* dst = part.of<T>(dst_, context) - part.w_begin * dst_.stride[2];  // where pixel 0 is
      if (count == 0) {                                                    // the windows lie in the padding
        for (int64_t w = part.w_begin; w < part.w_end; ++w) fill_lowest(dst + w * dst_.stride[2], part.channels());
        return;
      }
      const int64_t pixel = src_.stride[2];
      if (!by_axis_) return pool(lines, count, lines + count, pixel, part, dst);
      T* line = reinterpret_cast<T*>(static_cast<char*>(context.worker_space(part.worker)) +
                                     round_up(taps_ * static_cast<int64_t>(sizeof(T*)), kAlignBytes));
      const int64_t first = std::max<int64_t>(0, part.w_begin * stride_[2] - padding_[2]);
      const int64_t last =
          std::min(src_.size[2], (part.w_end - 1) * stride_[2] - padding_[2] + (kernel_[2] - 1) * dilation_[2] + 1);
      for (int64_t t = 0; t < count; ++t) lines[t] += first * pixel;
      const int64_t channels = part.channels();
      if (last > first) set_.rows<T>().gather_max(line, channels, lines, pixel, count, last - first, channels);
      lines[0] = line - first * channels;  // where pixel 0 would be
      pool(lines, 1, lines + 1, channels, part, dst);
    });
  }

 private:
  // Finds the lines of the window that exist.
  int64_t find_lines(const T* src, const Line& out, const T** lines) const {
    int64_t count = 0;
    for (int64_t i = 0; i < kernel_[0]; ++i) {
      const int64_t d = out.d * stride_[0] - padding_[0] + i * dilation_[0];
      if (d < 0 || d >= src_.size[0]) continue;
      for (int64_t j = 0; j < kernel_[1]; ++j) {
        const int64_t h = out.h * stride_[1] - padding_[1] + j * dilation_[1];
        if (h >= 0 && h < src_.size[1]) lines[count++] = src + at(src_, {out.n, d, h}, 0);
      }
    }
    return count;
  }

  // Computes the outputs of the part from these lines, whose pixels lie `pixel` numbers apart.
  void pool(const T* const* lines, int64_t count, const T** taps, int64_t pixel, const Part& part, T* dst) const {
    const auto pool_run = [&](int64_t begin, int64_t end) {
      if (begin >= end) return;
      int64_t found = 0;
      for (int64_t k = 0; k < kernel_[2]; ++k) {
        const int64_t w = begin * stride_[2] - padding_[2] + k * dilation_[2];
        if (w < 0 || w >= src_.size[2]) continue;
        for (int64_t t = 0; t < count; ++t) taps[found++] = lines[t] + w * pixel;
      }
      T* out = dst + begin * dst_.stride[2];
      if (found == 0) return fill_lowest(out, part.channels());
      set_.rows<T>().gather_max(out, dst_.stride[2], taps, stride_[2] * pixel, found, end - begin, part.channels());
    };
    const int64_t first = std::clamp(inside_begin_, part.w_begin, part.w_end);
    const int64_t last = std::clamp(inside_end_, first, part.w_end);
    for (int64_t w = part.w_begin; w < first; ++w) pool_run(w, w + 1);
    pool_run(first, last);
    for (int64_t w = last; w < part.w_end; ++w) pool_run(w, w + 1);
  }

  static void fill_lowest(T* out, int64_t channels) {
    if constexpr (kElementOf<T> == Element::kBfloat16) {
      std::fill(out, out + channels, T{0xFF80});  // -infinity
    } else {
      std::fill(out, out + channels, -std::numeric_limits<T>::infinity());
    }
  }

  const MicrokernelSet& set_;
  View src_, dst_;
  Axes kernel_, stride_, dilation_, padding_;
  Partition partition_;
  bool by_axis_;
  int64_t inside_begin_, inside_end_;
  int64_t taps_, span_;
};

}  // namespace

void Plan::max_pool(View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require(src.batch == dst.batch && src.channels == dst.channels,
          "batch or channels of src " + show(src) + " and dst " + show(dst) + " differ");
  require_same_element(src, dst, "src and dst");
  for (int i = 0; i < kSpatialAxes; ++i) {
    require(kernel[i] >= 1 && stride[i] >= 1 && dilation[i] >= 1, "kernel, stride and dilation must be at least 1");
  }
  with_element(src.element, [&](auto number) {
    const MaxPool<decltype(number)> pool(set_, src, dst, kernel, stride, dilation, padding_low);
    add({"max_pool", pool, pool.workspace_bytes()});
  });
}

}  // namespace convoxel
