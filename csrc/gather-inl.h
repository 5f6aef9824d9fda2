// Output rows that are sums or maxima of other rows: pooling, resampling, reductions, moments.

// Joins rows without a gap between them to one long row.
CVX_INLINE void join_rows(int64_t* rows, int64_t* channels, int64_t step, int64_t other_step) {
  if (step == *channels && other_step == *channels) {
    *channels *= *rows;
    *rows = 1;
  }
}

template <class T>
void gather_max(T* dst, int64_t dst_step, const T* const* taps, int64_t tap_step, int64_t count, int64_t rows,
                int64_t channels) {
  join_rows(&rows, &channels, dst_step, tap_step);
  for (int64_t i = 0; i < rows; ++i) {
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const int64_t at = i * tap_step + c;
      auto best = load_block<n.value>(taps[0] + at, lanes);
      for (int64_t t = 1; t < count; ++t) {
        const auto next = load_block<n.value>(taps[t] + at, lanes);
        each<best.kVectors>([&](auto j) CVX_LAMBDA { best.v[j.value] = max_or_nan(best.v[j.value], next.v[j.value]); });
      }
      store_block<n.value>(dst + i * dst_step + c, best, lanes);
    });
  }
}

// Adds up to kRun terms, then those sums: a large window has very many terms.
constexpr int64_t kRun = 64;

template <int N, class Term>
CVX_INLINE Block<N> weighted_sum(int64_t first, int64_t last, const float* weight, int64_t lanes, const Term& term) {
  Block<N> total{};
  for (int64_t begin = first; begin < last; begin += kRun) {
    const int64_t end = begin + kRun < last ? begin + kRun : last;
    Block<N> sum{};
    for (int64_t t = begin; t < end; ++t) {
      const Vec factor = splat(weight[t]);
      const Block<N> next = load_block<N>(term(t), lanes);
      each<Block<N>::kVectors>([&](auto j) CVX_LAMBDA { sum.v[j.value] += factor * next.v[j.value]; });
    }
    each<Block<N>::kVectors>([&](auto j) CVX_LAMBDA { total.v[j.value] += sum.v[j.value]; });
  }
  return total;
}

template <class T>
void gather_sum(float* dst, int64_t dst_step, const T* const* taps, const float* weight, int64_t tap_step,
                int64_t count, int64_t rows, int64_t channels) {
  join_rows(&rows, &channels, dst_step, tap_step);
  for (int64_t i = 0; i < rows; ++i) {
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const int64_t at = i * tap_step + c;
      store_block<n.value>(
          dst + i * dst_step + c,
          weighted_sum<n.value>(0, count, weight, lanes, [&](int64_t t) CVX_LAMBDA { return taps[t] + at; }), lanes);
    });
  }
}

template <class Out, class In>
CVX_INLINE void blend(Out* dst, int64_t dst_step, const In* src, int64_t src_step, const int32_t* begin,
                      const int32_t* index, const float* weight, int64_t rows, int64_t channels) {
  for (int64_t i = 0; i < rows; ++i) {
    Out* out = dst + i * dst_step;
    const int64_t first = begin[i], last = begin[i + 1];
    if (last == first + 1 && weight[first] == 1.0f) {
      const In* in = src + index[first] * src_step;
      for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
        store_block<n.value>(out + c, load_block<n.value>(in + c, lanes), lanes);
      });
      continue;
    }
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const auto sum = weighted_sum<n.value>(first, last, weight, lanes,
                                             [&](int64_t t) CVX_LAMBDA { return src + index[t] * src_step + c; });
      store_block<n.value>(out + c, sum, lanes);
    });
  }
}

template <class T>
void blend_rows(T* dst, int64_t dst_step, const T* src, int64_t src_step, const int32_t* begin, const int32_t* index,
                const float* weight, int64_t rows, int64_t channels) {
  blend(dst, dst_step, src, src_step, begin, index, weight, rows, channels);
}
template <class T>
void blend_sums(T* dst, int64_t dst_step, const float* src, int64_t src_step, const int32_t* begin,
                const int32_t* index, const float* weight, int64_t rows, int64_t channels) {
  blend(dst, dst_step, src, src_step, begin, index, weight, rows, channels);
}

