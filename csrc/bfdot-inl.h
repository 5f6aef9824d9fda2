// Products of blocks of bfloat16 by AVX-512's own instruction (VDPBF16PS), which adds two products to each of 16 sums.
//
// Its weights lie as a matrix unit's do: a vector holds a pair of elements for each of 16 columns. R rows by 2 vectors
// of columns take 2 R registers of sums; R pairs of A, repeated as they are read, and 2 vectors of B serve 2 R
// instructions. 8 rows hide the instruction's latency. More of them read B less often, which comes from L2 where a row
// is long; 14 fill the registers, and divide the sizes of usual images.

constexpr int64_t kTileElements = MatrixUnit::kRows * MatrixUnit::kElements;  // of B
constexpr int kLeastRows = 8, kMostRows = 14;
constexpr int kTogether = 1;  // tiles of rows that are multiplied together
constexpr int64_t kLineElements = 32;

CVX_INLINE __m512bh pairs(const uint16_t* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
CVX_INLINE __m512bh pair(const uint16_t* p) {
  int32_t both;
  __builtin_memcpy(&both, p, sizeof both);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

// Adds the products of one part of the rows of a step and one of its columns.
template <int R, int N>
CVX_INLINE void multiply_step(const uint16_t* a, int64_t row, const uint16_t* b, int64_t elements,
                              __m512 (&sum)[R][N]) {
  for (int64_t e = 0; e < elements; e += 2) {
    __m512bh columns[N];
    CVX_UNROLL for (int j = 0; j < N; ++j) columns[j] = pairs(b + j * kTileElements + e * MatrixUnit::kRows);
    CVX_UNROLL for (int i = 0; i < R; ++i) {
      const __m512bh both = pair(a + i * row + e);
      CVX_UNROLL for (int j = 0; j < N; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], columns[j], both);
    }
  }
}

// Computes a tile of R rows by N of columns. While it runs, some lines of the next strip come into L2.
template <int kParts, int R, int N>
CVX_INLINE void multiply_rows(const BfloatProduct& p, const uint16_t* rows, const uint16_t* b, Prefetch& next,
                              float* sums) {
  __m512 sum[R][N];
  CVX_UNROLL for (int i = 0; i < R; ++i) { CVX_UNROLL for (int j = 0; j < N; ++j) sum[i][j] = _mm512_setzero_ps(); }
  int64_t left = p.run;  // steps of the run
  for (int64_t s = 0; s < p.step_count; ++s) {
    const bool ends = --left == 0;
    const int64_t elements = ends ? p.last : MatrixUnit::kElements;
    if (ends) left = p.run;
    for (int64_t i = 0; i < next.lines; ++i) __builtin_prefetch(next.from + i * kLineElements, 0, 2);
    next.from += next.lines * kLineElements;
    const auto multiply = [&](int row_part, int column_part) CVX_LAMBDA {
      multiply_step<R, N>(rows + p.steps[s] + row_part * p.a_part, p.a_row,
                          b + (kParts - 1 - column_part) * N * kTileElements, elements, sum);
    };
    // In the order of amx-inl.h: small products first.
    if (kParts == 3) {
      multiply(0, 2);
      multiply(0, 1);
      multiply(1, 1);
      multiply(1, 0);
      multiply(2, 0);
      multiply(0, 0);
    } else if (kParts == 2) {
      multiply(0, 1);
      multiply(0, 0);
      multiply(1, 0);
    } else {
      multiply(0, 0);
    }
    b += kParts * N * kTileElements;
  }
  CVX_UNROLL for (int i = 0; i < R; ++i) {
    CVX_UNROLL for (int j = 0; j < N; ++j) _mm512_storeu_ps(sums + (i * 2 + j) * kV, sum[i][j]);
  }
}

// Writes the sums of a tile of rows by N of columns over all steps into rows of 2 * 16 floats. b: the strip's first
// step.
template <int kParts, int Tiles, int N>
void multiply_tiles(const BfloatProduct& p, int64_t tile, const uint16_t* b, Prefetch& next, float* sums) {
  const uint16_t* const rows = p.a + p.tiles[tile];
  each<kMostRows - kLeastRows + 1>([&](auto i) CVX_LAMBDA {
    constexpr int R = kLeastRows + decltype(i)::value;
    if (p.tile_rows == R) multiply_rows<kParts, R, N>(p, rows, b, next, sums);
  });
}

void begin_products() {}
void end_products() {}
