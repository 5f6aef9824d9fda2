// x86-64 with AVX-512 (F, VL, BW, DQ): 16 floats a vector.
#if defined(__AVX512F__) && defined(__AVX512VL__)
#define CVX_VECTOR_BYTES 64
#define CVX_REGISTERS 32
#define CVX_SET_NAME "avx512"
#include "microkernels-inl.h"

namespace convoxel {
const MicrokernelSet* avx512_microkernels() { return &kSet; }
}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MicrokernelSet* avx512_microkernels() { return nullptr; }
}  // namespace convoxel
#endif
