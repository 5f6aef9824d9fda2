// The register tile and the loops around it: rows of A, read through pointers, times packed panels of B.
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h).
//
// A tile of R rows by N vectors keeps R * N accumulators, N vectors of B and one broadcast of A in registers:
//   AVX2 (16 registers):     6 x 2 -> 12 + 2 + 1 = 15        12 x 1 -> 12 + 1 + 1 = 14
//   AVX-512 (32 registers):  6 x 4 -> 24 + 4 + 1 = 29    8 x 3 -> 24 + 3 + 1 = 28    12 x 2 -> 24 + 2 + 1 = 27
//   SSE2 (16, no FMA):       4 x 2 -> 8 + 2 + 1 + 1 = 12, with one for the product
//   NEON (32 registers):     5 x 4 -> 20 + 4 + 5 = 29    7 x 3 -> 21 + 3 + 7 = 31    10 x 2 -> 20 + 2 + 10 = 32
// For NEON, g++ loads the elements of A of all rows before it multiplies: with 6 x 4 it keeps two sums in memory.
// Every loop over accumulators carries CVX_UNROLL.

// The rows of a tile with N vectors of columns.
constexpr int tile_rows(int vectors) {
#if defined(__aarch64__)
  return vectors == 4 ? 5 : vectors == 3 ? 7 : vectors == 2 ? 10 : 12;
#elif CVX_REGISTERS == 32
  return vectors == 4 ? 6 : vectors == 3 ? 8 : 12;
#elif defined(__AVX2__)
  return vectors == 2 ? 6 : 12;
#else
  return vectors == 2 ? 4 : 6;
#endif
}
#if CVX_REGISTERS == 32
constexpr int kPanelVectors = 4;
#else
constexpr int kPanelVectors = 2;
#endif
constexpr int kMaxTileRows = 12;
constexpr int64_t kLineFloats = 16;  // of a cache line

// One tile's share of a Product: taps [tap_begin, tap_end), channels [channel_begin, channel_end).
struct Tile {
  const float* const* a;  // at the tile's first row
  int64_t a_step;
  int64_t a_row;
  int64_t a_offset;
  int64_t tap_begin, tap_end, channel_begin, channel_end;
  const float* b;      // of the first tap and channel
  int64_t b_tap_step;  // floats from one tap's channels to the next tap's, beyond those just multiplied
  float* const* c;
  int64_t c_offset;
  const float* const* residual;
  const float* bias;
  int64_t columns;  // that exist, of N * kV
  bool accumulate;  // C holds the sum so far
  bool finish;      // this is the last block: add the residual, apply the activation
  ActivationKind kind;
  float slope;
  const float* prefetch;  // with each channel, two cache lines of what follows this panel are prefetched
  int64_t prefetch_step;  // floats per channel
};

