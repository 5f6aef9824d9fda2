// Depthwise convolution through the discrete Fourier transform (the contract is in microkernels.h).
//
// Included inside the anonymous namespace of one instruction set's file (see microkernels-inl.h).
//
// A number is a pair of vectors over channels, (re, im), so a transform is the textbook's scalar algorithm. Forward
// passes decimate in frequency, backward passes in time. The spectrum keeps the order that the forward passes leave,
// and the kernel's spectrum is packed in that order, so nothing is ever permuted. A backward transform is a forward one
// with re and im swapped: swap(DFT(swap(z))) is n times the inverse. The swaps cost nothing: they are the order of two
// stores.
//
// Vectors loaded, computed and stored per number of a pass of radix R: 4 + arithmetic, which is 4 (R = 2), 5 (3),
// 4 (4), 7 (5), 7 (8), and 4 (R - 1) / R for the twiddles.

constexpr int64_t kNumber = 2 * kV;  // floats

struct Complex {
  Vec re, im;
};

CVX_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
CVX_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
CVX_INLINE Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
CVX_INLINE Complex scale(Complex a, float factor) { return {a.re * splat(factor), a.im * splat(factor)}; }
CVX_INLINE Complex times_minus_i(Complex a) { return {a.im, -a.re}; }
CVX_INLINE Complex load_number(const float* p) { return {load(p), load(p + kV)}; }
CVX_INLINE void store_number(float* p, Complex z) {
  store(p, z.re);
  store(p + kV, z.im);
}

// x[k] = sum over q of x[q] exp(-2 pi i k q / R)
CVX_INLINE void dft(Complex (&x)[2]) {
  const Complex a = x[0], b = x[1];
  x[0] = a + b;
  x[1] = a - b;
}

CVX_INLINE void dft(Complex (&x)[3]) {
  constexpr float kSin = 0.86602540378443864676f;  // of 2 pi / 3
  const Complex sum = x[1] + x[2], turned = times_minus_i(scale(x[1] - x[2], kSin));
  const Complex middle = x[0] - scale(sum, 0.5f);
  x[0] = x[0] + sum;
  x[1] = middle + turned;
  x[2] = middle - turned;
}

CVX_INLINE void dft(Complex (&x)[4]) {
  const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = times_minus_i(x[1] - x[3]);
  x[0] = a + c;
  x[1] = b + d;
  x[2] = a - c;
  x[3] = b - d;
}

CVX_INLINE void dft(Complex (&x)[5]) {
  constexpr float kCos1 = 0.30901699437494742410f, kCos2 = -0.80901699437494742410f;  // of 2 pi / 5, 4 pi / 5
  constexpr float kSin1 = 0.95105651629515357212f, kSin2 = 0.58778525229247312917f;
  const Complex a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3];
  const Complex near = x[0] + scale(a, kCos1) + scale(b, kCos2), far = x[0] + scale(a, kCos2) + scale(b, kCos1);
  const Complex near_turned = times_minus_i(scale(c, kSin1) + scale(d, kSin2));
  const Complex far_turned = times_minus_i(scale(c, kSin2) - scale(d, kSin1));
  x[0] = x[0] + a + b;
  x[1] = near + near_turned;
  x[2] = far + far_turned;
  x[3] = far - far_turned;
  x[4] = near - near_turned;
}

CVX_INLINE void dft(Complex (&x)[8]) {
  constexpr float kHalfRoot = 0.70710678118654752440f;
  Complex even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
  dft(even);
  dft(odd);
  odd[1] = scale(odd[1] + times_minus_i(odd[1]), kHalfRoot);
  odd[2] = times_minus_i(odd[2]);
  odd[3] = scale(times_minus_i(odd[3]) - odd[3], kHalfRoot);
  each<4>([&](auto k) CVX_LAMBDA {
    x[k.value] = even[k.value] + odd[k.value];
    x[k.value + 4] = even[k.value] - odd[k.value];
  });
}

// Frequency: butterflies, then twiddles. Time: twiddles, then butterflies. None: the pass whose span is 1.
enum class Decimate { kNone, kFrequency, kTime };

template <int R, Decimate D>
void fft_pass(float* z, int64_t step, int64_t n, int64_t span, const float* twiddles) {
  for (int64_t j = 0; j < span; ++j, twiddles += 2 * (R - 1)) {
    const auto turn = [&](Complex(&x)[R]) CVX_LAMBDA {
      each<R - 1>([&](auto q) CVX_LAMBDA {
        x[q.value + 1] = x[q.value + 1] * Complex{splat(twiddles[2 * q.value]), splat(twiddles[2 * q.value + 1])};
      });
    };
    for (int64_t first = j; first < n; first += R * span) {
      Complex x[R];
      each<R>([&](auto q) CVX_LAMBDA { x[q.value] = load_number(z + (first + q.value * span) * step); });
      if constexpr (D == Decimate::kTime) turn(x);
      dft(x);
      if constexpr (D == Decimate::kFrequency) turn(x);
      each<R>([&](auto q) CVX_LAMBDA { store_number(z + (first + q.value * span) * step, x[q.value]); });
    }
  }
}

