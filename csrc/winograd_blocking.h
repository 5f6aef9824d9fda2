// How Winograd's algorithms tile and block a problem, and what that costs; winograd_algorithms.cpp says how they run.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "convolution.h"
#include "cost.h"
#include "machine.h"

namespace convoxel::winograd {

#include "winograd_table.h"

constexpr int64_t kMostRows = 192;  // of a block

// F(m, r) along the transformed axes. If another axis has a kernel, it keeps its taps.
struct Scheme {
  WinogradShape shape;
  int sliced = -1;                      // the axis that keeps its taps
  Element element = Element::kFloat32;  // of the points and weights that are multiplied
  bool rounds() const { return element == Element::kBfloat16; }
};

inline bool is_tabled(int m, int64_t r) {
#define CVX_EQUALS(M, R) (m == M && r == R) ||
  return WINOGRAD_PAIRS(CVX_EQUALS) false;
}

// Finds the scheme with m[i] on every axis whose kernel is not 1; returns the reason if there is none.
inline std::string scheme_for(const Window& w, const int (&m)[3], Scheme* scheme) {
  bool any = false;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const int64_t r = w.kernel[i];
    if (r == 1) {
      // Axes without a kernel need an m that is equal on all axes: on two axes "winograd(1x4x4)" would be
      // "winograd(4)".
      if (m[i] != m[2]) return "each axis must have a kernel";
      if (w.stride[i] != 1) return "stride and dilation must be 1";
      continue;
    }
    if (m[i] == 1) {
      scheme->sliced = i;
      continue;
    }
    if (!is_tabled(m[i], r)) return "there is no F(" + std::to_string(m[i]) + ", " + std::to_string(r) + ")";
    if (w.stride[i] != 1 || w.dilation[i] != 1) return "stride and dilation must be 1";
    scheme->shape.m[i] = m[i];
    scheme->shape.r[i] = static_cast<int>(r);
    any = true;
  }
  return any ? "" : "one axis of the kernel must not be 1";
}

// Tiles are columns times slices: a column is a place on the transformed axes of one image.
struct Tiling {
  Axes count{1, 1, 1};    // of columns along each axis, 1 on the sliced one
  int64_t columns = 1;    // of all images
  int64_t slices_in = 1;  // of the sliced axis
  int64_t slices_out = 1;
  int64_t taps = 1, stride = 1, dilation = 1, padding = 0;
  int64_t tiles() const { return columns * slices_out; }

  // The input slices [begin, end) that the output slices [first, last) need and that exist.
  int64_t in_begin(int64_t first) const { return std::clamp<int64_t>(first * stride - padding, 0, slices_in); }
  int64_t in_end(int64_t last) const {
    return std::clamp<int64_t>((last - 1) * stride - padding + (taps - 1) * dilation + 1, 0, slices_in);
  }
};

inline Tiling tiling_of(const ConvProblem& p, const Scheme& scheme) {
  Tiling t;
  t.columns = p.batch;
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (i == scheme.sliced) {
      t.slices_in = p.in_size[i];
      t.slices_out = p.out_size[i];
      t.taps = p.window.kernel[i];
      t.stride = p.window.stride[i];
      t.dilation = p.window.dilation[i];
      t.padding = p.window.padding_low[i];
    } else {
      t.count[i] = ceil_div(p.out_size[i], scheme.shape.m[i]);
      t.columns *= t.count[i];
    }
  }
  return t;
}

// The distance from one tile's points to the next one's, in numbers. It is no multiple of the page: otherwise all rows
// of a product would share a few lines of L1.
inline int64_t slot_numbers(int64_t points, int64_t row, Element element) {
  const int64_t line = kAlignBytes / element_bytes(element), numbers = points * row;
  return numbers % (4 * line) == 0 ? numbers + line : numbers;
}

