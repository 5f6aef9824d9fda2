// Outputs that are weighted sums along each axis: resizing, average pooling, adaptive pooling.
#include <algorithm>

#include "partition.h"

namespace convoxel {
namespace {

// The existing taps of one axis: output o has [begin[o], begin[o + 1]).
struct AxisTaps {
  explicit AxisTaps(const ResampleAxis& axis, int64_t outputs) {
    begin.push_back(0);
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t t = o * axis.taps; t < (o + 1) * axis.taps; ++t) {
        if (axis.index[t] < 0) continue;
        index.push_back(axis.index[t]);
        weight.push_back(axis.weight[t]);
      }
      begin.push_back(static_cast<int32_t>(index.size()));
    }
  }
  int64_t most() const {  // taps of one output
    int64_t count = 0;
    for (size_t o = 0; o + 1 < begin.size(); ++o) count = std::max<int64_t>(count, begin[o + 1] - begin[o]);
    return count;
  }

  std::vector<int32_t> begin, index;
  std::vector<float> weight;
};

// First the lines that an output line needs are summed, then pixels along w. So the 2 x 2 x 2 neighbours of a linear
// resize cost 2 * 2 / 2 + 2 multiply-adds instead of 8, since twice as many outputs share the summed line.
template <class T>
class Resample {
 public:
  Resample(const MicrokernelSet& set, View src, View dst, const std::vector<ResampleAxis>& axes)
      : set_(set),
        src_(src),
        dst_(dst),
        d_(axes[0], dst.size[0]),
        h_(axes[1], dst.size[1]),
        w_(axes[2], dst.size[2]),
        lines_(d_.most() * h_.most()),
        partition_(dst, std::max<int64_t>(1, src.pixels() / std::max<int64_t>(1, dst.pixels())), true) {
    int64_t widest = 0;
    for (int64_t w = 0; w < dst.size[2]; w += partition_.width()) {
      const auto first = w_.index.begin() + w_.begin[w];
      const auto last = w_.index.begin() + w_.begin[std::min(dst.size[2], w + partition_.width())];
      spans_.push_back(first == last
                           ? Span{0, 0}
                           : Span{*std::min_element(first, last), *std::max_element(first, last) + int64_t{1}});
      widest = std::max(widest, spans_.back().end - spans_.back().begin);
    }
    line_floats_ = widest * src.channels;
  }

  int64_t workspace_bytes() const { return line_offset() + line_floats_ * static_cast<int64_t>(sizeof(float)); }

  void operator()(const RunContext& context) const {
    partition_.each(context, [&](const Part& part) {
      char* space = static_cast<char*>(context.worker_space(part.worker));
      const T** lines = reinterpret_cast<const T**>(space);
      float* weights = reinterpret_cast<float*>(lines + lines_);
      const Span span = spans_[static_cast<size_t>(part.w_begin / partition_.width())];
      const int64_t count = find_lines(context.at<T>(src_) + part.c_begin, part.line, lines, weights);
      const auto blend = [&](auto function, const auto* line, int64_t pixel) {
        function(part.of<T>(dst_, context), dst_.stride[2], line, pixel, w_.begin.data() + part.w_begin,
                 w_.index.data(), w_.weight.data(), part.width(), part.channels());
      };
      const int64_t pixel = src_.stride[2];
      if (count == 1 && weights[0] == 1.0f) return blend(set_.rows<T>().blend_rows, lines[0], pixel);
      for (int64_t t = 0; t < count; ++t) lines[t] += span.begin * pixel;
      float* sum = reinterpret_cast<float*>(space + line_offset());
      set_.rows<T>().gather_sum(sum, part.channels(), lines, weights, pixel, count, span.end - span.begin,
                                part.channels());
      blend(set_.rows<T>().blend_sums, sum - span.begin * part.channels(), part.channels());  // where pixel 0 would be
    });
  }

 private:
  struct Span {
    int64_t begin, end;  // pixels along w that a part reads
  };

  int64_t line_offset() const {
    return round_up(lines_ * static_cast<int64_t>(sizeof(T*) + sizeof(float)), kAlignBytes);
  }

  int64_t find_lines(const T* src, const Line& out, const T** lines, float* weights) const {
    int64_t count = 0;
    for (int32_t i = d_.begin[out.d]; i < d_.begin[out.d + 1]; ++i) {
      for (int32_t j = h_.begin[out.h]; j < h_.begin[out.h + 1]; ++j) {
        lines[count] = src + at(src_, {out.n, d_.index[i], h_.index[j]}, 0);
        weights[count++] = d_.weight[i] * h_.weight[j];
      }
    }
    return count;
  }

  const MicrokernelSet& set_;
  View src_, dst_;
  AxisTaps d_, h_, w_;
  int64_t lines_;
  Partition partition_;
  std::vector<Span> spans_;
  int64_t line_floats_;
};

}  // namespace

void Plan::resample(View src, View dst, std::vector<AxisTable> axes) {
  read(src, "src", Takes::kFloats);
  write(dst, "dst", Takes::kFloats);
  require_same_element(src, dst, "src and dst");
  require(src.batch == dst.batch && src.channels == dst.channels,
          "batch or channels of src " + show(src) + " and dst " + show(dst) + " differ");
  require(axes.size() == kSpatialAxes, "one table for each of the 3 spatial axes");
  if (is_mean(axes, src.size.data(), dst.size.data())) return reduce("mean", src, dst);
  std::vector<ResampleAxis> tables;
  for (size_t i = 0; i < axes.size(); ++i) {
    const TableRule* rule = std::get_if<TableRule>(&axes[i]);
    tables.push_back(rule ? make_table(*rule, src.size[i], dst.size[i]) : std::move(std::get<ResampleAxis>(axes[i])));
    const ResampleAxis& made = tables.back();
    const size_t count = static_cast<size_t>(dst.size[i] * made.taps);
    require(made.index.size() == count && made.weight.size() == count,
            "axis " + std::to_string(i) + " needs one index and one weight per output and tap");
    for (const int32_t index : made.index) {
      require(index < src.size[i], "index " + std::to_string(index) + " is outside of src " + show(src));
    }
  }
  with_element(src.element, [&](auto number) {
    const Resample<decltype(number)> resample(set_, src, dst, tables);
    add({"resample", resample, resample.workspace_bytes()});
  });
}

}  // namespace convoxel
