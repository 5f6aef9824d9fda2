// Winograd's minimal filtering F(m, r) on one, two or three axes.
//
// The outputs are divided into tiles of m per axis. The inputs of a tile become (m + r - 1) points per axis. At every
// point one matrix product multiplies the channels of the tiles by that point's weights. The products become the
// outputs:
//
//   inputs -> points[tile][p][channel] -> product per p -> points[tile][p][column] -> outputs
//
// One axis may stay as it is (m = 1). Along it a tile is one pixel thick, a *slice*, and the product runs over that
// axis' taps and reads the points of one input slice for each. So F(4, 3) on two of three axes needs 4 multiplications
// where F(4, 3) on all three needs 8/3 times fewer, but its points and their transforms are far smaller.
//
// Either a chunk takes a block of tiles through all of it, with its points in the worker's own memory. This suits many
// tiles and light weights: the points stay in L2, and each block reads the weights once. Or the three steps are stages
// over all tiles, with the points in shared memory. This suits few tiles and heavy weights: each point's weights are
// read once.
#include <algorithm>
#include <cmath>
#include <string>

#include "bfloat.h"
#include "threads.h"
#include "winograd_blocking.h"

namespace convoxel {

using namespace winograd;

namespace {

constexpr int64_t kStageRows = 96;  // rows of one product in the staged form

class WinogradRun final : public AlgorithmRun {
 public:
  WinogradRun(const Scheme& scheme, const ConvSetup& setup)
      : AlgorithmRun(setup),
        scheme_(scheme),
        shape_(scheme.shape),
        tiling_(tiling_of(problem_, scheme)),
        blocking_(blocking_of(problem_, scheme, set_, this_machine(setup.threads))) {
    const auto& [problem, conv, weights, set, activation, threads] = setup;
    all_panels_ = blocking_.panels * problem.window.groups;
    if (blocking_.staged) {
      blocking_.columns = tiling_.columns;
      blocking_.slices = tiling_.slices_out;
    }
    column_blocks_ = ceil_div(tiling_.columns, std::max<int64_t>(blocking_.columns, 1));
    slice_blocks_ = ceil_div(tiling_.slices_out, std::max<int64_t>(blocking_.slices, 1));
    if (scheme.rounds()) {
      for (int64_t e = 0; e < blocking_.row; e += MatrixUnit::kElements) steps_.push_back(e);
    }
    in_slices_ = std::min(tiling_.slices_in,
                          (blocking_.slices - 1) * tiling_.stride + (tiling_.taps - 1) * tiling_.dilation + 1);
    rows_ = blocking_.staged ? std::min(kStageRows, tiling_.tiles()) : blocking_.columns * blocking_.slices;
    if (scheme.rounds()) rows_ = round_up(rows_, MatrixUnit::kRows);  // whole tiles
    row_blocks_ = rows_ > 0 ? ceil_div(tiling_.tiles(), rows_) : 0;
    // A chunk of a stage takes all panels of one point, whose weights are contiguous, unless that makes too few chunks.
    const int64_t units = blocking_.points * row_blocks_;
    splits_ = units > 0 ? std::clamp<int64_t>(4 * threads / units, 1, all_panels_) : 1;
    split_panels_ = ceil_div(all_panels_, splits_);
    splits_ = ceil_div(all_panels_, split_panels_);
  }

  int stages() const override { return blocking_.staged ? 3 : 1; }

  int64_t chunks(int stage) const override {
    if (tiling_.tiles() == 0) return 0;
    if (!blocking_.staged) return column_blocks_ * slice_blocks_;
    if (stage == 0) return tiling_.columns * tiling_.slices_in;
    return stage == 1 ? blocking_.points * row_blocks_ * splits_ : tiling_.tiles();
  }

  int64_t own_bytes() const override {
    return bytes(lattice_floats()) + pointer_bytes() + place_bytes() + bytes(zero_floats()) +
           (blocking_.staged ? 0 : in_bytes() + bytes(rows_ * blocking_.slot_out));
  }
  int64_t shared_bytes() const override {
    return blocking_.staged ? in_bytes() + bytes(all_panels_ * tiling_.tiles() * blocking_.slot_out) : 0;
  }

