// The depthwise microkernel: vectors over channels, eight (or four) neighbouring outputs at a time.
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h).
//
// The outputs of a block share positions: with 3 taps and stride 1, eight outputs read ten positions, so 10 N loads of
// pixels serve 24 N multiply-adds. Registers, for N vectors of channels:
//   AVX-512, NEON (32):  8 x 2 sums + 5 x 2 weights + 2 of a pixel = 28, and 4 x 2 + 7 x 2 + 2 = 24
//   AVX2 (16):           8 + 5 + 1 = 14, and 4 + 7 + 1 = 12

#if CVX_REGISTERS == 32
constexpr int kDepthwiseVectors = 2;
#else
constexpr int kDepthwiseVectors = 1;
#endif
// Outputs at a time. All of them share the loaded weights, and there are enough sums in flight to hide the latency.
constexpr int depthwise_rows_of(int width) { return width == 3 || width == 5 ? 8 : 4; }
constexpr int kSegment = 7;  // taps along w whose weights stay in registers; wider kernels take several segments

template <bool Whole, class T>
CVX_INLINE Vec load_lanes(const T* p, int64_t lanes) {
  if constexpr (Whole) return load(p);
  return load_part(p, lanes);
}

// The positions of one line from `first` on. Inside: all positions that are read exist.
template <bool Inside, class T>
struct Positions {
  const T* at;
  int64_t step;
  int64_t first, begin, end;
  const T* zeros;

  CVX_INLINE const T* operator[](int64_t i) const {
    if constexpr (Inside) return at + i * step;
    return first + i >= begin && first + i < end ? at + i * step : zeros;
  }
};

template <bool Inside, class T>
CVX_INLINE Positions<Inside, T> positions_of(const Depthwise<T>& p, int64_t line, int64_t first, int64_t k) {
  return {p.a[line] + first * p.a_step[line] + k, p.a_step[line], first, p.begin, p.end, p.zeros + k};
}

// sum[r] += weights of Width taps times positions r * Stride, r * Stride + 1, ..., of one line.
template <int Width, int Stride, int R, int N, bool Whole, bool Inside, class T>
CVX_INLINE void add_segment(const Positions<Inside, T>& positions, const float* b, int64_t b_step, int64_t lanes,
                            Vec (&sum)[R][N]) {
  Vec weight[Width][N];
  each<Width>([&](auto t) CVX_LAMBDA {
    each<N>([&](auto j) CVX_LAMBDA { weight[t.value][j.value] = load(b + t.value * b_step + j.value * kV); });
  });
  each<(R - 1) * Stride + Width>([&](auto i) CVX_LAMBDA {
    constexpr int I = decltype(i)::value;
    const T* pixel = positions[I];
    Vec x[N];
    each<N>([&](auto j) CVX_LAMBDA { x[j.value] = load_lanes<Whole>(pixel + j.value * kV, lanes); });
    // Without this the compiler loads a pixel anew for each of the outputs that share it.
    each<N>([&](auto j) CVX_LAMBDA { asm("" : "+" CVX_VECTOR_REGISTER(x[j.value])); });
    each<R>([&](auto r) CVX_LAMBDA {
      constexpr int Row = decltype(r)::value, Tap = I - Row * Stride;
      if constexpr (Tap >= 0 && Tap < Width) {
        each<N>([&](auto j) CVX_LAMBDA { sum[Row][j.value] += weight[Tap][j.value] * x[j.value]; });
      }
    });
  });
}

// Finishes the sums: adds the residual, applies the activation, stores.
template <int R, int N, bool Whole, class T>
CVX_INLINE void store_depthwise(const Depthwise<T>& p, int64_t m, int64_t k, int64_t lanes, Vec (&sum)[R][N]) {
  const Vec slope = splat(p.activation.slope);
  // Copies, since as far as the compiler knows a store may change the members.
  T* const* const c = p.c + m;
  if (p.residual != nullptr) {
    const T* const* const residual = p.residual + m;
    CVX_UNROLL for (int r = 0; r < R; ++r) {
      CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] += load_lanes<Whole>(residual[r] + k + j * kV, lanes); }
    }
  }
  if constexpr (kElementOf<T> == Element::kBfloat16) {
    // What is rounded must be activated before it is stored.
    if (!p.activation.is_cheap()) {
      float values[R * N * kV];
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        CVX_UNROLL for (int j = 0; j < N; ++j) { store(values + (r * N + j) * kV, sum[r][j]); }
      }
      activate(values, R * N * kV, p.activation);
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] = load(values + (r * N + j) * kV); }
      }
    }
  }
  with_cheap(p.activation.is_cheap() ? p.activation.kind : ActivationKind::kNone, [&](auto kind) CVX_LAMBDA {
    CVX_UNROLL for (int r = 0; r < R; ++r) {
      CVX_UNROLL for (int j = 0; j < N; ++j) {
        const Vec value = apply_cheap(sum[r][j], static_cast<ActivationKind>(kind.value), slope);
        T* const to = c[r] + k + j * kV;
        if constexpr (Whole) {
          store(to, value);
        } else {
          store_part(to, value, lanes);
        }
      }
    }
  });
}

template <int R, int N, bool Whole, class T>
CVX_INLINE void start_depthwise(const Depthwise<T>& p, int64_t k, int64_t lanes, Vec (&sum)[R][N]) {
  CVX_UNROLL for (int j = 0; j < N; ++j) {
    const Vec bias = p.bias != nullptr ? load_lanes<Whole>(p.bias + k + j * kV, lanes) : Vec{};
    CVX_UNROLL for (int r = 0; r < R; ++r) { sum[r][j] = bias; }
  }
}

