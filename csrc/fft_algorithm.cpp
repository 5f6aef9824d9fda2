// Depthwise convolutions with large kernels by the discrete Fourier transform.
//
// The output is divided into tiles of m per axis. The n >= m + kernel - 1 inputs of a tile are transformed, multiplied
// by the kernel's spectrum, and transformed back. The convolution is circular. So where one tile covers an axis, the
// padding at both ends can share its zeros: n >= size + padding suffices, 72 instead of 86 for 31 taps over 56 pixels.
//
// A chunk is one tile of one image and one vector of channels. The choice of n, which decides the last digits, depends
// on the image's size and the instruction set, never on the machine, the number of threads or of images.
#include <algorithm>
#include <cmath>
#include <string>

#include "convolution.h"
#include "cost.h"
#include "machine.h"
#include "threads.h"

namespace convoxel {
namespace {

constexpr int64_t kMostTaps = 64;  // of one axis
constexpr int64_t kLeastTaps = 5;  // of the longest axis
constexpr double kPi = 3.14159265358979323846;

// Lengths with the radices 2, 3, 4, 5 and 8, so close to one another that little is wasted. They are even, because
// lines are transformed in pairs.
constexpr int kLengths[] = {8, 10, 12, 16, 18, 20, 24, 30, 32, 36, 40, 48, 50, 60, 64, 72, 80, 90, 96, 100, 120, 128};

// Chooses few passes: eights first, then fours for the remaining twos, then fives and threes; a two only if nothing
// else fits.
FftAxis axis_of(int n) {
  FftAxis axis;
  axis.n = n;
  int twos = 0;
  for (; n % 2 == 0; n /= 2) ++twos;
  const int fours = twos % 3 == 2 ? 1 : twos % 3 == 1 && twos > 1 ? 2 : 0;
  for (int i = 0; i < (twos - 2 * fours) / 3; ++i) axis.radix[axis.passes++] = 8;
  for (int i = 0; i < fours; ++i) axis.radix[axis.passes++] = 4;
  for (; n % 5 == 0; n /= 5) axis.radix[axis.passes++] = 5;
  for (; n % 3 == 0; n /= 3) axis.radix[axis.passes++] = 3;
  if (twos == 1) axis.radix[axis.passes++] = 2;
  return axis;
}

// The frequency at a place after the forward passes.
int frequency_at(const FftAxis& axis, int place) {
  int frequency = 0, weight = 1, span = axis.n;
  for (int pass = 0; pass < axis.passes; ++pass) {
    span /= axis.radix[pass];
    frequency += weight * (place / span);
    weight *= axis.radix[pass];
    place %= span;
  }
  return frequency;
}

// The places of k and -k, for each pair of frequencies.
std::vector<int32_t> columns_of(const FftAxis& axis) {
  std::vector<int32_t> place(static_cast<size_t>(axis.n));
  for (int i = 0; i < axis.n; ++i) place[static_cast<size_t>(frequency_at(axis, i))] = i;
  std::vector<int32_t> columns;
  for (int k = 0; 2 * k <= axis.n && k < axis.n; ++k) {
    columns.push_back(place[static_cast<size_t>(k)]);
    columns.push_back(place[static_cast<size_t>((axis.n - k) % axis.n)]);
  }
  return columns;
}

std::vector<float> twiddles_of(const FftAxis& axis, int64_t (&offset)[FftAxis::kMostPasses]) {
  std::vector<float> all;
  int span = axis.n;
  for (int pass = 0; pass < axis.passes; ++pass) {
    const int radix = axis.radix[pass], length = span;
    span /= radix;
    offset[pass] = static_cast<int64_t>(all.size());
    for (int j = 0; j < span; ++j) {
      for (int q = 1; q < radix; ++q) {
        const double angle = -2 * kPi * j * q / length;
        all.push_back(static_cast<float>(std::cos(angle)));
        all.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }
  return all;
}

// The vectors that one transform of n numbers computes, loads and stores; see fft-inl.h.
double work_of(int n) {
  const FftAxis axis = axis_of(n);
  double work = 0;
  for (int pass = 0; pass < axis.passes; ++pass) {
    const double radix = axis.radix[pass];
    const double arithmetic = radix == 2 || radix == 4 ? 4 : radix == 3 ? 5 : 7;
    work += n * (4 + arithmetic + (pass + 1 < axis.passes ? 4 * (radix - 1) / radix : 0));
  }
  return work;
}

// How one axis is divided: `tiles` tiles of m outputs, each computed from n inputs.
struct AxisBlocking {
  int n = 1;
  int64_t m = 1;
  int64_t tiles = 1;
  int64_t reach = 1;  // at most so many inputs of a tile exist
};

std::vector<AxisBlocking> blockings_of(const ConvProblem& p, int axis) {
  const int64_t kernel = p.window.kernel[axis], out = p.out_size[axis], in = p.in_size[axis];
  if (kernel == 1) return {{1, 1, out, 1}};
  const int64_t padding = std::max<int64_t>(p.window.padding_low[axis], 0);
  const int64_t all = out + kernel - 1;  // inputs, with the padding
  const int64_t folded = std::max(std::min(in + p.window.padding_low[axis], all), all - padding);
  std::vector<AxisBlocking> found;
  for (const int n : kLengths) {
    if (n < kernel) continue;
    const bool one = n >= folded;
    const int64_t most = n - kernel + 1;
    const int64_t tiles = one ? 1 : ceil_div(out, most);
    found.push_back({n, one ? out : ceil_div(out, tiles), tiles, std::min<int64_t>(n, in)});
    if (one) break;
  }
  return found;
}

struct Blocking {
  AxisBlocking axis[kSpatialAxes];
  double cost = HUGE_VAL;  // of one image and one vector of channels
  int64_t tiles() const { return axis[0].tiles * axis[1].tiles * axis[2].tiles; }
};

double cost_of(const Blocking& blocking, int64_t vectors, int vector_floats, const Machine& machine) {
  const AxisBlocking &d = blocking.axis[0], &h = blocking.axis[1], &w = blocking.axis[2];
  const double planes = w.n / 2 + 1, plane = static_cast<double>(d.n) * h.n;
  const double lines = static_cast<double>(d.reach * ((h.reach + 1) / 2) + d.m * ((h.m + 1) / 2));
  const double numbers = lines * w.n + planes * static_cast<double>(d.reach + d.m) * h.n;  // numbers that are moved
  const double work = lines * work_of(w.n) +
                      planes * (static_cast<double>(d.reach + d.m) * work_of(h.n) + 2 * h.n * work_of(d.n)) +
                      cost::kFftMove * numbers + cost::kFftProduct * planes * plane;
  // The part of the tile and of the kernel's spectrum that exceeds L2 is read anew each time.
  const double number_bytes = 8.0 * vector_floats;
  const double spectrum = planes * plane * number_bytes;
  const double tile = static_cast<double>(d.n) * (h.n + 1) / 2 * w.n * number_bytes;
  const double filled = (spectrum + tile) / static_cast<double>(machine.l2_bytes);
  const double misses = std::clamp(2 * filled - 1, 0.0, 1.0);
  const double tiles = static_cast<double>(blocking.tiles());
  const double far = misses * (3 * tile + spectrum) + (1 - misses) * spectrum / tiles;
  // There are few tiles for each vector of channels: threads that get none wait.
  const double chunks = tiles * static_cast<double>(vectors), threads = machine.threads;
  const double waiting = std::ceil(chunks / threads) * threads / std::max(chunks, 1.0);
  return tiles * (work * cost::kFft + far * cost::fft_byte(machine.rates)) * waiting;
}

Blocking blocking_of(const ConvProblem& p, const MicrokernelSet& set) {
  const int64_t vectors = ceil_div(p.in_channels, set.vector_floats);
  Blocking best;
  for (const AxisBlocking& d : blockings_of(p, 0)) {
    for (const AxisBlocking& h : blockings_of(p, 1)) {
      for (const AxisBlocking& w : blockings_of(p, 2)) {
        Blocking blocking{{d, h, w}};
        blocking.cost = cost_of(blocking, vectors, set.vector_floats, reference_machine(set.name));
        if (!(best.cost <= blocking.cost)) best = blocking;
      }
    }
  }
  return best;
}

class FftRun final : public AlgorithmRun {
 public:
  explicit FftRun(const ConvSetup& setup) : AlgorithmRun(setup), blocking_(blocking_of(problem_, set_)) {
    for (int i = 0; i < kSpatialAxes; ++i) {
      int64_t offset[FftAxis::kMostPasses] = {};
      shape_.axis[i] = axis_of(blocking_.axis[i].n);
      twiddles_[i] = twiddles_of(shape_.axis[i], offset);
      for (int k = 0; k < shape_.axis[i].passes; ++k) shape_.axis[i].twiddles[k] = twiddles_[i].data() + offset[k];
    }
    columns_ = columns_of(shape_.axis[2]);
    shape_.columns = columns_.data();
    shape_.planes = static_cast<int64_t>(columns_.size() / 2);
  }
  FftRun(const FftRun&) = delete;  // shape_ points into this run
  FftRun& operator=(const FftRun&) = delete;

  // The tiles of one vector of channels follow one another, since they read the same spectrum.
  int64_t chunks(int) const override {
    const int64_t vectors = ceil_div(problem_.in_channels, set_.vector_floats);
    return problem_.out_size[0] * problem_.out_size[1] * problem_.out_size[2] == 0
               ? 0
               : vectors * problem_.batch * blocking_.tiles();
  }
  int64_t own_bytes() const override {
    return shape_.scratch_vectors() * set_.vector_floats * static_cast<int64_t>(sizeof(float));
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    Axes first;
    for (int i = kSpatialAxes - 1; i >= 0; --i) {
      first[i] = chunk % blocking_.axis[i].tiles * blocking_.axis[i].m;
      chunk /= blocking_.axis[i].tiles;
    }
    const int64_t n = chunk % problem_.batch, vector = chunk / problem_.batch;
    const int64_t channel = vector * set_.vector_floats;
    FftDepthwise work;
    work.shape = &shape_;
    work.src = p.source() + n * p.src_view->batch_stride + channel;
    work.dst = p.result() + n * p.dst_view->batch_stride + channel;
    if (p.residual != nullptr) work.residual = p.added() + n * p.residual_view->batch_stride + channel;
    for (int i = 0; i < kSpatialAxes; ++i) {
      const int64_t position = first[i] - problem_.window.padding_low[i], inputs = blocking_.axis[i].n;
      work.begin[i] = std::clamp<int64_t>(-position, 0, inputs);
      work.end[i] = std::clamp<int64_t>(p.src_view->size[i] - position, work.begin[i], inputs);
      work.outputs[i] = std::min(blocking_.axis[i].m, problem_.out_size[i] - first[i]);
      work.src += position * p.src_view->stride[i];
      work.src_step[i] = p.src_view->stride[i];
      work.dst += first[i] * p.dst_view->stride[i];
      work.dst_step[i] = p.dst_view->stride[i];
      if (p.residual == nullptr) continue;
      work.residual += first[i] * p.residual_view->stride[i];
      work.residual_step[i] = p.residual_view->stride[i];
    }
    work.spectrum = weights_.data.get() + vector * weights_.group_step[0];
    if (conv_.bias() != nullptr) work.bias = conv_.bias() + channel;
    work.activation = activation_;
    work.lanes = std::min<int64_t>(set_.vector_floats, problem_.in_channels - channel);
    work.scratch = static_cast<float*>(scratch.own);
    set_.fft_depthwise(work);
  }

 private:
  Blocking blocking_;
  FftShape shape_;
  std::vector<float> twiddles_[kSpatialAxes];
  std::vector<int32_t> columns_;
};

// Transforms one axis of `before` x taps x `after` numbers to frequencies: sum over t of x[t] exp(+2 pi i f t / n). A
// number is `lanes` real parts, then as many imaginary ones.
std::vector<double> spectrum_along(const std::vector<double>& values, int64_t before, int64_t taps, int64_t after,
                                   int64_t lanes, int n, const std::vector<int>& frequencies) {
  const int64_t count = static_cast<int64_t>(frequencies.size()), number = 2 * lanes;
  std::vector<double> result(static_cast<size_t>(before * count * after * number), 0.0);
  for (int64_t b = 0; b < before; ++b) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t t = 0; t < taps; ++t) {
        const double angle = 2 * kPi * static_cast<double>(frequencies[static_cast<size_t>(i)] * t % n) / n;
        const double re = std::cos(angle), im = std::sin(angle);
        for (int64_t a = 0; a < after; ++a) {
          const double* from = values.data() + ((b * taps + t) * after + a) * number;
          double* to = result.data() + ((b * count + i) * after + a) * number;
          for (int64_t c = 0; c < lanes; ++c) {
            to[c] += re * from[c] - im * from[lanes + c];
            to[lanes + c] += re * from[lanes + c] + im * from[c];
          }
        }
      }
    }
  }
  return result;
}

// Packs spectra by vector of channels, frequency along w, along d, along h: the order in which the microkernel reads
// them.
PackedWeights pack(const Convolution& conv, const ConvProblem& problem, const MicrokernelSet& set, int threads) {
  const Blocking blocking = blocking_of(problem, set);
  const Axes& kernel = conv.window().kernel;
  FftAxis axis[kSpatialAxes];
  std::vector<int> frequencies[kSpatialAxes];
  for (int i = 0; i < kSpatialAxes; ++i) {
    axis[i] = axis_of(blocking.axis[i].n);
    const int count = i == 2 ? axis[i].n / 2 + 1 : axis[i].n;
    for (int k = 0; k < count; ++k) frequencies[i].push_back(i == 2 ? k : frequency_at(axis[i], k));
  }
  const int64_t lanes = set.vector_floats, vectors = ceil_div(conv.in_channels(), lanes);
  const int64_t plane = static_cast<int64_t>(axis[0].n) * axis[1].n;
  const int64_t planes = static_cast<int64_t>(frequencies[2].size());
  PackedWeights packed;
  packed.group_step = {planes * plane * 2 * lanes};
  packed.phase_offset = {0};
  packed.size = vectors * packed.group_step[0];
  packed.data = allocate_floats(packed.size);
  // The factor of the transforms, and the half that read_plane_line leaves out.
  const double factor = 0.5 / (static_cast<double>(plane) * axis[2].n);
  parallel_for(threads, vectors, [&](int64_t vector, int) {
    std::vector<double> values(static_cast<size_t>(conv.window().taps() * 2 * lanes), 0.0);
    for (int64_t tap = 0; tap < conv.window().taps(); ++tap) {
      for (int64_t c = vector * lanes; c < std::min((vector + 1) * lanes, conv.in_channels()); ++c) {
        values[static_cast<size_t>(tap * 2 * lanes + c - vector * lanes)] = factor * conv.kernels(c).at(0, 0, tap);
      }
    }
    values = spectrum_along(values, kernel[0] * kernel[1], kernel[2], 1, lanes, axis[2].n, frequencies[2]);
    values = spectrum_along(values, kernel[0], kernel[1], planes, lanes, axis[1].n, frequencies[1]);
    values = spectrum_along(values, 1, kernel[0], axis[1].n * planes, lanes, axis[0].n, frequencies[0]);
    float* out = packed.data.get() + vector * packed.group_step[0];
    for (int64_t k = 0; k < planes; ++k) {
      for (int64_t i = 0; i < plane; ++i) {
        const double* from = values.data() + (i * planes + k) * 2 * lanes;
        for (int64_t c = 0; c < 2 * lanes; ++c) *out++ = static_cast<float>(from[c]);
      }
    }
  });
  return packed;
}

std::string packing(const ConvProblem& p, const MicrokernelSet& set) {
  const Blocking blocking = blocking_of(p, set);
  return std::to_string(blocking.axis[0].n) + "x" + std::to_string(blocking.axis[1].n) + "x" +
         std::to_string(blocking.axis[2].n);
}

std::string unsupported(const ConvProblem& p) {
  const Window& w = p.window;
  if (w.groups != p.in_channels || w.groups != p.out_channels) {
    return "groups, in_channels and out_channels must be equal";
  }
  if (w.transposed) return "it runs no transposed convolution";
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (w.stride[i] != 1 || w.dilation[i] != 1) return "stride and dilation must be 1";
    if (w.kernel[i] > kMostTaps) return "each axis of the kernel must be at most " + std::to_string(kMostTaps);
  }
  if (*std::max_element(w.kernel.begin(), w.kernel.end()) < kLeastTaps) {
    return "one axis of the kernel must be at least " + std::to_string(kLeastTaps);
  }
  return "";
}

double cost_of(const ConvProblem& p, const MicrokernelSet& set) {
  const double vectors = std::ceil(static_cast<double>(p.in_channels) / set.vector_floats);
  return blocking_of(p, set).cost * vectors * static_cast<double>(p.batch);
}

}  // namespace

std::vector<Algorithm> fft_algorithms() {
  return {
      {"fft", "Fourier transforms of tiles; groups = in_channels = out_channels, kernel 5 to 64, stride and dilation 1",
       false, unsupported, cost_of, pack, make_run<FftRun>, false, packing},
  };
}

}  // namespace convoxel
