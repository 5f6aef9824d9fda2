// Which kernel sets this processor can run. Compiled for the plainest machine: it runs before the choice is made.
#include "kernels.h"

namespace convoxel {

KernelSetList available_kernels() {
  KernelSetList list{};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (avx512_kernels() != nullptr && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    list.sets[list.count++] = avx512_kernels();
  }
  if (avx2_kernels() != nullptr && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    list.sets[list.count++] = avx2_kernels();
  }
#endif
  list.sets[list.count++] = portable_kernels();
  return list;
}

}  // namespace convoxel
