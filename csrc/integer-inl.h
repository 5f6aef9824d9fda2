// The product of whole numbers of 8 bits and what follows it, once for all sets of instructions; integer_unit.h says
// what each function promises.
//
// Included inside the anonymous namespace of one unit's file, after vec-inl.h and activation-inl.h. That file defines
//   Words        the weights of one word and one vector of columns
//   Levels4      the levels of one word, repeated for all columns, as the unit multiplies them
//   load_words, load_levels, add_products
// and integer_rows (the rows of a tile of so many vectors), kPanelVectors, kWeightBytes.
//
// A tile of R rows by N vectors keeps its sums in registers over all taps and words: a step loads N vectors of weights
// and R words of levels for R * N products.

CVX_INLINE Vec to_float(IntVec x) { return __builtin_convertvector(x, Vec); }

// The nearest whole number of -2**22 < x < 2**22, halves to even.
CVX_INLINE IntVec nearest(Vec x) { return float_to_bits(x + splat(12582912.0f)) - 0x4B400000; }

// The level of a number in units of the scale; NaN becomes the level of zero.
CVX_INLINE IntVec level_of(Vec x, int32_t zero) {
  const Vec known = x == x ? x : Vec{};
  const Vec low = splat(static_cast<float>(-zero)), high = splat(static_cast<float>(255 - zero));
  return nearest(max(low, min(high, known))) + zero;
}

CVX_INLINE void store_levels(uint8_t* to, IntVec levels, int64_t lanes) {
#if defined(__AVX512F__) && CVX_VECTOR_BYTES == 64
  const __mmask16 mask = static_cast<__mmask16>((1u << lanes) - 1u);
  _mm512_mask_cvtepi32_storeu_epi8(to, mask, reinterpret_cast<__m512i>(levels));
#elif defined(__AVX2__) && CVX_VECTOR_BYTES == 32
  // Halves are packed on their own, so the two fours of bytes end up apart.
  const __m256i pairs = _mm256_packs_epi32(reinterpret_cast<__m256i>(levels), _mm256_setzero_si256());
  const __m256i bytes = _mm256_packus_epi16(pairs, _mm256_setzero_si256());
  const __m128i joined = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  uint8_t narrow[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(narrow), joined);
  if (lanes == kV) {
    __builtin_memcpy(to, narrow, kV);
  } else {
    for (int64_t i = 0; i < lanes; ++i) to[i] = narrow[i];
  }
#else
  int32_t wide[kV];
  __builtin_memcpy(wide, &levels, sizeof wide);
  uint8_t narrow[kV];
  for (int i = 0; i < kV; ++i) narrow[i] = static_cast<uint8_t>(wide[i]);
  if (lanes == kV) {
    __builtin_memcpy(to, narrow, kV);
  } else {
    for (int64_t i = 0; i < lanes; ++i) to[i] = narrow[i];
  }
#endif
}

CVX_INLINE IntVec load_as_numbers(const uint8_t* from, int64_t lanes) {
#if defined(__AVX512F__) && CVX_VECTOR_BYTES == 64
  const __mmask16 mask = static_cast<__mmask16>((1u << lanes) - 1u);
  return reinterpret_cast<IntVec>(_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_maskz_loadu_epi8(mask, from)));
#elif defined(__AVX2__) && CVX_VECTOR_BYTES == 32
  uint8_t narrow[16] = {};
  if (lanes == kV) {
    __builtin_memcpy(narrow, from, kV);
  } else {
    for (int64_t i = 0; i < lanes; ++i) narrow[i] = from[i];
  }
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(narrow));
  return reinterpret_cast<IntVec>(_mm256_cvtepu8_epi32(bytes));
#else
  int32_t wide[kV] = {};
  if (lanes == kV) {
    for (int i = 0; i < kV; ++i) wide[i] = from[i];
  } else {
    for (int64_t i = 0; i < lanes; ++i) wide[i] = from[i];
  }
  IntVec numbers;
  __builtin_memcpy(&numbers, wide, sizeof wide);
  return numbers;
#endif
}

CVX_INLINE Vec load_as_floats(const uint8_t* from, int64_t lanes) { return to_float(load_as_numbers(from, lanes)); }

CVX_INLINE IntVec load_numbers(const void* from) {
  IntVec numbers;
  __builtin_memcpy(&numbers, from, sizeof numbers);
  return numbers;
}

