// The gradient of a convolution's weights by Winograd's minimal filtering.
#pragma once

#include "plan.h"

namespace convoxel {

// dst[k, t, c] = sum over positions o of gradient[o, k] * src[o * stride + t * dilation - padding_low, c].
struct GradientProblem {
  View src, gradient, dst;
  Axes stride, dilation, padding_low;
  double macs() const {
    return static_cast<double>(gradient.rows()) * static_cast<double>(dst.pixels()) *
           static_cast<double>(gradient.channels * src.channels);
  }
};

class WinogradGradient {
 public:
  static bool supports(const GradientProblem& problem);
  // Whether it is expected to be faster than sums of outer products; follows from sizes and the instruction set alone.
  static bool is_faster(const GradientProblem& problem, const MicrokernelSet& set);

  WinogradGradient(const MicrokernelSet& set, const GradientProblem& problem);
  int64_t own_bytes() const;
  int64_t shared_bytes() const;
  void operator()(const RunContext& context) const;

 private:
  struct Tile;
  Tile tile_at(int64_t index) const;
  void transform(const RunContext& context, int64_t tile, int64_t slot, bool gradient, int worker) const;
  void write(const RunContext& context, int64_t k) const;

  float* source_points(const RunContext& context) const { return reinterpret_cast<float*>(context.shared); }
  float* gradient_points(const RunContext& context) const { return source_points(context) + points_ * block_ * row_; }
  float* sums(const RunContext& context) const { return gradient_points(context) + points_ * block_ * back_row_; }

  const MicrokernelSet& set_;
  const GradientProblem problem_;
  WinogradShape shape_;
  Axes count_;              // of tiles along each axis
  int64_t tiles_, block_;   // of all images, and those whose points are in memory at a time
  int64_t points_;          // of a tile
  int64_t row_, back_row_;  // channels of the input and of the gradient, rounded up to whole vectors
};

}  // namespace convoxel
