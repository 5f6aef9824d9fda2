// Any processor: 4 floats a vector, which is SSE2 on x86-64 and NEON on ARM64.
#define CVX_VECTOR_BYTES 16
#if defined(__aarch64__)
#define CVX_REGISTERS 32
#define CVX_SET_NAME "neon"
#else
#define CVX_REGISTERS 16
#define CVX_SET_NAME "portable"
#endif
#include "microkernels-inl.h"

namespace convoxel {
const MicrokernelSet* portable_microkernels() { return &kSet; }
}  // namespace convoxel
