// Exact products of 8 bits on Intel's matrix unit (AMX): a product of tiles multiplies 16 rows of 64 levels with 16
// columns. Compiled where the compiler knows it; only processors that have it can run it.
#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__linux__)
#define CVX_VECTOR_BYTES 64

#include <immintrin.h>
#include <stdint.h>

#include "integer_unit.h"

namespace convoxel {
namespace {

#include "vec-inl.h"
#include "activation-inl.h"

// As of VNNI, whose weights lie as a tile's do: the words of 16 columns, one below the other.
constexpr int integer_rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
constexpr int kPanelVectors = 4;
constexpr int kWeightBytes = 1;

typedef __m512i Words;
typedef __m512i Levels4;

CVX_INLINE Words load_words(const uint8_t* p) { return _mm512_loadu_si512(p); }
CVX_INLINE Levels4 load_levels(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
CVX_INLINE IntVec add_products(IntVec sum, Levels4 levels, Words words) {
  return reinterpret_cast<IntVec>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), levels, words));
}

#include "integer-inl.h"

constexpr int64_t kRows = 16;    // of a tile
constexpr int64_t kLine = 64;    // bytes of a tile's row
constexpr int64_t kDeep = 16;    // words of a tile of levels, and rows of one of weights
constexpr int64_t kFewRows = 4;  // for which vectors are as fast

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Registers 0 to 3 hold the sums of 16 rows and four times 16 columns. Levels are in 4 and weights in 5; in 6 and 7
// where `rest` words are left of a tap.
void begin_tiles(int64_t rest) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = kLine;
    config.rows[i] = kRows;
  }
  if (rest > 0) {
    config.row_bytes[6] = static_cast<uint16_t>(4 * rest);
    config.rows[7] = static_cast<uint8_t>(rest);
  }
  _tile_loadconfig(&config);
}

// Adds the products of 16 rows and N vectors of columns over all taps to sums, rows of kTileColumns.
template <int N>
void multiply_tiles(const IntegerProduct& p, const uint8_t* const* rows, const uint8_t* b, int32_t* sums) {
  constexpr int64_t kSumStep = kTileColumns * 4;
  alignas(64) uint8_t levels[2][kRows * kLine];  // one is filled while the other is read
  _tile_loadd(0, sums, kSumStep);
  if (N > 1) _tile_loadd(1, sums + kV, kSumStep);
  if (N > 2) _tile_loadd(2, sums + 2 * kV, kSumStep);
  if (N > 3) _tile_loadd(3, sums + 3 * kV, kSumStep);
  const int64_t whole = p.words / kDeep * kDeep, rest = p.words - whole;
  const __mmask16 left = static_cast<__mmask16>((1u << rest) - 1u);
  int turn = 0;
  for (int64_t repeat = 0; repeat < p.repeats; ++repeat) {
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      const uint8_t* const* const a = rows + tap * kRows;
      for (int64_t word = 0; word < whole; word += kDeep, b += kDeep * N * kLine) {
        uint8_t* const to = levels[turn ^= 1];
        for (int64_t r = 0; r < kRows; ++r) {
          _mm512_store_si512(to + r * kLine, _mm512_loadu_si512(a[r] + word * 4));
        }
        _tile_loadd(4, to, kLine);
        _tile_loadd(5, b, N * kLine);
        _tile_dpbusd(0, 4, 5);
        if (N > 1) {
          _tile_loadd(5, b + kLine, N * kLine);
          _tile_dpbusd(1, 4, 5);
        }
        if (N > 2) {
          _tile_loadd(5, b + 2 * kLine, N * kLine);
          _tile_dpbusd(2, 4, 5);
        }
        if (N > 3) {
          _tile_loadd(5, b + 3 * kLine, N * kLine);
          _tile_dpbusd(3, 4, 5);
        }
      }
      if (rest == 0) continue;
      uint8_t* const to = levels[turn ^= 1];
      for (int64_t r = 0; r < kRows; ++r) {
        _mm512_store_si512(to + r * kLine, _mm512_maskz_loadu_epi32(left, a[r] + whole * 4));
      }
      _tile_loadd(6, to, kLine);
      _tile_loadd(7, b, N * kLine);
      _tile_dpbusd(0, 6, 7);
      if (N > 1) {
        _tile_loadd(7, b + kLine, N * kLine);
        _tile_dpbusd(1, 6, 7);
      }
      if (N > 2) {
        _tile_loadd(7, b + 2 * kLine, N * kLine);
        _tile_dpbusd(2, 6, 7);
      }
      if (N > 3) {
        _tile_loadd(7, b + 3 * kLine, N * kLine);
        _tile_dpbusd(3, 6, 7);
      }
      b += rest * N * kLine;
    }
  }
  _tile_stored(0, sums, kSumStep);
  if (N > 1) _tile_stored(1, sums + kV, kSumStep);
  if (N > 2) _tile_stored(2, sums + 2 * kV, kSumStep);
  if (N > 3) _tile_stored(3, sums + 3 * kV, kSumStep);
}

// Taps whose pointers are gathered at a time would need memory; a window of more taps is left to vectors.
constexpr int64_t kMostTaps = 125;

void tiled_product(const IntegerProduct& p) {
  if (p.taps > kMostTaps || p.taps == 0 || p.rows < kFewRows) return integer_product(p);
  constexpr void (*const kMultiply[])(const IntegerProduct&, const uint8_t* const*, const uint8_t*, int32_t*) = {
      nullptr, multiply_tiles<1>, multiply_tiles<2>, multiply_tiles<3>, multiply_tiles<4>};
  begin_tiles(p.words % kDeep);
  const Finish finish(p);
  const int64_t column_bytes = p.repeats * p.taps * p.words * 4;
  for (int64_t row = 0; row < p.rows; row += kRows) {
    const int64_t count = p.rows - row < kRows ? p.rows - row : kRows;
    // Rows that do not exist repeat the last one.
    const uint8_t* rows[kMostTaps * kRows];
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      for (int64_t r = 0; r < kRows; ++r) {
        rows[tap * kRows + r] = p.a[tap * p.a_step + row + (r < count ? r : count - 1)] + p.a_offset;
      }
    }
    for (int64_t begin = p.column_begin; begin < p.column_end; begin += kTileColumns) {
      const int64_t rest = p.column_end - begin, columns = rest < kTileColumns ? rest : kTileColumns;
      alignas(64) int32_t sums[kRows * kTileColumns] = {};
      for (int64_t r = 0; r < kRows; ++r) {
        __builtin_memcpy(sums + r * kTileColumns, p.start + begin, static_cast<size_t>(columns) * sizeof(int32_t));
      }
      kMultiply[(columns + kV - 1) / kV](p, rows, p.b + begin * column_bytes, sums);
      finish_rows(finish, row, count, begin, columns, sums);
    }
  }
  _tile_release();
}

constexpr IntegerUnit make_amx() {
  IntegerUnit unit = make_unit("amx", "16 x 16 x 64 products of 8 bits an instruction (AMX)");
  unit.product = tiled_product;
  return unit;
}

constexpr IntegerUnit kUnit = make_amx();

}  // namespace

const IntegerUnit* amx_integer_unit() { return &kUnit; }
}  // namespace convoxel
#else
#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* amx_integer_unit() { return nullptr; }
}  // namespace convoxel
#endif