// The sum of the products of both halves of each lane, numbers of 16 bits.
CVX_INLINE IntVec multiply_halves(IntVec a, IntVec b) {
#if defined(__AVX512BW__) && CVX_VECTOR_BYTES == 64
  return reinterpret_cast<IntVec>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__) && CVX_VECTOR_BYTES == 32
  return reinterpret_cast<IntVec>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__) && CVX_VECTOR_BYTES == 16
  return reinterpret_cast<IntVec>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  return (a & 0xFFFF) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

constexpr int64_t kTileColumns = kPanelVectors * kV;

// What makes results of sums, made once for a product.
struct Finish {
  const IntegerProduct& p;
  Vec slope, inverse, residual_scale, residual_zero;

  explicit Finish(const IntegerProduct& product)
      : p(product),
        slope(splat(product.activation.slope)),
        inverse(splat(1.0f / product.result.scale)),
        residual_scale(splat(product.residual_as.scale)),
        residual_zero(splat(static_cast<float>(product.residual_as.zero))) {}

  // One vector of columns of a row. Whole: all of its lanes exist.
  template <bool Whole>
  CVX_INLINE Vec value(int64_t row, int64_t n, int64_t lanes, const int32_t* sums) const {
    const auto numbers = [&](const float* from) CVX_LAMBDA { return Whole ? load(from) : load_part(from, lanes); };
    IntVec sum;
    __builtin_memcpy(&sum, sums, sizeof sum);
    Vec x = to_float(sum) * numbers(p.scale + n);
    if (p.bias != nullptr) x += numbers(p.bias + n);
    if (p.residual == nullptr) return x;
    const float* const residual = p.residual[row];
    const int64_t at = p.c_offset + n;
    if (!p.residual_levels) return x + numbers(residual + at);
    const Vec levels = load_as_floats(reinterpret_cast<const uint8_t*>(residual) + at, Whole ? kV : lanes);
    return x + (levels - residual_zero) * residual_scale;
  }

  template <bool Whole>
  CVX_INLINE void put(int64_t row, int64_t n, int64_t lanes, Vec x) const {
    const int64_t at = p.c_offset + n;
    if (p.levels) {
      uint8_t* const to = reinterpret_cast<uint8_t*>(p.c[row]) + at;
      store_levels(to, level_of(x * inverse, p.result.zero), Whole ? kV : lanes);
    } else if (Whole) {
      store(p.c[row] + at, x);
    } else {
      store_part(p.c[row] + at, x, lanes);
    }
  }
};

// Makes results of the sums of `rows` rows, kTileColumns apart, and stores them.
void finish_rows(const Finish& f, int64_t row, int64_t rows, int64_t begin, int64_t count, const int32_t* sums) {
  const IntegerProduct& p = f.p;
  if (p.scale == nullptr) {
    for (int64_t r = 0; r < rows; ++r) {
      __builtin_memcpy(p.c[row + r] + p.c_offset + begin, sums + r * kTileColumns,
                       static_cast<size_t>(count) * sizeof(int32_t));
    }
    return;
  }
  if (!p.activation.is_cheap()) {
    for (int64_t r = 0; r < rows; ++r) {
      float values[kTileColumns > 4 * kV ? kTileColumns : 4 * kV];  // activate looks at blocks of four vectors
      const int32_t* of_row = sums + r * kTileColumns;
      for (int64_t i = 0; i < count; i += kV) {
        store(values + i, f.value<false>(row + r, begin + i, count - i < kV ? count - i : kV, of_row + i));
      }
      activate(values, count, p.activation);
      for (int64_t i = 0; i < count; i += kV) {
        f.put<false>(row + r, begin + i, count - i < kV ? count - i : kV, load(values + i));
      }
    }
    return;
  }
  with_cheap(p.activation.kind, [&](auto kind) CVX_LAMBDA {
    constexpr ActivationKind kKind = static_cast<ActivationKind>(decltype(kind)::value);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t* of_row = sums + r * kTileColumns;
      int64_t i = 0;
      for (; i + kV <= count; i += kV) {
        const Vec x = f.value<true>(row + r, begin + i, kV, of_row + i);
        f.put<true>(row + r, begin + i, kV, apply_cheap(x, kKind, f.slope));
      }
      if (i < count) {
        const Vec x = f.value<false>(row + r, begin + i, count - i, of_row + i);
        f.put<false>(row + r, begin + i, count - i, apply_cheap(x, kKind, f.slope));
      }
    }
  });
}