// How the tiles are divided.
struct Blocking {
  int64_t points = 0;
  int64_t row = 0;      // numbers of a tile's channels at one point, rounded up to what is multiplied together
  int64_t panel = 0;    // columns of a panel
  int64_t panels = 0;   // of one group
  int64_t slot_in = 0;  // numbers of a tile's points, of the input and of one panel
  int64_t slot_out = 0;
  int64_t columns = 1;  // of a block
  int64_t slices = 1;   // of a block, of the output
  bool staged = false;
  double rows = 0;  // what the products cost, counted in rows that one thread multiplies at full speed

  int64_t blocks(const Tiling& t) const { return ceil_div(t.columns, columns) * ceil_div(t.slices_out, slices); }
};

inline int64_t pixels(const Axes& size) { return size[0] * size[1] * size[2]; }

// Divides into blocks of about `rows` tiles: whole columns if one fits, else parts of a column, which read the slices
// at their ends twice. Blocks have equal size: 100 columns become 2 x 50, not 96 + 4; or of a multiple of the rows
// that are multiplied together.
inline void divide(const Tiling& tiling, int64_t rows, int64_t together, Blocking* blocking) {
  const int64_t slices = std::max<int64_t>(tiling.slices_out, 1), columns = std::max<int64_t>(tiling.columns, 1);
  const int64_t parts = ceil_div(slices, rows);
  blocking->slices = ceil_div(slices, parts);
  const int64_t wanted = std::clamp<int64_t>(rows / blocking->slices, 1, columns);
  const int64_t blocks = ceil_div(columns, wanted);
  blocking->columns = std::min(columns, round_up(ceil_div(columns, blocks), together));
}

// The blocks, or stages, that are expected to be fastest. Time is counted in rows of one thread. A block takes as long
// as its products or as reading its weights, which overlap; its points cost more the more of L2 they fill. In stages
// all points are written to and read from beyond L2, but only one thread reads each weight.
inline Blocking blocking_of(const ConvProblem& p, const Scheme& scheme, const MicrokernelSet& set,
                            const Machine& machine) {
  Blocking blocking;
  const Tiling tiling = tiling_of(p, scheme);
  const int64_t groups = p.window.groups;
  const int64_t group_columns = p.out_channels / groups;
  blocking.points = scheme.shape.points();
  const int64_t bytes_in = element_bytes(scheme.element);
  blocking.row = round_up(p.in_channels, scheme.rounds() ? MatrixUnit::kElements : set.vector_floats);
  blocking.panel = std::min<int64_t>(set.panel_vectors * set.vector_floats, round_up(group_columns, set.vector_floats));
  blocking.panels = ceil_div(group_columns, blocking.panel);
  blocking.slot_in = slot_numbers(blocking.points, blocking.row, scheme.element);
  blocking.slot_out = slot_numbers(blocking.points, blocking.panel, Element::kFloat32);

  // A row of bfloat16 is multiplied in half the time.
  const double moved = static_cast<double>(scheme.rounds() ? blocking.row + 2 * p.out_channels  //
                                                           : blocking.row + p.out_channels);
  const double spill = cost::point_rows(machine.rates) * moved * static_cast<double>(groups) /
                       static_cast<double>(tiling.taps * p.in_channels * p.out_channels);
  const double tiles = static_cast<double>(tiling.tiles());
  const double weight_bytes =
      static_cast<double>(bytes_in * blocking.points * tiling.taps * p.in_channels * group_columns);
  const double weight_rows = cost::weight_rows(weight_bytes, machine.rates);
  const int threads = machine.threads;
  blocking.rows = std::max(tiles / threads * (1 + spill), weight_rows / threads) + cost::kStageRows;
  blocking.staged = true;
  // Scratch memory is limited to three times the largest of input, output and weights.
  const double image =
      static_cast<double>(p.batch) * std::max(static_cast<double>(pixels(p.in_size) * p.in_channels),
                                              static_cast<double>(pixels(p.out_size) * p.out_channels));
  const double most =
      3 * std::max(image, static_cast<double>(blocking.points * tiling.taps * blocking.row * group_columns));
  const double in_tiles = static_cast<double>(tiling.columns * tiling.slices_in);
  const double slot_in = static_cast<double>(blocking.slot_in) * static_cast<double>(bytes_in) / 4;
  if (in_tiles * slot_in + tiles * static_cast<double>(blocking.slot_out * blocking.panels * groups) > most)
    blocking.rows = HUGE_VAL;
  for (double wanted = 4; wanted <= kMostRows; wanted *= 1.1) {
    Blocking trial = blocking;
    divide(tiling, static_cast<int64_t>(wanted), scheme.rounds() ? MatrixUnit::kRows : 1, &trial);
    const double rows = static_cast<double>(trial.columns * trial.slices);
    const double bytes = rows * static_cast<double>(blocking.slot_in * bytes_in + blocking.slot_out * 4);
    const double filled = bytes / static_cast<double>(machine.l2_bytes);
    if (wanted > 4 && (filled > 0.9 || threads * bytes / 4 > most)) break;
    const double rounds = std::ceil(static_cast<double>(trial.blocks(tiling)) / threads);
    trial.rows = rounds * (std::max(rows, weight_rows) + rows * spill * filled * filled * filled);
    trial.staged = false;
    if (trial.rows < blocking.rows) blocking = trial;
  }
  return blocking;
}

