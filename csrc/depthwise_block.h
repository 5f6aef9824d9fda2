// A depthwise convolution and its 1x1 neighbours as one step: a separable convolution, an inverted residual, or what
// of the latter comes before squeeze-and-excitation.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "convolution.h"

namespace convoxel {

struct BlockPart {
  std::shared_ptr<const Convolution> conv;
  ConvProblem problem;
  Activation activation;
};

struct DepthwiseBlock {
  std::optional<BlockPart> expand;  // 1x1, in front
  BlockPart depthwise;
  std::optional<BlockPart> project;  // 1x1, behind; there is at least one of the two
};

struct BlockPlan {
  std::unique_ptr<ConvRun> run;  // from the first one's input to the last one's output
  const char* algorithm;
};

// algorithm: "auto", "banded", "blocked", "staged" (see depthwise_block.cpp), or what all of them are to run with, one
// after the other. Throws Mistake with the reason if the convolutions are no such block, or the algorithm
// does not fit.
BlockPlan plan_block(const std::string& algorithm, const DepthwiseBlock& block, const MicrokernelSet& set, int threads);

}  // namespace convoxel