  void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch memory) const override {
    char* at = static_cast<char*>(memory.own);
    const auto take = [&at](int64_t size) {
      char* begin = at;
      at += size;
      return begin;
    };
    Scratch scratch;
    scratch.lattice = reinterpret_cast<float*>(take(bytes(lattice_floats())));
    scratch.inputs = reinterpret_cast<const float**>(take(pointer_bytes()));
    scratch.outputs = const_cast<float**>(scratch.inputs + rows_ * tiling_.taps);
    scratch.places = reinterpret_cast<int64_t*>(take(place_bytes()));
    scratch.zeros = reinterpret_cast<float*>(take(bytes(zero_floats())));
    if (!blocking_.staged) {
      scratch.points_in = take(in_bytes());
      scratch.points_out = reinterpret_cast<float*>(at);
      return run_block(chunk, p, scratch);
    }
    scratch.points_in = static_cast<char*>(memory.shared);
    scratch.points_out = reinterpret_cast<float*>(static_cast<char*>(memory.shared) + in_bytes());
    if (stage == 0) {
      read_tile(chunk / tiling_.slices_in, chunk % tiling_.slices_in, p, chunk, scratch);
    } else if (stage == 1) {
      run_products(chunk, scratch);
    } else {
      for (int64_t panel = 0; panel < all_panels_; ++panel) {
        write_tile(chunk / tiling_.slices_out, chunk % tiling_.slices_out, panel, p,
                   scratch.points_out + (panel * tiling_.tiles() + chunk) * blocking_.slot_out, scratch);
      }
    }
  }

 private:
  // The memory of a chunk: its worker's, and points that all chunks share in the staged form.
  struct Scratch {
    float* lattice;
    const float** inputs;
    float** outputs;
    int64_t* places;  // of tiles of rows of bfloat16
    float* zeros;
    char* points_in;  // floats or bfloat16
    float* points_out;
    const float* in() const { return reinterpret_cast<const float*>(points_in); }
  };

  static int64_t bytes(int64_t floats) { return round_up(floats * static_cast<int64_t>(sizeof(float)), kAlignBytes); }
  int64_t lattice_floats() const { return 4 * blocking_.points * set_.vector_floats; }
  int64_t pointer_bytes() const {
    return round_up(rows_ * (tiling_.taps + 1) * static_cast<int64_t>(sizeof(float*)), kAlignBytes);
  }
  int64_t place_bytes() const {
    return scheme_.rounds()
               ? round_up(ceil_div(rows_, set_.matrix_unit->least_rows) * static_cast<int64_t>(sizeof(int64_t)),
                          kAlignBytes)
               : 0;
  }
  int64_t zero_floats() const { return tiling_.taps > 1 ? blocking_.slot_in : 0; }
  // Products of bfloat16 read whole tiles of rows: what lies behind the last row counts for nothing.
  int64_t in_bytes() const {
    const int64_t slots = blocking_.columns * in_slices_ + (scheme_.rounds() ? MatrixUnit::kRows : 0);
    return round_up(slots * blocking_.slot_in * element_bytes(scheme_.element), kAlignBytes);
  }

