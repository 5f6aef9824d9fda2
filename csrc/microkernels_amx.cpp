// Intel's matrix unit (AMX, bfloat16), beside AVX-512.
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define CVX_VECTOR_BYTES 64

#include <immintrin.h>
#include <stdint.h>

#include "microkernels.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"
#include "amx-inl.h"
#include "bfloat-inl.h"

const MatrixUnit kUnit = {true, MatrixUnit::kRows, MatrixUnit::kRows, split, multiply};

}  // namespace

const MatrixUnit* amx_unit() { return &kUnit; }

}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MatrixUnit* amx_unit() { return nullptr; }
}  // namespace convoxel
#endif
