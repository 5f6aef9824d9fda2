// Products of blocks of bfloat16 by AVX-512's own instruction (VDPBF16PS), which adds two products to each of 16 sums.
//
// Its weights lie as a matrix unit's do: a vector holds a pair of elements for each of 16 columns. 8 rows by 2 vectors
// of columns take 16 registers of sums: enough to hide the instruction's latency, and 8 pairs of A, repeated as they
// are read, and 2 vectors of B serve 16 instructions.

constexpr int64_t kTileElements = MatrixUnit::kRows * MatrixUnit::kElements;  // of A, and of B
constexpr int kRegisterRows = 8;

CVX_INLINE __m512bh pairs(const uint16_t* p) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p)); }
CVX_INLINE __m512bh pair(const uint16_t* p) {
  int32_t both;
  __builtin_memcpy(&both, p, sizeof both);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

// Adds the products of one part of the rows of a step and one of its columns.
template <int N>
CVX_INLINE void multiply_step(const uint16_t* a, int64_t row, const uint16_t* b, __m512 (&sum)[kRegisterRows][N]) {
  for (int64_t e = 0; e < MatrixUnit::kElements; e += 2) {
    __m512bh columns[N];
    CVX_UNROLL for (int j = 0; j < N; ++j) columns[j] = pairs(b + j * kTileElements + e * MatrixUnit::kRows);
    CVX_UNROLL for (int i = 0; i < kRegisterRows; ++i) {
      const __m512bh both = pair(a + i * row + e);
      CVX_UNROLL for (int j = 0; j < N; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], columns[j], both);
    }
  }
}

template <int kParts, int N>
void multiply_rows(const BfloatProduct& p, const uint16_t* rows, const uint16_t* b, float* sums) {
  __m512 sum[kRegisterRows][N];
  CVX_UNROLL for (int i = 0; i < kRegisterRows; ++i) {
    CVX_UNROLL for (int j = 0; j < N; ++j) sum[i][j] = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < p.step_count; ++s) {
    const auto multiply = [&](int row_part, int column_part) CVX_LAMBDA {
      multiply_step<N>(rows + p.steps[s] + row_part * p.a_part, p.a_row,
                       b + (kParts - 1 - column_part) * N * kTileElements, sum);
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
  CVX_UNROLL for (int i = 0; i < kRegisterRows; ++i) {
    CVX_UNROLL for (int j = 0; j < N; ++j) _mm512_storeu_ps(sums + (i * 2 + j) * kV, sum[i][j]);
  }
}

// Writes the sums of R tiles of rows by N of columns over all steps into rows of 2 * 16 floats. b: the strip's first
// step.
template <int kParts, int R, int N>
void multiply_block(const BfloatProduct& p, const uint16_t* first, const uint16_t* second, const uint16_t* b,
                    float* sums) {
  for (int64_t i = 0; i < R * MatrixUnit::kRows; i += kRegisterRows) {
    const uint16_t* const tile = i < MatrixUnit::kRows ? first : second;
    multiply_rows<kParts, N>(p, tile + i % MatrixUnit::kRows * p.a_row, b, sums + i * 2 * kV);
  }
}

void begin_products() {}
void end_products() {}
