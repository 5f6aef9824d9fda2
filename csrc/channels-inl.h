// Functions among the channels of one pixel.

CVX_INLINE float sum_lanes(Vec v) {
  float lane[kV];
  store(lane, v);
  float sum = 0;
  for (int i = 0; i < kV; ++i) sum += lane[i];
  return sum;
}

CVX_INLINE float largest_lane(Vec v) {
  float lane[kV];
  store(lane, v);
  float best = lane[0];
  for (int i = 1; i < kV; ++i) best = lane[i] > best || lane[i] != lane[i] ? lane[i] : best;
  return best;
}

// Lanes beyond the channels hold `neutral`.
template <class T>
CVX_INLINE Vec load_or(const T* p, int64_t lanes, Vec neutral) {
  if (lanes >= kV) return load(p);
  IntVec index;
  for (int i = 0; i < kV; ++i) index[i] = i;
  return index < static_cast<int32_t>(lanes) ? load_part(p, lanes) : neutral;
}

CVX_INLINE void store_some(float* p, Vec v, int64_t lanes) {
  if (lanes >= kV) {
    store(p, v);
  } else {
    store_part(p, v, lanes);
  }
}

template <class T>
CVX_INLINE float largest_of_row(const T* p, int64_t channels) {
  const Vec lowest = splat(-__builtin_inff());
  Vec best = lowest;
  for (int64_t c = 0; c < channels; c += kV) best = max_or_nan(best, load_or(p + c, channels - c, lowest));
  return largest_lane(best);
}

template <class T>
CVX_INLINE float sum_of_row(const T* p, int64_t channels) {
  Vec sum{};
  for (int64_t c = 0; c < channels; c += kV) sum += load_or(p + c, channels - c, Vec{});
  return sum_lanes(sum);
}

CVX_INLINE void put(float* p, float x) { *p = x; }
CVX_INLINE void put(Bfloat16* p, float x) { *p = rounded(x); }

template <class T>
void reduce_channels(Reduce op, T* dst, int64_t dst_step, const T* src, int64_t src_step, int64_t rows,
                     int64_t channels) {
  const float factor = op == Reduce::kMean ? 1.0f / static_cast<float>(channels) : 1.0f;
  for (int64_t i = 0; i < rows; ++i) {
    const T* p = src + i * src_step;
    put(dst + i * dst_step, op == Reduce::kMax ? largest_of_row(p, channels) : factor * sum_of_row(p, channels));
  }
}

// One pixel with many channels: a vector holds channels.
CVX_INLINE void softmax_row(float* dst, const float* src, int64_t channels, bool log_of) {
  const Vec most = splat(largest_of_row(src, channels));
  Vec sum{};
  for (int64_t c = 0; c < channels; c += kV) {
    const Vec x = load_or(src + c, channels - c, splat(-__builtin_inff())) - most;
    const Vec e = exp(x);
    sum += e;
    store_some(dst + c, log_of ? x : e, channels - c);
  }
  const Vec total = splat(sum_lanes(sum));
  const Vec factor = log_of ? log(total) : splat(1.0f) / total;
  for (int64_t c = 0; c < channels; c += kV) {
    const Vec x = load_or(dst + c, channels - c, Vec{});
    store_some(dst + c, log_of ? x - factor : x * factor, channels - c);
  }
}

// kV pixels with few channels: a vector holds pixels, as after a transpose.
CVX_INLINE void softmax_columns(float* x, int64_t channels, bool log_of) {
  Vec most = load(x);
  for (int64_t c = 1; c < channels; ++c) most = max_or_nan(most, load(x + c * kV));
  Vec sum{};
  for (int64_t c = 0; c < channels; ++c) {
    const Vec less = load(x + c * kV) - most;
    const Vec e = exp(less);
    sum += e;
    store(x + c * kV, log_of ? less : e);
  }
  const Vec factor = log_of ? log(sum) : splat(1.0f) / sum;
  for (int64_t c = 0; c < channels; ++c) {
    const Vec value = load(x + c * kV);
    store(x + c * kV, log_of ? value - factor : value * factor);
  }
}

void softmax(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t channels,
             bool log_of) {
  constexpr int64_t kFew = 4 * kV;  // with more channels, empty lanes cost less than transposes
  if (channels > kFew) {
    for (int64_t i = 0; i < rows; ++i) softmax_row(dst + i * dst_step, src + i * src_step, channels, log_of);
    return;
  }
  float columns[kFew * kV];
  for (int64_t i = 0; i < rows; i += kV) {
    const int64_t count = rows - i < kV ? rows - i : kV;
    for (int64_t k = 0; k < channels * kV; ++k) columns[k] = 0;
    transpose(columns, kV, src + i * src_step, src_step, count, channels);
    softmax_columns(columns, channels, log_of);
    transpose(dst + i * dst_step, dst_step, columns, kV, channels, count);
  }
}

template <class T>
void permute_channels(T* dst, int64_t dst_step, const T* src, int64_t src_step, const int32_t* index, int64_t rows,
                      int64_t channels) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < channels; ++c) dst[i * dst_step + c] = src[i * src_step + index[c]];
  }
}

void response_norm(float* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t channels,
                   int64_t size, float alpha, float beta, float bias, float* squares) {
  // Zeros before and after the squares stand for channels that do not exist.
  const int64_t before = size / 2;
  for (int64_t c = 0; c < channels + size - 1 + kV; ++c) squares[c] = 0;
  const Vec factor = splat(alpha / static_cast<float>(size)), power = splat(-beta);
  for (int64_t i = 0; i < rows; ++i) {
    const float* in = src + i * src_step;
    float* out = dst + i * dst_step;
    for (int64_t c = 0; c < channels; c += kV) {
      const Vec x = load_or(in + c, channels - c, Vec{});
      store_some(squares + before + c, x * x, channels - c);
    }
    for (int64_t c = 0; c < channels; c += kV) {
      Vec sum{};
      for (int64_t t = 0; t < size; ++t) sum += load(squares + c + t);
      const Vec scale = exp(power * log(splat(bias) + factor * sum));
      store_some(out + c, load_or(in + c, channels - c, Vec{}) * scale, channels - c);
    }
  }
}
