// A vector of floats, written once over the compiler's vector extension.
//
// Included inside the anonymous namespace of one instruction set's file, which defines CVX_VECTOR_BYTES first.
// Multiply-adds are contracted to FMA by the compiler (-ffp-contract=fast) where the set has it. Only partial loads
// and stores need the set's own instructions.

constexpr int kV = CVX_VECTOR_BYTES / 4;

typedef float Vec __attribute__((vector_size(CVX_VECTOR_BYTES)));
typedef int32_t IntVec __attribute__((vector_size(CVX_VECTOR_BYTES)));
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

// A lambda that must not become a call: written between its parameters and its body.
#define CVX_LAMBDA __attribute__((always_inline))

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

CVX_INLINE Vec splat(float x) { return x - Vec{}; }  // x - 0 keeps the sign of zero, which x + 0 does not
CVX_INLINE Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
CVX_INLINE void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }

// Only the first n (0 < n < kV) floats exist; the others load as zero and are not stored.
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

// In both, b is returned if either is NaN: write the constant first and NaN survives.
CVX_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
CVX_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
// NaN in x spreads (and once there, stays: every later comparison with it is false).
CVX_INLINE Vec max_or_nan(Vec best, Vec x) { return (x > best) | (x != x) ? x : best; }

CVX_INLINE Vec bits_to_float(IntVec bits) { return reinterpret_cast<Vec>(bits); }

// e**x. x = n ln 2 + r, |r| <= ln 2 / 2; the Taylor sum to r**7 errs by r**8 / 8! < 5.2e-9 relative, far below half
// an ulp (6e-8). ln 2 is split so that n * kLn2High is exact. Saturates to +0 and +infinity beyond the range.
CVX_INLINE Vec exp(Vec x) {
  const Vec clipped = max(splat(-87.33654f), min(splat(88.72283f), x));
  // Adding 1.5 * 2**23 rounds to the nearest integer, and leaves that integer in the low bits.
  const Vec shifted = clipped * splat(1.44269504088896341f) + splat(12582912.0f);
  const Vec n = shifted - splat(12582912.0f);
  const Vec r = (clipped - n * splat(0.693359375f)) + n * splat(2.12194440054690583e-4f);
  Vec sum = splat(1.0f / 5040);
  sum = sum * r + splat(1.0f / 720);
  sum = sum * r + splat(1.0f / 120);
  sum = sum * r + splat(1.0f / 24);
  sum = sum * r + splat(1.0f / 6);
  sum = sum * r + splat(0.5f);
  sum = sum * r + splat(1.0f);
  sum = sum * r + splat(1.0f);
  // 2**n in two factors, since n = 128 alone has no float.
  const IntVec exponent = reinterpret_cast<IntVec>(shifted) - 0x4B400000;
  const IntVec half = exponent >> 1;
  const Vec scaled = sum * bits_to_float((half + 127) << 23) * bits_to_float((exponent - half + 127) << 23);
  const Vec low = x < splat(-87.33654f) ? Vec{} : scaled;
  const Vec high = x > splat(88.72283f) ? splat(__builtin_inff()) : low;
  return x != x ? x : high;
}

CVX_INLINE Vec sigmoid(Vec x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

CVX_INLINE Vec tanh(Vec x) {
  // Near zero (1 - e) / (1 + e) cancels; x - x**3/3 + 2x**5/15 - 17x**7/315 errs below 2e-8 relative for |x| < 0.15.
  const Vec square = x * x;
  Vec series = square * splat(-17.0f / 315) + splat(2.0f / 15);
  series = series * square + splat(-1.0f / 3);
  series = x + x * square * series;
  const Vec e = exp(splat(-2.0f) * (x < Vec{} ? -x : x));
  const Vec magnitude = (splat(1.0f) - e) / (splat(1.0f) + e);
  const Vec wide = x < Vec{} ? -magnitude : magnitude;
  return square < splat(0.0225f) ? series : wide;
}

// x * Phi(x), Phi the normal distribution, by Abramowitz & Stegun 7.1.26 (|error of erf| <= 1.5e-7).
CVX_INLINE Vec gelu(Vec x) {
  const Vec z = (x < Vec{} ? -x : x) * splat(0.70710678118654752f);
  const Vec t = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * z);
  Vec sum = splat(1.061405429f);
  sum = sum * t + splat(-1.453152027f);
  sum = sum * t + splat(1.421413741f);
  sum = sum * t + splat(-0.284496736f);
  sum = sum * t + splat(0.254829592f);
  const Vec tail = splat(0.5f) * sum * t * exp(-z * z);  // Phi(-|x|)
  const Vec product = x * (x < Vec{} ? tail : splat(1.0f) - tail);
  // Far to the left the tail is 0 and x may be -infinity, whose product would be NaN.
  return x < splat(-14.0f) ? Vec{} - splat(0.0f) : product;
}

CVX_INLINE Vec apply_cheap(Vec x, ActivationKind kind, Vec slope) {
  switch (kind) {
    case ActivationKind::kRelu:
      return max(Vec{}, x);
    case ActivationKind::kRelu6:
      return min(splat(6.0f), max(Vec{}, x));
    case ActivationKind::kLeakyRelu:
      return x < Vec{} ? x * slope : x;
    default:
      return x;
  }
}

CVX_INLINE Vec apply_any(Vec x, ActivationKind kind, Vec slope) {
  switch (kind) {
    case ActivationKind::kSigmoid:
      return sigmoid(x);
    case ActivationKind::kSilu:
      return x * sigmoid(x);
    case ActivationKind::kHardSwish:
      return x * (min(splat(6.0f), max(Vec{}, x + splat(3.0f))) * splat(1.0f / 6));
    case ActivationKind::kTanh:
      return tanh(x);
    case ActivationKind::kElu:
      return x < Vec{} ? slope * (exp(x) - splat(1.0f)) : x;
    case ActivationKind::kGelu:
      return gelu(x);
    default:
      return apply_cheap(x, kind, slope);
  }
}