template <int R, int N>
void run_tile(const Tile& t) {
  Vec sum[R][N];
  const int64_t full = t.columns / kV;  // whole vectors of columns
  const int64_t rest = t.columns % kV;
  if (t.accumulate) {
    CVX_UNROLL for (int r = 0; r < R; ++r) {
      const float* c = t.c[r] + t.c_offset;
      CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] = j < full ? load(c + j * kV) : load_part(c + j * kV, rest); }
    }
  } else {
    CVX_UNROLL for (int j = 0; j < N; ++j) {
      const Vec bias = t.bias == nullptr ? Vec{} : j < full ? load(t.bias + j * kV) : load_part(t.bias + j * kV, rest);
      CVX_UNROLL for (int r = 0; r < R; ++r) { sum[r][j] = bias; }
    }
  }

  const int64_t count = t.channel_end - t.channel_begin;
  const float* b = t.b;
  const float* prefetch = t.prefetch;
  for (int64_t tap = t.tap_begin; tap < t.tap_end; ++tap) {
    // The row pointers are moved to channel_end and the index runs from -count to 0, so that the index alone ends the
    // loop.
    const float* a[R];
    const float* const* pointers = t.a + tap * t.a_step;
    if (t.a_row != 0) {
      a[0] = *pointers + (t.a_offset + t.channel_end);
      CVX_UNROLL for (int r = 1; r < R; ++r) { a[r] = a[r - 1] + t.a_row; }
    } else {
      CVX_UNROLL for (int r = 0; r < R; ++r) { a[r] = pointers[r] + (t.a_offset + t.channel_end); }
    }
    if (tap + 1 < t.tap_end && t.a_row == 0 && count >= kLineFloats) {
      // The hardware prefetches long rows, but cannot guess where the rows of the next tap begin. Short rows (a first
      // layer's) lie beside those just read.
      const float* const* next = pointers + t.a_step;
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        __builtin_prefetch(next[r] + t.a_offset);
        __builtin_prefetch(next[r] + t.a_offset + 16);
      }
    }
    for (int64_t k = -count; k < 0; ++k) {
      Vec columns[N];
      CVX_UNROLL for (int j = 0; j < N; ++j) { columns[j] = load(b + j * kV); }
      __builtin_prefetch(prefetch, 0, 2);
      __builtin_prefetch(prefetch + kLineFloats, 0, 2);
      prefetch += t.prefetch_step;
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        const Vec value = splat(a[r][k]);
        CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] += value * columns[j]; }
      }
      b += N * kV;
    }
    b += t.b_tap_step;
  }

  if (t.finish) {
    const Vec slope = splat(t.slope);
    if (t.residual != nullptr) {
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        const float* residual = t.residual[r] + t.c_offset;
        CVX_UNROLL for (int j = 0; j < N; ++j) {
          sum[r][j] += j < full ? load(residual + j * kV) : load_part(residual + j * kV, rest);
        }
      }
    }
    if (t.kind != ActivationKind::kNone) {
      with_cheap(t.kind, [&](auto kind) CVX_LAMBDA {
        CVX_UNROLL for (int r = 0; r < R; ++r) {
          CVX_UNROLL for (int j = 0; j < N; ++j) {
            sum[r][j] = apply_cheap(sum[r][j], static_cast<ActivationKind>(kind.value), slope);
          }
        }
      });
    }
  }
  CVX_UNROLL for (int r = 0; r < R; ++r) {
    float* c = t.c[r] + t.c_offset;
    CVX_UNROLL for (int j = 0; j < N; ++j) {
      if (j < full) {
        store(c + j * kV, sum[r][j]);
      } else {
        store_part(c + j * kV, sum[r][j], rest);
      }
    }
  }
}

typedef void (*TileFunction)(const Tile&);

// The tiles of 1 .. tile_rows(N) rows, for the rows that whole tiles leave over.
template <int N, int R>
struct TileTable {
  static constexpr void fill(TileFunction* table) {
    table[R] = run_tile<R, N>;
    TileTable<N, R - 1>::fill(table);
  }
};
template <int N>
struct TileTable<N, 0> {
  static constexpr void fill(TileFunction*) {}
};

struct Tiles {
  TileFunction run[kPanelVectors + 1][kMaxTileRows + 1] = {};
  constexpr Tiles() {
    TileTable<1, tile_rows(1)>::fill(run[1]);
    TileTable<2, tile_rows(2)>::fill(run[2]);
#if CVX_REGISTERS == 32
    TileTable<3, tile_rows(3)>::fill(run[3]);
    TileTable<4, tile_rows(4)>::fill(run[4]);
#endif
  }
};
// A constant, not an initialiser that runs at load: this code may use instructions that the machine lacks.
constexpr Tiles kTiles;

// Activations that need more than a comparison run over rows that were just stored and are still in L1.
void activate_rows(float* const* rows, int64_t row_count, int64_t begin, int64_t count, Activation act) {
  for (int64_t m = 0; m < row_count;) {
    // Joins rows that follow one another without a gap: a loop over 32 channels is too short to pay for its start.
    int64_t together = 1;
    while (m + together < row_count && rows[m + together] == rows[m] + together * count) ++together;
    activate(rows[m] + begin, together * count, act);
    m += together;
  }
}

