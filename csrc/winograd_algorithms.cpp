// Winograd's minimal filtering F(m, r) on one, two or three axes.
//
// The outputs are cut into tiles of m per axis. A tile's inputs become (m + r - 1) points per axis; at every point the
// tiles' channels meet that point's weights in one matrix product; the products become the outputs:
//
//   inputs -> points[p][tile][channel] -> product per p -> points[p][tile][column] -> outputs
//
// Either one chunk takes a block of tiles through all of it, with its points in the worker's own memory (many tiles,
// light weights: the points stay in L2, the weights are read once per block), or the three steps are stages over all
// tiles with the points in shared memory (few tiles, heavy weights: each point's weights are read once).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "convolution.h"
#include "cost.h"
#include "threads.h"

namespace convoxel {

namespace {
#include "winograd_table.h"
}  // namespace

namespace {

constexpr int64_t kTileStep = 12;         // rows of a product that fill the register tiles of every set
constexpr int64_t kPointBytes = 1 << 20;  // of a block of tiles: half of a large L2
constexpr int64_t kStageRows = 96;        // rows of one product in the staged form
constexpr int64_t kMostBlockTiles = 96;
constexpr double kFewestBlocks = 8;  // fewer would leave threads without work

// The tile sizes that an algorithm uses for a window: m on every axis whose kernel is 2, 3 or 5.
bool shape_for(const Window& w, int m, WinogradShape* shape) {
  bool any = false;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int r = static_cast<int>(w.kernel[i]);
    shape->r[i] = r;
    shape->m[i] = r == 1 ? 1 : m;
    if (r != 1 && r != 2 && r != 3 && r != 5) return false;
    any = any || r > 1;
  }
  return any;
}

int transformed(const Window& w) {
  return static_cast<int>(std::count_if(w.kernel.begin(), w.kernel.end(), [](int64_t k) { return k > 1; }));
}
int with_kernel_five(const Window& w) { return static_cast<int>(std::count(w.kernel.begin(), w.kernel.end(), 5)); }

template <int M>
std::string unsupported(const ConvProblem& p) {
  if (p.window.transposed) return "it runs no transposed convolution";
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (p.window.stride[i] != 1 || p.window.dilation[i] != 1) return "stride and dilation must be 1";
  }
  WinogradShape shape;
  if (!shape_for(p.window, M, &shape)) return "each axis of the kernel must be 1, 2, 3 or 5, and one of them not 1";
  const int axes = transformed(p.window), fives = with_kernel_five(p.window);
  if (M == 6 && (fives > 1 || (fives == 1 && axes > 2))) return "F(6, 5) on so many axes would err by more than 2e-5";
  return "";
}

struct Tiling {
  Axes count{1, 1, 1};
  int64_t total = 0;  // of all images
};

Tiling tiling_of(const ConvProblem& p, const WinogradShape& shape) {
  Tiling t;
  t.total = p.batch;
  for (int i = 0; i < kSpatialAxes; ++i) {
    t.count[i] = (p.out_size[i] + shape.m[i] - 1) / shape.m[i];
    t.total *= t.count[i];
  }
  return t;
}

// How a problem is cut up, and what its traffic costs then.
struct Cut {
  int64_t points = 0;
  int64_t row_in = 0;  // floats of a tile at one point: channels and columns, rounded up to whole vectors
  int64_t row_out = 0;
  int64_t block = 0;  // tiles of a block
  bool staged = false;
  double traffic = 0;  // of weights and points, as cost
};