  void run_block(int64_t chunk, const ConvPointers& p, const Scratch& scratch) const {
    const int64_t column = chunk / slice_blocks_ * blocking_.columns;
    const int64_t slice = chunk % slice_blocks_ * blocking_.slices;
    const int64_t columns = std::min(blocking_.columns, tiling_.columns - column);
    const int64_t slices = std::min(blocking_.slices, tiling_.slices_out - slice);
    const int64_t in_begin = tiling_.in_begin(slice), in_end = tiling_.in_end(slice + slices);
    const int64_t thick = std::max<int64_t>(0, in_end - in_begin);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t s = 0; s < thick; ++s) {
        read_tile(column + c, in_begin + s, p, c * thick + s, scratch);
      }
    }
    if (zero_floats() > 0) std::fill(scratch.zeros, scratch.zeros + zero_floats(), 0.0f);
    const int64_t rows = columns * slices;
    for (int64_t m = 0; m < rows; ++m) {
      if (!scheme_.rounds()) {
        point_at(m, rows, m / slices * thick - in_begin, slice + m % slices, in_begin, in_end, scratch);
      }
      scratch.outputs[m] = scratch.points_out + m * blocking_.slot_out;
    }
    for (int64_t panel = 0; panel < all_panels_; ++panel) {
      for (int64_t point = 0; point < blocking_.points; ++point) {
        const bool last = point + 1 == blocking_.points;
        if (scheme_.rounds()) {
          multiply_rounded(point, panel, 0, rows, scratch);
        } else {
          multiply(point, panel, rows, last ? weights_of(0, panel + 1) : weights_of(point + 1, panel), scratch);
        }
      }
      for (int64_t m = 0; m < rows; ++m) {
        write_tile(column + m / slices, slice + m % slices, panel, p, scratch.points_out + m * blocking_.slot_out,
                   scratch);
      }
    }
  }

  // The second stage: one point, some tiles, some panels.
  void run_products(int64_t chunk, const Scratch& scratch) const {
    const int64_t split = chunk % splits_;
    const int64_t begin = chunk / splits_ % row_blocks_ * rows_;
    const int64_t point = chunk / splits_ / row_blocks_;
    const int64_t rows = std::min(rows_, tiling_.tiles() - begin);
    float* zeros = scratch.zeros + point * blocking_.row;
    if (zero_floats() > 0) std::fill(zeros, zeros + blocking_.row, 0.0f);
    for (int64_t m = 0; m < rows; ++m) {
      const int64_t tile = begin + m;
      if (scheme_.rounds()) break;
      point_at(m, rows, tile / tiling_.slices_out * tiling_.slices_in, tile % tiling_.slices_out, 0, tiling_.slices_in,
               scratch);
    }
    const int64_t end = std::min(all_panels_, (split + 1) * split_panels_);
    for (int64_t panel = split * split_panels_; panel < end; ++panel) {
      for (int64_t m = 0; m < rows; ++m) {
        scratch.outputs[m] = scratch.points_out + (panel * tiling_.tiles() + begin + m) * blocking_.slot_out;
      }
      if (scheme_.rounds()) {
        multiply_rounded(point, panel, begin, rows, scratch);
      } else {
        multiply(point, panel, rows, weights_of(point, panel + 1), scratch);
      }
    }
  }

  // Row m of the products reads, for each tap of the sliced axis, the slot `first` + input slice, or zeros.
  void point_at(int64_t m, int64_t rows, int64_t first, int64_t slice, int64_t in_begin, int64_t in_end,
                const Scratch& scratch) const {
    for (int64_t t = 0; t < tiling_.taps; ++t) {
      const int64_t in = slice * tiling_.stride - tiling_.padding + t * tiling_.dilation;
      const bool there = in >= in_begin && in < in_end;
      scratch.inputs[t * rows + m] = there ? scratch.in() + (first + in) * blocking_.slot_in : scratch.zeros;
    }
  }

  // The weights of points and groups of panels are contiguous: past the last panel those of the next point begin.
  const float* weights_of(int64_t point, int64_t panel) const {
    const int64_t group = panel / blocking_.panels;
    const int64_t depth = tiling_.taps * problem_.in_channels / problem_.window.groups;
    return weights_.data.get() + weights_.phase_offset[point] + group * weights_.group_step[point] +
           panel % blocking_.panels * blocking_.panel * depth;
  }

  int64_t width_of(int64_t panel) const {
    return std::min(blocking_.panel,
                    problem_.out_channels / problem_.window.groups - panel % blocking_.panels * blocking_.panel);
  }

  // Computes the products of one point and one panel. `next`: the weights that are read after these.
  void multiply(int64_t point, int64_t panel, int64_t rows, const float* next, const Scratch& scratch) const {
    Product product;
    product.a = scratch.inputs;
    product.a_step = rows;
    product.c = scratch.outputs;
    product.rows = rows;
    product.taps = tiling_.taps;
    product.channels = problem_.in_channels / problem_.window.groups;
    product.columns = width_of(panel);
    product.column_end = product.columns;
    product.block_channels = 512;
    product.a_offset = point * blocking_.row + panel / blocking_.panels * product.channels;
    product.c_offset = point * blocking_.panel;
    product.b = weights_of(point, panel);
    product.b_next = next;
    set_.product(product);
  }

  // The same of bfloat16, whose rows are the slots from `first` on.
  void multiply_rounded(int64_t point, int64_t panel, int64_t first, int64_t rows, const Scratch& scratch) const {
    const int64_t height = tile_rows(*set_.matrix_unit, rows), tiles = ceil_div(rows, height);
    for (int64_t t = 0; t < tiles; ++t) scratch.places[t] = t * height * blocking_.slot_in;
    std::fill(scratch.outputs + rows, scratch.outputs + tiles * height, nullptr);
    BfloatProduct product;
    product.parts = 1;
    product.a =
        reinterpret_cast<const uint16_t*>(scratch.points_in) + first * blocking_.slot_in + point * blocking_.row;
    product.a_row = blocking_.slot_in;
    product.tiles = scratch.places;
    product.tile_rows = height;
    product.tile_count = tiles;
    product.steps = steps_.data();
    product.step_count = static_cast<int64_t>(steps_.size());
    product.b = reinterpret_cast<const uint16_t*>(weights_.data.get()) + weights_.phase_offset[point];
    product.columns = problem_.out_channels;
    product.column_begin = panel * blocking_.panel;
    product.column_end = product.column_begin + width_of(panel);
    product.c = reinterpret_cast<void* const*>(scratch.outputs);
    product.c_offset = point * blocking_.panel - product.column_begin;
    set_.matrix_unit->product(product);
  }

  // Returns the image of a column; *first is the column's first output.
  int64_t origin(int64_t column, Axes* first) const {
    for (int i = kSpatialAxes - 1; i >= 0; --i) {
      (*first)[i] = column % tiling_.count[i] * shape_.m[i];
      column /= tiling_.count[i];
    }
    return column;
  }

  void read_tile(int64_t column, int64_t slice, const ConvPointers& p, int64_t slot, const Scratch& scratch) const {
    Axes first;
    const int64_t n = origin(column, &first);
    const View& view = *p.src_view;
    WinogradTile part;
    int64_t src = n * view.batch_stride;
    for (int i = 0; i < kSpatialAxes; ++i) {
      // may lie outside of the image
      const int64_t begin = i == scheme_.sliced ? slice : first[i] - problem_.window.padding_low[i];
      const int64_t inputs = shape_.m[i] + shape_.r[i] - 1;
      part.begin[i] = std::clamp<int64_t>(-begin, 0, inputs);
      part.end[i] = std::clamp<int64_t>(view.size[i] - begin, part.begin[i], inputs);
      src += begin * view.stride[i];
    }
    with_element(problem_.in_element, [&](auto number) {
      using T = decltype(number);
      const auto& rows = set_.rows<T>();
      char* const points = scratch.points_in + slot * blocking_.slot_in * element_bytes(scheme_.element);
      const auto read = [&](const auto& transform, auto* to) {
        transform(shape_, part, p.source<T>() + src, view.stride.data(), problem_.in_channels, to, blocking_.row,
                  scratch.lattice);
      };
      scheme_.rounds() ? read(rows.winograd_rounded_input, reinterpret_cast<Bfloat16*>(points))
                       : read(rows.winograd_input, reinterpret_cast<float*>(points));
    });
  }

  void write_tile(int64_t column, int64_t slice, int64_t panel, const ConvPointers& p, const float* points,
                  const Scratch& scratch) const {
    Axes first;
    const int64_t n = origin(column, &first);
    if (scheme_.sliced >= 0) first[scheme_.sliced] = slice;
    const int64_t channel = panel / blocking_.panels * (problem_.out_channels / problem_.window.groups) +
                            panel % blocking_.panels * blocking_.panel;
    WinogradTile part;
    if (conv_.bias() != nullptr) part.bias = conv_.bias() + channel;
    part.activation = activation_;
    int64_t dst = n * p.dst_view->batch_stride + channel;
    int64_t residual = p.residual != nullptr ? n * p.residual_view->batch_stride + channel : 0;
    for (int i = 0; i < kSpatialAxes; ++i) {
      part.end[i] = std::min<int64_t>(shape_.m[i], problem_.out_size[i] - first[i]);
      dst += first[i] * p.dst_view->stride[i];
      if (p.residual != nullptr) {
        residual += first[i] * p.residual_view->stride[i];
        part.residual_step[i] = p.residual_view->stride[i];
      }
    }
    with_element(problem_.out_element, [&](auto number) {
      using T = decltype(number);
      if (p.residual != nullptr) part.residual = p.added<T>() + residual;
      set_.rows<T>().winograd_output(shape_, part, points, blocking_.panel, width_of(panel), p.result<T>() + dst,
                                     p.dst_view->stride.data(), scratch.lattice);
    });
  }

  Scheme scheme_;
  WinogradShape shape_;
  Tiling tiling_;
  Blocking blocking_;
  int64_t all_panels_ = 1;  // of all groups
  int64_t column_blocks_ = 0, slice_blocks_ = 0;
  int64_t in_slices_ = 1;  // of a block
  int64_t rows_ = 0;       // of one product
  int64_t row_blocks_ = 0;
  int64_t splits_ = 1, split_panels_ = 1;  // shares of a point's panels, in the staged form
  std::vector<int64_t> steps_;             // of a row of bfloat16
};

