// A vector of floats, written once over the compiler's vector extension.
//
// Included inside the anonymous namespace of one instruction set's file, which defines CVX_VECTOR_BYTES first.
// Multiply-adds are contracted to FMA by the compiler (-ffp-contract=fast) where the set has it. Only partial loads
// and stores need the set's own instructions.

constexpr int kV = CVX_VECTOR_BYTES / 4;

typedef float Vec __attribute__((vector_size(CVX_VECTOR_BYTES)));
typedef int32_t IntVec __attribute__((vector_size(CVX_VECTOR_BYTES)));
typedef uint32_t WordVec __attribute__((vector_size(CVX_VECTOR_BYTES)));
typedef uint16_t HalfVec __attribute__((vector_size(CVX_VECTOR_BYTES / 2)));  // a vector of bfloat16
typedef float UnalignedVec __attribute__((vector_size(CVX_VECTOR_BYTES), aligned(4), may_alias));

#define CVX_INLINE inline __attribute__((always_inline))

// The constraint of an asm operand that is one vector.
#if defined(__AVX512F__)
#define CVX_VECTOR_REGISTER "v"
#elif defined(__x86_64__)
#define CVX_VECTOR_REGISTER "x"
#else
#define CVX_VECTOR_REGISTER "w"
#endif

// Marks a lambda that must be inlined; it stands between parameters and body.
#define CVX_LAMBDA __attribute__((always_inline))

// For loops over accumulators: one that stays rolled (the initialisation included) would make the compiler keep them in
// memory.
#define CVX_UNROLL _Pragma("GCC unroll 16")

// Calls f(Index<0>()), ..., f(Index<N - 1>()): a loop whose counter is a constant in the body, so that coefficients are
// folded into the code and zeros vanish from it.
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

CVX_INLINE Vec splat(float x) { return x - Vec{}; }  // x - 0 keeps the sign of zero, which x + 0 does not
CVX_INLINE Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
CVX_INLINE void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }

// Only the first n (0 < n < kV) floats exist: the others load as zero and are not stored.
#if defined(__AVX512F__) && CVX_VECTOR_BYTES == 64
CVX_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
CVX_INLINE Vec load_part(const float* p, int64_t n) {
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(first_lanes(n), p));
}
CVX_INLINE void store_part(float* p, Vec v, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), reinterpret_cast<__m512>(v));
}
#elif defined(__AVX2__) && CVX_VECTOR_BYTES == 32
alignas(32) const int32_t kLaneMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
CVX_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMask + 8 - n));
}
CVX_INLINE Vec load_part(const float* p, int64_t n) {
  return reinterpret_cast<Vec>(_mm256_maskload_ps(p, first_lanes(n)));
}
CVX_INLINE void store_part(float* p, Vec v, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), reinterpret_cast<__m256>(v));
}
#else
CVX_INLINE Vec load_part(const float* p, int64_t n) {
  float lanes[kV] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
CVX_INLINE void store_part(float* p, Vec v, int64_t n) {
  float lanes[kV];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
#endif

// A bfloat16 is the upper half of a float.
CVX_INLINE Vec widen(HalfVec half) { return reinterpret_cast<Vec>(__builtin_convertvector(half, WordVec) << 16); }

CVX_INLINE float widened(float x) { return x; }

// Rounds to nearest, ties to even. NaN stays NaN, with a digit that the upper half keeps.
#if defined(__AVX512BF16__) && CVX_VECTOR_BYTES == 64
CVX_INLINE HalfVec narrow(Vec x) { return reinterpret_cast<HalfVec>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x))); }
#else
CVX_INLINE HalfVec narrow(Vec x) {
  const WordVec bits = reinterpret_cast<WordVec>(x), upper = bits >> 16;
  const WordVec rounded = (bits + 0x7FFF + (upper & 1)) >> 16;
  const WordVec nan = reinterpret_cast<WordVec>(x != x);
  return __builtin_convertvector((nan & (upper | 0x40)) | (~nan & rounded), HalfVec);
}
#endif