Cut cut_of(const ConvProblem& p, const WinogradShape& shape, int vector_floats) {
  Cut cut;
  const Tiling tiling = tiling_of(p, shape);
  cut.points = shape.points();
  cut.row_in = round_up(p.in_channels, vector_floats);
  cut.row_out = round_up(p.out_channels, vector_floats);
  const int64_t tile_bytes = cut.points * (cut.row_in + cut.row_out) * static_cast<int64_t>(sizeof(float));
  cut.block = std::clamp(kPointBytes / tile_bytes / kTileStep * kTileStep, kTileStep, kMostBlockTiles);
  const double weights = 4.0 * cut.points * p.in_channels * p.out_channels / p.window.groups;
  const double all_points = 2.0 * static_cast<double>(tiling.total) * static_cast<double>(tile_bytes);
  const double blocks = std::ceil(static_cast<double>(tiling.total) / static_cast<double>(cut.block));
  const bool spills = cut.block * tile_bytes > 2 * kPointBytes;
  const double blocked = blocks * weights * cost::weight_byte(weights) + (spills ? all_points * cost::kPointByte : 0.0);
  const double staged = weights * cost::weight_byte(weights) + all_points * cost::kPointByte;
  cut.staged = staged < blocked || blocks < kFewestBlocks;
  cut.traffic = cut.staged ? staged : blocked;
  return cut;
}

class WinogradRun final : public ConvRun {
 public:
  WinogradRun(const WinogradShape& shape, const ConvProblem& problem, const Convolution& conv,
              const PackedWeights& weights, const KernelSet& set, Activation activation, int)
      : shape_(shape), problem_(problem), conv_(conv), weights_(weights), set_(set), activation_(activation) {
    tiling_ = tiling_of(problem, shape);
    cut_ = cut_of(problem, shape, set.vector_floats);
    if (cut_.staged) {
      cut_.block = tiling_.total;
    } else {
      // Blocks of equal size: 100 tiles are 2 x 50, not 96 + 4.
      const int64_t blocks = (tiling_.total + cut_.block - 1) / cut_.block;
      cut_.block = (tiling_.total + blocks - 1) / std::max<int64_t>(blocks, 1);
    }
  }

  int stages() const override { return cut_.staged ? 3 : 1; }

  int64_t chunks(int stage) const override {
    if (tiling_.total == 0) return 0;
    if (!cut_.staged) return (tiling_.total + cut_.block - 1) / cut_.block;
    return stage == 1 ? cut_.points * row_blocks() : tiling_.total;
  }

  int64_t own_bytes() const override {
    const int64_t scratch = cut_.points * set_.vector_floats * static_cast<int64_t>(sizeof(float));
    const int64_t pointers = 2 * kStageRows * static_cast<int64_t>(sizeof(float*));
    return scratch + round_up(pointers, kAlignBytes) + (cut_.staged ? 0 : points_bytes());
  }
  int64_t shared_bytes() const override { return cut_.staged ? points_bytes() : 0; }

