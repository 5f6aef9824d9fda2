// Where the numbers of a convolution lie for a matrix unit, and how its outputs are divided into blocks.
// bfloat_algorithm.cpp runs them.
#pragma once

#include <algorithm>
#include <cmath>

#include "bfloat.h"
#include "convolution.h"
#include "cost.h"
#include "machine.h"
#include "rows.h"

namespace convoxel::bfloat {

constexpr int64_t kRows = MatrixUnit::kRows, kElements = MatrixUnit::kElements, kColumns = MatrixUnit::kColumns;
constexpr int64_t kTile = kRows * kElements;  // elements of a tile of weights
constexpr int64_t kCrowdedChannels = 128;     // multiples of it put pixels whole pages of L1 apart

// How the channels of a tap, or of all taps along w, become steps. This does not depend on sizes.
struct Depth {
  int64_t channels = 0;  // of a group
  int64_t pitch = 0;     // elements from one pixel to the next
  bool merged = false;   // the taps along w are one row

  explicit Depth(const Window& window, int64_t in_channels)
      : channels(in_channels / window.groups),
        pitch(in_channels),
        merged(channels % kElements != 0 && window.groups == 1 && window.dilation[2] == 1 && !window.transposed) {
    if (channels % kElements == 0 && in_channels >= kCrowdedChannels && in_channels % kCrowdedChannels == 0) {
      pitch += kElements;
    }
  }
  // Elements that follow one another: those of a tap, or of the taps along w.
  int64_t run(const TapPhase& phase) const {
    return merged ? static_cast<int64_t>(phase.axis[2].index.size()) * channels : channels;
  }
  int64_t runs(const TapPhase& phase) const {
    const int64_t width = static_cast<int64_t>(phase.axis[2].index.size());
    return merged ? phase.taps() / std::max<int64_t>(width, 1) : phase.taps();
  }
  int64_t steps(const TapPhase& phase) const { return runs(phase) * ceil_div(run(phase), kElements); }
};

// How the outputs are divided.
struct Blocking {
  int64_t depth = 1, lines = 1;  // of outputs in a block; with `rows`, depth is 1 and lines counts pixels
  int64_t splits = 1;            // shares of the columns
  double time = HUGE_VAL;        // of one thread, in units of its own vector multiply-adds
};

// What all phases of a problem share, and where things lie in the region of a block.
struct Geometry {
  int parts = 3;
  cost::BfloatCosts costs;
  std::vector<TapPhase> phases;
  Depth depth;
  bool rows = false;
  int64_t batch = 1;
  Axes count{0, 0, 0};                // outputs of the largest phase
  Axes step{1, 1, 1}, low{}, high{};  // of the inputs that an output reads
  int64_t columns = 0, strips = 0;    // of a group
  int64_t groups = 1;
  bool across = false;            // tiles continue across lines
  int64_t tile = kRows;           // rows of a tile
  bool in_place = false;          // pixels of bfloat16 are multiplied where they lie, if no gaps are between them
  double split = 0;               // cost of bringing 32 numbers into the region
  bool partial = false;           // the last step of a run may be shorter
  std::vector<int64_t> residues;  // of h modulo the step: the place of each that is read, or -1

  Geometry(const ConvProblem& p, int parts, const MatrixUnit& unit)
      : parts(parts),
        costs((unit.tiles ? cost::kTileCosts : cost::kPairCosts)[parts - 1]),
        phases(plan_phases(p.window, p.out_size)),
        depth(p.window, p.in_channels),
        batch(p.batch),
        columns(p.out_channels / p.window.groups),
        strips(ceil_div(columns, kColumns)),
        groups(p.window.groups),
        partial(!unit.tiles) {
    bool single = true, inside = true;
    for (int i = 0; i < kSpatialAxes; ++i) {
      bool first = true;
      for (const TapPhase& phase : phases) {
        const AxisPhase& a = phase.axis[i];
        single = single && a.offset.size() == 1 && a.count == phases.front().axis[i].count &&
                 a.offset == phases.front().axis[i].offset;
        count[i] = std::max(count[i], a.count);
        step[i] = a.in_step;
        for (const int64_t offset : a.offset) {
          low[i] = first ? offset : std::min(low[i], offset);
          high[i] = first ? offset : std::max(high[i], offset);
          first = false;
        }
      }
      inside = inside && low[i] >= 0 && (count[i] - 1) * step[i] + high[i] < p.in_size[i];
    }
    rows = single && inside;
    const bool stored = p.in_element == Element::kBfloat16;
    in_place = stored && rows && !p.gated && depth.channels % kElements == 0 && step == Axes{1, 1, 1} &&
               low == Axes{0, 0, 0} && count == p.in_size;
    split = !stored ? costs.split : in_place ? 0 : cost::kBfloatCopy;
    residues.assign(static_cast<size_t>(step[1]), -1);
    for (const TapPhase& phase : phases) {
      for (const int64_t offset : phase.axis[1].offset) residues[static_cast<size_t>((offset - low[1]) % step[1])] = 0;
    }
    int64_t place = 0;
    for (int64_t& residue : residues) residue = residue == 0 ? place++ : -1;
    // The rows that each way computes for one slice.
    const int64_t slice = (count[1] - 1) * slots() + count[2];
    const int64_t of_line = tile_rows(unit, count[2]), of_slice = tile_rows(unit, slice);
    across = round_up(slice, of_slice) < count[1] * round_up(count[2], of_line);
    tile = rows ? tile_rows(unit, pixels()) : across ? of_slice : of_line;
  }

