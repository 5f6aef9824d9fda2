// Sums of outer products: the gradient of a convolution's weights multiplies what a tap reads by what comes back.
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h), after product-inl.h,
// whose register tiles it shares.

// One register tile of an OuterProduct: R rows by N vectors of columns, the last of them with `rest` columns if Part.
template <int R, int N, bool Part>
void add_outer_tile(const OuterProduct& p, int64_t row, int64_t column, int64_t rest) {
  const auto load_columns = [&](const float* from, int j) CVX_LAMBDA {
    return Part && j == N - 1 ? load_part(from + j * kV, rest) : load(from + j * kV);
  };
  float* c = p.c + row * p.c_step + column;
  Vec sum[R][N];
  CVX_UNROLL for (int r = 0; r < R; ++r) {
    CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] = load_columns(c + r * p.c_step, j); }
  }
  for (int64_t line = 0; line < p.lines; ++line) {
    const float* a = p.a[line] + p.a_offset + row;
    const float* b = p.b[line] + p.b_offset + column;
    for (int64_t i = 0; i < p.count; ++i) {
      Vec columns[N];
      CVX_UNROLL for (int j = 0; j < N; ++j) { columns[j] = load_columns(b, j); }
      CVX_UNROLL for (int r = 0; r < R; ++r) {
        const Vec value = splat(a[r]);
        CVX_UNROLL for (int j = 0; j < N; ++j) { sum[r][j] += value * columns[j]; }
      }
      a += p.a_step;
      b += p.b_step;
    }
  }
  CVX_UNROLL for (int r = 0; r < R; ++r) {
    CVX_UNROLL for (int j = 0; j < N; ++j) {
      float* to = c + r * p.c_step + j * kV;
      if (Part && j == N - 1) {
        store_part(to, sum[r][j], rest);
      } else {
        store(to, sum[r][j]);
      }
    }
  }
}

typedef void (*OuterTile)(const OuterProduct&, int64_t row, int64_t column, int64_t rest);

template <int N, int R>
struct OuterTileTable {
  static constexpr void fill(OuterTile (*table)[2]) {
    table[R][0] = add_outer_tile<R, N, false>;
    table[R][1] = add_outer_tile<R, N, true>;
    OuterTileTable<N, R - 1>::fill(table);
  }
};
template <int N>
struct OuterTileTable<N, 0> {
  static constexpr void fill(OuterTile (*)[2]) {}
};

struct OuterTiles {
  OuterTile run[kPanelVectors + 1][kMaxTileRows + 1][2] = {};
  constexpr OuterTiles() {
    OuterTileTable<1, tile_rows(1)>::fill(run[1]);
    OuterTileTable<2, tile_rows(2)>::fill(run[2]);
#if CVX_REGISTERS == 32
    OuterTileTable<3, tile_rows(3)>::fill(run[3]);
    OuterTileTable<4, tile_rows(4)>::fill(run[4]);
#endif
  }
};
constexpr OuterTiles kOuterTiles;

void outer_product(const OuterProduct& p) {
  const int64_t all = (p.columns + kV - 1) / kV, rest = p.columns % kV;
  // Panels of equal width: 5 vectors become 3 + 2.
  const int64_t panels = (all + kPanelVectors - 1) / kPanelVectors;
  for (int64_t panel = 0, begin = 0; panel < panels; ++panel) {
    const int64_t vectors = (all - begin + panels - panel - 1) / (panels - panel);
    const bool part = rest != 0 && begin + vectors == all;
    const int64_t height = tile_rows(static_cast<int>(vectors));
    const int64_t tiles = (p.rows + height - 1) / height;
    for (int64_t tile = 0, row = 0; tile < tiles; ++tile) {
      const int64_t rows = (p.rows - row + tiles - tile - 1) / (tiles - tile);
      kOuterTiles.run[vectors][rows][part](p, row, begin * kV, rest);
      row += rows;
    }
    begin += vectors;
  }
}
