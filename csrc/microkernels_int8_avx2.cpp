// Exact products of 8 bits as products of 16 bits, on AVX2.
#if defined(__AVX2__) && defined(__FMA__)
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
constexpr int kWeightBytes = 2;

// VPMADDUBSW would take the levels as they are, but cuts sums off at 16 bits. So levels become numbers of 16 bits:
// those of channels 0 and 2, and those of 1 and 3.
struct Words {
  __m256i even, odd;
};
typedef Words Levels4;

CVX_INLINE int32_t word_at(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}
CVX_INLINE Words load_words(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + kV * 4))};
}
CVX_INLINE Levels4 load_levels(const uint8_t* p) {
  const __m256i all = _mm256_set1_epi32(word_at(p));
  return {_mm256_and_si256(all, _mm256_set1_epi32(0x00FF00FF)), _mm256_srli_epi16(all, 8)};
}
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  const __m256i even = _mm256_madd_epi16(levels.even, words.even), odd = _mm256_madd_epi16(levels.odd, words.odd);
  return sum + reinterpret_cast<IntVec>(even) + reinterpret_cast<IntVec>(odd);
}

#include "integer-inl.h"

constexpr IntegerUnit kUnit = make_unit("avx2", "16 products of 16 bits an instruction (AVX2)");

}  // namespace

const IntegerUnit* avx2_integer_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* avx2_integer_unit() { return nullptr; }
}  // namespace convoxel
#endif
