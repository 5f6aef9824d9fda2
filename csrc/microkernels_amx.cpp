// Intel's matrix unit (AMX, bfloat16), beside AVX-512.
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define CVX_VECTOR_BYTES 64

#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "microkernels.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"
#include "amx-inl.h"
#include "bfloat-inl.h"

const MatrixUnit kUnit = {true, MatrixUnit::kRows, MatrixUnit::kRows, split, multiply};

}  // namespace

const MatrixUnit* amx_unit() {
  // The registers are large, so Linux gives them only to processes that ask. It refuses if a thread's signal stack is
  // too small to save them.
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0 ? &kUnit : nullptr;
}

}  // namespace convoxel
#else
#include "microkernels.h"
namespace convoxel {
const MatrixUnit* amx_unit() { return nullptr; }
}  // namespace convoxel
#endif
