// The gradient of a convolution's weights: for each tap, the sum over positions of an outer product, what comes back
// (out_channels) by what the tap read there (in_channels).
//
// The outputs are cut into segments of lines along w. Segments are divided among slots, whose sums are added at the
// end: the number of slots, and so the order of sums, depends on sizes alone. Where the weights are so large that there
// are few slots, their taps and rows are divided, too. A chunk takes some segments at a time, small enough for L1, and
// goes through its taps: those along w follow one another in the image, and so are columns of one product.
#include <algorithm>
#include <vector>

#include "plan.h"
#include "threads.h"
#include "winograd_gradient.h"

namespace convoxel {
namespace {

constexpr int64_t kSlots = 16;                     // at most, and chunks at least where there is work for them
constexpr int64_t kSlotFloats = int64_t{4} << 20;  // of all slots' sums together, unless one is larger
constexpr int64_t kSegment = 256;                  // positions of a segment, at most
constexpr int64_t kBlock = 128;                    // positions of a block of segments
constexpr int64_t kRows = 48;                      // rows that are divided among chunks together

class OuterGradient {
 public:
  OuterGradient(const MicrokernelSet& set, const GradientProblem& problem)
      : set_(set),
        src_(problem.src),
        gradient_(problem.gradient),
        dst_(problem.dst),
        stride_(problem.stride),
        dilation_(problem.dilation),
        padding_(problem.padding_low) {
    // Taps along w are columns side by side where they lie so in the image.
    together_ = dilation_[2] == 1 && src_.stride[2] == src_.channels ? dst_.size[2] : 1;
    const int64_t width = std::max<int64_t>(1, gradient_.size[2]);
    segments_ = ceil_div(width, kSegment);
    segment_ = ceil_div(width, segments_);
    units_ = gradient_.batch * gradient_.size[0] * gradient_.size[1] * segments_;
    block_ = std::max<int64_t>(1, kBlock / segment_);
    weights_ = dst_.batch * dst_.pixels() * dst_.channels;
    slots_ = std::clamp<int64_t>(std::min(units_ / block_, kSlotFloats / weights_), 1, kSlots);
    row_parts_ = ceil_div(dst_.batch, kRows);
    tap_parts_ = dst_.pixels() / together_;
    parts_ = std::min(ceil_div(kSlots, slots_), row_parts_ * tap_parts_);
  }

  int64_t own_bytes() const { return 2 * block_ * static_cast<int64_t>(sizeof(float*)); }
  int64_t shared_bytes() const { return slots_ * weights_ * static_cast<int64_t>(sizeof(float)); }

  void operator()(const RunContext& context) const {
    float* const sums = reinterpret_cast<float*>(context.shared);
    parallel_for(context.threads, slots_ * parts_, [&](int64_t chunk, int worker) {
      const int64_t slot = chunk / parts_, part = chunk % parts_, all = row_parts_ * tap_parts_;
      add_slot(context, slot, part * all / parts_, (part + 1) * all / parts_, sums + slot * weights_,
               static_cast<const float**>(context.worker_space(worker)));
    });
    const int64_t length = dst_.pixels() * dst_.channels;  // of an output channel's weights
    parallel_for(context.threads, dst_.batch, [&](int64_t k, int) {
      const float* from = sums + k * length;
      float* to = context.at(dst_) + k * dst_.batch_stride;
      std::copy(from, from + length, to);
      for (int64_t slot = 1; slot < slots_; ++slot) {
        from += weights_;
        for (int64_t i = 0; i < length; ++i) to[i] += from[i];
      }
    });
  }

 private:
  // A part is some rows of one group of taps.
  struct Part {
    int64_t row, rows, tap;
    Axes at;  // of the first tap
  };

  Part part_at(int64_t index) const {
    Part part;
    part.row = index % row_parts_ * kRows;
    part.rows = std::min(kRows, dst_.batch - part.row);
    part.tap = index / row_parts_ * together_;
    part.at = {part.tap / (dst_.size[1] * dst_.size[2]), part.tap / dst_.size[2] % dst_.size[1],
               part.tap % dst_.size[2]};
    return part;
  }

  void add_slot(const RunContext& context, int64_t slot, int64_t first, int64_t last, float* sums,
                const float** pointers) const {
    const int64_t length = dst_.pixels() * dst_.channels;
    for (int64_t i = first; i < last; ++i) {
      const Part part = part_at(i);
      for (int64_t k = part.row; k < part.row + part.rows; ++k) {
        float* const row = sums + k * length + part.tap * dst_.channels;
        std::fill(row, row + together_ * dst_.channels, 0.0f);
      }
    }
    const int64_t end = (slot + 1) * units_ / slots_;
    for (int64_t unit = slot * units_ / slots_; unit < end; unit += block_) {
      for (int64_t i = first; i < last; ++i) {
        add_block(context, part_at(i), unit, std::min(end, unit + block_), sums, pointers);
      }
    }
  }