  void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    float* lattice = static_cast<float*>(scratch.own);
    const float** pointers = reinterpret_cast<const float**>(lattice + cut_.points * set_.vector_floats);
    float* own = reinterpret_cast<float*>(reinterpret_cast<char*>(pointers) +
                                          round_up(2 * kStageRows * static_cast<int64_t>(sizeof(float*)), kAlignBytes));
    float* points_in = cut_.staged ? static_cast<float*>(scratch.shared) : own;
    float* points_out = points_in + cut_.points * cut_.block * cut_.row_in;
    if (cut_.staged) {
      if (stage == 0) read_tile(chunk, chunk, p, points_in, lattice);
      if (stage == 1) {
        const int64_t begin = chunk % row_blocks() * kStageRows;
        multiply(chunk / row_blocks(), begin, std::min(kStageRows, tiling_.total - begin), points_in, points_out,
                 pointers);
      }
      if (stage == 2) write_tile(chunk, chunk, p, points_out, lattice);
      return;
    }
    const int64_t begin = chunk * cut_.block;
    const int64_t tiles = std::min(cut_.block, tiling_.total - begin);
    for (int64_t t = 0; t < tiles; ++t) read_tile(begin + t, t, p, points_in, lattice);
    for (int64_t point = 0; point < cut_.points; ++point) multiply(point, 0, tiles, points_in, points_out, pointers);
    for (int64_t t = 0; t < tiles; ++t) write_tile(begin + t, t, p, points_out, lattice);
  }

 private:
  int64_t row_blocks() const { return (tiling_.total + kStageRows - 1) / kStageRows; }
  int64_t points_bytes() const {
    return cut_.points * cut_.block * (cut_.row_in + cut_.row_out) * static_cast<int64_t>(sizeof(float));
  }

  // Image n and first output of a tile.
  int64_t origin(int64_t tile, Axes* first) const {
    for (int i = kSpatialAxes - 1; i >= 0; --i) {
      (*first)[i] = tile % tiling_.count[i] * shape_.m[i];
      tile /= tiling_.count[i];
    }
    return tile;
  }

  void read_tile(int64_t tile, int64_t slot, const ConvPointers& p, float* points, float* lattice) const {
    Axes first;
    const int64_t n = origin(tile, &first);
    const View& view = *p.src_view;
    WinogradTile part;
    const float* src = p.src + n * view.batch_stride;
    for (int i = 0; i < kSpatialAxes; ++i) {
      const int64_t begin = first[i] - problem_.window.padding_low[i];  // may lie outside of the image
      const int64_t inputs = shape_.m[i] + shape_.r[i] - 1;
      part.begin[i] = std::clamp<int64_t>(-begin, 0, inputs);
      part.end[i] = std::clamp<int64_t>(view.size[i] - begin, part.begin[i], inputs);
      src += begin * view.stride[i];
    }
    set_.winograd_input(shape_, part, src, view.stride.data(), problem_.in_channels, points + slot * cut_.row_in,
                        cut_.block * cut_.row_in, lattice);
  }

  void write_tile(int64_t tile, int64_t slot, const ConvPointers& p, const float* points, float* lattice) const {
    Axes first;
    const int64_t n = origin(tile, &first);
    WinogradTile part;
    part.bias = conv_.bias();
    part.activation = activation_;
    float* dst = p.dst + n * p.dst_view->batch_stride;
    if (p.residual != nullptr) part.residual = p.residual + n * p.residual_view->batch_stride;
    for (int i = 0; i < kSpatialAxes; ++i) {
      part.end[i] = std::min<int64_t>(shape_.m[i], problem_.out_size[i] - first[i]);
      dst += first[i] * p.dst_view->stride[i];
      if (p.residual != nullptr) {
        part.residual += first[i] * p.residual_view->stride[i];
        part.residual_step[i] = p.residual_view->stride[i];
      }
    }
    set_.winograd_output(shape_, part, points + slot * cut_.row_out, cut_.block * cut_.row_out, problem_.out_channels,
                         dst, p.dst_view->stride.data(), lattice);
  }

  // The products of one point for tiles [begin, begin + tiles).
  void multiply(int64_t point, int64_t begin, int64_t tiles, const float* points_in, float* points_out,
                const float** pointers) const {
    const int64_t groups = problem_.window.groups;
    const float** in = pointers;
    float** out = const_cast<float**>(pointers + kStageRows);
    for (int64_t t = 0; t < tiles; ++t) {
      in[t] = points_in + (begin + t) * cut_.row_in;
      out[t] = points_out + (begin + t) * cut_.row_out;
    }
    Product product;
    product.a = in;
    product.c = out;
    product.rows = tiles;
    product.taps = 1;
    product.channels = problem_.in_channels / groups;
    product.columns = problem_.out_channels / groups;
    product.column_end = product.columns;
    product.block_channels = 512;
    for (int64_t g = 0; g < groups; ++g) {
      product.a_offset = point * cut_.block * cut_.row_in + g * product.channels;
      product.c_offset = point * cut_.block * cut_.row_out + g * product.columns;
      product.b = weights_.data.get() + weights_.walk_offset[point] + g * weights_.group_step[point];
      set_.product(product);
    }
  }

  WinogradShape shape_;
  ConvProblem problem_;
  const Convolution& conv_;
  const PackedWeights& weights_;
  const KernelSet& set_;
  Activation activation_;
  Tiling tiling_;
  Cut cut_;
};

