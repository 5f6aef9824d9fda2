// Multiplies a few rows by weights of 24 bits; see Fixed24Product in microkernels.h.
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h).
//
// Reading the weights takes the time: each is read once, from memory. So a tile is as many rows as registers allow by
// two vectors of columns, and unpacking costs no loads, but twelve operations for four weights.

constexpr int kFixed24Rows = CVX_REGISTERS / 4;  // of a tile
constexpr int64_t kGroup = Fixed24Product::kGroup, kGroupWords = Fixed24Product::kWords;
constexpr int64_t kSumChannels = 512;

// The weights of four channels, from -2 to 2, for one vector of columns. Sums of whole numbers would overflow where
// those of the weights themselves do not.
CVX_INLINE void unpack(const float* b, Vec* weights) {
  const IntVec keep = IntVec{} - 256, middle = IntVec{} + 0xFF0000, low = IntVec{} + 0xFF00;
  const Vec unit = splat(1.0f / (1 << Fixed24Product::kPlaces));
  const IntVec x = float_to_bits(load(b)), y = float_to_bits(load(b + kV)), z = float_to_bits(load(b + 2 * kV));
  weights[0] = __builtin_convertvector(x & keep, Vec) * unit;
  weights[1] = __builtin_convertvector(y & keep, Vec) * unit;
  weights[2] = __builtin_convertvector(z & keep, Vec) * unit;
  weights[3] = __builtin_convertvector((x << 24) | ((y << 16) & middle) | ((z << 8) & low), Vec) * unit;
}

// Multiplies R rows from `row` on by N vectors of columns from `column` on.
template <int R, int N>
void run_fixed24_tile(const Fixed24Product& p, int64_t row, int64_t column) {
  const int64_t left = p.columns - column, rest = left - (N - 1) * kV;  // of the last vector
  const auto whole = [&](int j) CVX_LAMBDA { return j < N - 1 || rest >= kV; };
  const auto part = [&](const float* from, int j)
                        CVX_LAMBDA { return whole(j) ? load(from + j * kV) : load_part(from + j * kV, rest); };
  // Panels before this one are full.
  const float* const scales = p.b + column * (1 + p.taps * ((p.channels + kGroup - 1) / kGroup * kGroupWords));
  const float* b = scales + N * kV;
  Vec sum[R][N];
  const auto add = [&](const auto& value) CVX_LAMBDA {
    Vec weights[N][kGroup];
    each<N>([&](auto j) CVX_LAMBDA { unpack(b + j.value * kGroupWords * kV, weights[j.value]); });
    each<kGroup>([&](auto i) CVX_LAMBDA {
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        const Vec factor = splat(value(r, i.value));
        CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] += factor * weights[j][i.value]; }
      }
    });
    b += N * kGroupWords * kV;
  };
  // Rounding errors grow with the length of a sum. So each block of channels has its own sum, and these are summed.
  Vec total[R][N] = {};
  for (int64_t tap = 0; tap < p.taps; ++tap) {
    const float* a[R];
    CVX_UNROLL for (int r = 0; r < R; ++r) { a[r] = p.a[tap * p.a_step + row + r]; }
    for (int64_t k = 0; k < p.channels;) {
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] = Vec{}; }
      }
      const int64_t end = k + kSumChannels < p.channels ? k + kSumChannels : p.channels;
      for (; k + kGroup <= end; k += kGroup) {
        add([&](int r, int64_t i) CVX_LAMBDA { return a[r][k + i]; });
      }
      if (k < end) {
        add([&](int r, int64_t i) CVX_LAMBDA { return k + i < p.channels ? a[r][k + i] : 0.0f; });
        k = end;
      }
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        CVX_UNROLL for (int j = 0; j < N; ++j) { total[r][j] += sum[r][j]; }
      }
    }
  }
  const Vec slope = splat(p.activation.slope);
  CVX_UNROLL for (int r = 0; r < R; ++r) {
    float* const c = p.c[row + r] + column;
    CVX_UNROLL for (int j = 0; j < N; ++j) {
      Vec y = total[r][j] * load(scales + j * kV);
      if (p.bias != nullptr) y += part(p.bias + column, j);
      if (p.residual != nullptr) y += part(p.residual[row + r] + column, j);
      if (p.activation.is_cheap()) y = apply_cheap(y, p.activation.kind, slope);
      if (whole(j)) {
        store(c + j * kV, y);
      } else {
        store_part(c + j * kV, y, rest);
      }
    }
    if (!p.activation.is_cheap()) activate(c, left < N * kV ? left : N * kV, p.activation);
  }
}

// Runs tiles of R rows, and one for the remaining rows.
template <int N, int R = kFixed24Rows>
CVX_INLINE void run_fixed24_rows(const Fixed24Product& p, int64_t row, int64_t column) {
  if constexpr (R > 0) {
    for (; p.rows - row >= R; row += R) run_fixed24_tile<R, N>(p, row, column);
    run_fixed24_rows<N, R - 1>(p, row, column);
  }
}

void fixed24_product(const Fixed24Product& p) {
  for (int64_t column = p.column_begin; column < p.column_end; column += Fixed24Product::kPanelVectors * kV) {
    if (p.columns - column > kV) {
      run_fixed24_rows<2>(p, 0, column);
    } else {
      run_fixed24_rows<1>(p, 0, column);
    }
  }
}
