// Exact products of 8 bits by the same instruction as AVX-512's (VPDPBUSD), in vectors of AVX2.
#if defined(__AVXVNNI__) && defined(__AVX2__)
#define CVX_VECTOR_BYTES 32

#include <immintrin.h>
#include <stdint.h>

#include "integer_unit.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"

// 6 x 2 sums, 2 vectors of weights and one of levels take 15 of 16 registers.
constexpr int integer_rows(int vectors) { return vectors == 2 ? 6 : 12; }
constexpr int kPanelVectors = 2;
constexpr int kWeightBytes = 1;

typedef __m256i Words;
typedef __m256i Levels4;

CVX_INLINE int32_t word_at(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}
CVX_INLINE Words load_words(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
CVX_INLINE Levels4 load_levels(const uint8_t* p) { return _mm256_set1_epi32(word_at(p)); }
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  return reinterpret_cast<IntVec>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum), levels, words));
}

#include "integer-inl.h"

constexpr IntegerUnit kUnit = make_unit("avx_vnni", "32 products of 8 bits an instruction (AVX-VNNI)");

}  // namespace

const IntegerUnit* avx_vnni_integer_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* avx_vnni_integer_unit() { return nullptr; }
}  // namespace convoxel
#endif
