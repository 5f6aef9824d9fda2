// AVX-512 with its own instructions for bfloat16: products, and conversions wherever numbers of bfloat16 are stored.
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#define CVX_VECTOR_BYTES 64
#define CVX_REGISTERS 32
#define CVX_SET_NAME "avx512_bf16"
#include "microkernels-inl.h"

namespace convoxel {
namespace {

#include "bfdot-inl.h"
#include "bfloat-inl.h"

const MatrixUnit kUnit = {false, kLeastRows, kMostRows, split, multiply};

constexpr MicrokernelSet make_bfloat_set() {
  MicrokernelSet set = make_set();
  set.matrix_unit = &kUnit;
  return set;
}

constexpr MicrokernelSet kBfloatSet = make_bfloat_set();

}  // namespace

const MicrokernelSet* avx512_bf16_microkernels() { return &kBfloatSet; }
}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MicrokernelSet* avx512_bf16_microkernels() { return nullptr; }
}  // namespace convoxel
#endif