template <int R, int N>
void integer_tile(const Finish& f, int64_t row, int64_t begin, int64_t count, const uint8_t* b) {
  const IntegerProduct& p = f.p;
  IntVec sum[R][N];
  CVX_UNROLL for (int j = 0; j < N; ++j) {
    // Columns beyond the last one have no start.
    const int64_t lanes = count - j * kV;
    int32_t first[kV] = {};
    if (lanes >= kV) {
      __builtin_memcpy(first, p.start + begin + j * kV, sizeof first);
    } else {
      for (int64_t i = 0; i < lanes; ++i) first[i] = p.start[begin + j * kV + i];
    }
    IntVec start;
    __builtin_memcpy(&start, first, sizeof start);
    CVX_UNROLL for (int r = 0; r < R; ++r) { sum[r][j] = start; }
  }
  constexpr int64_t kStep = kV * 4 * kWeightBytes;
  for (int64_t repeat = 0; repeat < p.repeats; ++repeat) {
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      const uint8_t* a[R];
      CVX_UNROLL for (int r = 0; r < R; ++r) { a[r] = p.a[tap * p.a_step + row + r] + p.a_offset; }
      for (int64_t k = 0; k < p.words * 4; k += 4) {
        Words columns[N];
        CVX_UNROLL for (int j = 0; j < N; ++j) { columns[j] = load_words(b + j * kStep); }
        b += N * kStep;
        CVX_UNROLL for (int r = 0; r < R; ++r) {
          const Levels4 levels = load_levels(a[r] + k);
          CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] = add_products(sum[r][j], levels, columns[j]); }
        }
      }
    }
  }
  alignas(64) int32_t sums[R * kTileColumns];
  CVX_UNROLL for (int r = 0; r < R; ++r) {
    CVX_UNROLL for (int j = 0; j < N; ++j) {
      __builtin_memcpy(sums + r * kTileColumns + j * kV, &sum[r][j], sizeof sum[r][j]);
    }
  }
  finish_rows(f, row, R, begin, count, sums);
}

typedef void (*IntegerTile)(const Finish&, int64_t, int64_t, int64_t, const uint8_t*);

template <int N, int R>
struct IntegerTiles {
  static constexpr void fill(IntegerTile* table) {
    table[R] = integer_tile<R, N>;
    IntegerTiles<N, R - 1>::fill(table);
  }
};
template <int N>
struct IntegerTiles<N, 0> {
  static constexpr void fill(IntegerTile*) {}
};
constexpr int kMostRows = integer_rows(1);  // of all tiles
template <int N>
struct IntegerPanels {
  static constexpr void fill(IntegerTile (*table)[kMostRows + 1]) {
    IntegerTiles<N, integer_rows(N)>::fill(table[N]);
    IntegerPanels<N - 1>::fill(table);
  }
};
template <>
struct IntegerPanels<0> {
  static constexpr void fill(IntegerTile (*)[kMostRows + 1]) {}
};
struct IntegerTable {
  IntegerTile run[kPanelVectors + 1][kMostRows + 1] = {};
  constexpr IntegerTable() { IntegerPanels<kPanelVectors>::fill(run); }
};
constexpr IntegerTable kIntegerTiles;

void integer_product(const IntegerProduct& p) {
  const Finish finish(p);
  const int64_t column_bytes = p.repeats * p.taps * p.words * 4 * kWeightBytes;
  for (int64_t begin = p.column_begin; begin < p.column_end; begin += kTileColumns) {
    const int64_t rest = p.column_end - begin, count = rest < kTileColumns ? rest : kTileColumns;
    const int vectors = static_cast<int>((count + kV - 1) / kV);
    const int64_t most = integer_rows(vectors);
    for (int64_t row = 0; row < p.rows;) {
      const int64_t left = p.rows - row;
      const int64_t rows = left < most ? left : most;
      kIntegerTiles.run[vectors][rows](finish, row, begin, count, p.b + begin * column_bytes);
      row += rows;
    }
  }
}

