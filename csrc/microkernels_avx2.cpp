// x86-64 with AVX2 and FMA: 8 floats a vector.
#if defined(__AVX2__) && defined(__FMA__)
#define CVX_VECTOR_BYTES 32
#define CVX_REGISTERS 16
#define CVX_SET_NAME "avx2"
#include "microkernels-inl.h"

namespace convoxel {
const MicrokernelSet* avx2_microkernels() { return &kSet; }
}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MicrokernelSet* avx2_microkernels() { return nullptr; }
}  // namespace convoxel
#endif
