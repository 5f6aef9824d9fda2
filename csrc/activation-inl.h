// The functions of the activations; activation.h lists their names.

// numerator / (1 + e**-x)
CVX_INLINE Vec sigmoid_times(Vec numerator, Vec x) {
  return numerator / (splat(1.0f) + exp_inside(-max(splat(-89.0f), min(splat(87.0f), x))));
}
CVX_INLINE Vec sigmoid(Vec x) { return sigmoid_times(splat(1.0f), x); }

CVX_INLINE Vec tanh(Vec x) {
  // Near zero (1 - e) / (1 + e) cancels. There x - x**3/3 + 2x**5/15 - 17x**7/315 errs below 2e-8 relative, for |x| <
  // 0.15.
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
  return x * (x < Vec{} ? tail : splat(1.0f) - tail);    // NaN of -infinity, as in PyTorch
}

// The usual approximation of gelu: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) = x sigmoid(twice that).
CVX_INLINE Vec gelu_tanh(Vec x) {
  const Vec inner = splat(1.5957691216057308f) * (x + splat(0.044715f) * x * x * x);
  return sigmoid_times(x, inner);
}

// log(1 + e**x) = max(x, 0) + log(1 + e**-|x|)
CVX_INLINE Vec softplus(Vec x) { return max(Vec{}, x) + log_plus_one(exp(x < Vec{} ? x : -x)); }

// x tanh(softplus(x)). With u = e**x, tanh(log(1 + u)) = u (u + 2) / (u (u + 2) + 2); from x = 10 on that is 1.
CVX_INLINE Vec mish(Vec x) {
  const Vec u = exp(min(splat(10.0f), x));
  const Vec product = u * (u + splat(2.0f));
  return x * (product / (product + splat(2.0f)));  // NaN of -infinity, as in PyTorch
}

CVX_INLINE Vec apply_cheap(Vec x, ActivationKind kind, Vec slope) {
  switch (kind) {
    case ActivationKind::kRelu:
      return max(Vec{}, x);
    case ActivationKind::kRelu6:
      return min(splat(6.0f), max(Vec{}, x));
    case ActivationKind::kLeakyRelu:
      return x < Vec{} ? x * slope : x;
    case ActivationKind::kHardSigmoid:
      return min(splat(1.0f), max(Vec{}, x * splat(1.0f / 6) + splat(0.5f)));
    default:
      return x;
  }
}

CVX_INLINE Vec apply_any(Vec x, ActivationKind kind, Vec slope, Vec high) {
  switch (kind) {
    case ActivationKind::kSigmoid:
      return sigmoid(x);
    case ActivationKind::kSilu:
      return sigmoid_times(x, x);
    case ActivationKind::kHardSwish:
      return x * min(splat(6.0f), max(Vec{}, x + splat(3.0f))) * splat(1.0f / 6);
    case ActivationKind::kTanh:
      return tanh(x);
    case ActivationKind::kElu:
      return x < Vec{} ? slope * (exp(x) - splat(1.0f)) : x;
    case ActivationKind::kGelu:
      return gelu(x);
    case ActivationKind::kMish:
      return mish(x);
    case ActivationKind::kSoftplus:
      return softplus(x);
    case ActivationKind::kSelu:  // elu of this alpha, times this scale: both from Klambauer et al. 2017
      return splat(1.0507009873554805f) * (x < Vec{} ? splat(1.6732632423543772f) * (exp(x) - splat(1.0f)) : x);
    case ActivationKind::kGeluTanh:
      return gelu_tanh(x);
    case ActivationKind::kCelu:
      return x < Vec{} ? slope * (exp(x / slope) - splat(1.0f)) : x;
    case ActivationKind::kClip:
      return min(high, max(slope, x));
    default:
      return apply_cheap(x, kind, slope);
  }
}

// Not inlined, so that the many instructions of transcendental activations exist once, not in every loop.
[[maybe_unused]] __attribute__((noinline)) Vec apply_transcendental(Vec x, const Activation& act) {
  return apply_any(x, act.kind, splat(act.slope), splat(act.high));
}

