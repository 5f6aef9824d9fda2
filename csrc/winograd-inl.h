// Winograd transforms: one pass per axis, written once for every F(m, r) over vectors of channels.
//
// Included inside the anonymous namespace of one instruction set's file (see kernels-inl.h). The matrices come from
// winograd_table.h, which the build writes from exact fractions.
//
// The points are 0 (if their number is even), pairs +-p, and infinity. The rows of a pair in the input's matrix agree
// on the columns of one parity (the even ones if 0 is a point) and differ in sign on the others; so do the columns of a
// pair in the output's matrix on rows. Both transforms compute the two halves once and take their sum and difference.

#include "winograd_table.h"

// Calls f(Index<0>()), ..., f(Index<N - 1>()): a loop whose counter is a constant in the body, so that coefficients
// fold into the code and zeros out of it.
template <int I>
struct Index {
  static constexpr int value = I;
};

template <int N, int I = 0, class F>
CVX_INLINE void each(const F& f) {
  if constexpr (I < N) {
    f(Index<I>());
    each<N, I + 1>(f);
  }
}

// Whether the i-th of `points` points begins a pair, or ends one. The finite ones come first, 0 before the pairs.
constexpr bool begins_pair(int i, int points) {
  const int zero = (points - 1) % 2;
  return i >= zero && i < points - 1 && (i - zero) % 2 == 0;
}
constexpr bool ends_pair(int i, int points) { return i > 0 && begins_pair(i - 1, points); }

// sum += Factor * x, where Factor is a constant that is often 0 or 1; `empty` says that sum holds nothing yet.
template <class Factor>
CVX_INLINE void add_term(Vec& sum, bool& empty, Factor, Vec x) {
  constexpr float factor = Factor::value();
  if constexpr (factor != 0.0f) {
    const Vec term = factor == 1.0f ? x : splat(factor) * x;
    sum = empty ? term : sum + term;
    empty = false;
  }
}

template <int M, int R>
struct InputTransform {
  static constexpr int kIn = M + R - 1;
  static constexpr int kOut = M + R - 1;
  static constexpr bool kHasZero = (kOut - 1) % 2 == 1;

  template <int I, int J>
  struct Factor {
    static constexpr float value() { return WinogradTable<M, R>::kInput[I][J]; }
  };

  // Row I times x over the columns of one parity.
  template <int I, int Parity>
  static CVX_INLINE Vec half_row(const Vec (&x)[kIn]) {
    Vec sum{};
    bool empty = true;
    each<kIn>([&](auto j) {
      constexpr int J = decltype(j)::value;
      if constexpr (J % 2 == Parity) add_term(sum, empty, Factor<I, J>(), x[J]);
    });
    return sum;
  }

  static CVX_INLINE void apply(const Vec (&x)[kIn], Vec (&y)[kOut]) {
    each<kOut>([&](auto i) {
      constexpr int I = decltype(i)::value;
      if constexpr (!ends_pair(I, kOut)) {
        const Vec even = half_row<I, 0>(x);
        const Vec odd = half_row<I, 1>(x);
        y[I] = even + odd;
        if constexpr (begins_pair(I, kOut)) y[I + 1] = kHasZero ? even - odd : odd - even;
      }
    });
  }
};

template <int M, int R>
struct OutputTransform {
  static constexpr int kIn = M + R - 1;
  static constexpr int kOut = M;

  template <int I, int J>
  struct Factor {
    static constexpr float value() { return WinogradTable<M, R>::kOutput[I][J]; }
  };

  static CVX_INLINE void apply(const Vec (&x)[kIn], Vec (&y)[kOut]) {
    Vec half[kIn];  // of a pair: its sum, then its difference
    each<kIn>([&](auto j) {
      constexpr int J = decltype(j)::value;
      if constexpr (begins_pair(J, kIn)) {
        half[J] = x[J] + x[J + 1];
        half[J + 1] = x[J] - x[J + 1];
      } else if constexpr (!ends_pair(J, kIn)) {
        half[J] = x[J];
      }
    });
    each<kOut>([&](auto i) {
      constexpr int I = decltype(i)::value;
      Vec sum{};
      bool empty = true;
      each<kIn>([&](auto j) {
        constexpr int J = decltype(j)::value;
        if constexpr (!ends_pair(J, kIn)) {
          add_term(sum, empty, Factor<I, J>(), half[begins_pair(J, kIn) && I % 2 == 1 ? J + 1 : J]);
        }
      });
      y[I] = sum;
    });
  }
};