  // Adds what units [begin, end) contribute to a part. The segments of a line have their own edges, so units of one
  // kind of segment go together.
  void add_block(const RunContext& context, const Part& part, int64_t begin, int64_t end, float* sums,
                 const float** pointers) const {
    OuterProduct p;
    p.a = pointers;
    p.b = pointers + block_;
    p.a_step = gradient_.stride[2];
    p.b_step = stride_[2] * src_.stride[2];
    p.c_step = dst_.pixels() * dst_.channels;
    p.rows = part.rows;
    for (int64_t segment = 0; segment < segments_; ++segment) {
      p.lines = 0;
      for (int64_t unit = begin + (segment - begin % segments_ + segments_) % segments_; unit < end;
           unit += segments_) {
        const int64_t line = unit / segments_, h = line % gradient_.size[1],
                      d = line / gradient_.size[1] % gradient_.size[0];
        const int64_t n = line / (gradient_.size[1] * gradient_.size[0]);
        const int64_t in_d = d * stride_[0] + part.at[0] * dilation_[0] - padding_[0];
        const int64_t in_h = h * stride_[1] + part.at[1] * dilation_[1] - padding_[1];
        if (in_d < 0 || in_d >= src_.size[0] || in_h < 0 || in_h >= src_.size[1]) continue;
        pointers[p.lines] = context.at(gradient_) + n * gradient_.batch_stride + d * gradient_.stride[0] +
                            h * gradient_.stride[1] + part.row;
        pointers[block_ + p.lines] =
            context.at(src_) + n * src_.batch_stride + in_d * src_.stride[0] + in_h * src_.stride[1];
        ++p.lines;
      }
      if (p.lines > 0) add_segment(p, part, segment, sums);
    }
  }

  // Positions at which all taps of the part read the image make one product; each of the others makes its own.
  void add_segment(OuterProduct& p, const Part& part, int64_t segment, float* sums) const {
    const int64_t begin = segment * segment_, end = std::min(gradient_.size[2], begin + segment_);
    const int64_t first = part.at[2] * dilation_[2] - padding_[2];  // what position 0 reads first
    const int64_t whole_begin = std::clamp(ceil_div(-first, stride_[2]), begin, end);
    const int64_t whole_end = std::clamp(floor_div(src_.size[2] - together_ - first, stride_[2]) + 1, whole_begin, end);
    const auto add = [&](int64_t position, int64_t count, int64_t skipped, int64_t taps) {
      p.count = count;
      p.a_offset = position * gradient_.stride[2];
      p.b_offset = (position * stride_[2] + first + skipped) * src_.stride[2];
      p.columns = taps * src_.channels;
      p.c = sums + part.row * p.c_step + (part.tap + skipped) * src_.channels;
      set_.outer_product(p);
    };
    if (whole_end > whole_begin) add(whole_begin, whole_end - whole_begin, 0, together_);
    for (int64_t i = begin; i < end; ++i) {
      if (i == whole_begin) i = whole_end;
      if (i >= end) break;
      const int64_t at = i * stride_[2] + first;
      const int64_t skipped = std::clamp<int64_t>(-at, 0, together_);
      const int64_t taps = std::clamp<int64_t>(src_.size[2] - at, skipped, together_) - skipped;
      if (taps > 0) add(i, 1, skipped, taps);
    }
  }

  const MicrokernelSet& set_;
  View src_, gradient_, dst_;
  Axes stride_, dilation_, padding_;
  int64_t together_;            // taps along w that make one product
  int64_t segments_, segment_;  // of a line, and the positions of one
  int64_t units_, block_;       // segments of all lines, and those of a block
  int64_t weights_, slots_;     // numbers of a slot
  int64_t row_parts_, tap_parts_, parts_;
};

}  // namespace

void Plan::weight_gradient(View src, View gradient, View dst, Axes stride, Axes dilation, Axes padding_low,
                           std::string algorithm) {
  read(src, "src");
  read(gradient, "gradient");
  write(dst, "dst");
  require(src.batch == gradient.batch, "src and gradient differ in batch: " + show(src) + " and " + show(gradient));
  require(dst.batch == gradient.channels && dst.channels == src.channels,
          "dst " + show(dst) + " must have the channels of gradient " + show(gradient) + " first and those of src " +
              show(src) + " last");
  require(dst.is_dense(), "dst " + show(dst) + " must have no gaps");
  for (int i = 0; i < kSpatialAxes; ++i) {
    require(stride[i] >= 1 && dilation[i] >= 1, "stride and dilation must be at least 1");
  }
  Step step{"weight_gradient", {}};
  const auto add_run = [&](auto run, const char* algorithm) {
    step.workspace_bytes = run.own_bytes();
    step.shared_bytes = run.shared_bytes();
    step.algorithm = algorithm;
    step.run = std::move(run);
  };
  const GradientProblem problem{src, gradient, dst, stride, dilation, padding_low};
  step.macs = problem.macs();
  const bool can = WinogradGradient::supports(problem);
  require(algorithm == "auto" || algorithm == "outer" || (algorithm == "winograd(4)" && can),
          "weight_gradient: no algorithm " + algorithm + " for " + show(src) + " and kernels of " + show(dst));
  if (can && (algorithm == "winograd(4)" || (algorithm == "auto" && WinogradGradient::is_faster(problem, set_)))) {
    add_run(WinogradGradient(set_, problem), "winograd(4)");
  } else {
    add_run(OuterGradient(set_, problem), "outer");
  }
  add(std::move(step));
}

}  // namespace convoxel
