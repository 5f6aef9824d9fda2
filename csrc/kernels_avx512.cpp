// x86-64 with AVX-512 (F, VL, BW, DQ): 16 floats a vector.
#if defined(__AVX512F__) && defined(__AVX512VL__)
#define CVX_VECTOR_BYTES 64
#define CVX_REGISTERS 32
#define CVX_SET_NAME "avx512"
#include "kernels-inl.h"

namespace convoxel {
const KernelSet* avx512_kernels() { return &kSet; }
}  // namespace convoxel
#else
#include "kernels.h"
namespace convoxel {
const KernelSet* avx512_kernels() { return nullptr; }
}  // namespace convoxel
#endif
