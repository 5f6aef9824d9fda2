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
struct Side {
  const float* p;
  bool single;

  template <int N>
  CVX_INLINE Block<N> at(int64_t c, int64_t lanes) const {
    if (!single) return load_block<N>(p + c, lanes);
    Block<N> b;
    each<Block<N>::kVectors>([&](auto j) CVX_LAMBDA { b.v[j.value] = splat(*p); });
    return b;
  }
};

template <class Finish>
CVX_INLINE void combine_rows(const CombineRows& r, const Finish& finish) {
  for (int64_t i = 0; i < r.rows; ++i) {
    const Side a{r.a + i * r.a_step, r.a_single}, b{r.b + i * r.b_step, r.b_single};
    for_blocks(r.channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      const auto left = a.template at<n.value>(c, lanes);
      const auto right = b.template at<n.value>(c, lanes);
      Block<n.value> out;
      each<out.kVectors>([&](auto j) CVX_LAMBDA { out.v[j.value] = finish(left.v[j.value], right.v[j.value]); });
      store_block<n.value>(r.dst + i * r.dst_step + c, out, lanes);
    });
  }
}

template <Combine kOp>
void combine_kind(const CombineRows& r, Activation act) {
  const ActivationKind kind = act.is_cheap() ? act.kind : ActivationKind::kNone;
  const Vec slope = splat(act.slope);
  if (kind == ActivationKind::kNone) {
    combine_rows(r, [](Vec a, Vec b) CVX_LAMBDA { return combine_one(kOp, a, b); });
  } else {
    combine_rows(r, [&](Vec a, Vec b) CVX_LAMBDA { return apply_cheap(combine_one(kOp, a, b), kind, slope); });
  }
  if (!act.is_cheap()) activate(r.dst, r.dst_step, r.rows, r.channels, act);
}

void combine(const CombineRows& r, Combine op, Activation act) {
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

void affine(float* dst, int64_t dst_step, const float* src, int64_t src_step, const float* scale, const float* shift,
            int64_t rows, int64_t channels, Activation act) {
  const ActivationKind kind = act.is_cheap() ? act.kind : ActivationKind::kNone;
  const Vec slope = splat(act.slope);
  for (int64_t i = 0; i < rows; ++i) {
    for_blocks(channels, [&](auto n, int64_t c, int64_t lanes) CVX_LAMBDA {
      auto x = load_block<n.value>(src + i * src_step + c, lanes);
      const auto factor = load_block<n.value>(scale + c, lanes);
      const auto term = load_block<n.value>(shift + c, lanes);
      each<x.kVectors>([&](auto j) CVX_LAMBDA {
        x.v[j.value] = apply_cheap(x.v[j.value] * factor.v[j.value] + term.v[j.value], kind, slope);
      });
      store_block<n.value>(dst + i * dst_step + c, x, lanes);
    });
  }
  if (!act.is_cheap()) activate(dst, dst_step, rows, channels, act);
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
