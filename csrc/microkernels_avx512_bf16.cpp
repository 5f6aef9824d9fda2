// Products of bfloat16 by AVX-512's own instruction, beside AVX-512.
#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define CVX_VECTOR_BYTES 64

#include <immintrin.h>
#include <stdint.h>

#include "microkernels.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"
#include "bfdot-inl.h"
#include "bfloat-inl.h"

const MatrixUnit kUnit = {false, split, product};

}  // namespace

const MatrixUnit* bfdot_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MatrixUnit* bfdot_unit() { return nullptr; }
}  // namespace convoxel
#endif
