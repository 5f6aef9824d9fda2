// Exact products of 8 bits as products of 16 bits (x86-64) or of 32 bits, on any processor.
#define CVX_VECTOR_BYTES 16

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include <stdint.h>

#include "integer_unit.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"

constexpr int integer_rows(int vectors) { return vectors == 2 ? 4 : 6; }
constexpr int kPanelVectors = 2;

#if defined(__SSE2__)
// Every x86-64 multiplies pairs of 16 bits: see microkernels_int8_avx2.cpp.
constexpr int kWeightBytes = 2;

struct Words {
  __m128i even, odd;
};
typedef Words Levels4;

CVX_INLINE Words load_words(const uint8_t* p) {
  return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)),
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + kV * 4))};
}
CVX_INLINE Levels4 load_levels(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  const __m128i all = _mm_set1_epi32(word);
  return {_mm_and_si128(all, _mm_set1_epi32(0x00FF00FF)), _mm_srli_epi16(all, 8)};
}
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  const __m128i even = _mm_madd_epi16(levels.even, words.even), odd = _mm_madd_epi16(levels.odd, words.odd);
  return sum + reinterpret_cast<IntVec>(even) + reinterpret_cast<IntVec>(odd);
}
#else
constexpr int kWeightBytes = 4;

struct Words {
  IntVec channel[4];
};
struct Levels4 {
  IntVec channel[4];
};

CVX_INLINE Words load_words(const uint8_t* p) {
  Words words;
  __builtin_memcpy(&words, p, sizeof words);
  return words;
}
CVX_INLINE Levels4 load_levels(const uint8_t* p) {
  Levels4 levels;
  CVX_UNROLL for (int c = 0; c < 4; ++c) { levels.channel[c] = IntVec{} + static_cast<int32_t>(p[c]); }
  return levels;
}
CVX_INLINE IntVec add_products(IntVec sum, const Levels4& levels, const Words& words) {
  CVX_UNROLL for (int c = 0; c < 4; ++c) { sum += words.channel[c] * levels.channel[c]; }
  return sum;
}
#endif

#include "integer-inl.h"

constexpr IntegerUnit kUnit = make_unit("portable", "products of 16 or 32 bits, on any processor");

}  // namespace

const IntegerUnit* portable_integer_unit() { return &kUnit; }
}  // namespace convoxel
