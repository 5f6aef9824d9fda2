// Computes runs of outputs along w of a depthwise convolution.
//
// The inputs of a run are lines of positions, one for each tap of the other axes. Neighbouring outputs share positions,
// and the microkernel loads each position once. The caller decides where the outputs go.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "rows.h"

namespace convoxel {

class DepthwiseLines {
 public:
  static constexpr int64_t kMostOutputs = 128;  // of a run; longer lines (1-D) take several runs

  explicit DepthwiseLines(const ConvSetup& setup)
      : setup_(setup), phases_(plan_phases(setup.problem.window, setup.problem.out_size)) {
    for (const TapPhase& phase : phases_) {
      lines_ = std::max(lines_, lines_of(phase));
      taps_ = std::max(taps_, static_cast<int64_t>(phase.axis[2].offset.size()));
    }
  }

  const std::vector<TapPhase>& phases() const { return phases_; }
  int64_t scratch_bytes() const {
    return lines_ * static_cast<int64_t>(sizeof(float*)) + (lines_ + taps_) * static_cast<int64_t>(sizeof(int64_t));
  }

  // Computes outputs [first, first + rows), at most kMostOutputs and all of one line, of the list of all outputs of a
  // phase. src holds the part of the image that begins at position `origin` and contains all that these outputs read.
  template <class T>
  void run(size_t index, int64_t first, int64_t rows, const T* src, const View& src_view, const Axes& origin,
           T* const* outputs, const T* const* residuals, void* scratch) const {
    const TapPhase& phase = phases_[index];
    const AxisPhase& ww = phase.axis[2];
    const T** lines = static_cast<const T**>(scratch);
    int64_t* steps = reinterpret_cast<int64_t*>(lines + lines_);
    int64_t* taps = steps + lines_;
    const int64_t base = ww.offset.empty() ? 0 : *std::min_element(ww.offset.begin(), ww.offset.end());

    Depthwise<T> work;
    work.a = lines;
    work.a_step = steps;
    work.zeros = zeros<T>();
    work.lines = lines_of(phase);
    work.taps = taps;
    work.width = static_cast<int64_t>(ww.offset.size());
    work.stride = ww.in_step;
    work.channels = setup_.problem.in_channels;
    work.b = setup_.weights.data.get() + setup_.weights.phase_offset[index];
    work.b_step = round_up(setup_.problem.in_channels, setup_.set.vector_floats);
    work.rows = rows;
    work.c = outputs;
    work.residual = residuals;
    work.bias = setup_.conv.bias();
    work.activation = setup_.activation;
    for (int64_t t = 0; t < work.width; ++t) taps[t] = ww.offset[t] - base;
    for_runs(phase, first, rows, [&](int64_t, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t) {
      const int64_t position = qw * ww.in_step + base;
      work.begin = -position;
      work.end = src_view.size[2] - position;
      fill_lines(phase, src_view, src + n * src_view.batch_stride, origin, qd, qh, position, lines, steps);
    });
    setup_.set.rows<T>().depthwise(work);
  }

 private:
  static int64_t lines_of(const TapPhase& phase) {
    return static_cast<int64_t>(phase.axis[0].offset.size() * phase.axis[1].offset.size());
  }
  template <class T>
  const T* zeros() const {
    return reinterpret_cast<const T*>(setup_.conv.zeros());  // whose bits are zeros of any type
  }
  // Points at the lines that the outputs at (qd, qh) read; a line outside of the image is a repeated row of zeros.
  template <class T>
  void fill_lines(const TapPhase& phase, const View& view, const T* image, const Axes& origin, int64_t qd, int64_t qh,
                  int64_t position, const T** lines, int64_t* steps) const {
    for (const int64_t offset_d : phase.axis[0].offset) {
      const int64_t d = qd * phase.axis[0].in_step + offset_d;
      for (const int64_t offset_h : phase.axis[1].offset) {
        const int64_t h = qh * phase.axis[1].in_step + offset_h;
        const bool inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
        *steps++ = inside ? view.stride[2] : 0;
        *lines++ = inside ? image + (d - origin[0]) * view.stride[0] + (h - origin[1]) * view.stride[1] +
                                (position - origin[2]) * view.stride[2]
                          : zeros<T>();
      }
    }
  }

  ConvSetup setup_;
  std::vector<TapPhase> phases_;
  int64_t lines_ = 1;  // of a run
  int64_t taps_ = 1;   // of a line
};

}  // namespace convoxel
