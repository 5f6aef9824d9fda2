// The instruction sets that this processor can run. This file is compiled for the plainest machine, since it runs
// before a set is chosen.
#include "microkernels.h"

#include "system.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace convoxel {
namespace {

#if defined(__x86_64__)
// Whether the processor multiplies bfloat16 in vectors, and converts to it. Compilers before g++ 10 have no name for
// it.
bool has_bfloat() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}

// Whether it has matrix registers, too, and products of bfloat16 in them.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool registers = (d >> 24 & 1) != 0, products = (d >> 22 & 1) != 0;
  return registers && products && has_bfloat();
}

// Those of AVX-512 for bfloat16 with the matrix unit; null if there is none.
const MicrokernelSet* amx_microkernels() {
  static const MatrixUnit* const unit =
      avx512_bf16_microkernels() != nullptr && has_amx() && request_matrix_registers() ? amx_unit() : nullptr;
  static const MicrokernelSet set = [] {
    MicrokernelSet all = *(unit != nullptr ? avx512_bf16_microkernels() : avx512_microkernels());
    all.name = "amx";
    all.matrix_unit = unit;
    return all;
  }();
  return unit != nullptr ? &set : nullptr;
}
#endif

}  // namespace

MicrokernelSetList available_microkernels() {
  MicrokernelSetList list{};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (avx512_microkernels() != nullptr && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    if (amx_microkernels() != nullptr) list.sets[list.count++] = amx_microkernels();
    if (avx512_bf16_microkernels() != nullptr && has_bfloat()) list.sets[list.count++] = avx512_bf16_microkernels();
    list.sets[list.count++] = avx512_microkernels();
  }
  if (avx2_microkernels() != nullptr && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    list.sets[list.count++] = avx2_microkernels();
  }
#endif
  list.sets[list.count++] = portable_microkernels();
  return list;
}

}  // namespace convoxel
