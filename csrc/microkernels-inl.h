// All microkernels of one instruction set. A file that includes this defines CVX_VECTOR_BYTES, CVX_REGISTERS and
// CVX_SET_NAME, and is compiled with the set's flags. microkernels.h holds the contracts.
//
// Nothing below uses templates of the standard library: their instantiations have external (weak) linkage, and the
// linker could keep the copy that this machine cannot run.

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "microkernels.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"
#include "product-inl.h"
#include "outer-inl.h"
#include "fixed24-inl.h"
#include "depthwise-inl.h"
#include "planar-inl.h"
#include "winograd-inl.h"
#include "fft-inl.h"
#include "gather-inl.h"
#include "elementwise-inl.h"
#include "transpose-inl.h"
#include "channels-inl.h"

double fma_burst(int64_t rounds) {
  constexpr int kChains = 12;  // more than latency (4) x units (2), and fewer than 16 registers
  Vec sum[kChains];
  CVX_UNROLL for (int i = 0; i < kChains; ++i) { sum[i] = splat(static_cast<float>(i)); }
  Vec factor = splat(0.999f);
  Vec term = splat(0.001f);
  for (int64_t k = 0; k < rounds; ++k) {
    // Keeps the compiler from summing the series itself.
    asm volatile("" : "+" CVX_VECTOR_REGISTER(factor), "+" CVX_VECTOR_REGISTER(term));
    CVX_UNROLL for (int i = 0; i < kChains; ++i) { sum[i] = sum[i] * factor + term; }
  }
  CVX_UNROLL for (int i = 0; i < kChains; ++i) { asm volatile("" : : CVX_VECTOR_REGISTER(sum[i])); }
  return 2.0 * kChains * kV * static_cast<double>(rounds);
}

constexpr MicrokernelSet make_set() {
  MicrokernelSet set{};
  set.name = CVX_SET_NAME;
  set.vector_floats = kV;
  set.panel_vectors = kPanelVectors;
  set.tile_rows = tile_rows(kPanelVectors);
  set.registers = CVX_REGISTERS;
#define MICROKERNEL(result, microkernel, ...) set.microkernel = microkernel;
#include "microkernel_list.h"
#define ROW_MICROKERNEL(result, microkernel, ...) \
  set.floats.microkernel = microkernel<float>;    \
  set.bfloats.microkernel = microkernel<Bfloat16>;
#include "row_microkernel_list.h"
  return set;
}

constexpr MicrokernelSet kSet = make_set();

}  // namespace
}  // namespace convoxel
