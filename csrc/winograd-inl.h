// Winograd transforms: one pass per axis over vectors of channels, written once for every F(m, r).
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h). The matrices come
// from winograd_table.h, which the build writes from exact fractions.
//
// The points are 0 (if their number is even), pairs +-p, and infinity. The rows of a pair in the input's matrix agree
// in the columns of one parity (the even ones if 0 is a point) and differ in sign in the others; so do the columns of a
// pair in the output's matrix, in the rows. So both transforms compute the two halves once and take their sum and
// difference. Half a row of the input's matrix is divided by its leading coefficient, which the sum and difference then
// multiply in. Rows are monic, so one of the two coefficients is 1: F(4, 3) needs 12 multiply-adds.

#include "winograd_table.h"

// Whether the i-th of `points` points begins a pair, or ends one. Finite points come first, 0 before the pairs.
constexpr bool begins_pair(int i, int points) {
  const int zero = (points - 1) % 2;
  return i >= zero && i < points - 1 && (i - zero) % 2 == 0;
}
constexpr bool ends_pair(int i, int points) { return i > 0 && begins_pair(i - 1, points); }

// sum += Factor * x, where Factor is a constant that is often 0 or 1. `empty` says that sum holds nothing yet.
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

  // The last factor of row I over the columns of one parity; 0 if there is none, 1 if dividing by it would round.
  template <int I, int Parity>
  static constexpr float lead() {
    double found = 0;
    for (int j = 0; j < kIn; ++j) {
      if (j % 2 == Parity && WinogradTable<M, R>::kInput[I][j] != 0.0f) found = WinogradTable<M, R>::kInput[I][j];
    }
    for (int j = 0; j < kIn; ++j) {
      const double value = WinogradTable<M, R>::kInput[I][j];
      if (j % 2 == Parity && found != 0 && static_cast<double>(static_cast<float>(value / found)) * found != value) {
        return 1.0f;
      }
    }
    return static_cast<float>(found);
  }

  template <int I, int J>
  struct Share {
    static constexpr float value() { return Factor<I, J>::value() / lead<I, J % 2>(); }
  };

  template <int I, int Parity>
  static CVX_INLINE Vec half_row(const Vec (&x)[kIn]) {
    Vec sum{};
    bool empty = true;
    each<kIn>([&](auto reversed) {
      constexpr int J = kIn - 1 - decltype(reversed)::value;  // the leading 1 first, then multiply-adds
      if constexpr (J % 2 == Parity) add_term(sum, empty, Share<I, J>(), x[J]);
    });
    return sum;
  }

  // even * E + Sign * odd * O
  template <int I, int Sign>
  static CVX_INLINE Vec join(Vec even, Vec odd) {
    constexpr float e = lead<I, 0>(), o = lead<I, 1>();
    if constexpr (o == 0.0f) return e == 1.0f ? even : splat(e) * even;
    if constexpr (e == 0.0f) return o == 1.0f ? odd : splat(o) * odd;
    const Vec left = e == 1.0f ? even : splat(e) * even;
    return o == 1.0f ? (Sign > 0 ? left + odd : left - odd) : left + splat(Sign * o) * odd;
  }

  static CVX_INLINE void apply(const Vec (&x)[kIn], Vec (&y)[kOut]) {
    each<kOut>([&](auto i) {
      constexpr int I = decltype(i)::value;
      if constexpr (!ends_pair(I, kOut)) {
        const Vec even = half_row<I, 0>(x);
        const Vec odd = half_row<I, 1>(x);
        y[I] = join<I, 1>(even, odd);
        if constexpr (begins_pair(I, kOut)) {
          const Vec difference = join<I, -1>(even, odd);
          y[I + 1] = kHasZero ? difference : -difference;
        }
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

// The transposed output transform, of a gradient that comes back: m outputs become points, whose products with the
// input's points are those of the weights' gradient.
template <int M, int R>
struct GradientTransform {
  static constexpr int kIn = M;
  static constexpr int kOut = M + R - 1;

  template <int I, int J>
  struct Factor {
    static constexpr float value() { return WinogradTable<M, R>::kOutput[J][I]; }
  };

  // The sum over outputs of one parity; those of a pair of points differ in the sign of the odd ones.
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
        const Vec even = half_row<I, 0>(x), odd = half_row<I, 1>(x);
        y[I] = even + odd;
        if constexpr (begins_pair(I, kOut)) y[I + 1] = even - odd;
      }
    });
  }
};