template <int M0, int M1, int M2, Element E>
Scheme scheme_of(const Window& window) {
  Scheme scheme;
  scheme.element = E;
  scheme_for(window, {M0, M1, M2}, &scheme);
  return scheme;
}

template <int M0, int M1, int M2, Element E>
std::string unsupported(const ConvProblem& p) {
  if (p.window.transposed) return "it runs no transposed convolution";
  Scheme scheme;
  const std::string reason = scheme_for(p.window, {M0, M1, M2}, &scheme);
  if (!reason.empty()) return reason;
  // On each axis ten points, F(6, 5) and F(4, 7), err 60 times as much as direct sums, eight points about 12 times.
  int axes = 0, tens = 0;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int count = scheme.shape.m[i] + scheme.shape.r[i] - 1;
    axes += scheme.shape.r[i] > 1 ? 1 : 0;
    tens += count == 10 ? 1 : 0;
  }
  if (E == Element::kBfloat16) {
    if (p.window.groups != 1) return "it runs one group of channels";
    if (axes < 2 || scheme.sliced >= 0) return "two or three axes of the kernel must not be 1, and be tiled";
  }
  if (tens > 1 || (tens == 1 && axes > 2)) return "ten points on so many axes would err by more than 2e-5";
  return "";
}

// G of F(m, r), rows of r factors one after another; m = 1 is the identity.
std::vector<double> kernel_matrix(int m, int r) {
  std::vector<double> factors;
  if (m == 1) {
    for (int i = 0; i < r * r; ++i) factors.push_back(i % (r + 1) == 0 ? 1.0 : 0.0);
  }
#define CVX_COPY(M, R)                                               \
  if (m == M && r == R) {                                            \
    for (const auto& row : WinogradTable<M, R>::kKernel)             \
      factors.insert(factors.end(), std::begin(row), std::end(row)); \
  }
  WINOGRAD_PAIRS(CVX_COPY)
  return factors;
}