template <Decimate D>
void run_fft_pass(const FftAxis& axis, int pass, int64_t span, float* z, int64_t step) {
  const float* twiddles = axis.twiddles[pass];
  switch (axis.radix[pass]) {
    case 2:
      return fft_pass<2, D>(z, step, axis.n, span, twiddles);
    case 3:
      return fft_pass<3, D>(z, step, axis.n, span, twiddles);
    case 4:
      return fft_pass<4, D>(z, step, axis.n, span, twiddles);
    case 5:
      return fft_pass<5, D>(z, step, axis.n, span, twiddles);
    default:
      return fft_pass<8, D>(z, step, axis.n, span, twiddles);
  }
}

// The n numbers at z, `step` floats apart.
void fft_forward(const FftAxis& axis, float* z, int64_t step) {
  int64_t span = axis.n;
  for (int pass = 0; pass < axis.passes; ++pass) {
    span /= axis.radix[pass];
    if (span > 1) {
      run_fft_pass<Decimate::kFrequency>(axis, pass, span, z, step);
    } else {
      run_fft_pass<Decimate::kNone>(axis, pass, span, z, step);
    }
  }
}

// Transforms the order that fft_forward leaves back to the natural one, with re and im swapped on both sides.
void fft_backward(const FftAxis& axis, float* z, int64_t step) {
  int64_t span = 1;
  for (int pass = axis.passes - 1; pass >= 0; --pass) {
    if (span > 1) {
      run_fft_pass<Decimate::kTime>(axis, pass, span, z, step);
    } else {
      run_fft_pass<Decimate::kNone>(axis, pass, span, z, step);
    }
    span *= axis.radix[pass];
  }
}

// Reads lines 2 r and 2 r + 1 of the image as the real and imaginary parts of the numbers at z.
void read_line_pair(const FftDepthwise& p, int64_t d, int64_t r, float* z) {
  const int64_t n = p.shape->axis[2].n;
  for (int64_t part = 0; part < 2; ++part) {
    const int64_t h = 2 * r + part;
    const bool inside = h >= p.begin[1] && h < p.end[1];
    const int64_t begin = inside ? p.begin[2] : n, end = inside ? p.end[2] : n;
    const float* from = p.src + d * p.src_step[0] + h * p.src_step[1];
    float* to = z + part * kV;
    for (int64_t i = 0; i < begin; ++i) store(to + i * kNumber, Vec{});
    if (p.lanes == kV) {
      for (int64_t i = begin; i < end; ++i) store(to + i * kNumber, load(from + i * p.src_step[2]));
    } else {
      for (int64_t i = begin; i < end; ++i) store(to + i * kNumber, load_part(from + i * p.src_step[2], p.lanes));
    }
    for (int64_t i = end; i < n; ++i) store(to + i * kNumber, Vec{});
  }
}

// Writes the outputs of lines 2 r and 2 r + 1, whose parts lie swapped at z.
void write_line_pair(const FftDepthwise& p, int64_t d, int64_t r, const float* z) {
  const bool whole = p.lanes == kV;
  const Activation act = p.activation;
  const Vec slope = splat(act.slope);
  const Vec bias = p.bias == nullptr ? Vec{} : whole ? load(p.bias) : load_part(p.bias, p.lanes);
  for (int64_t part = 0; part < 2 && 2 * r + part < p.outputs[1]; ++part) {
    const int64_t h = 2 * r + part;
    const float* from = z + (1 - part) * kV;
    float* to = p.dst + d * p.dst_step[0] + h * p.dst_step[1];
    const float* residual = p.residual;
    if (residual != nullptr) residual += d * p.residual_step[0] + h * p.residual_step[1];
    for (int64_t i = 0; i < p.outputs[2]; ++i, to += p.dst_step[2]) {
      Vec value = load(from + i * kNumber) + bias;
      if (residual != nullptr) {
        value += whole ? load(residual) : load_part(residual, p.lanes);
        residual += p.residual_step[2];
      }
      value = act.is_cheap() ? apply_cheap(value, act.kind, slope) : apply_transcendental(value, act);
      if (whole) {
        store(to, value);
      } else {
        store_part(to, value, p.lanes);
      }
    }
  }
}