void product(const Product& p) {
  const int64_t panel_columns = kPanelVectors * kV;
  Tile t;
  t.a_step = p.a_step;
  t.a_row = p.a_row;
  t.kind = p.activation.is_cheap() ? p.activation.kind : ActivationKind::kNone;
  t.slope = p.activation.slope;

  // A block is several whole taps or, where one tap has more channels than a block holds, a part of one tap.
  const int64_t channel_block = p.channels > p.block_channels ? p.block_channels : p.channels;
  const int64_t tap_block =
      channel_block == p.channels && p.channels > 0 ? (p.block_channels + p.channels - 1) / p.channels : 1;

  int64_t tap = 0, channel = 0;
  do {
    t.tap_begin = tap;
    t.tap_end = tap + tap_block < p.taps ? tap + tap_block : p.taps;
    t.channel_begin = channel;
    t.channel_end = channel + channel_block < p.channels ? channel + channel_block : p.channels;
    t.accumulate = tap > 0 || channel > 0;
    channel = t.channel_end;
    if (channel >= p.channels) {
      channel = 0;
      tap = t.tap_end;
    }
    t.finish = tap >= p.taps;

    for (int64_t column = p.column_begin; column < p.column_end; column += panel_columns) {
      const int64_t left = p.columns - column;
      t.columns = left < panel_columns ? left : panel_columns;
      const int vectors = static_cast<int>((t.columns + kV - 1) / kV);
      const int64_t width = vectors * kV;
      // Panels before this one are full: each holds taps * channels * panel_columns floats.
      t.b = p.b + column * p.taps * p.channels + (t.tap_begin * p.channels + t.channel_begin) * width;
      t.b_tap_step = (p.channels - (t.channel_end - t.channel_begin)) * width;
      t.c_offset = p.c_offset + column;
      t.bias = p.bias != nullptr ? p.bias + column : nullptr;
      // While this part of the panel is multiplied, the next part comes into L2: the next panel of this block, else the
      // first panel of the next block, else what follows the product. A prefetch never faults.
      const float* next = t.b + (t.tap_end - t.tap_begin) * (t.channel_end - t.channel_begin) * width;
      if (column + panel_columns < p.column_end) {
        next = t.b + panel_columns * p.taps * p.channels;
      } else if (!t.finish) {
        next -= (column - p.column_begin) * p.taps * p.channels;
      } else if (p.b_next != nullptr) {
        next = p.b_next;
      }
      // Tiles of equal height: 16 rows become 8 + 8, not 12 + 4.
      const int64_t tiles = (p.rows + tile_rows(vectors) - 1) / tile_rows(vectors);
      const int64_t step = tiles > 0 ? (p.rows + tiles - 1) / tiles : 1;
      const int64_t count = (t.tap_end - t.tap_begin) * (t.channel_end - t.channel_begin);
      const float* const end = next + count * width;
      t.prefetch = next;
      t.prefetch_step = 2 * kLineFloats;
      for (int64_t m = 0; m < p.rows; m += step) {
        const int64_t rows = p.rows - m < step ? p.rows - m : step;
        t.a = p.a_row != 0 ? p.a : p.a + m;
        t.a_offset = p.a_offset + m * p.a_row;
        t.c = p.c + m;
        t.residual = p.residual != nullptr ? p.residual + m : nullptr;
        kTiles.run[vectors][rows](t);
        t.prefetch += count * t.prefetch_step;
        if (t.prefetch >= end) {  // everything is on its way: from here on prefetch what is in L1 already
          t.prefetch = reinterpret_cast<const float*>(p.a);
          t.prefetch_step = 0;
        }
      }
    }
  } while (tap < p.taps);

  if (!p.activation.is_cheap()) {
    activate_rows(p.c, p.rows, p.c_offset + p.column_begin, p.column_end - p.column_begin, p.activation);
  }
}