// G of F(m, r) as rows of r factors; r = 1 is the identity.
std::vector<std::vector<double>> kernel_matrix(int m, int r) {
  std::vector<std::vector<double>> rows;
  const auto copy = [&](const auto& table) {
    for (const auto& row : table) rows.emplace_back(std::begin(row), std::end(row));
  };
  if (r == 1) return {{1.0}};
  if (m == 2 && r == 2) copy(WinogradTable<2, 2>::kKernel);
  if (m == 2 && r == 3) copy(WinogradTable<2, 3>::kKernel);
  if (m == 2 && r == 5) copy(WinogradTable<2, 5>::kKernel);
  if (m == 4 && r == 2) copy(WinogradTable<4, 2>::kKernel);
  if (m == 4 && r == 3) copy(WinogradTable<4, 3>::kKernel);
  if (m == 4 && r == 5) copy(WinogradTable<4, 5>::kKernel);
  if (m == 6 && r == 2) copy(WinogradTable<6, 2>::kKernel);
  if (m == 6 && r == 3) copy(WinogradTable<6, 3>::kKernel);
  if (m == 6 && r == 5) copy(WinogradTable<6, 5>::kKernel);
  return rows;
}

// The points of `inner` kernels at once, kernel index fastest: G along each axis, in double. values and next are
// swapped as needed; the result is in values.
void transform_kernels(const std::vector<std::vector<double>> (&matrix)[3], int64_t inner, std::vector<double>& values,
                       std::vector<double>& next) {
  int64_t size[3] = {static_cast<int64_t>(matrix[0][0].size()), static_cast<int64_t>(matrix[1][0].size()),
                     static_cast<int64_t>(matrix[2][0].size())};
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t r = size[axis], a = static_cast<int64_t>(matrix[axis].size());
    if (a == 1) continue;
    int64_t before = 1, after = inner;
    for (int i = 0; i < axis; ++i) before *= size[i];
    for (int i = axis + 1; i < 3; ++i) after *= size[i];
    next.assign(static_cast<size_t>(before * a * after), 0.0);
    for (int64_t b = 0; b < before; ++b) {
      for (int64_t i = 0; i < a; ++i) {
        double* to = next.data() + (b * a + i) * after;
        for (int64_t k = 0; k < r; ++k) {
          const double factor = matrix[axis][i][k];
          if (factor == 0.0) continue;
          const double* from = values.data() + (b * r + k) * after;
          for (int64_t c = 0; c < after; ++c) to[c] += factor * from[c];
        }
      }
    }
    values.swap(next);
    size[axis] = a;
  }
}

// Weights by point, group, panel, channel, column; the columns of the last panel filled up with zeros.
template <int M>
PackedWeights pack(const Convolution& conv, const KernelSet& set, int threads) {
  const Window& window = conv.window();
  WinogradShape shape;
  shape_for(window, M, &shape);
  std::vector<std::vector<double>> matrix[3];
  for (int i = 0; i < 3; ++i) matrix[i] = kernel_matrix(shape.m[i], shape.r[i]);

  const int64_t points = shape.points();
  const int64_t channels = conv.in_channels() / window.groups;
  const int64_t columns = conv.out_channels() / window.groups;
  const int64_t panel = set.panel_vectors * set.vector_floats;
  const int64_t padded = round_up(columns, set.vector_floats);
  PackedWeights packed;
  packed.group_step.assign(static_cast<size_t>(points), channels * padded);
  for (int64_t p = 0; p < points; ++p) packed.walk_offset.push_back(p * window.groups * channels * padded);
  packed.size = points * window.groups * channels * padded;
  packed.data = allocate_floats(packed.size);

  // One chunk is one vector of columns of one group, so that whole cache lines are written at a time.
  const int64_t lanes = set.vector_floats;
  const int64_t vectors = padded / lanes;
  parallel_for(threads, window.groups * vectors, [&](int64_t chunk, int) {
    const int64_t group = chunk / vectors, begin = chunk % vectors * lanes;
    const int64_t first = begin / panel * panel;  // of the columns' panel
    const int64_t width = std::min(panel, padded - first);
    std::vector<double> values, next;
    for (int64_t c = 0; c < channels; ++c) {
      values.assign(static_cast<size_t>(window.taps() * lanes), 0.0);
      for (int64_t k = begin; k < std::min(begin + lanes, columns); ++k) {
        for (int64_t tap = 0; tap < window.taps(); ++tap) {
          values[tap * lanes + (k - begin)] = conv.weight(group * columns + k, c, tap);
        }
      }
      transform_kernels(matrix, lanes, values, next);
      float* to = packed.data.get() + group * channels * padded + first * channels + c * width + (begin - first);
      for (int64_t p = 0; p < points; ++p) {
        for (int64_t i = 0; i < lanes; ++i) {
          to[packed.walk_offset[p] + i] = static_cast<float>(values[p * lanes + i]);
        }
      }
    }
  });
  return packed;
}

