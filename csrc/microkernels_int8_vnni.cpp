// Exact products of 8 bits by AVX-512's own instruction (VPDPBUSD), which adds four products to each of 16 sums.
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define CVX_VECTOR_BYTES 64

#include <immintrin.h>
#include <stdint.h>

#include "integer_unit.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"

// 6 x 4 sums, 4 vectors of weights and one of levels take 29 of 32 registers; so do 8 x 3 and 12 x 2 about.
constexpr int integer_rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
constexpr int kPanelVectors = 4;
constexpr int kWeightBytes = 1;

typedef __m512i Words;
typedef __m512i Levels4;

CVX_INLINE int32_t word_at(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}
CVX_INLINE Words load_words(const uint8_t* p) { return _mm512_loadu_si512(p); }
CVX_INLINE Levels4 load_levels(const uint8_t* p) { return _mm512_set1_epi32(word_at(p)); }
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  return reinterpret_cast<IntVec>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), levels, words));
}

#include "integer-inl.h"

constexpr IntegerUnit kUnit = make_unit("vnni", "64 products of 8 bits an instruction (AVX-512 VNNI)");

}  // namespace

const IntegerUnit* vnni_integer_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* vnni_integer_unit() { return nullptr; }
}  // namespace convoxel
#endif