// Reads a line of the plane along h, times 2, from Z at k and Z' at -k of the pairs of lines. Z = A + i B with A, B the
// spectra of real lines, so 2 A = Z + conj Z' and 2 B = -i (Z - conj Z').
void read_plane_line(const FftDepthwise& p, const float* lines, int64_t k, int64_t minus_k, float* out) {
  const int64_t row = p.shape->row() * kNumber, n = p.shape->axis[1].n;
  const int64_t begin = p.begin[1] / 2, end = (p.end[1] + 1) / 2;
  for (int64_t h = 0; h < 2 * begin; ++h) store_number(out + h * kNumber, Complex{});
  for (int64_t r = begin; r < end; ++r) {
    const Complex a = load_number(lines + r * row + k * kNumber), b = load_number(lines + r * row + minus_k * kNumber);
    store_number(out + 2 * r * kNumber, {a.re + b.re, a.im - b.im});
    if (2 * r + 1 < n) store_number(out + (2 * r + 1) * kNumber, {a.im + b.im, b.re - a.re});
  }
  for (int64_t h = 2 * end; h < n; ++h) store_number(out + h * kNumber, Complex{});
}

// Writes the line back: Z = A + i B and Z' = conj A + i conj B. The parts are swapped on both sides.
void write_plane_line(const FftDepthwise& p, const float* in, int64_t k, int64_t minus_k, float* lines) {
  const int64_t row = p.shape->row() * kNumber, n = p.shape->axis[1].n;
  for (int64_t r = 0; 2 * r < p.outputs[1]; ++r) {
    const Complex a = load_number(in + 2 * r * kNumber);
    const Complex b = 2 * r + 1 < n ? load_number(in + (2 * r + 1) * kNumber) : Complex{};
    store_number(lines + r * row + k * kNumber, {a.re + b.im, a.im - b.re});
    if (minus_k != k) store_number(lines + r * row + minus_k * kNumber, {b.im - a.re, a.im + b.re});
  }
}

// Handles one frequency along w: forward along h and d, times the kernel's spectrum, and back.
void convolve_plane(const FftDepthwise& p, const float* spectrum, float* plane) {
  const FftShape& s = *p.shape;
  const int64_t size_h = s.axis[1].n, line = size_h * kNumber;
  for (int64_t d = p.begin[0]; d < p.end[0]; ++d) fft_forward(s.axis[1], plane + d * line, kNumber);
  for (int64_t d = 0; d < s.axis[0].n; ++d) {
    if (d >= p.begin[0] && d < p.end[0]) continue;
    for (int64_t i = 0; i < line; i += kV) store(plane + d * line + i, Vec{});
  }
  if (s.axis[0].n > 1) {
    for (int64_t h = 0; h < size_h; ++h) fft_forward(s.axis[0], plane + h * kNumber, line);
  }
  for (int64_t i = 0; i < s.plane(); ++i) {
    const Complex product = load_number(plane + i * kNumber) * load_number(spectrum + i * kNumber);
    store_number(plane + i * kNumber, {product.im, product.re});
  }
  if (s.axis[0].n > 1) {
    for (int64_t h = 0; h < size_h; ++h) fft_backward(s.axis[0], plane + h * kNumber, line);
  }
  for (int64_t d = 0; d < p.outputs[0]; ++d) fft_backward(s.axis[1], plane + d * line, kNumber);
}

void fft_depthwise(const FftDepthwise& p) {
  const FftShape& s = *p.shape;
  const int64_t row = s.row() * kNumber, slice = s.pairs() * row, line = s.axis[1].n * kNumber;
  float* lines = p.scratch;  // [d][pair of lines][frequency along w]
  float* plane = lines + s.axis[0].n * slice;
  for (int64_t d = p.begin[0]; d < p.end[0]; ++d) {
    for (int64_t r = p.begin[1] / 2; 2 * r < p.end[1]; ++r) {
      float* z = lines + d * slice + r * row;
      read_line_pair(p, d, r, z);
      fft_forward(s.axis[2], z, kNumber);
    }
  }
  for (int64_t j = 0; j < s.planes; ++j) {
    const int64_t k = s.columns[2 * j], minus_k = s.columns[2 * j + 1];
    for (int64_t d = p.begin[0]; d < p.end[0]; ++d) {
      read_plane_line(p, lines + d * slice, k, minus_k, plane + d * line);
    }
    convolve_plane(p, p.spectrum + j * s.plane() * kNumber, plane);
    for (int64_t d = 0; d < p.outputs[0]; ++d) {
      write_plane_line(p, plane + d * line, k, minus_k, lines + d * slice);
    }
  }
  for (int64_t d = 0; d < p.outputs[0]; ++d) {
    for (int64_t r = 0; 2 * r < p.outputs[1]; ++r) {
      float* z = lines + d * slice + r * row;
      fft_backward(s.axis[2], z, kNumber);
      write_line_pair(p, d, r, z);
    }
  }
}
