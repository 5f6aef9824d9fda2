// Functions of the input elements at the output element's place.

CVX_INLINE Vec combine_one(Combine op, Vec a, Vec b) {
  switch (op) {
    case Combine::kAdd:
      return a + b;
    case Combine::kSubtract:
      return a - b;
    case Combine::kMultiply:
      return a * b;
    case Combine::kDivide:
      return a / b;
    case Combine::kMaximum:
      return max_or_nan(a, b);
    case Combine::kMinimum:
      return (b < a) | (b != b) ? b : a;
    case Combine::kPrelu:
      return a < Vec{} ? a * b : a;
  }
  return a;
}

// An operand of combine: rows of channels, or of one number that stands for all channels.
template <class T>
struct Side {
  const T* p;
  bool single;

  template <int N>
  CVX_INLINE Block<N> at(int64_t c, int64_t lanes) const {
    if (!single) return load_block<N>(p + c, lanes);
    Block<N> b;
    const Vec number = splat(widened(*p));
    each<Block<N>::kVectors>([&](auto j) CVX_LAMBDA { b.v[j.value] = number; });
    return b;
  }
};

template <class T, class Finish>
CVX_INLINE void combine_rows(const CombineRows<T>& r, const Finish& finish) {
  for (int64_t i = 0; i < r.rows; ++i) {
    const Side<T> a{r.a + i * r.a_step, r.a_single}, b{r.b + i * r.b_step, r.b_single};
    for_blocks(r.channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const auto left = a.template at<n.value>(c, lanes);
      const auto right = b.template at<n.value>(c, lanes);
      Block<n.value> out;
      each<out.kVectors>([&](auto j) CVX_LAMBDA { out.v[j.value] = finish(left.v[j.value], right.v[j.value]); });
      store_block<n.value>(r.dst + i * r.dst_step + c, out, lanes);
    });
  }
}

// Calls run(activate) with the function of an activation. Of those that need more than a comparison, rows of floats
// are activated after they are stored, in loops of their own; a bfloat16 is rounded once, so its function comes before.
template <class T, class Run>
CVX_INLINE void with_activation(Activation act, const Run& run) {
  const Vec slope = splat(act.slope);
  if (act.kind == ActivationKind::kNone || (!act.is_cheap() && kElementOf<T> == Element::kFloat32)) {
    run([](Vec x) CVX_LAMBDA { return x; });
  } else if (act.is_cheap()) {
    run([&](Vec x) CVX_LAMBDA { return apply_cheap(x, act.kind, slope); });
  } else {
    run([&](Vec x) CVX_LAMBDA { return apply_transcendental(x, act); });
  }
}
template <class T>
CVX_INLINE void activate_stored(T* rows, int64_t step, int64_t count, int64_t channels, Activation act) {
  if constexpr (kElementOf<T> == Element::kFloat32) {
    if (!act.is_cheap()) activate(rows, step, count, channels, act);
  }
}

template <Combine kOp, class T>
void combine_kind(const CombineRows<T>& r, Activation act) {
  with_activation<T>(act, [&](const auto& finish) CVX_LAMBDA {
    combine_rows(r, [&](Vec a, Vec b) CVX_LAMBDA { return finish(combine_one(kOp, a, b)); });
  });
  activate_stored(r.dst, r.dst_step, r.rows, r.channels, act);
}

template <class T>
void combine(const CombineRows<T>& r, Combine op, Activation act) {
  switch (op) {
    case Combine::kAdd:
      return combine_kind<Combine::kAdd>(r, act);
    case Combine::kSubtract:
      return combine_kind<Combine::kSubtract>(r, act);
    case Combine::kMultiply:
      return combine_kind<Combine::kMultiply>(r, act);
    case Combine::kDivide:
      return combine_kind<Combine::kDivide>(r, act);
    case Combine::kMaximum:
      return combine_kind<Combine::kMaximum>(r, act);
    case Combine::kMinimum:
      return combine_kind<Combine::kMinimum>(r, act);
    case Combine::kPrelu:
      return combine_kind<Combine::kPrelu>(r, act);
  }
}

template <class T>
void affine(T* dst, int64_t dst_step, const T* src, int64_t src_step, const float* scale, const float* shift,
            int64_t rows, int64_t channels, Activation act) {
  with_activation<T>(act, [&](const auto& finish) CVX_LAMBDA {
    for (int64_t i = 0; i < rows; ++i) {
      for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
        auto x = load_block<n.value>(src + i * src_step + c, lanes);
        const auto factor = load_block<n.value>(scale + c, lanes);
        const auto term = load_block<n.value>(shift + c, lanes);
        each<x.kVectors>([&](auto j)
                             CVX_LAMBDA { x.v[j.value] = finish(x.v[j.value] * factor.v[j.value] + term.v[j.value]); });
        store_block<n.value>(dst + i * dst_step + c, x, lanes);
      });
    }
  });
  activate_stored(dst, dst_step, rows, channels, act);
}

template <class Out, class In>
CVX_INLINE void convert_rows(Out* dst, int64_t dst_step, const In* src, int64_t src_step, int64_t rows,
                             int64_t channels) {
  join_rows(&rows, &channels, dst_step, src_step);
  for (int64_t i = 0; i < rows; ++i) {
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      store_block<n.value>(dst + i * dst_step + c, load_block<n.value>(src + i * src_step + c, lanes), lanes);
    });
  }
}
template <class T>
void copy(T* dst, int64_t dst_step, const T* src, int64_t src_step, int64_t rows, int64_t channels) {
  convert_rows(dst, dst_step, src, src_step, rows, channels);
}
template <class T>
void widen(float* dst, int64_t dst_step, const T* src, int64_t src_step, int64_t rows, int64_t channels) {
  convert_rows(dst, dst_step, src, src_step, rows, channels);
}
template <class T>
void narrow(T* dst, int64_t dst_step, const float* src, int64_t src_step, int64_t rows, int64_t channels) {
  convert_rows(dst, dst_step, src, src_step, rows, channels);
}

void scale_rows(float* dst, const float* src, const float* factors, int64_t rows, int64_t channels, int64_t columns) {
  int64_t channel = 0;
  for (int64_t k = 0; k < rows; ++k) {
    const Vec factor = splat(factors[channel]);
    if (++channel == channels) channel = 0;
    for (int64_t j = 0; j < columns; j += kV) store(dst + j, load(src + j) * factor);
    dst += columns;
    src += columns;
  }
}
