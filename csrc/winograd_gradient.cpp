// F(m, r) computes m outputs y = A^T [(G w) * (B^T d)] of a tile. The gradient of that with respect to w is
// G^T [(B^T d) * (A g)], with g what comes back for the m outputs. Everything up to the brackets is summed over tiles,
// so G^T is applied once:
//
//   inputs -> B^T -> points[p][tile][c]  \
//                                          sums[p][k][c] over tiles, an outer product for each -> G^T -> weights
//   gradient -> A -> points[p][tile][k]  /
//
// Tiles come in blocks whose points stay in the caches. A stage transforms a block's tiles, the next one multiplies: a
// chunk takes points of its own over all tiles of the block, so the order of sums depends on sizes alone.
#include "winograd_gradient.h"

#include <algorithm>
#include <array>
#include <vector>

#include "threads.h"

namespace convoxel {
namespace {

#include "winograd_table.h"

constexpr int kM = 4, kR = 3;
constexpr int64_t kBlockBytes = int64_t{6} << 20;  // of a block's points, about: in the last cache
constexpr int64_t kLeastTiles = 32, kMostTiles = 1024;
constexpr int64_t kRows = 48;  // of a chunk's products

WinogradShape shape_of(const Axes& kernel) {
  WinogradShape shape;
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (kernel[i] == 1) continue;
    shape.m[i] = kM;
    shape.r[i] = kR;
  }
  return shape;
}

int64_t tiles_of(const View& gradient, const WinogradShape& shape, Axes* count) {
  int64_t tiles = gradient.batch;
  for (int i = 0; i < kSpatialAxes; ++i) {
    (*count)[i] = ceil_div(gradient.size[i], shape.m[i]);
    tiles *= (*count)[i];
  }
  return tiles;
}

// Costs in multiply-adds, measured on 2 cores with AVX-512: the transforms of a channel at one point, and what becomes
// of a sum at the end.
constexpr double kTransform = 36, kFinish = 90;

}  // namespace

struct WinogradGradient::Tile {
  int64_t n;
  Axes first;
};

bool WinogradGradient::supports(const GradientProblem& p) {
  bool any = false;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int64_t kernel = p.dst.size[i];
    if (p.stride[i] != 1 || (kernel != 1 && kernel != kR) || (kernel != 1 && p.dilation[i] != 1)) return false;
    any = any || kernel != 1;
  }
  return any;
}

bool WinogradGradient::is_faster(const GradientProblem& p, const MicrokernelSet& set) {
  const WinogradShape shape = shape_of(p.dst.size);
  Axes count;
  const double tiles = static_cast<double>(tiles_of(p.gradient, shape, &count));
  const auto whole = [&](int64_t channels) { return static_cast<double>(round_up(channels, set.vector_floats)); };
  const double in = whole(p.src.channels), out = static_cast<double>(p.gradient.channels), points = shape.points();
  const double lines = static_cast<double>(p.gradient.rows() * p.dst.size[0] * p.dst.size[1]);
  const double direct = lines * whole(p.dst.size[2] * p.src.channels) * out;
  const double transforms = kTransform * (in + whole(p.gradient.channels));
  return points * (tiles * (in * out + transforms) + kFinish * in * out) < direct;
}

WinogradGradient::WinogradGradient(const MicrokernelSet& set, const GradientProblem& problem)
    : set_(set), problem_(problem), shape_(shape_of(problem.dst.size)) {
  tiles_ = tiles_of(problem.gradient, shape_, &count_);
  points_ = shape_.points();
  row_ = round_up(problem.src.channels, set.vector_floats);
  back_row_ = round_up(problem.gradient.channels, set.vector_floats);
  const int64_t tile_bytes = points_ * (row_ + back_row_) * static_cast<int64_t>(sizeof(float));
  block_ = std::clamp(kBlockBytes / tile_bytes, kLeastTiles, kMostTiles);
  const int64_t blocks = std::max<int64_t>(1, ceil_div(tiles_, block_));
  block_ = ceil_div(tiles_, blocks);
}

int64_t WinogradGradient::own_bytes() const {
  return 4 * points_ * set_.vector_floats * static_cast<int64_t>(sizeof(float));
}

int64_t WinogradGradient::shared_bytes() const {
  const int64_t floats = points_ * (block_ * (row_ + back_row_) + problem_.gradient.channels * row_);
  return floats * static_cast<int64_t>(sizeof(float));
}

WinogradGradient::Tile WinogradGradient::tile_at(int64_t index) const {
  Tile tile;
  for (int i = kSpatialAxes - 1; i >= 0; --i) {
    tile.first[i] = index % count_[i] * shape_.m[i];
    index /= count_[i];
  }
  tile.n = index;
  return tile;
}

