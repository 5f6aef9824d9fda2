// Runs a convolution by an algorithm that knows float32 alone where tensors are stored as bfloat16.
#pragma once

#include "convolution.h"

namespace convoxel {

// Widens source and residual into memory that all threads share, runs, and rounds the result from there: only what is
// stored otherwise.
class ConvertedRun final : public ConvRun {
 public:
  ConvertedRun(std::unique_ptr<ConvRun> inner, const ConvProblem& problem, const MicrokernelSet& set);

  int stages() const override { return before_ + inner_->stages() + after_; }
  int64_t chunks(int stage) const override;
  int64_t own_bytes() const override { return inner_->own_bytes(); }
  int64_t shared_bytes() const override { return src_bytes_ + residual_bytes_ + dst_bytes_ + inner_->shared_bytes(); }
  void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override;

 private:
  std::unique_ptr<ConvRun> inner_;
  const MicrokernelSet& set_;
  View src_, residual_, dst_;  // dense, in shared memory
  int before_, after_;         // stages: 0 or 1
  int64_t src_bytes_, residual_bytes_, dst_bytes_;
};

}  // namespace convoxel
