// Two convolutions as one step.
#pragma once

#include <memory>
#include <string>

#include "convolution.h"

namespace convoxel {

struct ConvPair {
  std::shared_ptr<const Convolution> first, second;
  ConvProblem first_problem, second_problem;
  Activation first_activation, activation;
};

struct PairPlan {
  std::unique_ptr<ConvRun> run;  // from the first one's input to the second one's output
  const char* algorithm;
};

// A depthwise convolution and a 1x1 convolution. algorithm: "auto", "blocked", "staged", or what both of them are to
// run with, one after the other. Throws std::invalid_argument with the reason if the convolutions are not such a pair.
PairPlan plan_pair(const std::string& algorithm, const ConvPair& pair, const KernelSet& set, int threads);

}  // namespace convoxel