// Calls f(Index<kind>()), so that f selects the kind once for many vectors.
template <class F>
CVX_INLINE void with_cheap(ActivationKind kind, const F& f) {
  switch (kind) {
    case ActivationKind::kRelu:
      return f(Index<static_cast<int>(ActivationKind::kRelu)>());
    case ActivationKind::kRelu6:
      return f(Index<static_cast<int>(ActivationKind::kRelu6)>());
    case ActivationKind::kLeakyRelu:
      return f(Index<static_cast<int>(ActivationKind::kLeakyRelu)>());
    case ActivationKind::kHardSigmoid:
      return f(Index<static_cast<int>(ActivationKind::kHardSigmoid)>());
    default:
      return f(Index<static_cast<int>(ActivationKind::kNone)>());
  }
}

template <class F>
CVX_INLINE void map_floats(float* p, int64_t count, const F& f) {
  for_blocks(count, [&](auto n, int64_t i, int64_t lanes) CVX_LAMBDA {
    auto x = load_block<n.value>(p + i, lanes);
    each<x.kVectors>([&](auto j) CVX_LAMBDA { x.v[j.value] = f(x.v[j.value]); });
    store_block<n.value>(p + i, x, lanes);
  });
}

template <ActivationKind kKind>
void map_kind(float* p, int64_t count, Activation act) {
  const Vec slope = splat(act.slope), high = splat(act.high);
  map_floats(p, count, [&](Vec x) CVX_LAMBDA { return apply_any(x, kKind, slope, high); });
}

// Activates floats that were just stored. Every kind has its own loop, which keeps several vectors in flight.
void activate(float* p, int64_t count, Activation act) {
  switch (act.kind) {
    case ActivationKind::kNone:
      return;
    case ActivationKind::kRelu:
      return map_kind<ActivationKind::kRelu>(p, count, act);
    case ActivationKind::kLeakyRelu:
      return map_kind<ActivationKind::kLeakyRelu>(p, count, act);
    case ActivationKind::kSigmoid:
      return map_kind<ActivationKind::kSigmoid>(p, count, act);
    case ActivationKind::kRelu6:
      return map_kind<ActivationKind::kRelu6>(p, count, act);
    case ActivationKind::kSilu:
      return map_kind<ActivationKind::kSilu>(p, count, act);
    case ActivationKind::kHardSwish:
      return map_kind<ActivationKind::kHardSwish>(p, count, act);
    case ActivationKind::kTanh:
      return map_kind<ActivationKind::kTanh>(p, count, act);
    case ActivationKind::kElu:
      return map_kind<ActivationKind::kElu>(p, count, act);
    case ActivationKind::kGelu:
      return map_kind<ActivationKind::kGelu>(p, count, act);
    case ActivationKind::kHardSigmoid:
      return map_kind<ActivationKind::kHardSigmoid>(p, count, act);
    case ActivationKind::kMish:
      return map_kind<ActivationKind::kMish>(p, count, act);
    case ActivationKind::kSoftplus:
      return map_kind<ActivationKind::kSoftplus>(p, count, act);
    case ActivationKind::kSelu:
      return map_kind<ActivationKind::kSelu>(p, count, act);
    case ActivationKind::kGeluTanh:
      return map_kind<ActivationKind::kGeluTanh>(p, count, act);
    case ActivationKind::kCelu:
      return map_kind<ActivationKind::kCelu>(p, count, act);
    case ActivationKind::kClip:
      return map_kind<ActivationKind::kClip>(p, count, act);
  }
}

// Activates rows of channels.
[[maybe_unused]] void activate(float* p, int64_t step, int64_t rows, int64_t channels, Activation act) {
  if (step == channels) return activate(p, rows * channels, act);
  for (int64_t i = 0; i < rows; ++i) activate(p + i * step, channels, act);
}