// A block of vectors with a step per axis. The image has numbers of the type in which it is stored; points are floats,
// or bfloat16 where products of those follow.
struct Lattice {
  void* base;
  int64_t step[3];
};

// One pass along `axis` over the lines of the other two axes.
struct Pass {
  Lattice in, out;
  int axis;
  int64_t lines[2];  // extents of the two other axes, in order
  const WinogradTile* tile;
  int64_t channel;  // where the first vector begins
  int64_t vectors;  // adjacent ones at each point
  int64_t lanes;    // channels of a vector that exist; less than kV only if it is alone
};

CVX_INLINE int other_axis(int axis, int which) { return which == 0 ? (axis == 0 ? 1 : 0) : (axis == 2 ? 1 : 2); }

// Calls line(in, out, i, j, channel) for each line and vector of the pass. in and out point at the line's first points;
// the vector's first channel is `channel` after the pass's.
template <class In, class Out, class Line>
CVX_INLINE void for_lines(const Pass& p, int64_t first_end, int64_t second_end, const Line& line) {
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t channels = p.vectors * kV;
  const int64_t in_steps[2] = {p.in.step[first], p.in.step[second]};
  const int64_t out_steps[2] = {p.out.step[first], p.out.step[second]};
  const In* in_row = static_cast<const In*>(p.in.base);
  Out* out_row = static_cast<Out*>(p.out.base);
  for (int64_t i = 0; i < first_end; ++i) {
    const In* in = in_row;
    Out* out = out_row;
    for (int64_t j = 0; j < second_end; ++j) {
      for (int64_t c = 0; c < channels; c += kV) line(in + c, out + c, i, j, c);
      in += in_steps[1];
      out += out_steps[1];
    }
    in_row += in_steps[0];
    out_row += out_steps[0];
  }
}

template <class Transform, class T>
CVX_INLINE void load_line(const T* in, int64_t step, Vec (&x)[Transform::kIn]) {
  CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) { x[k] = load(in + k * step); }
  // Without this the compiler loads a vector again for each multiply-add that uses it.
  CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) { asm("" : "+" CVX_VECTOR_REGISTER(x[k])); }
}

template <class Transform, class Out>
CVX_INLINE void transform_line(const Vec (&x)[Transform::kIn], Out* out, int64_t step) {
  Vec y[Transform::kOut];
  Transform::apply(x, y);
  CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) { store(out + k * step, y[k]); }
}

template <class Transform, class In = float, class Out = float>
void run_pass(const Pass& p) {
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  for_lines<In, Out>(p, p.lines[0], p.lines[1], [&](const In* in, Out* out, int64_t, int64_t, int64_t) CVX_LAMBDA {
    Vec x[Transform::kIn];
    load_line<Transform>(in, in_step, x);
    transform_line<Transform>(x, out, out_step);
  });
}

// The pass that reads the image. What lies outside of [begin, end) of the tile is padding and reads as zero.
template <class Transform, class In>
void read_pass(const Pass& p) {
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t* begin = p.tile->begin;
  const int64_t* end = p.tile->end;
  if (p.lanes == kV && begin[0] == 0 && begin[1] == 0 && begin[2] == 0 && end[first] == p.lines[0] &&
      end[second] == p.lines[1] && end[p.axis] == Transform::kIn) {
    return run_pass<Transform, In>(p);
  }
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  for_lines<In, float>(
      p, p.lines[0], p.lines[1], [&](const In* in, float* out, int64_t i, int64_t j, int64_t) CVX_LAMBDA {
        const bool inside = i >= begin[first] && i < end[first] && j >= begin[second] && j < end[second];
        Vec x[Transform::kIn];
        CVX_UNROLL for (int k = 0; k < Transform::kIn; ++k) {
          x[k] = Vec{};
          if (inside && k >= begin[p.axis] && k < end[p.axis]) {
            x[k] = p.lanes == kV ? load(in + k * in_step) : load_part(in + k * in_step, p.lanes);
          }
        }
        transform_line<Transform>(x, out, out_step);
      });
}