CVX_INLINE Vec load(const Bfloat16* p) {
  HalfVec half;
  __builtin_memcpy(&half, p, sizeof half);
  return widen(half);
}
CVX_INLINE void store(Bfloat16* p, Vec v) {
  const HalfVec half = narrow(v);
  __builtin_memcpy(p, &half, sizeof half);
}
#if defined(__AVX512BW__) && CVX_VECTOR_BYTES == 64
CVX_INLINE Vec load_part(const Bfloat16* p, int64_t n) {
  return widen(reinterpret_cast<HalfVec>(_mm256_maskz_loadu_epi16(first_lanes(n), p)));
}
CVX_INLINE void store_part(Bfloat16* p, Vec v, int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), reinterpret_cast<__m256i>(narrow(v)));
}
#else
CVX_INLINE Vec load_part(const Bfloat16* p, int64_t n) {
  HalfVec half{};
  for (int64_t i = 0; i < n; ++i) half[i] = p[i].bits;
  return widen(half);
}
CVX_INLINE void store_part(Bfloat16* p, Vec v, int64_t n) {
  const HalfVec half = narrow(v);
  for (int64_t i = 0; i < n; ++i) p[i].bits = half[i];
}
#endif

// Adjacent vectors: N whole ones, or (N = 0) one of which the first `lanes` floats exist.
template <int N>
struct Block {
  static constexpr int kVectors = N == 0 ? 1 : N;
  Vec v[kVectors];
};

template <int N, class T>
CVX_INLINE Block<N> load_block(const T* p, int64_t lanes) {
  Block<N> b;
  if constexpr (N == 0) {
    b.v[0] = load_part(p, lanes);
  } else {
    each<N>([&](auto i) CVX_LAMBDA { b.v[i.value] = load(p + i.value * kV); });
  }
  return b;
}

template <int N, class T>
CVX_INLINE void store_block(T* p, const Block<N>& b, int64_t lanes) {
  if constexpr (N == 0) {
    store_part(p, b.v[0], lanes);
  } else {
    each<N>([&](auto i) CVX_LAMBDA { store(p + i.value * kV, b.v[i.value]); });
  }
}

// Calls f(Index<N>(), i, lanes) for blocks of 4, then 1, then 0 (see Block) vectors, until all of [0, count) is done.
// Blocks of four share pointers and factors, and hide the latency of additions.
template <class F>
CVX_INLINE void for_blocks(int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + 4 * kV <= count; i += 4 * kV) f(Index<4>(), i, int64_t{kV});
  for (; i + kV <= count; i += kV) f(Index<1>(), i, int64_t{kV});
  if (i < count) f(Index<0>(), i, count - i);
}

// shuffle<F>(a, b)[i] is float F::at(i) of a followed by b.
#if CVX_VECTOR_BYTES == 64
#define CVX_EACH_LANE(f) \
  f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#elif CVX_VECTOR_BYTES == 32
#define CVX_EACH_LANE(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#else
#define CVX_EACH_LANE(f) f(0), f(1), f(2), f(3)
#endif

template <class F>
CVX_INLINE Vec shuffle(Vec a, Vec b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, CVX_EACH_LANE(F::at));
#else
  return __builtin_shuffle(a, b, IntVec{CVX_EACH_LANE(F::at)});
#endif
}