template <int M>
double cost_of(const ConvProblem& p, const KernelSet& set) {
  WinogradShape shape;
  shape_for(p.window, M, &shape);
  const Cut cut = cut_of(p, shape, set.vector_floats);
  const double tiles = static_cast<double>(tiling_of(p, shape).total);
  const double groups = static_cast<double>(p.window.groups);
  const double vectors = groups * std::ceil(p.out_channels / groups / set.vector_floats);
  const double products = tiles * cut.points * (p.in_channels / groups) * vectors;
  // Vectors that the passes load or store, per tile and vector of channels.
  double input = 0, output = 0, lines = static_cast<double>(cut.points);
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (shape.r[i] == 1) continue;
    const double a = shape.m[i] + shape.r[i] - 1;
    input += cut.points;
    output += lines / a * (a + shape.m[i]);
    lines *= shape.m[i] / a;
  }
  const double transforms = tiles / set.vector_floats *
                            (static_cast<double>(cut.row_in) * input * cost::kInputPoint +
                             static_cast<double>(cut.row_out) * output * cost::kOutputPoint);
  const double image = 4.0 * tiles * (shape.m[0] * shape.m[1] * shape.m[2]) * (p.in_channels + p.out_channels);
  return products * cost::kPackedProduct + transforms + cut.traffic + image * cost::kBareImageByte;
}

template <int M>
std::unique_ptr<ConvRun> plan(const ConvProblem& problem, const Convolution& conv, const PackedWeights& weights,
                              const KernelSet& set, Activation activation, int threads) {
  WinogradShape shape;
  shape_for(problem.window, M, &shape);
  return std::make_unique<WinogradRun>(shape, problem, conv, weights, set, activation, threads);
}

// F(6, r) on three axes, or with r = 5, is there for those who ask: by itself the engine keeps more digits.
double cost_of_six(const ConvProblem& p, const KernelSet& set) {
  return transformed(p.window) > 2 || with_kernel_five(p.window) > 0 ? HUGE_VAL : cost_of<6>(p, set);
}

}  // namespace

std::vector<Algorithm> winograd_algorithms() {
  return {
      {"winograd(2)",
       "Winograd F(2, r) on each axis with kernel 2, 3 or 5; stride and dilation 1, any padding and groups", false,
       unsupported<2>, cost_of<2>, pack<2>, plan<2>},
      {"winograd(4)",
       "Winograd F(4, r) on each axis with kernel 2, 3 or 5; stride and dilation 1, any padding and groups", false,
       unsupported<4>, cost_of<4>, pack<4>, plan<4>},
      {"winograd(6)",
       "Winograd F(6, r) on each axis with kernel 2, 3 or 5; stride and dilation 1, any padding and groups", false,
       unsupported<6>, cost_of_six, pack<6>, plan<6>},
  };
}

}  // namespace convoxel