// The pass that writes the image: it adds bias and residual, applies the activation, and leaves out what lies outside.
template <class Transform, class Out>
void write_pass(const Pass& p) {
  const WinogradTile& tile = *p.tile;
  const int first = other_axis(p.axis, 0), second = other_axis(p.axis, 1);
  const int64_t in_step = p.in.step[p.axis], out_step = p.out.step[p.axis];
  const Activation act = tile.activation;
  const Vec slope = splat(act.slope);
  const bool whole = p.lanes == kV;
  const auto bias_of = [&](int64_t c) CVX_LAMBDA {
    if (tile.bias == nullptr) return Vec{};
    return whole ? load(tile.bias + p.channel + c) : load_part(tile.bias + p.channel + c, p.lanes);
  };
  const int64_t first_end = p.lines[0] < tile.end[first] ? p.lines[0] : tile.end[first];
  const int64_t second_end = p.lines[1] < tile.end[second] ? p.lines[1] : tile.end[second];
  if (whole && tile.residual == nullptr && act.is_cheap() && tile.end[p.axis] >= Transform::kOut) {
    return for_lines<float, Out>(p, first_end, second_end,
                                 [&](const float* in, Out* out, int64_t, int64_t, int64_t c) CVX_LAMBDA {
                                   const Vec bias = bias_of(c);
                                   Vec x[Transform::kIn], y[Transform::kOut];
                                   load_line<Transform>(in, in_step, x);
                                   Transform::apply(x, y);
                                   CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) {
                                     y[k] = apply_cheap(y[k] + bias, act.kind, slope);
                                   }
                                   CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) {
                                     store(out + k * out_step, y[k]);
                                   }
                                 });
  }
  for_lines<float, Out>(
      p, first_end, second_end, [&](const float* in, Out* out, int64_t i, int64_t j, int64_t c) CVX_LAMBDA {
        const Vec bias = bias_of(c);
        const Out* residual = nullptr;
        if (tile.residual != nullptr) {
          residual = static_cast<const Out*>(tile.residual) + p.channel + c + i * tile.residual_step[first] +
                     j * tile.residual_step[second];
        }
        Vec x[Transform::kIn], y[Transform::kOut];
        load_line<Transform>(in, in_step, x);
        Transform::apply(x, y);
        CVX_UNROLL for (int k = 0; k < Transform::kOut; ++k) {
          if (k < tile.end[p.axis]) {
            Vec value = y[k] + bias;
            if (residual != nullptr) {
              const Out* at = residual + k * tile.residual_step[p.axis];
              value += whole ? load(at) : load_part(at, p.lanes);
            }
            value = act.is_cheap() ? apply_cheap(value, act.kind, slope) : apply_transcendental(value, act);
            if (whole) {
              store(out + k * out_step, value);
            } else {
              store_part(out + k * out_step, value, p.lanes);
            }
          }
        }
      });
}

typedef void (*PassFunction)(const Pass&);

struct AxisPasses {
  int m, r;
  PassFunction read, read_bfloats, input, input_to_bfloats, output, write, write_bfloats, read_gradient, gradient;

  template <class T>
  PassFunction reading() const {
    return kElementOf<T> == Element::kBfloat16 ? read_bfloats : read;
  }
  template <class T>
  PassFunction writing() const {
    return kElementOf<T> == Element::kBfloat16 ? write_bfloats : write;
  }
  // The last pass of the input, whose points are of this type.
  template <class T>
  PassFunction ending() const {
    return kElementOf<T> == Element::kBfloat16 ? input_to_bfloats : input;
  }
};

