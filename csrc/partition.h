// Divides the output of steps that touch each float a few times into parts of lines, which threads share. A line is the
// pixels along w at one (n, d, h).
//
// Invariant: parts depend on the views alone, never on the number of threads, so neither do the results.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "buffer.h"
#include "plan.h"
#include "threads.h"

namespace convoxel {

struct Line {
  int64_t n, d, h;
};

inline int64_t line_count(const View& v) { return v.batch * v.size[0] * v.size[1]; }

inline Line line_at(const View& v, int64_t index) {
  return {index / (v.size[0] * v.size[1]), index / v.size[1] % v.size[0], index % v.size[1]};
}

// The distance from the view's first number to pixel w of the line.
inline int64_t at(const View& v, const Line& line, int64_t w) {
  return line.n * v.batch_stride + line.d * v.stride[0] + line.h * v.stride[1] + w * v.stride[2];
}

// Joins lines that follow one another without a gap in all of these views, which have one size.
inline void join_lines(std::initializer_list<View*> views) {
  for (const int axis : {1, 0}) {
    for (const View* v : views) {
      if (v->size[axis] > 1 && v->stride[axis] != v->size[2] * v->stride[2]) return;
    }
    for (View* v : views) {
      v->size[2] *= v->size[axis];
      v->size[axis] = 1;
    }
  }
}

// A part has about this many floats: enough to hide the cost of taking it, few enough to stay in L1.
constexpr int64_t kPartFloats = 8192;

constexpr int64_t kPartChannels = 64;

struct Part {
  Line line;
  int64_t w_begin, w_end;
  int64_t c_begin, c_end;
  int worker;

  int64_t width() const { return w_end - w_begin; }
  int64_t channels() const { return c_end - c_begin; }
  // The part's first number in a view with the same lines.
  template <class T = float>
  T* of(const View& view, const RunContext& context) const {
    return context.at<T>(view) + at(view, line, w_begin) + c_begin;
  }
};

class Partition {
 public:
  // work: floats that are read for each one written. split_channels: share few outputs of many channels by channels,
  // too.
  explicit Partition(const View& view, int64_t work = 1, bool split_channels = false) : view_(view) {
    const int64_t floats = std::max<int64_t>(1, kPartFloats / std::max<int64_t>(1, work));
    channels_ = split_channels && view.rows() < 16 ? std::min(kPartChannels, view.channels) : view.channels;
    // A multiple of a cache line, for a side on which w is contiguous.
    width_ = std::clamp<int64_t>(round_up(floats / channels_, 16), 16, std::max<int64_t>(16, view.size[2]));
    width_ = std::min(width_, std::max<int64_t>(1, view.size[2]));
    lines_ = std::max<int64_t>(1, floats / (width_ * channels_));
    splits_ = ceil_div(view.channels, channels_);
    segments_ = ceil_div(view.size[2], width_);
    if (segments_ > 1) lines_ = 1;
  }

  int64_t width() const { return width_; }  // pixels of a part, at most
  int64_t segments() const { return segments_; }

  // Calls run(part) for all parts.
  template <class Run>
  void each(const RunContext& context, const Run& run) const {
    const int64_t lines = line_count(view_);
    const int64_t groups = ceil_div(lines, lines_);
    parallel_for(context.threads, groups * segments_ * splits_, [&](int64_t chunk, int worker) {
      const int64_t c = chunk % splits_ * channels_;
      const int64_t w = chunk / splits_ % segments_ * width_;
      const int64_t first = chunk / (splits_ * segments_) * lines_;
      for (int64_t i = first; i < std::min(lines, first + lines_); ++i) {
        run(Part{line_at(view_, i), w, std::min(w + width_, view_.size[2]), c, std::min(c + channels_, view_.channels),
                 worker});
      }
    });
  }

 private:
  View view_;
  int64_t channels_, width_, lines_, splits_, segments_;
};

// The function of a step that calls run(context, part) for each part of a view's lines.
template <class Run>
auto by_parts(const View& view, Run run) {
  return [partition = Partition(view), run = std::move(run)](const RunContext& context) {
    partition.each(context, [&](const Part& part) { run(context, part); });
  };
}

}  // namespace convoxel