// A block of vectors with a step per axis, in floats.
struct Lattice {
  float* base;
  int64_t step[3];
};

// One pass along `axis` over the lines of the other two axes.
struct Pass {
  Lattice in, out;
  int axis;
  int64_t lines[2];  // extents of the two other axes, in order
  const WinogradTile* tile;
  int64_t channel;  // where the vector begins
  int64_t lanes;    // channels of the vector that exist
};

CVX_INLINE int other_axis(int axis, int which) { return which == 0 ? (axis == 0 ? 1 : 0) : (axis == 2 ? 1 : 2); }

template <class Transform>
void run_pass(const Pass& p) {
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  for (int64_t i = 0; i < p.lines[0]; ++i) {
    for (int64_t j = 0; j < p.lines[1]; ++j) {
      const float* in = p.in.base + i * p.in.step[first] + j * p.in.step[second];
      float* out = p.out.base + i * p.out.step[first] + j * p.out.step[second];
      Vec x[Transform::kIn], y[Transform::kOut];
      CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) { x[k] = load(in + k * in_step); }
      Transform::apply(x, y);
      CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) { store(out + k * out_step, y[k]); }
    }
  }
}

// The pass that reads the image: what lies outside of [begin, end) of the tile is padding, and reads as zero.
template <class Transform>
void read_pass(const Pass& p) {
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  const int64_t* begin = p.tile->begin;
  const int64_t* end = p.tile->end;
  for (int64_t i = 0; i < p.lines[0]; ++i) {
    for (int64_t j = 0; j < p.lines[1]; ++j) {
      const bool inside = i >= begin[first] && i < end[first] && j >= begin[second] && j < end[second];
      const float* in = p.in.base + i * p.in.step[first] + j * p.in.step[second];
      float* out = p.out.base + i * p.out.step[first] + j * p.out.step[second];
      Vec x[Transform::kIn], y[Transform::kOut];
      if (inside && p.lanes == kV && begin[p.axis] == 0 && end[p.axis] == Transform::kIn) {
        CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) { x[k] = load(in + k * in_step); }
      } else {
        CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) {
          x[k] = Vec{};
          if (inside && k >= begin[p.axis] && k < end[p.axis]) {
            x[k] = p.lanes == kV ? load(in + k * in_step) : load_part(in + k * in_step, p.lanes);
          }
        }
      }
      Transform::apply(x, y);
      CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) { store(out + k * out_step, y[k]); }
    }
  }
}

// Not inlined: the many instructions of a transcendental activation stand once, not in every pass.
__attribute__((noinline)) Vec apply_transcendental(Vec x, ActivationKind kind, Vec slope) {
  return apply_any(x, kind, slope);
}

// The pass that writes the image: adds bias and residual, applies the activation, leaves out what is outside.
template <class Transform>
void write_pass(const Pass& p) {
  const WinogradTile& tile = *p.tile;
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  const Activation act = tile.activation;
  const Vec slope = splat(act.slope);
  const bool whole = p.lanes == kV;
  Vec bias{};
  if (tile.bias != nullptr) bias = whole ? load(tile.bias + p.channel) : load_part(tile.bias + p.channel, p.lanes);
  for (int64_t i = 0; i < p.lines[0] && i < tile.end[first]; ++i) {
    for (int64_t j = 0; j < p.lines[1] && j < tile.end[second]; ++j) {
      const float* in = p.in.base + i * p.in.step[first] + j * p.in.step[second];
      float* out = p.out.base + i * p.out.step[first] + j * p.out.step[second];
      const float* residual = nullptr;
      if (tile.residual != nullptr) {
        residual = tile.residual + p.channel + i * tile.residual_step[first] + j * tile.residual_step[second];
      }
      Vec x[Transform::kIn], y[Transform::kOut];
      CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) { x[k] = load(in + k * in_step); }
      Transform::apply(x, y);
      CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) {
        if (k < tile.end[p.axis]) {
          Vec value = y[k] + bias;
          if (residual != nullptr) {
            const float* at = residual + k * tile.residual_step[p.axis];
            value += whole ? load(at) : load_part(at, p.lanes);
          }
          value = act.is_cheap() ? apply_cheap(value, act.kind, slope) : apply_transcendental(value, act.kind, slope);
          if (whole) {
            store(out + k * out_step, value);
          } else {
            store_part(out + k * out_step, value, p.lanes);
          }
        }
      }
    }
  }
}