constexpr AxisPasses kAxisPasses[] = {
#define CVX_PASSES(M, R)                            \
  {M,                                               \
   R,                                               \
   read_pass<InputTransform<M, R>, float>,          \
   read_pass<InputTransform<M, R>, Bfloat16>,       \
   run_pass<InputTransform<M, R>>,                  \
   run_pass<InputTransform<M, R>, float, Bfloat16>, \
   run_pass<OutputTransform<M, R>>,                 \
   write_pass<OutputTransform<M, R>, float>,        \
   write_pass<OutputTransform<M, R>, Bfloat16>,     \
   read_pass<GradientTransform<M, R>, float>,       \
   run_pass<GradientTransform<M, R>>},
    WINOGRAD_PAIRS(CVX_PASSES)};

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

// Vectors of channels that go through all passes together, to make passes long: as many as leave the scratch in L1
// beside the lines that are read and written.
constexpr int64_t kScratchVectors = 512;
int64_t vectors_together(int points) {
  const int64_t fit = kScratchVectors / points;
  return fit > 4 ? 4 : fit < 1 ? 1 : fit;
}

// Calls run(pass) for each batch of channels; it begins at pass.channel.
template <class Run>
void for_batches(const WinogradShape& s, const WinogradTile& tile, int64_t channels, const Run& run) {
  const int64_t together = vectors_together(s.points());
  Pass p;
  p.tile = &tile;
  for (int64_t c = 0; c < channels; c += p.vectors * kV) {
    const int64_t whole = (channels - c) / kV;
    p.channel = c;
    p.vectors = whole == 0 ? 1 : whole < together ? whole : together;
    p.lanes = whole == 0 ? channels - c : kV;
    run(p);
  }
}

// Transforms a tile of `size` numbers per axis into its points, last axis first. pass(passes, i, count) is the function
// of the i-th of `count` passes, of which the first reads the image.
template <class T, class Points, class PassOf>
void transform_tile(const WinogradShape& s, const int* size, const WinogradTile& tile, const T* src,
                    const int64_t* src_step, int64_t channels, Points* points, int64_t point_step, float* scratch,
                    const PassOf& pass) {
  const int64_t a[3] = {s.m[0] + s.r[0] - 1, s.m[1] + s.r[1] - 1, s.m[2] + s.r[2] - 1};
  int axes[3];
  const int count = transformed_axes(s, true, axes);
  const int64_t step = vectors_together(s.points()) * kV;
  for_batches(s, tile, channels, [&](Pass& p) {
    int64_t lines[3] = {size[0], size[1], size[2]};
    const Lattice image{const_cast<T*>(src) + p.channel, {src_step[0], src_step[1], src_step[2]}};
    const Lattice between{scratch, {a[1] * a[2] * step, a[2] * step, step}};
    const Lattice result{points + p.channel, {a[1] * a[2] * point_step, a[2] * point_step, point_step}};
    for (int i = 0; i < count; ++i) {
      p.axis = axes[i];
      p.in = i == 0 ? image : between;
      p.out = i == count - 1 ? result : between;
      p.lines[0] = lines[other_axis(p.axis, 0)];
      p.lines[1] = lines[other_axis(p.axis, 1)];
      pass(passes_of(s.m[p.axis], s.r[p.axis]), i, count)(p);
      lines[p.axis] = a[p.axis];
    }
  });
}

template <class T, class Points>
void transform_input(const WinogradShape& s, const WinogradTile& tile, const T* src, const int64_t* src_step,
                     int64_t channels, Points* points, int64_t point_step, float* scratch) {
  const int size[3] = {s.m[0] + s.r[0] - 1, s.m[1] + s.r[1] - 1, s.m[2] + s.r[2] - 1};
  transform_tile(s, size, tile, src, src_step, channels, points, point_step, scratch,
                 [](const AxisPasses& passes, int i, int count) {
                   return i == 0 ? passes.reading<T>() : i == count - 1 ? passes.ending<Points>() : passes.input;
                 });
}