// R neighbouring outputs whose taps are adjacent. Width is their number along w, or 0 for any number.
template <int Width, int Stride, int R, int N, bool Whole, bool Inside, class T>
void depthwise_block(const Depthwise<T>& p, int64_t m, int64_t k, int64_t lanes) {
  Vec sum[R][N];
  start_depthwise<R, N, Whole>(p, k, lanes, sum);
  const float* b = p.b + k;
  const int64_t b_step = p.b_step;
  for (int64_t line = 0; line < p.lines; ++line) {
    if constexpr (Width > 0) {
      const auto positions = positions_of<Inside>(p, line, m * Stride, k);
      add_segment<Width, Stride, R, N, Whole, Inside>(positions, b, b_step, lanes, sum);
      b += Width * b_step;
    } else {
      int64_t t = 0;
      for (; t + kSegment <= p.width; t += kSegment, b += kSegment * b_step) {
        const auto positions = positions_of<Inside>(p, line, m * Stride + t, k);
        add_segment<kSegment, Stride, R, N, Whole, Inside>(positions, b, b_step, lanes, sum);
      }
      for (; t < p.width; ++t, b += b_step) {
        const auto positions = positions_of<Inside>(p, line, m * Stride + t, k);
        add_segment<1, Stride, R, N, Whole, Inside>(positions, b, b_step, lanes, sum);
      }
    }
  }
  store_depthwise<R, N, Whole>(p, m, k, lanes, sum);
}

// One output of any stride and any taps.
template <int N, bool Whole, class T>
void depthwise_any(const Depthwise<T>& p, int64_t m, int64_t k, int64_t lanes) {
  Vec sum[1][N];
  start_depthwise<1, N, Whole>(p, k, lanes, sum);
  const float* b = p.b + k;
  for (int64_t line = 0; line < p.lines; ++line) {
    const auto positions = positions_of<false>(p, line, m * p.stride, k);
    for (int64_t t = 0; t < p.width; ++t, b += p.b_step) {
      const T* pixel = positions[p.taps[t]];
      CVX_UNROLL for (int j = 0; j < N; ++j) {
        sum[0][j] += load(b + j * kV) * load_lanes<Whole>(pixel + j * kV, lanes);
      }
    }
  }
  store_depthwise<1, N, Whole>(p, m, k, lanes, sum);
}

template <int Width, int Stride, int R, int N, bool Whole, class T>
CVX_INLINE void depthwise_blocks(const Depthwise<T>& p, int64_t& m, int64_t k, int64_t lanes) {
  for (; m + R <= p.rows; m += R) {
    if (m * Stride >= p.begin && (m + R - 1) * Stride + p.width <= p.end) {
      depthwise_block<Width, Stride, R, N, Whole, true>(p, m, k, lanes);
    } else {
      depthwise_block<Width, Stride, R, N, Whole, false>(p, m, k, lanes);
    }
  }
}

template <int Width, int Stride, int N, bool Whole, class T>
void depthwise_rows(const Depthwise<T>& p, int64_t k, int64_t lanes) {
  int64_t m = 0;
  if constexpr (depthwise_rows_of(Width) > 4) {
    depthwise_blocks<Width, Stride, depthwise_rows_of(Width), N, Whole>(p, m, k, lanes);
  }
  depthwise_blocks<Width, Stride, 4, N, Whole>(p, m, k, lanes);
  if (p.rows - m == 3) depthwise_block<Width, Stride, 3, N, Whole, false>(p, m, k, lanes);
  if (p.rows - m == 2) depthwise_block<Width, Stride, 2, N, Whole, false>(p, m, k, lanes);
  if (p.rows - m == 1) depthwise_block<Width, Stride, 1, N, Whole, false>(p, m, k, lanes);
}

template <int Stride, int N, bool Whole, class T>
void depthwise_width(const Depthwise<T>& p, int64_t k, int64_t lanes) {
  switch (p.width) {
    case 3:
      return depthwise_rows<3, Stride, N, Whole>(p, k, lanes);
    case 5:
      return depthwise_rows<5, Stride, N, Whole>(p, k, lanes);
    case 7:
      return depthwise_rows<7, Stride, N, Whole>(p, k, lanes);
    default:
      return depthwise_rows<0, Stride, N, Whole>(p, k, lanes);
  }
}

template <int N, bool Whole, class T>
void depthwise_column(const Depthwise<T>& p, bool side_by_side, int64_t k, int64_t lanes) {
  if (side_by_side && p.stride == 1) return depthwise_width<1, N, Whole>(p, k, lanes);
  if (side_by_side && p.stride == 2) return depthwise_width<2, N, Whole>(p, k, lanes);
  for (int64_t m = 0; m < p.rows; ++m) depthwise_any<N, Whole>(p, m, k, lanes);
}

template <class T>
void depthwise(const Depthwise<T>& p) {
  bool side_by_side = true;
  for (int64_t t = 0; t < p.width; ++t) side_by_side = side_by_side && p.taps[t] == t;
  constexpr int64_t kColumn = kDepthwiseVectors * kV;
  int64_t k = 0;
  for (; k + kColumn <= p.channels; k += kColumn) depthwise_column<kDepthwiseVectors, true>(p, side_by_side, k, kV);
  for (; k + kV <= p.channels; k += kV) depthwise_column<1, true>(p, side_by_side, k, kV);
  if (k < p.channels) depthwise_column<1, false>(p, side_by_side, k, p.channels - k);
  if constexpr (kElementOf<T> == Element::kFloat32) {
    if (!p.activation.is_cheap()) activate_rows(p.c, p.rows, 0, p.channels, p.activation);
  }
}