typedef void (*PassFunction)(const Pass&);

struct AxisPasses {
  int m, r;
  PassFunction read, input, output, write;
};

template <int M, int R>
constexpr AxisPasses axis_passes() {
  return {M,
          R,
          read_pass<InputTransform<M, R>>,
          run_pass<InputTransform<M, R>>,
          run_pass<OutputTransform<M, R>>,
          write_pass<OutputTransform<M, R>>};
}

constexpr AxisPasses kAxisPasses[] = {
    axis_passes<2, 2>(), axis_passes<2, 3>(), axis_passes<2, 5>(), axis_passes<4, 2>(), axis_passes<4, 3>(),
    axis_passes<4, 5>(), axis_passes<6, 2>(), axis_passes<6, 3>(), axis_passes<6, 5>(),
};

const AxisPasses& passes_of(int m, int r) {
  int i = 0;
  while (kAxisPasses[i].m != m || kAxisPasses[i].r != r) ++i;
  return kAxisPasses[i];
}

// The axes that are transformed (kernel > 1), at least one, in the order given.
int transformed_axes(const WinogradShape& s, bool last_first, int* axes) {
  int count = 0;
  for (int i = 0; i < 3; ++i) {
    const int axis = last_first ? 2 - i : i;
    if (s.r[axis] > 1) axes[count++] = axis;
  }
  return count;
}

void winograd_input(const WinogradShape& s, const WinogradTile& tile, const float* src, const int64_t* src_step,
                    int64_t channels, float* points, int64_t point_step, float* scratch) {
  const int64_t a[3] = {s.m[0] + s.r[0] - 1, s.m[1] + s.r[1] - 1, s.m[2] + s.r[2] - 1};
  int axes[3];
  const int count = transformed_axes(s, true, axes);
  Pass p;
  p.tile = &tile;
  for (int64_t c = 0; c < channels; c += kV) {
    p.channel = c;
    p.lanes = channels - c < kV ? channels - c : kV;
    const Lattice image{const_cast<float*>(src) + c, {src_step[0], src_step[1], src_step[2]}};
    const Lattice between{scratch, {a[1] * a[2] * kV, a[2] * kV, kV}};
    const Lattice result{points + c, {a[1] * a[2] * point_step, a[2] * point_step, point_step}};
    for (int i = 0; i < count; ++i) {
      p.axis = axes[i];
      p.in = i == 0 ? image : between;
      p.out = i == count - 1 ? result : between;
      p.lines[0] = a[other_axis(p.axis, 0)];
      p.lines[1] = a[other_axis(p.axis, 1)];
      const AxisPasses& passes = passes_of(s.m[p.axis], s.r[p.axis]);
      (i == 0 ? passes.read : passes.input)(p);
    }
  }
}

void winograd_output(const WinogradShape& s, const WinogradTile& tile, const float* points, int64_t point_step,
                     int64_t channels, float* dst, const int64_t* dst_step, float* scratch) {
  int64_t size[3] = {s.m[0] + s.r[0] - 1, s.m[1] + s.r[1] - 1, s.m[2] + s.r[2] - 1};
  const int64_t a[3] = {size[0], size[1], size[2]};
  int axes[3];
  const int count = transformed_axes(s, false, axes);
  Pass p;
  p.tile = &tile;
  for (int64_t c = 0; c < channels; c += kV) {
    p.channel = c;
    p.lanes = channels - c < kV ? channels - c : kV;
    for (int i = 0; i < 3; ++i) size[i] = a[i];
    const Lattice from{const_cast<float*>(points) + c, {a[1] * a[2] * point_step, a[2] * point_step, point_step}};
    const Lattice between{scratch, {a[1] * a[2] * kV, a[2] * kV, kV}};
    const Lattice image{dst + c, {dst_step[0], dst_step[1], dst_step[2]}};
    for (int i = 0; i < count; ++i) {
      p.axis = axes[i];
      p.in = i == 0 ? from : between;
      p.out = i == count - 1 ? image : between;
      p.lines[0] = size[other_axis(p.axis, 0)];
      p.lines[1] = size[other_axis(p.axis, 1)];
      const AxisPasses& passes = passes_of(s.m[p.axis], s.r[p.axis]);
      (i == count - 1 ? passes.write : passes.output)(p);
      size[p.axis] = s.m[p.axis];
    }
  }
}
