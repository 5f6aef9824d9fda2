// The products of planes: vectors over pixels along w, one plane for each channel.

// A tile of N vectors of pixels by C outputs keeps N * C accumulators, and the smaller of N vectors and C weights, plus
// one of the others, in registers:
//   AVX-512, NEON (32):      6 x 4 -> 24 + 4 + 1 = 29    8 x 3 -> 28    12 x 2 -> 27    12 x 1 -> 14
//   AVX2 (16 registers):     3 x 4 -> 12 + 3 + 1 = 16    4 x 3 -> 16    6 x 2  -> 15    12 x 1 -> 14
constexpr int planar_vectors(int outputs) {
#if CVX_REGISTERS == 32
  return outputs == 4 ? 6 : outputs == 3 ? 8 : 12;
#else
  return outputs == 4 ? 3 : outputs == 3 ? 4 : outputs == 2 ? 6 : 12;
#endif
}
constexpr int kMostPlanarVectors = 12;

// Computes outputs [output, output + C) of N vectors of pixels, the first of which is pixel `begin`; b holds their
// weights.
template <int N, int C>
void run_planar(const Planar& p, int64_t output, int64_t begin, const float* b) {
  Vec sum[N][C];
  CVX_UNROLL for (int c = 0; c < C; ++c) {
    const Vec bias = p.bias == nullptr ? Vec{} : splat(p.bias[output + c]);
    CVX_UNROLL for (int i = 0; i < N; ++i) { sum[i][c] = bias; }
  }
  for (int64_t line = 0; line < p.lines; ++line) {
    const float* plane = p.a[line] + begin;
    for (int64_t k = 0; k < p.channels; ++k) {
      const float* a = plane;
      for (int64_t t = 0; t < p.width; ++t) {
        if constexpr (N < C) {
          Vec pixels[N];
          CVX_UNROLL for (int i = 0; i < N; ++i) { pixels[i] = load(a + i * kV); }
          CVX_UNROLL for (int c = 0; c < C; ++c) {
            const Vec weight = splat(b[c]);
            CVX_UNROLL for (int i = 0; i < N; ++i) { sum[i][c] += pixels[i] * weight; }
          }
        } else {
          Vec weight[C];
          CVX_UNROLL for (int c = 0; c < C; ++c) { weight[c] = splat(b[c]); }
          CVX_UNROLL for (int i = 0; i < N; ++i) {
            const Vec pixels = load(a + i * kV);
            CVX_UNROLL for (int c = 0; c < C; ++c) { sum[i][c] += pixels * weight[c]; }
          }
        }
        a += p.dilation;
        b += C;
      }
      plane += p.a_step[line];
    }
  }
  const int64_t at = output * p.c_step + begin;
  if (p.residual != nullptr) {
    CVX_UNROLL for (int c = 0; c < C; ++c) {
      CVX_UNROLL for (int i = 0; i < N; ++i) { sum[i][c] += load(p.residual + at + c * p.c_step + i * kV); }
    }
  }
  if (p.activation.is_cheap()) {
    const Vec slope = splat(p.activation.slope);
    with_cheap(p.activation.kind, [&](auto kind) CVX_LAMBDA {
      CVX_UNROLL for (int c = 0; c < C; ++c) {
        CVX_UNROLL for (int i = 0; i < N; ++i) {
          sum[i][c] = apply_cheap(sum[i][c], static_cast<ActivationKind>(kind.value), slope);
        }
      }
    });
  }
  CVX_UNROLL for (int c = 0; c < C; ++c) {
    CVX_UNROLL for (int i = 0; i < N; ++i) { store(p.c + at + c * p.c_step + i * kV, sum[i][c]); }
  }
}

typedef void (*PlanarFunction)(const Planar&, int64_t, int64_t, const float*);

template <int C, int N>
struct PlanarTable {
  static constexpr void fill(PlanarFunction* table) {
    table[N] = run_planar<N, C>;
    PlanarTable<C, N - 1>::fill(table);
  }
};
template <int C>
struct PlanarTable<C, 0> {
  static constexpr void fill(PlanarFunction*) {}
};

struct PlanarTiles {
  PlanarFunction run[Planar::kGroup + 1][kMostPlanarVectors + 1] = {};
  constexpr PlanarTiles() {
    PlanarTable<1, planar_vectors(1)>::fill(run[1]);
    PlanarTable<2, planar_vectors(2)>::fill(run[2]);
    PlanarTable<3, planar_vectors(3)>::fill(run[3]);
    PlanarTable<4, planar_vectors(4)>::fill(run[4]);
  }
};
constexpr PlanarTiles kPlanarTiles;

void planar(const Planar& p) {
  const int64_t vectors = (p.pixels + kV - 1) / kV;
  const float* b = p.b;
  for (int64_t output = 0; output < p.outputs;) {
    const int outputs = static_cast<int>(Planar::group(p.outputs, output));
    // Tiles of equal width: 8 vectors become 4 + 4, not 6 + 2.
    const int64_t most = planar_vectors(outputs), tiles = (vectors + most - 1) / most;
    for (int64_t tile = 0, first = 0; tile < tiles; ++tile) {
      const int64_t count = (vectors - first + tiles - tile - 1) / (tiles - tile);
      kPlanarTiles.run[outputs][count](p, output, first * kV, b);
      first += count;
    }
    b += p.lines * p.channels * p.width * outputs;
    output += outputs;
  }
  if (!p.activation.is_cheap()) {
    for (int64_t k = 0; k < p.outputs; ++k) activate(p.c + k * p.c_step, vectors * kV, p.activation);
  }
}
