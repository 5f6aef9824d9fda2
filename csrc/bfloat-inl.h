// Splits floats into sums of bfloat16 and multiplies those on a matrix unit; microkernels.h says what each function
// promises.
//
// A block is 2 tiles of rows by 2 of columns: 4 of the 8 registers hold its sums, 2 hold a part of the rows, 2 a part
// of the columns. The parts are loaded in an order in which every load serves two products: with three parts a step
// takes 14 loads for its 24 products, with two parts 8 loads for 12.

constexpr int64_t kTileElements = MatrixUnit::kRows * MatrixUnit::kElements;  // of A, and of B
constexpr int64_t kLineBytes = 64;

// Splits the first part off 2 * 16 floats. Rounds to nearest, ties away from zero. The last part is the remainder,
// rounded once more where it has too many digits. NaN stays NaN in one of the parts.
CVX_INLINE __m512i take_part(__m512* first, __m512* second) {
  const __m512i round = _mm512_set1_epi32(0x8000), keep = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  const auto nearest = [&](__m512 x) CVX_LAMBDA {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), round), keep));
  };
  const __m512 a = nearest(*first), b = nearest(*second);
  *first = _mm512_sub_ps(*first, a);
  *second = _mm512_sub_ps(*second, b);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
}

template <int kParts, bool kScaled>
CVX_INLINE void split_row(const BfloatRows& r, const float* src, uint16_t* dst) {
  const auto split = [&](int64_t i, __m512 a, __m512 b, const auto& put) CVX_LAMBDA {
    each<kParts - 1>([&](auto part) CVX_LAMBDA { put(dst + part.value * r.dst_part + i, take_part(&a, &b)); });
    put(dst + (kParts - 1) * r.dst_part + i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
  };
  int64_t i = 0;
  for (; i + 2 * kV <= r.floats; i += 2 * kV) {
    __m512 a = _mm512_loadu_ps(src + i), b = _mm512_loadu_ps(src + i + kV);
    if (kScaled) {
      a = _mm512_mul_ps(a, _mm512_loadu_ps(r.factors + i));
      b = _mm512_mul_ps(b, _mm512_loadu_ps(r.factors + i + kV));
    }
    split(i, a, b, [](uint16_t* to, __m512i part) CVX_LAMBDA { _mm512_storeu_si512(to, part); });
  }
  if (i == r.floats) return;
  const __mmask32 some = static_cast<__mmask32>((uint64_t{1} << (r.floats - i)) - 1);
  const __mmask16 first = static_cast<__mmask16>(some), second = static_cast<__mmask16>(some >> kV);
  __m512 a = _mm512_maskz_loadu_ps(first, src + i), b = _mm512_maskz_loadu_ps(second, src + i + kV);
  if (kScaled) {
    a = _mm512_mul_ps(a, _mm512_maskz_loadu_ps(first, r.factors + i));
    b = _mm512_mul_ps(b, _mm512_maskz_loadu_ps(second, r.factors + i + kV));
  }
  split(i, a, b, [some](uint16_t* to, __m512i part) CVX_LAMBDA { _mm512_mask_storeu_epi16(to, some, part); });
}

template <int kParts>
void split_parts(BfloatRows r) {
  if (r.factors == nullptr && r.dst_step == r.floats && r.src_step == r.floats) {
    r.floats *= r.rows;
    r.rows = 1;
  }
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* src = r.src + i * r.src_step;
    uint16_t* dst = r.dst + i * r.dst_step;
    if (r.factors != nullptr) {
      split_row<kParts, true>(r, src, dst);
    } else {
      split_row<kParts, false>(r, src, dst);
    }
  }
}

void split(const BfloatRows& r) { r.parts == 3 ? split_parts<3>(r) : split_parts<2>(r); }