// Both return b if either is NaN: with the constant as a, NaN survives. The instructions do just that, but compilers do
// not find them.
#if defined(__AVX512F__) && CVX_VECTOR_BYTES == 64
CVX_INLINE Vec max(Vec a, Vec b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
CVX_INLINE Vec min(Vec a, Vec b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
#elif defined(__AVX2__) && CVX_VECTOR_BYTES == 32
CVX_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
CVX_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
#else
CVX_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
CVX_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif
// NaN in x spreads, and stays: every later comparison with it is false.
CVX_INLINE Vec max_or_nan(Vec best, Vec x) { return (x > best) | (x != x) ? x : best; }

CVX_INLINE Vec bits_to_float(IntVec bits) { return reinterpret_cast<Vec>(bits); }

CVX_INLINE IntVec float_to_bits(Vec x) { return reinterpret_cast<IntVec>(x); }

// x * 2**n for whole numbers n, one in each lane; +0 and +infinity beyond the range.
CVX_INLINE Vec scale_by_power(Vec x, Vec n) {
#if defined(__AVX512F__) && CVX_VECTOR_BYTES == 64
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(0xFFFF, reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(n)));
#else
  // Multiplies in two factors, since no float is 2**128. n + 1.5 * 2**23 has n in its low bits.
  const IntVec whole = float_to_bits(n + splat(12582912.0f)) - 0x4B400000;
  const IntVec half = whole >> 1;
  return x * bits_to_float((half + 127) << 23) * bits_to_float((whole - half + 127) << 23);
#endif
}

// e**x for -87.33 <= x <= 89, a normal number or, beyond 88.72, infinity. x = n ln 2 + r, |r| <= ln 2 / 2; the
// polynomial is the minimax one of degree 6 that begins with 1 + r. It errs by 3.7e-9 relative, far below half an ulp
// (6e-8). ln 2 is split so that n * 0.693359375 is exact.
CVX_INLINE Vec exp_inside(Vec x) {
  // Adding 1.5 * 2**23 rounds to the nearest integer.
  const Vec n = (x * splat(1.44269504088896341f) + splat(12582912.0f)) - splat(12582912.0f);
  const Vec r = (x - n * splat(0.693359375f)) + n * splat(2.12194440054690583e-4f);
  Vec sum = splat(1.38145837e-3f);
  sum = sum * r + splat(8.36872403e-3f);
  sum = sum * r + splat(4.1668389e-2f);
  sum = sum * r + splat(0.166665211f);
  sum = sum * r + splat(0.49999994f);
  sum = sum * r + splat(1.0f);
  sum = sum * r + splat(1.0f);
  return scale_by_power(sum, n);
}

// e**x; saturates to +0 (where x < -87.34, the smallest normal number) and +infinity.
CVX_INLINE Vec exp(Vec x) {
  const Vec clipped = max(splat(-105.0f), min(splat(89.0f), x));  // NaN stays
  return x < splat(-87.33654f) ? Vec{} : exp_inside(clipped);
}

// 2 atanh(s) = log((1 + s) / (1 - s)) = 2 s (1 + s**2 / 3 + s**4 / 5 + ...) for |s| <= 1/3: what follows s**14 is
// below (1/3)**16 / 17 * 9/8 = 1.6e-9 relative.
CVX_INLINE Vec twice_atanh(Vec s) {
  const Vec square = s * s;
  Vec sum = splat(1.0f / 15);
  sum = sum * square + splat(1.0f / 13);
  sum = sum * square + splat(1.0f / 11);
  sum = sum * square + splat(1.0f / 9);
  sum = sum * square + splat(1.0f / 7);
  sum = sum * square + splat(1.0f / 5);
  sum = sum * square + splat(1.0f / 3);
  const Vec twice = s + s;
  return twice + twice * square * sum;
}

// log(1 + y) for 0 <= y <= 1: y / (2 + y) <= 1/3, and nothing cancels where y is small.
CVX_INLINE Vec log_plus_one(Vec y) { return twice_atanh(y / (splat(2.0f) + y)); }

// log(x) for normal positive x: x = m * 2**e with m in [3/4, 3/2), so that nothing cancels near 1.
CVX_INLINE Vec log(Vec x) {
  const IntVec bits = float_to_bits(x);
  const IntVec e = (bits - 0x3F400000) >> 23;  // the bits of 3/4
  const Vec m = bits_to_float(bits - (e << 23));
  // The reverse of exp: e in the low bits of 1.5 * 2**23 becomes a float.
  const Vec power = bits_to_float(e + 0x4B400000) - splat(12582912.0f);
  const Vec small = twice_atanh((m - splat(1.0f)) / (m + splat(1.0f)));
  const Vec sum = power * splat(0.693359375f) + (small - power * splat(2.12194440054690583e-4f));
  return x < splat(__builtin_inff()) ? sum : x;  // infinity and NaN
}
