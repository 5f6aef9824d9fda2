// The activations that a step can apply to its result before storing it.
#pragma once

#include <limits>

namespace convoxel {

enum class ActivationKind : int {
  kNone,
  kRelu,
  kLeakyRelu,
  kSigmoid,
  kRelu6,
  kSilu,
  kHardSwish,
  kTanh,
  kElu,
  kGelu,
  kHardSigmoid,
  kMish,
  kSoftplus,
  kSelu,
  kGeluTanh,
  kCelu,
  kClip,
};

// Names as the Python side spells them, in the order of ActivationKind.
constexpr const char* kActivationNames[] = {"none",       "relu", "leaky_relu", "sigmoid", "relu6",        "silu",
                                            "hard_swish", "tanh", "elu",        "gelu",    "hard_sigmoid", "mish",
                                            "softplus",   "selu", "gelu_tanh",  "celu",    "clip"};
constexpr int kActivationCount = 17;

struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float slope = 0.0f;  // leaky_relu: the factor of negative values; elu, celu: alpha; clip: the lower end
  float high = 0.0f;   // clip: the upper end

  // Cheap ones (a comparison or two) are applied in registers; the others run over rows just stored, still in L1.
  bool is_cheap() const {
    return kind == ActivationKind::kNone || kind == ActivationKind::kRelu || kind == ActivationKind::kRelu6 ||
           kind == ActivationKind::kLeakyRelu || kind == ActivationKind::kHardSigmoid;
  }
};

}  // namespace convoxel
