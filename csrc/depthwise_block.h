// A depthwise convolution and its 1x1 neighbours as one step: a separable convolution, or an inverted residual, as a
// whole or up to its squeeze-and-excitation.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolution.h"

namespace convoxel {

struct BlockPart {
  std::shared_ptr<const Convolution> conv;
  ConvProblem problem;
  Activation activation;
  std::string chosen = {};  // the algorithm that runs it if it can and may, or ""
};

struct DepthwiseBlock {
  std::optional<BlockPart> expand;  // 1x1, in front
  BlockPart depthwise;
  std::optional<BlockPart> project;  // 1x1, behind; at least one of the two is there
};

struct BlockPlan {
  std::unique_ptr<ConvRun> run;  // from the first convolution's input to the last one's output
  const char* algorithm = "";
  std::vector<const char*> parts;  // the algorithm of each convolution, which decides the result's last digits
};

// family: its name is "auto", "banded", "blocked", "staged" (see depthwise_block.cpp), or that of an algorithm that
// runs all convolutions one after the other. Throws Mistake with the reason if the convolutions do not form such a
// block, or the algorithm does not fit.
//
// Invariant: the algorithms of the convolutions follow from one image and the instruction set, as rank_algorithms' do.
// How the block runs depends on the threads and the caches as well, but not the bits of its results.
BlockPlan plan_block(const Family& family, const DepthwiseBlock& block, const MicrokernelSet& set, int threads);

}  // namespace convoxel