// Configures all tiles as 16 rows of 64 bytes.
struct alignas(kLineBytes) TileConfig {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Writes the sums of R tiles of rows by N of columns over all steps into rows of 2 * 16 floats. b: the strip's first
// step.
template <int kParts, int R, int N>
void multiply_block(const BfloatProduct& p, const uint16_t* first, const uint16_t* second, const uint16_t* b,
                    float* sums) {
  const int64_t row = p.a_row * 2;  // in bytes, as the unit counts
  _tile_zero(0);
  if (N == 2) _tile_zero(1);
  if (R == 2) _tile_zero(2);
  if (R == 2 && N == 2) _tile_zero(3);
  for (int64_t s = 0; s < p.step_count; ++s) {
    const uint16_t* const upper = first + p.steps[s];
    const uint16_t* const lower = second + p.steps[s];
    const auto rows = [&](int part) CVX_LAMBDA {
      _tile_loadd(4, upper + part * p.a_part, row);
      if (R == 2) _tile_loadd(5, lower + part * p.a_part, row);
    };
    const auto columns = [&](int part) CVX_LAMBDA {
      _tile_loadd(6, b + (kParts - 1 - part) * N * kTileElements, kLineBytes);
      if (N == 2) _tile_loadd(7, b + ((kParts - 1 - part) * N + 1) * kTileElements, kLineBytes);
    };
    const auto multiply = [&]() CVX_LAMBDA {
      _tile_dpbf16ps(0, 4, 6);
      if (N == 2) _tile_dpbf16ps(1, 4, 7);
      if (R == 2) _tile_dpbf16ps(2, 5, 6);
      if (R == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
    };
    // Small products come first where that costs no load. The pairs of parts (rows, columns) are (0, 2) (0, 1) (1, 1)
    // (1, 0) (2, 0) (0, 0) for three parts, (0, 1) (0, 0) (1, 0) for two.
    rows(0);
    columns(kParts - 1);
    multiply();
    if (kParts == 3) {
      columns(1);
      multiply();
      rows(1);
      multiply();
      columns(0);
      multiply();
      rows(2);
      multiply();
      rows(0);
      multiply();
    } else {
      columns(0);
      multiply();
      rows(1);
      multiply();
    }
    b += kParts * N * kTileElements;
  }
  constexpr int64_t kStep = 2 * kV * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, sums, kStep);
  if (N == 2) _tile_stored(1, sums + kV, kStep);
  if (R == 2) _tile_stored(2, sums + MatrixUnit::kRows * 2 * kV, kStep);
  if (R == 2 && N == 2) _tile_stored(3, sums + MatrixUnit::kRows * 2 * kV + kV, kStep);
}

// Adds bias and residual to rows of sums, applies the activation and stores the rows that have a destination.
template <int N, bool Whole, class Activate>
CVX_INLINE void finish_rows(const BfloatProduct& p, int64_t row, int64_t rows, int64_t column, const float* sums,
                            const Activate& activate) {
  // Copies, since as far as the compiler knows a store may change p's members.
  const int64_t rest = p.columns - column - (N - 1) * kV, offset = p.c_offset + column;  // rest: of the last vector
  float* const* const c = p.c + row;
  const float* const* const residual = p.residual != nullptr ? p.residual + row : nullptr;
  const auto load_at = [rest](const float* from, auto j) CVX_LAMBDA {
    return Whole || j.value < N - 1 ? load(from + j.value * kV) : load_part(from + j.value * kV, rest);
  };
  Vec bias[N] = {};
  if (p.bias != nullptr) each<N>([&](auto j) CVX_LAMBDA { bias[j.value] = load_at(p.bias + column, j); });
  for (int64_t i = 0; i < rows; ++i) {
    if (c[i] == nullptr) continue;
    each<N>([&](auto j) CVX_LAMBDA {
      Vec value = load(sums + i * 2 * kV + j.value * kV) + bias[j.value];
      if (residual != nullptr) value += load_at(residual[i] + offset, j);
      value = activate(value);
      if (Whole || j.value < N - 1) {
        store(c[i] + offset + j.value * kV, value);
      } else {
        store_part(c[i] + offset + j.value * kV, value, rest);
      }
    });
  }
}

template <int N>
CVX_INLINE void finish_block(const BfloatProduct& p, int64_t row, int64_t rows, int64_t column, const float* sums) {
  const Activation act = p.activation;
  const Vec slope = splat(act.slope), high = splat(act.high);
  const auto finish = [&](const auto& activate) CVX_LAMBDA {
    if (p.columns - column >= N * kV) {
      finish_rows<N, true>(p, row, rows, column, sums, activate);
    } else {
      finish_rows<N, false>(p, row, rows, column, sums, activate);
    }
  };
  if (act.kind == ActivationKind::kSilu) {
    finish([&](Vec x) CVX_LAMBDA { return apply_any(x, ActivationKind::kSilu, slope, high); });
  } else if (act.is_cheap()) {
    with_cheap(act.kind, [&](auto kind) CVX_LAMBDA {
      finish([&](Vec x) CVX_LAMBDA { return apply_cheap(x, static_cast<ActivationKind>(kind.value), slope); });
    });
  } else {
    finish([&](Vec x) CVX_LAMBDA { return apply_any(x, act.kind, slope, high); });
  }
}

template <int kParts, int N>
CVX_INLINE void multiply_strip(const BfloatProduct& p, int64_t column, const uint16_t* b) {
  alignas(kLineBytes) float sums[2 * MatrixUnit::kRows * 2 * kV];
  int64_t tile = 0;
  for (; tile + 2 <= p.tile_count; tile += 2) {
    multiply_block<kParts, 2, N>(p, p.a + p.tiles[tile], p.a + p.tiles[tile + 1], b, sums);
    finish_block<N>(p, tile * MatrixUnit::kRows, 2 * MatrixUnit::kRows, column, sums);
  }
  if (tile < p.tile_count) {
    const uint16_t* const only = p.a + p.tiles[tile];
    multiply_block<kParts, 1, N>(p, only, only, b, sums);
    finish_block<N>(p, tile * MatrixUnit::kRows, MatrixUnit::kRows, column, sums);
  }
}

template <int kParts>
void multiply_parts(const BfloatProduct& p) {
  for (int64_t column = p.column_begin; column < p.column_end; column += MatrixUnit::kColumns) {
    // All strips before this one have two tiles of columns.
    const uint16_t* b = p.b + column / MatrixUnit::kColumns * p.step_count * kParts * 2 * kTileElements;
    if (p.columns - column > kV) {
      multiply_strip<kParts, 2>(p, column, b);
    } else {
      multiply_strip<kParts, 1>(p, column, b);
    }
  }
}

void product(const BfloatProduct& p) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = kLineBytes;
    config.rows[i] = MatrixUnit::kRows;
  }
  _tile_loadconfig(&config);
  p.parts == 3 ? multiply_parts<3>(p) : multiply_parts<2>(p);
  _tile_release();
}