// Computes the points of `inner` kernels at once, kernel index fastest: G along each axis, in double. values and next
// are swapped as needed; the result is in values.
void transform_kernels(const std::vector<double> (&matrix)[3], const int64_t (&points)[3], const Axes& taps,
                       int64_t inner, const MicrokernelSet& set, std::vector<double>& values,
                       std::vector<double>& next) {
  Axes size = taps;
  for (int axis = 0; axis < 3; ++axis) {
    if (points[axis] == size[axis]) continue;  // not transformed
    int64_t before = 1, after = inner;
    for (int i = 0; i < axis; ++i) before *= size[i];
    for (int i = axis + 1; i < 3; ++i) after *= size[i];
    next.resize(static_cast<size_t>(before * points[axis] * after));
    set.kernel_points(next.data(), values.data(), matrix[axis].data(), points[axis], size[axis], before, after);
    values.swap(next);
    size[axis] = points[axis];
  }
}

// Where channel c of the first column of a tile of columns lies among weights of bfloat16 (see BfloatProduct): strips
// of two tiles, in a strip step, tile, pair of channels, column, channel.
int64_t pair_place(int64_t tile, int64_t c, int64_t steps, int64_t tiles) {
  constexpr int64_t kElements = MatrixUnit::kElements, kTile = MatrixUnit::kRows * kElements;
  const int64_t strip = tile / 2, width = std::min<int64_t>(2, tiles - 2 * strip);
  return strip * steps * 2 * kTile + (c / kElements * width + tile % 2) * kTile + c % kElements / 2 * kElements + c % 2;
}

constexpr int64_t kPackChannels = 16;  // whose weights are fetched together: a cache line, where they lie side by side