  int64_t pixels() const { return batch * count[0] * count[1] * count[2]; }
  int64_t span(int axis, int64_t outputs) const { return (outputs - 1) * step[axis] + high[axis] - low[axis] + 1; }
  // Outputs between the starts of two lines, where tiles continue across lines.
  int64_t slots() const { return ceil_div(span(2, count[2]), step[2]); }
  int64_t line_pixels() const { return across ? slots() * step[2] : span(2, count[2]); }
  int64_t lines_of_residue(const Blocking& blocking) const { return ceil_div(span(1, blocking.lines), step[1]); }
  int64_t used_residues() const {
    return std::count_if(residues.begin(), residues.end(), [](int64_t residue) { return residue >= 0; });
  }
  // Elements from one slice of the region to the next.
  int64_t slice(const Blocking& blocking) const {
    return used_residues() * lines_of_residue(blocking) * line_pixels() * depth.pitch;
  }
  int64_t row_step() const { return rows ? depth.pitch : step[2] * depth.pitch; }
  // Elements of each part. The last rows of the last tile, and its last step, read beyond the data.
  int64_t region(const Blocking& blocking) const {
    const int64_t inner = rows ? blocking.lines * depth.pitch : span(0, blocking.depth) * slice(blocking);
    return round_up(inner + 2 * kRows * row_step() + 2 * kElements, kElements);
  }
  int64_t tiles_of_slice(int64_t lines) const {
    return across ? ceil_div((lines - 1) * slots() + count[2], tile) : lines * ceil_div(count[2], tile);
  }
  int64_t tiles(const Blocking& blocking) const {
    return rows ? ceil_div(blocking.lines, tile) : blocking.depth * tiles_of_slice(blocking.lines);
  }
  int64_t blocks(const Blocking& blocking) const {
    if (rows) return ceil_div(pixels(), blocking.lines);
    return batch * ceil_div(count[0], blocking.depth) * ceil_div(count[1], blocking.lines);
  }
};

// The time in which one thread computes all its blocks.
inline double time_of(const Geometry& g, const Blocking& blocking, const Machine& machine) {
  double steps = 0, multiplied = 0;
  for (const TapPhase& phase : g.phases) {
    steps += static_cast<double>(g.depth.steps(phase));
    multiplied += g.partial ? static_cast<double>(g.depth.runs(phase) * round_up(g.depth.run(phase), 2)) / kElements
                            : static_cast<double>(g.depth.steps(phase));
  }
  const bool half = g.groups == 1 && (g.columns - 1) % kColumns < kRows;  // the last strip is one tile wide
  const double strips = static_cast<double>(ceil_div(g.strips, blocking.splits)) - (half ? 1 - cost::kBfloatHalf : 0);
  const int64_t tiles = g.tiles(blocking);
  const double height = (static_cast<double>(g.tile) + 0.5) / (kRows + 0.5);
  const double pairs = height * static_cast<double>(tiles / 2), odd = height * static_cast<double>(tiles % 2);
  const double phases = static_cast<double>(g.phases.size()), groups = static_cast<double>(g.groups);
  const double products =
      groups * strips *
      (multiplied * (pairs * g.costs.pair + odd * g.costs.single) + (pairs + odd / 2) * phases * cost::kBfloatStore);
  const double pixels = g.rows ? static_cast<double>(blocking.lines)
                               : static_cast<double>(g.span(0, blocking.depth) * g.used_residues() *
                                                     g.lines_of_residue(blocking) * g.line_pixels());
  const double split = g.in_place ? 0 : pixels * (static_cast<double>(g.depth.pitch) / kElements * g.split + 1);
  const double strip_bytes = groups * steps * g.parts * 4 * kTile;
  const double all_bytes = static_cast<double>(g.strips) * strip_bytes;
  const double weights = strips * strip_bytes * cost::bfloat_weight_byte(all_bytes, g.costs, machine.rates);
  const double rounds = std::ceil(static_cast<double>(g.blocks(blocking) * blocking.splits) / machine.threads);
  return rounds * (products + weights + split);
}

// The blocks that are expected to be fastest, among those whose region leaves half of L2 to weights and outputs.
inline Blocking blocking_of(const Geometry& g, const Machine& machine) {
  Blocking best;
  if (g.pixels() == 0) return best;
  const int64_t most_lines = g.rows ? g.pixels() : g.count[1];
  const auto consider = [&](int64_t depth, int64_t lines) {
    Blocking blocking;
    blocking.depth = depth;
    blocking.lines = lines;
    const bool fits = 2 * g.parts * g.region(blocking) <= machine.l2_bytes / 2;
    if (!fits && (depth > 1 || lines > (g.rows ? 2 * g.tile : 1))) return;
    for (int64_t splits = 1; splits <= std::min<int64_t>(g.strips, 2 * machine.threads); ++splits) {
      blocking.splits = splits;
      blocking.time = time_of(g, blocking, machine);
      if (blocking.time < best.time) best = blocking;
    }
  };
  // Blocks of equal size: 100 lines become 2 x 50, not 96 + 4.
  int64_t last = 0;
  for (int64_t parts = 1; parts <= most_lines; parts = parts < 64 ? parts + 1 : parts * 9 / 8) {
    int64_t lines = ceil_div(most_lines, parts);
    if (g.rows) lines = round_up(lines, g.tile);
    if (lines == last) continue;
    last = lines;
    for (int64_t depth = 1; depth <= (g.rows ? 1 : g.count[0]); depth = depth < 4 ? depth + 1 : depth * 3 / 2) {
      consider(depth, lines);
    }
  }
  consider(1, g.rows ? 2 * g.tile : 1);
  return best;
}

}  // namespace convoxel::bfloat