template <class T>
void winograd_input(const WinogradShape& s, const WinogradTile& tile, const T* src, const int64_t* src_step,
                    int64_t channels, float* points, int64_t point_step, float* scratch) {
  transform_input(s, tile, src, src_step, channels, points, point_step, scratch);
}

template <class T>
void winograd_rounded_input(const WinogradShape& s, const WinogradTile& tile, const T* src, const int64_t* src_step,
                            int64_t channels, Bfloat16* points, int64_t point_step, float* scratch) {
  transform_input(s, tile, src, src_step, channels, points, point_step, scratch);
  // Products run over steps of 32 channels.
  const int64_t begin = (channels + kV - 1) / kV * kV;
  for (int64_t p = 0; begin < point_step && p < s.points(); ++p) {
    __builtin_memset(points + p * point_step + begin, 0, static_cast<uint64_t>(point_step - begin) * sizeof(Bfloat16));
  }
}

template <class T>
void winograd_output(const WinogradShape& s, const WinogradTile& tile, const float* points, int64_t point_step,
                     int64_t channels, T* dst, const int64_t* dst_step, float* scratch) {
  const int64_t a[3] = {s.m[0] + s.r[0] - 1, s.m[1] + s.r[1] - 1, s.m[2] + s.r[2] - 1};
  int axes[3];
  const int count = transformed_axes(s, false, axes);
  const int64_t step = vectors_together(s.points()) * kV;
  for_batches(s, tile, channels, [&](Pass& p) {
    int64_t size[3] = {a[0], a[1], a[2]};
    const Lattice from{const_cast<float*>(points) + p.channel,
                       {a[1] * a[2] * point_step, a[2] * point_step, point_step}};
    const Lattice between{scratch, {a[1] * a[2] * step, a[2] * step, step}};
    const Lattice image{dst + p.channel, {dst_step[0], dst_step[1], dst_step[2]}};
    for (int i = 0; i < count; ++i) {
      p.axis = axes[i];
      p.in = i == 0 ? from : between;
      p.out = i == count - 1 ? image : between;
      p.lines[0] = size[other_axis(p.axis, 0)];
      p.lines[1] = size[other_axis(p.axis, 1)];
      const AxisPasses& passes = passes_of(s.m[p.axis], s.r[p.axis]);
      (i == count - 1 ? passes.writing<T>() : passes.output)(p);
      size[p.axis] = s.m[p.axis];
    }
  });
}

void winograd_gradient(const WinogradShape& s, const WinogradTile& tile, const float* src, const int64_t* src_step,
                       int64_t channels, float* points, int64_t point_step, float* scratch) {
  transform_tile(s, s.m, tile, src, src_step, channels, points, point_step, scratch,
                 [](const AxisPasses& passes, int i, int) { return i == 0 ? passes.read_gradient : passes.gradient; });
}

// Kernels are transformed in double, since they are transformed once for many products.
typedef double DoubleVec __attribute__((vector_size(CVX_VECTOR_BYTES), aligned(8), may_alias));

void kernel_points(double* dst, const double* src, const double* matrix, int64_t points, int64_t taps, int64_t before,
                   int64_t after) {
  constexpr int64_t kLanes = kV / 2, kMostTaps = 7;
  for (int64_t b = 0; b < before; ++b) {
    for (int64_t j = 0; j < after; j += kLanes) {
      DoubleVec x[kMostTaps];
      for (int64_t t = 0; t < taps; ++t) x[t] = *reinterpret_cast<const DoubleVec*>(src + (b * taps + t) * after + j);
      for (int64_t p = 0; p < points; ++p) {
        DoubleVec sum{};
        for (int64_t t = 0; t < taps; ++t) {
          const double factor = matrix[p * taps + t];
          if (factor != 0.0) sum += factor * x[t];  // 0 times an infinite weight would be NaN
        }
        *reinterpret_cast<DoubleVec*>(dst + (b * points + p) * after + j) = sum;
      }
    }
  }
}
