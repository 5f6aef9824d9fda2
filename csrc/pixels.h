// A 1x1 convolution of pixels that a step holds in memory of its own.
#pragma once

#include <memory>
#include <string>

#include "bfloat.h"
#include "convolution.h"

namespace convoxel {

class PixelProduct {
 public:
  // algorithm: "pointwise", or one of a matrix unit, which alone takes tensors of bfloat16. rows: the most of one run.
  PixelProduct(const Algorithm& algorithm, const ConvProblem& problem, const Convolution& conv,
               const MicrokernelSet& set, Activation activation, int threads, int64_t rows);
  int64_t scratch_bytes() const { return unit_ ? unit_->scratch_bytes() : 0; }

  // As BfloatPixels::run.
  void run(const void* src, int64_t step, int64_t rows, bool padded, void** outputs, const void* const* residuals,
           void* scratch) const;

 private:
  const Convolution& conv_;
  const MicrokernelSet& set_;
  Activation activation_;
  const PackedWeights* weights_ = nullptr;
  std::unique_ptr<BfloatPixels> unit_;  // if the product runs on a matrix unit
};

}  // namespace convoxel