// Packs weights by point, group, panel, tap of the sliced axis, channel, column; those of bfloat16 by point and then as
// BfloatProduct asks. Zeros fill the columns of the last panel and the channels of the last step.
template <int M0, int M1, int M2, Element E>
PackedWeights pack(const Convolution& conv, const ConvProblem&, const MicrokernelSet& set, int threads) {
  constexpr bool kRounds = E == Element::kBfloat16;
  const Window& window = conv.window();
  const Scheme scheme = scheme_of<M0, M1, M2, E>(window);
  std::vector<double> matrix[3];
  int64_t size[3];  // of the transformed kernel: points, or taps of the sliced axis
  for (int i = 0; i < 3; ++i) {
    const bool sliced = i == scheme.sliced;
    matrix[i] = kernel_matrix(scheme.shape.m[i], sliced ? static_cast<int>(window.kernel[i]) : scheme.shape.r[i]);
    size[i] = static_cast<int64_t>(matrix[i].size()) / window.kernel[i];
  }

  const int64_t points = scheme.shape.points();
  const int64_t taps = scheme.sliced >= 0 ? window.kernel[scheme.sliced] : 1;
  const int64_t channels = conv.in_channels() / window.groups;
  const int64_t columns = conv.out_channels() / window.groups;
  const int64_t panel = set.panel_vectors * set.vector_floats;
  const int64_t padded = round_up(columns, set.vector_floats);
  const int64_t steps = ceil_div(channels, MatrixUnit::kElements);  // of bfloat16
  const int64_t size_of_group = kRounds ? steps * MatrixUnit::kElements * padded : taps * channels * padded;
  PackedWeights packed;
  packed.group_step.assign(static_cast<size_t>(points), size_of_group);
  for (int64_t p = 0; p < points; ++p) packed.phase_offset.push_back(p * window.groups * size_of_group);
  packed.size = points * window.groups * size_of_group * element_bytes(E) / element_bytes(Element::kFloat32);
  packed.data = allocate_floats(packed.size);
  if (kRounds) std::fill(packed.data.get(), packed.data.get() + packed.size, 0.0f);

  // One chunk is one vector of columns of one group, so that whole cache lines are written at a time.
  const int64_t lanes = set.vector_floats;
  const int64_t vectors = padded / lanes;
  parallel_for(threads, window.groups * vectors, [&](int64_t chunk, int) {
    const int64_t group = chunk / vectors, begin = chunk % vectors * lanes;
    const int64_t first = begin / panel * panel;  // of the columns' panel
    const int64_t width = std::min(panel, padded - first);
    const Kernels weights = conv.kernels(group);
    std::vector<double> values, next;
    std::vector<float> some(static_cast<size_t>(window.taps() * kPackChannels * lanes));
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t among = c % kPackChannels;
      if (among == 0) {
        for (int64_t tap = 0; tap < window.taps(); ++tap) {
          weights.copy_columns(set, tap, c, std::min(channels, c + kPackChannels), begin,
                               std::min(begin + lanes, columns), some.data() + tap * kPackChannels * lanes, lanes);
        }
      }
      values.resize(static_cast<size_t>(window.taps() * lanes));
      for (int64_t tap = 0; tap < window.taps(); ++tap) {
        const float* const from = some.data() + (tap * kPackChannels + among) * lanes;
        for (int64_t i = 0; i < lanes; ++i) values[tap * lanes + i] = from[i];
      }
      transform_kernels(matrix, size, window.kernel, lanes, set, values, next);
      float* base = packed.data.get() + group * taps * channels * padded + first * taps * channels + (begin - first);
      int64_t at[3];
      const double* value = values.data();
      for (at[0] = 0; at[0] < size[0]; ++at[0]) {
        for (at[1] = 0; at[1] < size[1]; ++at[1]) {
          for (at[2] = 0; at[2] < size[2]; ++at[2]) {
            int64_t point = 0;
            for (int i = 0; i < 3; ++i) point = i == scheme.sliced ? point : point * size[i] + at[i];
            if (kRounds) {
              uint16_t* const place = reinterpret_cast<uint16_t*>(packed.data.get()) + packed.phase_offset[point] +
                                      pair_place(begin / lanes, c, steps, vectors);
              for (int64_t i = 0; i < lanes; ++i) place[2 * i] = rounded(static_cast<float>(*value++)).bits;
              continue;
            }
            const int64_t tap = scheme.sliced >= 0 ? at[scheme.sliced] : 0;
            float* to = base + packed.phase_offset[point] + (tap * channels + c) * width;
            for (int64_t i = 0; i < lanes; ++i) to[i] = static_cast<float>(*value++);
          }
        }
      }
    }
  });
  return packed;
}

