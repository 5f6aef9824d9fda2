// Splits floats into sums of bfloat16 and multiplies those; microkernels.h says what each function promises.
//
// Included after the file of one unit (amx-inl.h, bfdot-inl.h), which multiplies kTogether tiles of rows by 2 of
// columns.

// Splits the first part off 2 * 16 floats. Rounds to nearest, ties away from zero. The last part is the remainder,
// rounded once more where it has too many digits. NaN stays NaN in one of the parts. Infinity is the last part, after
// zeros: that part is multiplied by first parts alone, so infinity stays infinity. A number that would round to
// infinity is cut instead.
CVX_INLINE __m512i take_part(__m512* first, __m512* second) {
  const __m512i round = _mm512_set1_epi32(0x8000), keep = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  const auto nearest = [&](__m512 x) CVX_LAMBDA {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), round), keep));
  };
  __m512 a = nearest(*first), b = nearest(*second);
  constexpr int kInfinite = 0x18;
  const auto bound = [&](__m512 rounded, __m512 x) CVX_LAMBDA {
    const __mmask16 over = _mm512_fpclass_ps_mask(rounded, kInfinite), infinite = _mm512_fpclass_ps_mask(x, kInfinite);
    const __m512 cut = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), keep));
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(~infinite), _mm512_mask_mov_ps(rounded, over, cut));
  };
  if (__builtin_expect((_mm512_fpclass_ps_mask(a, kInfinite) | _mm512_fpclass_ps_mask(b, kInfinite)) != 0, 0)) {
    a = bound(a, *first);
    b = bound(b, *second);
  }
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
  for (; i + 2 * kV <= r.channels; i += 2 * kV) {
    __m512 a = _mm512_loadu_ps(src + i), b = _mm512_loadu_ps(src + i + kV);
    if (kScaled) {
      a = _mm512_mul_ps(a, _mm512_loadu_ps(r.factors + i));
      b = _mm512_mul_ps(b, _mm512_loadu_ps(r.factors + i + kV));
    }
    split(i, a, b, [](uint16_t* to, __m512i part) CVX_LAMBDA { _mm512_storeu_si512(to, part); });
  }
  if (i == r.channels) return;
  const __mmask32 some = static_cast<__mmask32>((uint64_t{1} << (r.channels - i)) - 1);
  const __mmask16 first = static_cast<__mmask16>(some), second = static_cast<__mmask16>(some >> kV);
  __m512 a = _mm512_maskz_loadu_ps(first, src + i), b = _mm512_maskz_loadu_ps(second, src + i + kV);
  if (kScaled) {
    a = _mm512_mul_ps(a, _mm512_maskz_loadu_ps(first, r.factors + i));
    b = _mm512_mul_ps(b, _mm512_maskz_loadu_ps(second, r.factors + i + kV));
  }
  split(i, a, b, [some](uint16_t* to, __m512i part) CVX_LAMBDA { _mm512_mask_storeu_epi16(to, some, part); });
}

template <int kParts>
void split_parts(const BfloatRows& r) {
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* src = static_cast<const float*>(r.src) + i * r.src_step;
    uint16_t* dst = r.dst + i * r.dst_step;
    if (r.factors != nullptr) {
      split_row<kParts, true>(r, src, dst);
    } else {
      split_row<kParts, false>(r, src, dst);
    }
  }
}

// Copies numbers of bfloat16, or multiplies them by factors and rounds them.
template <bool kScaled>
void copy_parts(const BfloatRows& r) {
  for (int64_t i = 0; i < r.rows; ++i) {
    const Bfloat16* src = static_cast<const Bfloat16*>(r.src) + i * r.src_step;
    uint16_t* dst = r.dst + i * r.dst_step;
    for (int64_t c = 0; c < r.channels; c += 2 * kV) {
      const int64_t left = r.channels - c;
      const __mmask32 some = left >= 2 * kV ? ~__mmask32{0} : static_cast<__mmask32>((uint64_t{1} << left) - 1);
      __m512i both;
      if (kScaled) {
        const auto scaled = [&](int64_t at, __mmask16 lanes) CVX_LAMBDA {
          const __m256i half = _mm256_maskz_loadu_epi16(lanes, src + c + at);
          return reinterpret_cast<__m512>(widen(reinterpret_cast<HalfVec>(half))) *
                 _mm512_maskz_loadu_ps(lanes, r.factors + c + at);
        };
        const __m512 low = scaled(0, static_cast<__mmask16>(some));
        const __m512 high = scaled(kV, static_cast<__mmask16>(some >> kV));
        both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      } else {
        both = _mm512_maskz_loadu_epi16(some, src + c);
      }
      _mm512_mask_storeu_epi16(dst + c, some, both);
    }
  }
}

void split(BfloatRows r) {
  if (r.factors == nullptr && r.dst_step == r.channels && r.src_step == r.channels) {
    r.channels *= r.rows;
    r.rows = 1;
  }
  if (r.src_element == Element::kBfloat16) return r.factors != nullptr ? copy_parts<true>(r) : copy_parts<false>(r);
  r.parts == 3 ? split_parts<3>(r) : r.parts == 2 ? split_parts<2>(r) : split_parts<1>(r);
}