// What a row times a vector of columns costs in products of bfloat16.
inline double rounded_product(const Blocking& blocking, const MatrixUnit& unit) {
  constexpr double kBlock = 4 * MatrixUnit::kRows;  // rows times vectors of 2 x 2 tiles
  const double steps = static_cast<double>(blocking.row / MatrixUnit::kElements);
  return (steps * (unit.tiles ? cost::kTileCosts : cost::kPairCosts)[0].pair + cost::kBfloatStore) / kBlock;
}

inline double cost_of(const Scheme& scheme, const ConvProblem& p, const MicrokernelSet& set) {
  const WinogradShape& shape = scheme.shape;
  const Machine& machine = reference_machine(set.name);
  const Tiling tiling = tiling_of(p, scheme);
  const Blocking blocking = blocking_of(p, scheme, set, machine);
  const double tiles = static_cast<double>(tiling.tiles());
  const double groups = static_cast<double>(p.window.groups);
  const double depth = static_cast<double>(tiling.taps * p.in_channels) / groups;
  const double vectors = groups * std::ceil(p.out_channels / groups / set.vector_floats);
  const double start = vectors > groups ? cost::kTileStart : cost::kNarrowStart;
  const double products = blocking.rows * machine.threads * blocking.points * vectors *
                          (scheme.rounds() ? rounded_product(blocking, *set.matrix_unit)
                                           : cost::kPackedProduct * (depth + static_cast<double>(tiling.taps) * start));
  // The vectors that the passes load or store, per tile and vector of channels.
  double input = 0, output = 0, lines = static_cast<double>(blocking.points);
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (shape.r[i] == 1) continue;
    const double a = shape.m[i] + shape.r[i] - 1;
    input += blocking.points;
    output += lines / a * (a + shape.m[i]);
    lines *= shape.m[i] / a;
  }
  const double parts = blocking.staged ? 0 : std::ceil(static_cast<double>(tiling.slices_out) / blocking.slices) - 1;
  const double in_tiles =
      static_cast<double>(tiling.columns) *
      (static_cast<double>(tiling.slices_in) + parts * static_cast<double>((tiling.taps - 1) * tiling.dilation));
  const double row_in = std::ceil(static_cast<double>(p.in_channels) / set.vector_floats);
  const double image =
      tiles * (shape.m[0] * shape.m[1] * shape.m[2]) *
      static_cast<double>(element_bytes(p.in_element) * p.in_channels + element_bytes(p.out_element) * p.out_channels);
  const double all = products + in_tiles * row_in * input * cost::kInputPoint +
                     tiles * vectors * output * cost::kOutputPoint + image * cost::image_byte(machine.rates);
  return scheme.rounds() ? all * cost::kRoundedPoint : all;
}

}  // namespace convoxel::winograd