// Writes the points of a tile, of what the convolution read or of the gradient, as row `slot` of every point.
void WinogradGradient::transform(const RunContext& context, int64_t index, int64_t slot, bool gradient,
                                 int worker) const {
  const Tile tile = tile_at(index);
  const View& view = gradient ? problem_.gradient : problem_.src;
  WinogradTile part;
  int64_t offset = tile.n * view.batch_stride;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int64_t begin = tile.first[i] - (gradient ? 0 : problem_.padding_low[i]);  // may lie outside of the image
    const int64_t length = gradient ? shape_.m[i] : shape_.m[i] + shape_.r[i] - 1;
    part.begin[i] = std::clamp<int64_t>(-begin, 0, length);
    part.end[i] = std::clamp<int64_t>(view.size[i] - begin, part.begin[i], length);
    offset += begin * view.stride[i];
  }
  const auto run = gradient ? set_.winograd_gradient : set_.floats.winograd_input;
  const int64_t row = gradient ? back_row_ : row_;
  float* const points = (gradient ? gradient_points(context) : source_points(context)) + slot * row;
  run(shape_, part, context.at(view) + offset, view.stride.data(), view.channels, points, block_ * row,
      static_cast<float*>(context.worker_space(worker)));
}

void WinogradGradient::operator()(const RunContext& context) const {
  const int64_t out = problem_.gradient.channels, parts = ceil_div(out, kRows);
  parallel_for(context.threads, points_, [&](int64_t point, int) {
    float* const from = sums(context) + point * out * row_;
    std::fill(from, from + out * row_, 0.0f);
  });
  for (int64_t first = 0; first < tiles_; first += block_) {
    const int64_t tiles = std::min(block_, tiles_ - first);
    parallel_for(context.threads, 2 * tiles, [&](int64_t chunk, int worker) {
      transform(context, first + chunk / 2, chunk / 2, chunk % 2 == 1, worker);
    });
    parallel_for(context.threads, points_ * parts, [&](int64_t chunk, int) {
      const int64_t point = chunk / parts, row = chunk % parts * kRows;
      const float* a = gradient_points(context) + point * block_ * back_row_ + row;
      const float* b = source_points(context) + point * block_ * row_;
      OuterProduct p;
      p.a = &a;
      p.b = &b;
      p.lines = 1;
      p.count = tiles;
      p.a_step = back_row_;
      p.b_step = row_;
      p.c = sums(context) + (point * out + row) * row_;
      p.c_step = row_;
      p.rows = std::min(kRows, out - row);
      p.columns = row_;
      set_.outer_product(p);
    });
  }
  parallel_for(context.threads, out, [&](int64_t k, int) { write(context, k); });
}

// G^T along each axis, of the sums of output channel k.
void WinogradGradient::write(const RunContext& context, int64_t k) const {
  const auto& factors = WinogradTable<kM, kR>::kKernel;
  const int64_t step = problem_.gradient.channels * row_, channels = problem_.src.channels;
  std::vector<float> values(static_cast<size_t>(points_ * channels)), next;
  for (int64_t point = 0; point < points_; ++point) {
    const float* const from = sums(context) + point * step + k * row_;
    std::copy(from, from + channels, values.data() + point * channels);
  }
  int64_t size[3];
  for (int i = 0; i < kSpatialAxes; ++i) size[i] = shape_.m[i] + shape_.r[i] - 1;
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    if (shape_.r[axis] == 1) continue;
    int64_t before = 1, after = channels;
    for (int i = 0; i < axis; ++i) before *= size[i];
    for (int i = axis + 1; i < kSpatialAxes; ++i) after *= size[i];
    next.assign(static_cast<size_t>(before * kR * after), 0.0f);
    for (int64_t b = 0; b < before; ++b) {
      for (int64_t point = 0; point < size[axis]; ++point) {
        const float* const from = values.data() + (b * size[axis] + point) * after;
        for (int tap = 0; tap < kR; ++tap) {
          const float factor = static_cast<float>(factors[point][tap]);
          if (factor == 0.0f) continue;
          float* const to = next.data() + (b * kR + tap) * after;
          for (int64_t i = 0; i < after; ++i) to[i] += factor * from[i];
        }
      }
    }
    values.swap(next);
    size[axis] = kR;
  }
  std::copy(values.begin(), values.end(), context.at(problem_.dst) + k * problem_.dst.batch_stride);
}

}  // namespace convoxel