// Sums of up to kRun rows stay in float. Then they are added to the totals in double, so that the error does not grow
// with the size of the image.
template <class T>
void moment(double* total, const T* src, int64_t rows, int64_t step, int64_t channels, const float* centre, int power) {
  for (int64_t begin = 0; begin < rows; begin += kRun) {
    const int64_t end = begin + kRun < rows ? begin + kRun : rows;
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const auto middle = load_block<n.value>(centre + c, lanes);
      Block<n.value> sum{};
      for (int64_t r = begin; r < end; ++r) {
        const auto row = load_block<n.value>(src + r * step + c, lanes);
        each<sum.kVectors>([&](auto j) CVX_LAMBDA {
          const Vec value = row.v[j.value] - middle.v[j.value];
          sum.v[j.value] += power == 1 ? value : value * value;
        });
      }
      each<sum.kVectors>([&](auto j) CVX_LAMBDA {
        float lane[kV];
        store(lane, sum.v[j.value]);
        for (int64_t i = 0; i < lanes; ++i) total[c + j.value * kV + i] += lane[i];
      });
    });
  }
}

// What a gate lets through of a gradient.
CVX_INLINE Vec gated(Vec gradient, Vec x, Vec scale, Vec shift, Vec slope) {
  return x * scale + shift <= Vec{} ? gradient * slope : gradient;
}

void gradient_moments(double* total, double* product, const float* g, const float* src, int64_t rows, int64_t step,
                      int64_t channels, const float* centre, Gate gate) {
  const Vec slope = splat(gate.slope);
  for (int64_t begin = 0; begin < rows; begin += kRun) {
    const int64_t end = begin + kRun < rows ? begin + kRun : rows;
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const auto middle = load_block<n.value>(centre + c, lanes);
      const auto scale = load_block<n.value>(gate.scale + c, lanes), shift = load_block<n.value>(gate.shift + c, lanes);
      Block<n.value> sum{}, products{};
      for (int64_t r = begin; r < end; ++r) {
        const auto back = load_block<n.value>(g + r * step + c, lanes);
        const auto row = load_block<n.value>(src + r * step + c, lanes);
        each<sum.kVectors>([&](auto j) CVX_LAMBDA {
          const Vec x = row.v[j.value];
          const Vec through = gated(back.v[j.value], x, scale.v[j.value], shift.v[j.value], slope);
          sum.v[j.value] += through;
          products.v[j.value] += through * (x - middle.v[j.value]);
        });
      }
      each<sum.kVectors>([&](auto j) CVX_LAMBDA {
        float lane[kV], other[kV];
        store(lane, sum.v[j.value]);
        store(other, products.v[j.value]);
        for (int64_t i = 0; i < lanes; ++i) {
          total[c + j.value * kV + i] += lane[i];
          product[c + j.value * kV + i] += other[i];
        }
      });
    });
  }
}

void add_affine(float* dst, int64_t step, const float* g, const float* src, const float* scale, const float* slope,
                const float* shift, int64_t rows, int64_t channels, Gate gate) {
  const Vec kept = splat(gate.slope);
  for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
    const auto a = load_block<n.value>(scale + c, lanes), b = load_block<n.value>(slope + c, lanes);
    const auto d = load_block<n.value>(shift + c, lanes);
    const auto factor = load_block<n.value>(gate.scale + c, lanes), term = load_block<n.value>(gate.shift + c, lanes);
    for (int64_t r = 0; r < rows; ++r) {
      const auto back = load_block<n.value>(g + r * step + c, lanes);
      auto row = load_block<n.value>(src + r * step + c, lanes);
      each<row.kVectors>([&](auto j) CVX_LAMBDA {
        const Vec x = row.v[j.value];
        const Vec through = gated(back.v[j.value], x, factor.v[j.value], term.v[j.value], kept);
        row.v[j.value] = through * a.v[j.value] + (x * b.v[j.value] + d.v[j.value]);
      });
      store_block<n.value>(dst + r * step + c, row, lanes);
    }
  });
}

template <class T>
void largest(float* best, const T* src, int64_t rows, int64_t step, int64_t channels) {
  for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
    auto most = load_block<n.value>(best + c, lanes);
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = load_block<n.value>(src + r * step + c, lanes);
      each<most.kVectors>([&](auto j) CVX_LAMBDA { most.v[j.value] = max_or_nan(most.v[j.value], row.v[j.value]); });
    }
    store_block<n.value>(best + c, most, lanes);
  });
}
