// The outputs of a convolution as rows: runs of neighbours along w, their places in memory, and the rows that they
// read.
#pragma once

#include <algorithm>

#include "convolution.h"

namespace convoxel {

// Calls visit(m, n, q_d, q_h, q_w, length) for each run of outputs along w in [begin, begin + rows) of the list of all
// outputs of the phase. The image changes slowest.
template <class Visit>
void for_runs(const TapPhase& phase, int64_t begin, int64_t rows, const Visit& visit) {
  const int64_t size_d = phase.axis[0].count, size_h = phase.axis[1].count, size_w = phase.axis[2].count;
  int64_t w = begin % size_w;
  int64_t rest = begin / size_w;
  int64_t h = rest % size_h;
  rest /= size_h;
  int64_t d = rest % size_d;
  int64_t n = rest / size_d;
  for (int64_t m = 0; m < rows;) {
    const int64_t length = std::min(size_w - w, rows - m);
    visit(m, n, d, h, w, length);
    m += length;
    w = 0;
    if (++h == size_h) {
      h = 0;
      if (++d == size_d) {
        d = 0;
        ++n;
      }
    }
  }
}

// Finds the run [first, last) of outputs q in [q, q + length) whose input q * step + offset lies in [0, size).
inline void inside(int64_t q, int64_t length, int64_t step, int64_t offset, int64_t size, int64_t* first,
                   int64_t* last) {
  *first = std::clamp(ceil_div(-offset, step) - q, int64_t{0}, length);
  *last = std::clamp(ceil_div(size - offset, step) - q, *first, length);
}

// table[m] = row m of the output (or residual).
template <class Float>
void fill_outputs(const TapPhase& phase, const View& view, Float* base, int64_t begin, int64_t rows, Float** table) {
  const AxisPhase& wd = phase.axis[0];
  const AxisPhase& wh = phase.axis[1];
  const AxisPhase& ww = phase.axis[2];
  for_runs(phase, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
    Float* row = base + n * view.batch_stride + (wd.out_begin + qd * wd.out_step) * view.stride[0] +
                 (wh.out_begin + qh * wh.out_step) * view.stride[1] +
                 (ww.out_begin + qw * ww.out_step) * view.stride[2];
    const int64_t stride = ww.out_step * view.stride[2];
    for (int64_t i = 0; i < length; ++i) table[m + i] = row + i * stride;
  });
}

// table[t * step + m] = the input row that tap t of output m reads.
inline void fill_inputs(const TapPhase& phase, const View& view, const float* src, const float* zeros, int64_t begin,
                        int64_t rows, const float** table, int64_t step) {
  const AxisPhase& wd = phase.axis[0];
  const AxisPhase& wh = phase.axis[1];
  const AxisPhase& ww = phase.axis[2];
  for_runs(phase, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
    const float** out = table + m;
    for (const int64_t offset_d : wd.offset) {
      const int64_t d = qd * wd.in_step + offset_d;
      for (const int64_t offset_h : wh.offset) {
        const int64_t h = qh * wh.in_step + offset_h;
        const bool line_inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
        for (const int64_t offset_w : ww.offset) {
          int64_t first = 0, last = 0;
          if (line_inside) inside(qw, length, ww.in_step, offset_w, view.size[2], &first, &last);
          for (int64_t i = 0; i < first; ++i) out[i] = zeros;
          if (first < last) {
            // Only here is the address known to lie inside the tensor.
            const int64_t stride = ww.in_step * view.stride[2];
            const float* row = src + n * view.batch_stride + d * view.stride[0] + h * view.stride[1] +
                               ((qw + first) * ww.in_step + offset_w) * view.stride[2];
            for (int64_t i = first; i < last; ++i) out[i] = row + (i - first) * stride;
          }
          for (int64_t i = last; i < length; ++i) out[i] = zeros;
          out += step;
        }
      }
    }
  });
}

// Calls visit(flat index of the tap) for each tap of the phase, in the order in which rows are read.
template <class Visit>
void for_taps(const TapPhase& phase, const Window& window, const Visit& visit) {
  for (const int64_t d : phase.axis[0].index) {
    for (const int64_t h : phase.axis[1].index) {
      for (const int64_t w : phase.axis[2].index) visit((d * window.kernel[1] + h) * window.kernel[2] + w);
    }
  }
}

// The bytes of input and output together, if they come from beyond the thread's cache.
inline double image_bytes(const ConvProblem& p) {
  if (p.in_cache) return 0;
  const double in = static_cast<double>(p.in_size[0]) * p.in_size[1] * p.in_size[2] * p.in_channels;
  const double out = static_cast<double>(p.out_size[0]) * p.out_size[1] * p.out_size[2] * p.out_channels;
  return p.batch * (static_cast<double>(element_bytes(p.in_element)) * in +
                    static_cast<double>(element_bytes(p.out_element)) * out);
}

// Output pixels times taps; of a transposed convolution, the outputs that taps reach.
inline double tap_rows(const ConvProblem& p) {
  const Axes& size = p.window.transposed ? p.in_size : p.out_size;
  return static_cast<double>(p.batch) * size[0] * size[1] * size[2] * p.window.taps();
}

}  // namespace convoxel
