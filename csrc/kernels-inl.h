// All kernels of one instruction set. A file that includes this defines CVX_VECTOR_BYTES and CVX_SET_NAME, and is
// compiled with the set's flags; see kernels.h for what each kernel promises.
//
// Nothing from the standard library's templates is used below: their instantiations have external (weak) linkage, and
// the linker could keep the copy that this machine cannot run.

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "product-inl.h"
#include "depthwise-inl.h"
#include "winograd-inl.h"

void copy_rows(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t floats) {
  const int64_t whole = floats / kV * kV;
  const int64_t rest = floats - whole;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < whole; j += kV) store(dst + i * dst_step + j, load(src + i * src_step + j));
    if (rest > 0) store_part(dst + i * dst_step + whole, load_part(src + i * src_step + whole, rest), rest);
  }
}

void scale_rows(float* dst, const float* src, const float* factors, int64_t rows, int64_t channels, int64_t columns) {
  int64_t channel = 0;
  for (int64_t k = 0; k < rows; ++k) {
    const Vec factor = splat(factors[channel]);
    if (++channel == channels) channel = 0;
    for (int64_t j = 0; j < columns; j += kV) store(dst + j, load(src + j) * factor);
    dst += columns;
    src += columns;
  }
}

void gather_max(float* dst, const float* const* rows, int64_t taps, int64_t channels) {
  int64_t c = 0;
  for (; c + kV <= channels; c += kV) {
    Vec best = load(rows[0] + c);
    for (int64_t t = 1; t < taps; ++t) best = max_or_nan(best, load(rows[t] + c));
    store(dst + c, best);
  }
  if (const int64_t rest = channels - c; rest > 0) {
    Vec best = load_part(rows[0] + c, rest);
    for (int64_t t = 1; t < taps; ++t) best = max_or_nan(best, load_part(rows[t] + c, rest));
    store_part(dst + c, best, rest);
  }
}

// Sums of up to kRun terms, then the sum of those: a global average over a volume adds a quarter of a million terms.
template <class Load>
CVX_INLINE Vec weighted_sum(const float* weight, int64_t taps, const Load& row) {
  constexpr int64_t kRun = 64;
  Vec total{};
  for (int64_t begin = 0; begin < taps; begin += kRun) {
    const int64_t end = begin + kRun < taps ? begin + kRun : taps;
    Vec sum{};
    for (int64_t t = begin; t < end; ++t) sum += splat(weight[t]) * row(t);
    total += sum;
  }
  return total;
}

void gather_sum(float* dst, const float* const* rows, const float* weight, int64_t taps, int64_t channels) {
  int64_t c = 0;
  for (; c + kV <= channels; c += kV) {
    store(dst + c, weighted_sum(weight, taps, [&](int64_t t) { return load(rows[t] + c); }));
  }
  if (const int64_t rest = channels - c; rest > 0) {
    store_part(dst + c, weighted_sum(weight, taps, [&](int64_t t) { return load_part(rows[t] + c, rest); }), rest);
  }
}

CVX_INLINE Vec combine_one(Combine op, Vec a, Vec b) { return op == Combine::kAdd ? a + b : a * b; }

void combine(Combine op, float* dst, const float* a, const float* b, int b_step, int64_t count, Activation act) {
  const Vec slope = splat(act.slope);
  int64_t i = 0;
  for (; i + kV <= count; i += kV) {
    const Vec right = b_step == 0 ? splat(*b) : load(b + i);
    store(dst + i, apply_any(combine_one(op, load(a + i), right), act.kind, slope));
  }
  if (const int64_t rest = count - i; rest > 0) {
    const Vec right = b_step == 0 ? splat(*b) : load_part(b + i, rest);
    store_part(dst + i, apply_any(combine_one(op, load_part(a + i, rest), right), act.kind, slope), rest);
  }
}

void affine(float* dst, const float* src, const float* scale, const float* shift, int64_t count, Activation act) {
  const Vec slope = splat(act.slope);
  int64_t i = 0;
  for (; i + kV <= count; i += kV) {
    store(dst + i, apply_any(load(src + i) * load(scale + i) + load(shift + i), act.kind, slope));
  }
  if (const int64_t rest = count - i; rest > 0) {
    const Vec value = load_part(src + i, rest) * load_part(scale + i, rest) + load_part(shift + i, rest);
    store_part(dst + i, apply_any(value, act.kind, slope), rest);
  }
}

// Sums of up to 64 rows stay in float; beyond that they go to the double totals, so that the error does not grow
// with the size of the image.
void moment(double* total, const float* src, int64_t rows, int64_t step, int64_t channels, const float* centre,
            int power) {
  constexpr int64_t kRun = 64;
  for (int64_t begin = 0; begin < rows; begin += kRun) {
    const int64_t end = begin + kRun < rows ? begin + kRun : rows;
    for (int64_t c = 0; c < channels; c += kV) {
      const int64_t lanes = channels - c < kV ? channels - c : kV;
      const Vec middle = lanes == kV ? load(centre + c) : load_part(centre + c, lanes);
      Vec sum{};
      for (int64_t r = begin; r < end; ++r) {
        const float* p = src + r * step + c;
        const Vec value = (lanes == kV ? load(p) : load_part(p, lanes)) - middle;
        sum += power == 1 ? value : value * value;
      }
      float lane[kV];
      store(lane, sum);
      for (int64_t i = 0; i < lanes; ++i) total[c + i] += lane[i];
    }
  }
}

void transpose(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t columns) {
  // Blocks of 16 x 16 floats: whole cache lines on both sides, and the compiler vectorises the inner loop.
  constexpr int64_t kBlock = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const int64_t i1 = i0 + kBlock < rows ? i0 + kBlock : rows;
    for (int64_t j0 = 0; j0 < columns; j0 += kBlock) {
      const int64_t j1 = j0 + kBlock < columns ? j0 + kBlock : columns;
      for (int64_t j = j0; j < j1; ++j) {
        for (int64_t i = i0; i < i1; ++i) dst[j * dst_step + i] = src[i * src_step + j];
      }
    }
  }
}

double fma_burst(int64_t rounds) {
  constexpr int kChains = 12;  // more than latency (4) x units (2), and fewer than 16 registers
  Vec sum[kChains];
  CVX_UNROLL for (int i = 0; i < kChains; ++i) { sum[i] = splat(static_cast<float>(i)); }
  Vec factor = splat(0.999f);
  Vec term = splat(0.001f);
  for (int64_t k = 0; k < rounds; ++k) {
    asm volatile("" : "+x"(factor), "+x"(term));  // keeps the compiler from summing the series itself
    CVX_UNROLL for (int i = 0; i < kChains; ++i) { sum[i] = sum[i] * factor + term; }
  }
  CVX_UNROLL for (int i = 0; i < kChains; ++i) { asm volatile("" : : "x"(sum[i])); }
  return 2.0 * kChains * kV * static_cast<double>(rounds);
}

const KernelSet kSet = {
    CVX_SET_NAME,    kV,         kPanelVectors, tile_rows(kPanelVectors),
    CVX_REGISTERS,   product,    depthwise,     copy_rows,
    scale_rows,      gather_max, gather_sum,    combine,
    affine,          moment,     transpose,     winograd_input,
    winograd_output, fma_burst,
};

}  // namespace
}  // namespace convoxel