template <int M0, int M1, int M2, Element E>
double cost(const ConvProblem& p, const MicrokernelSet& set) {
  const Scheme scheme = scheme_of<M0, M1, M2, E>(p.window);
  int axes = 0, fours = 0, eights = 0, tens = 0;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int count = scheme.shape.m[i] + scheme.shape.r[i] - 1;
    axes += scheme.shape.r[i] > 1 ? 1 : 0;
    fours += scheme.shape.m[i] > 2 ? 1 : 0;
    eights += count >= 8 ? 1 : 0;
    tens += count == 10 ? 1 : 0;
  }
  // What loses more digits than the numbers that are stored serves those who ask for it. By itself the engine takes
  // neither F(4, r) of rounded points, nor, where floats are stored, eight points on three axes or ten on one of two.
  const bool wide = p.out_element == Element::kFloat32;
  if (scheme.rounds() ? fours > 0 : wide && (eights > 2 || (tens > 0 && axes > 1))) return HUGE_VAL;
  return cost_of(scheme, p, set);
}

template <int M0, int M1, int M2, Element E>
std::unique_ptr<ConvRun> plan(const ConvSetup& setup) {
  return std::make_unique<WinogradRun>(scheme_of<M0, M1, M2, E>(setup.problem.window), setup);
}

template <int M0, int M1, int M2, Element E = Element::kFloat32>
Algorithm row(const char* name, const char* summary) {
  Algorithm made{
      name, summary, false, unsupported<M0, M1, M2, E>, cost<M0, M1, M2, E>, pack<M0, M1, M2, E>, plan<M0, M1, M2, E>};
  if (E == Element::kBfloat16) {
    made.needs_matrix_unit = true;
    made.digits = 8;
  }
  made.packed_numbers = [](const ConvProblem& p) {
    const Scheme scheme = scheme_of<M0, M1, M2, E>(p.window);
    return scheme.shape.points() * (scheme.sliced >= 0 ? p.window.kernel[scheme.sliced] : 1);
  };
  made.stores = [](const ConvProblem& p) { return p.residual_element.value_or(p.out_element) == p.out_element; };
  return made;
}

}  // namespace

std::vector<Algorithm> winograd_algorithms() {
  return {
      row<2, 2, 2>(
          "winograd(2)",
          "Winograd F(2, r) on each axis with kernel 2, 3, 5 or 7; stride and dilation 1, any padding and groups"),
      row<4, 4, 4>(
          "winograd(4)",
          "Winograd F(4, r) on each axis with kernel 2, 3, 5 or 7; stride and dilation 1, any padding and groups"),
      row<6, 6, 6>(
          "winograd(6)",
          "Winograd F(6, r) on each axis with kernel 2, 3, 5 or 7; stride and dilation 1, any padding and groups"),
      row<1, 4, 4>("winograd(1x4x4)",
                   "Winograd F(4, r) on height and width, taps along depth; depth has any kernel, stride and dilation"),
      row<1, 6, 6>("winograd(1x6x6)",
                   "Winograd F(6, r) on height and width, taps along depth; depth has any kernel, stride and dilation"),
      row<2, 4, 4>(
          "winograd(2x4x4)",
          "Winograd F(2, r) on depth, F(4, r) on height and width; kernels 2, 3, 5 or 7, stride and dilation 1"),
      row<2, 2, 2, Element::kBfloat16>("winograd_bf16(2)",
                                       "winograd(2) by products of bfloat16, on two or three axes; one group"),
      row<2, 2, 4, Element::kBfloat16>("winograd_bf16(2x2x4)",
                                       "F(2, r) on depth and height, F(4, r) on width, by products of bfloat16"),
      row<2, 4, 4, Element::kBfloat16>("winograd_bf16(2x4x4)",
                                       "F(2, r) on depth, F(4, r) on height and width, by products of bfloat16"),
      row<4, 4, 4, Element::kBfloat16>("winograd_bf16(4)",
                                       "winograd(4) by products of bfloat16, on two or three axes; one group"),
  };
}

}  // namespace convoxel