// Adds bias and residual to rows of sums, applies the activation and stores the rows that have a destination, as
// numbers of type C. The type of the residual is asked for in the loop: that is cheaper than another copy of this code.
template <int N, bool Whole, class C, class Activate>
CVX_INLINE void finish_rows(const BfloatProduct& p, int64_t row, int64_t rows, int64_t column, const float* sums,
                            const Activate& activate) {
  // Copies, since as far as the compiler knows a store may change p's members.
  const int64_t rest = p.columns - column - (N - 1) * kV, offset = p.c_offset + column;  // rest: of the last vector
  void* const* const c = p.c + row;
  const void* const* const residual = p.residual != nullptr ? p.residual + row : nullptr;
  const bool wide = p.residual_element == Element::kFloat32;
  const auto load_at = [rest](const auto* from, auto j) CVX_LAMBDA {
    return Whole || j.value < N - 1 ? load(from + j.value * kV) : load_part(from + j.value * kV, rest);
  };
  Vec bias[N] = {};
  if (p.bias != nullptr) each<N>([&](auto j) CVX_LAMBDA { bias[j.value] = load_at(p.bias + column, j); });
  for (int64_t i = 0; i < rows; ++i) {
    if (c[i] == nullptr) continue;
    C* const to = static_cast<C*>(c[i]) + offset;
    Vec value[N];
    each<N>([&](auto j) CVX_LAMBDA {
      value[j.value] = load(sums + i * 2 * kV + j.value * kV) + bias[j.value];
      if (residual != nullptr) {
        value[j.value] += wide ? load_at(static_cast<const float*>(residual[i]) + offset, j)
                               : load_at(static_cast<const Bfloat16*>(residual[i]) + offset, j);
      }
      value[j.value] = activate(value[j.value]);
    });
    if constexpr (N == 2 && Whole && kElementOf<C> == Element::kBfloat16) {
      _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(value[1]),
                                                                            reinterpret_cast<__m512>(value[0]))));
    } else {
      each<N>([&](auto j) CVX_LAMBDA {
        if (Whole || j.value < N - 1) {
          store(to + j.value * kV, value[j.value]);
        } else {
          store_part(to + j.value * kV, value[j.value], rest);
        }
      });
    }
  }
}

template <int N>
CVX_INLINE void finish_block(const BfloatProduct& p, int64_t row, int64_t rows, int64_t column, const float* sums) {
  const Activation act = p.activation;
  const Vec slope = splat(act.slope), high = splat(act.high);
  const auto finish = [&](const auto& activate) CVX_LAMBDA {
    const bool whole = p.columns - column >= N * kV;
    if (p.c_element == Element::kBfloat16) {
      whole ? finish_rows<N, true, Bfloat16>(p, row, rows, column, sums, activate)
            : finish_rows<N, false, Bfloat16>(p, row, rows, column, sums, activate);
    } else {
      whole ? finish_rows<N, true, float>(p, row, rows, column, sums, activate)
            : finish_rows<N, false, float>(p, row, rows, column, sums, activate);
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

// last: whether no other strip follows, whose weights could be prefetched.
template <int kParts, int N>
CVX_INLINE void multiply_strip(const BfloatProduct& p, int64_t column, const uint16_t* b, bool last) {
  alignas(64) float sums[kTogether * MatrixUnit::kRows * 2 * kV];
  // The next strip is fetched while this one is multiplied. A single tile reads its weights once, in one stream: there,
  // what is fetched lies a little ahead.
  constexpr int64_t kLines = kParts * N * MatrixUnit::kRows, kAhead = 16 * 1024;
  const int64_t size = p.step_count * kParts * N * kTileElements;
  const bool stream = p.tile_count == 1;
  Prefetch next{b + (stream ? kAhead : size), stream || !last ? (kLines + p.tile_count - 1) / p.tile_count : 0};
  const uint16_t* const end = next.from + size;
  const auto run = [&](auto together, int64_t tile) CVX_LAMBDA {
    multiply_tiles<kParts, together.value, N>(p, tile, b, next, sums);
    finish_block<N>(p, tile * p.tile_rows, together.value * p.tile_rows, column, sums);
    if (next.from >= end) next.lines = 0;
  };
  int64_t tile = 0;
  for (; tile + kTogether <= p.tile_count; tile += kTogether) run(Index<kTogether>(), tile);
  if (kTogether > 1 && tile < p.tile_count) run(Index<1>(), tile);
}

template <int kParts>
void multiply_parts(const BfloatProduct& p) {
  for (int64_t column = p.column_begin; column < p.column_end; column += MatrixUnit::kColumns) {
    // All strips before this one have two tiles of columns.
    const uint16_t* b = p.b + column / MatrixUnit::kColumns * p.step_count * kParts * 2 * kTileElements;
    const bool last = column + MatrixUnit::kColumns >= p.column_end;
    if (p.columns - column > kV) {
      multiply_strip<kParts, 2>(p, column, b, last);
    } else {
      multiply_strip<kParts, 1>(p, column, b, last);
    }
  }
}

void multiply(const BfloatProduct& p) {
  begin_products();
  p.parts == 3 ? multiply_parts<3>(p) : p.parts == 2 ? multiply_parts<2>(p) : multiply_parts<1>(p);
  end_products();
}
