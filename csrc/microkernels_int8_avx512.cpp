// Exact products of 8 bits as products of 16 bits, on AVX-512 without VNNI.
#if defined(__AVX512BW__) && defined(__AVX512F__)
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
constexpr int kWeightBytes = 2;

// VPMADDUBSW would take the levels as they are, but cuts sums off at 16 bits. So levels become numbers of 16 bits:
// those of channels 0 and 2, and those of 1 and 3.
struct Words {
  __m512i even, odd;
};
typedef Words Levels4;

CVX_INLINE int32_t word_at(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}
CVX_INLINE Words load_words(const uint8_t* p) { return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + kV * 4)}; }
CVX_INLINE Levels4 load_levels(const uint8_t* p) {
  const __m512i all = _mm512_set1_epi32(word_at(p));
  return {_mm512_and_si512(all, _mm512_set1_epi32(0x00FF00FF)), _mm512_srli_epi16(all, 8)};
}
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  const __m512i even = _mm512_madd_epi16(levels.even, words.even), odd = _mm512_madd_epi16(levels.odd, words.odd);
  return sum + reinterpret_cast<IntVec>(even) + reinterpret_cast<IntVec>(odd);
}

#include "integer-inl.h"

constexpr IntegerUnit kUnit = make_unit("avx512", "32 products of 16 bits an instruction (AVX-512)");

}  // namespace

const IntegerUnit* avx512_integer_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* avx512_integer_unit() { return nullptr; }
}  // namespace convoxel
#endif