// R rows of a vector of columns. Whole: all of its lanes exist. The weights of all taps serve R rows at a time.
template <int R, bool Whole>
CVX_INLINE void depthwise_sums(const IntegerProduct& p, int64_t row, int64_t n, int64_t lanes, int32_t* sums) {
  const int64_t count = Whole ? kV : lanes;
  int32_t first[kV] = {};
  __builtin_memcpy(first, p.start + n, static_cast<size_t>(count) * sizeof(int32_t));
  IntVec sum[R];
  CVX_UNROLL for (int r = 0; r < R; ++r) { sum[r] = load_numbers(first); }
  const auto levels = [&](int64_t tap, int64_t r)
                          CVX_LAMBDA { return load_as_numbers(p.a[tap * p.a_step + row + r] + p.a_offset + n, count); };
  const uint8_t* b = p.b + n * 4;
  int64_t tap = 0;
  for (; tap + 2 <= p.taps; tap += 2, b += p.words * 4) {
    const IntVec weights = load_numbers(b);
    CVX_UNROLL for (int r = 0; r < R; ++r) {
      sum[r] += multiply_halves(levels(tap, r) + (levels(tap + 1, r) << 16), weights);
    }
  }
  if (tap < p.taps) {
    const IntVec weights = load_numbers(b);
    CVX_UNROLL for (int r = 0; r < R; ++r) { sum[r] += multiply_halves(levels(tap, r), weights); }
  }
  CVX_UNROLL for (int r = 0; r < R; ++r) { __builtin_memcpy(sums + r * kTileColumns, &sum[r], sizeof sum[r]); }
}

template <int R>
void depthwise_rows(const Finish& f, int64_t row, int64_t begin, int64_t count) {
  alignas(64) int32_t sums[R * kTileColumns];
  int64_t i = 0;
  for (; i + kV <= count; i += kV) depthwise_sums<R, true>(f.p, row, begin + i, kV, sums + i);
  if (i < count) depthwise_sums<R, false>(f.p, row, begin + i, count - i, sums + i);
  finish_rows(f, row, R, begin, count, sums);
}

void depthwise_product(const IntegerProduct& p) {
  constexpr int kRows = 4;  // 4 sums, and of each 2 vectors of levels
  const Finish finish(p);
  int64_t row = 0;
  for (; row < p.rows; row += row + kRows <= p.rows ? kRows : 1) {
    const auto run = row + kRows <= p.rows ? depthwise_rows<kRows> : depthwise_rows<1>;
    for (int64_t begin = p.column_begin; begin < p.column_end; begin += kTileColumns) {
      const int64_t rest = p.column_end - begin;
      run(finish, row, begin, rest < kTileColumns ? rest : kTileColumns);
    }
  }
}

void quantise_levels(const LevelRows& r) {
  const Vec scale = splat(r.levels.scale);
  for (int64_t row = 0; row < r.rows; ++row) {
    const float* src = r.src + row * r.src_step;
    uint8_t* dst = reinterpret_cast<uint8_t*>(r.dst + row * r.dst_step);
    int64_t i = 0;
    for (; i + kV <= r.channels; i += kV) store_levels(dst + i, level_of(load(src + i) / scale, r.levels.zero), kV);
    if (i < r.channels) {
      const int64_t lanes = r.channels - i;
      store_levels(dst + i, level_of(load_part(src + i, lanes) / scale, r.levels.zero), lanes);
    }
  }
}

void dequantise_levels(const LevelRows& r) {
  const Vec scale = splat(r.levels.scale), zero = splat(static_cast<float>(r.levels.zero));
  for (int64_t row = 0; row < r.rows; ++row) {
    const uint8_t* src = reinterpret_cast<const uint8_t*>(r.src + row * r.src_step);
    float* dst = r.dst + row * r.dst_step;
    int64_t i = 0;
    for (; i + kV <= r.channels; i += kV) store(dst + i, (load_as_floats(src + i, kV) - zero) * scale);
    if (i < r.channels) {
      const int64_t lanes = r.channels - i;
      store_part(dst + i, (load_as_floats(src + i, lanes) - zero) * scale, lanes);
    }
  }
}

constexpr IntegerUnit make_unit(const char* name, const char* summary) {
  return {name,
          summary,
          kV,
          kPanelVectors,
          integer_rows(kPanelVectors),
          kWeightBytes,
          integer_product,
          depthwise_product,
          quantise_levels,
          dequantise_levels};
}
