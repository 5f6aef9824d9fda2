// Convolutions by products of bfloat16, on a matrix unit or in vectors: each float is a sum of them (see
// BfloatProduct).
//
// A chunk splits the input of its outputs into parts. They lie in a region of the worker's own, which stays in L2. The
// rows of a tile must lie equally far apart, so the region holds
//
//   rows     for a 1x1 window: its pixels one after another, from any line and image; or
//   windows  otherwise: lines with their padding. Tiles either stay within a line, or continue across lines and also
//            compute the useless outputs between them, whichever takes fewer tiles. To let a tile continue, line
//            h + stride follows line h (lines of one residue lie together), and a line is as long as all its steps.
//
// All phases of a transposed convolution read the same region. Where the channels do not fill steps of 32, the taps
// along w form one long row; what a step reads beyond them is multiplied by weights of zero.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "bfloat.h"
#include "bfloat_blocking.h"
#include "threads.h"

namespace convoxel {

using namespace bfloat;

namespace {

// Says how the steps of runs of so many elements end.
void end_runs(int64_t elements, BfloatProduct* product) {
  product->run = std::max<int64_t>(1, ceil_div(elements, kElements));
  product->last = round_up(elements - (product->run - 1) * kElements, 2);
}

class BfloatRun final : public AlgorithmRun {
 public:
  BfloatRun(int parts, const ConvSetup& setup)
      : AlgorithmRun(setup),
        unit_(*set_.matrix_unit),
        g_(problem_, parts, unit_),
        blocking_(blocking_of(g_, this_machine(setup.threads))),
        region_(g_.region(blocking_)),
        tiles_(g_.tiles(blocking_)) {
    for (const TapPhase& phase : g_.phases) steps_.push_back(steps_of(phase));
  }

  int64_t chunks(int) const override { return g_.pixels() > 0 ? g_.blocks(blocking_) * blocking_.splits : 0; }
  int64_t own_bytes() const override { return g_.parts * part_bytes() + table_bytes(); }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const int64_t split = chunk % blocking_.splits, block = chunk / blocking_.splits;
    uint16_t* region = static_cast<uint16_t*>(scratch.own);
    Tables tables;
    tables.tiles = reinterpret_cast<int64_t*>(static_cast<char*>(scratch.own) + g_.parts * part_bytes());
    tables.outputs = reinterpret_cast<void**>(tables.tiles + tiles_);
    tables.residuals = const_cast<const void**>(tables.outputs + tiles_ * g_.tile);
    if (g_.rows) return run_pixels(block, split, p, region, tables);
    const int64_t h_blocks = ceil_div(g_.count[1], blocking_.lines), d_blocks = ceil_div(g_.count[0], blocking_.depth);
    Block at;
    at.h = block % h_blocks * blocking_.lines;
    at.d = block / h_blocks % d_blocks * blocking_.depth;
    at.n = block / h_blocks / d_blocks;
    at.lines = std::min(blocking_.lines, g_.count[1] - at.h);
    at.depth = std::min(blocking_.depth, g_.count[0] - at.d);
    split_lines(at, p, region);
    const Rows a{region, part_elements(), g_.row_step(), place_tiles(at, tables.tiles)};
    for (size_t i = 0; i < g_.phases.size(); ++i) {
      place_rows(g_.phases[i], at, *p.dst_view, p.dst, a.tiles, tables.outputs);
      if (p.residual != nullptr) {
        place_rows(g_.phases[i], at, *p.residual_view, p.residual, a.tiles, tables.residuals);
      }
      multiply(i, a, split, p, tables);
    }
  }

 private:
  // The outputs [d, d + depth) x [h, h + lines) of image n, all of them along w.
  struct Block {
    int64_t n = 0, d = 0, h = 0, depth = 0, lines = 0;
  };
  struct Tables {
    int64_t* tiles;
    void** outputs;
    const void** residuals;
  };
  // The rows of A that are multiplied, as in BfloatProduct.
  struct Rows {
    const uint16_t* first;
    int64_t part, step;
    int64_t tiles;
  };

  int64_t part_bytes() const { return round_up(region_ * 2, kAlignBytes); }
  int64_t part_elements() const { return part_bytes() / 2; }
  int64_t table_bytes() const { return round_up(tiles_ * (1 + 2 * g_.tile) * 8, kAlignBytes); }
  const float* gate_of(int64_t n, const ConvPointers& p) const {
    return p.gate != nullptr ? p.gate + n * p.gate_step : nullptr;
  }

  // The offset of each step's elements from an output's first input.
  std::vector<int64_t> steps_of(const TapPhase& phase) const {
    std::vector<int64_t> steps;
    const int64_t line = g_.line_pixels() * g_.depth.pitch;
    const AxisPhase& ww = phase.axis[2];
    const int64_t width = static_cast<int64_t>(ww.offset.size());
    const auto along = [&](int64_t begin, int64_t elements) {
      for (int64_t e = 0; e < elements; e += kElements) steps.push_back(begin + e);
    };
    for (const int64_t d : phase.axis[0].offset) {
      for (const int64_t h : phase.axis[1].offset) {
        const int64_t from = h - g_.low[1], residue = g_.residues[static_cast<size_t>(from % g_.step[1])];
        const int64_t begin = g_.rows ? 0
                                      : (d - g_.low[0]) * g_.slice(blocking_) +
                                            (residue * g_.lines_of_residue(blocking_) + from / g_.step[1]) * line;
        if (g_.depth.merged && width > 0) {
          along(begin + (ww.offset.front() - g_.low[2]) * g_.depth.pitch, width * g_.depth.channels);
          continue;
        }
        for (const int64_t w : ww.offset) along(begin + (w - g_.low[2]) * g_.depth.pitch, g_.depth.channels);
      }
    }
    return steps;
  }

  // Computes outputs [begin, begin + rows) of the list of all, which have one tap.
  void run_pixels(int64_t block, int64_t split, const ConvPointers& p, uint16_t* region, const Tables& tables) const {
    const int64_t begin = block * blocking_.lines, rows = std::min(blocking_.lines, g_.pixels() - begin);
    const int64_t tiles = ceil_div(rows, g_.tile), pixel = distance_in_place(*p.src_view);
    Rows a{region, part_elements(), g_.depth.pitch, tiles};
    const bool copied = pixel == 0 || rows < g_.tile;
    if (copied) {
      split_pixels(begin, rows, p, region);
    } else {
      a = {reinterpret_cast<const uint16_t*>(p.source<Bfloat16>()) + begin * pixel, 0, pixel, tiles};
    }
    // What is read in place ends with the image. So the last tile ends there, too; it computes some outputs again.
    const int64_t again = copied ? 0 : tiles * g_.tile - rows;
    for (int64_t t = 0; t < tiles; ++t) tables.tiles[t] = (t * g_.tile - (t + 1 == tiles ? again : 0)) * a.step;
    for (size_t i = 0; i < g_.phases.size(); ++i) {
      place_pixels(g_.phases[i], *p.dst_view, p.dst, begin, rows, again, tables.outputs);
      if (p.residual != nullptr) {
        place_pixels(g_.phases[i], *p.residual_view, p.residual, begin, rows, again, tables.residuals);
      }
      multiply(i, a, split, p, tables);
    }
  }

  // The distance between pixels if products read them where they lie, else 0.
  int64_t distance_in_place(const View& v) const {
    if (!g_.in_place) return 0;
    const int64_t pixel = v.size[2] > 1   ? v.stride[2]
                          : v.size[1] > 1 ? v.stride[1]
                          : v.size[0] > 1 ? v.stride[0]
                                          : v.batch_stride;
    const bool even = (v.size[1] == 1 || v.stride[1] == v.size[2] * pixel) &&
                      (v.size[0] == 1 || v.stride[0] == v.size[1] * v.size[2] * pixel) &&
                      (v.batch == 1 || v.batch_stride == v.pixels() * pixel);
    return even ? pixel : 0;
  }

  // table[m] = row begin + m of the output (or residual). In the last tile, the rows `again` are null: they are those
  // of the tile before it.
  template <class Pointer, class Void>
  void place_pixels(const TapPhase& phase, const View& view, Pointer* base, int64_t begin, int64_t rows, int64_t again,
                    Void** table) const {
    with_element(view.element, [&](auto number) {
      using T = std::conditional_t<std::is_const_v<Pointer>, const decltype(number), decltype(number)>;
      fill_outputs(phase, view, static_cast<T*>(base), begin, rows, reinterpret_cast<T**>(table));
    });
    const int64_t last = round_up(rows, g_.tile) - g_.tile;
    std::memmove(table + last + again, table + last, static_cast<size_t>(rows - last) * sizeof(Void*));
    std::fill(table + last, table + last + again, nullptr);
    std::fill(table + again + rows, table + round_up(rows, g_.tile), nullptr);
  }

  void split_pixels(int64_t begin, int64_t rows, const ConvPointers& p, uint16_t* region) const {
    const TapPhase& phase = g_.phases.front();
    const View& view = *p.src_view;
    for_runs(phase, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
      const int64_t src = n * view.batch_stride + (qd * g_.step[0] + g_.low[0]) * view.stride[0] +
                          (qh * g_.step[1] + g_.low[1]) * view.stride[1] +
                          (qw * g_.step[2] + g_.low[2]) * view.stride[2];
      split(p, src, g_.step[2] * view.stride[2], gate_of(n, p), length, region + m * g_.depth.pitch);
    });
    clear(region + rows * g_.depth.pitch, kElements);
  }

  // Splits the lines that a block reads in the order in which they lie: what is cleared behind one line is overwritten
  // by the next.
  void split_lines(const Block& at, const ConvPointers& p, uint16_t* region) const {
    const View& view = *p.src_view;
    const int64_t line = g_.line_pixels() * g_.depth.pitch, rows = g_.lines_of_residue(blocking_);
    const int64_t span_h = g_.span(1, at.lines);
    const int64_t first = std::clamp<int64_t>(-g_.low[2], 0, g_.line_pixels());
    const int64_t last = std::clamp<int64_t>(view.size[2] - g_.low[2], first, g_.line_pixels());
    const int64_t reach = g_.high[0] - g_.low[0];
    for (int64_t id = 0; id < g_.span(0, at.depth); ++id) {
      if (id % g_.step[0] > reach) continue;  // no output reads this slice
      for (int64_t residue = 0; residue < g_.step[1]; ++residue) {
        const int64_t place = g_.residues[static_cast<size_t>(residue)];
        if (place < 0) continue;
        for (int64_t j = 0; j * g_.step[1] + residue < span_h; ++j) {
          uint16_t* to = region + id * g_.slice(blocking_) + (place * rows + j) * line;
          const int64_t d = at.d * g_.step[0] + g_.low[0] + id;
          const int64_t h = at.h * g_.step[1] + g_.low[1] + j * g_.step[1] + residue;
          if (d < 0 || d >= view.size[0] || h < 0 || h >= view.size[1]) {
            clear(to, line + kElements);
            continue;
          }
          const int64_t src =
              at.n * view.batch_stride + d * view.stride[0] + h * view.stride[1] + (first + g_.low[2]) * view.stride[2];
          clear(to, first * g_.depth.pitch);
          split(p, src, view.stride[2], gate_of(at.n, p), last - first, to + first * g_.depth.pitch);
          clear(to + last * g_.depth.pitch, line - last * g_.depth.pitch + kElements);
        }
      }
    }
  }

  // src: the offset of the first pixel.
  void split(const ConvPointers& p, int64_t src, int64_t src_step, const float* gate, int64_t pixels,
             uint16_t* to) const {
    BfloatRows rows;
    rows.parts = g_.parts;
    rows.dst = to;
    rows.dst_part = part_elements();
    rows.dst_step = g_.depth.pitch;
    rows.src = static_cast<const char*>(p.src) + src * element_bytes(problem_.in_element);
    rows.src_step = src_step;
    rows.src_element = problem_.in_element;
    rows.factors = gate;
    rows.rows = pixels;
    rows.channels = problem_.in_channels;
    unit_.split(rows);
  }

  void clear(uint16_t* to, int64_t elements) const {
    for (int i = 0; i < g_.parts; ++i) {
      std::memset(to + i * part_elements(), 0, static_cast<size_t>(elements) * sizeof(uint16_t));
    }
  }

  // The output of line q_h at w has slot line_slot(q_h) + w of its slice.
  int64_t line_slot(int64_t q_h) const { return q_h * (g_.across ? g_.slots() : round_up(g_.count[2], g_.tile)); }

  int64_t place_tiles(const Block& at, int64_t* tiles) const {
    const int64_t of_slice = g_.tiles_of_slice(at.lines), of_line = ceil_div(g_.count[2], g_.tile);
    int64_t* out = tiles;
    for (int64_t d = 0; d < at.depth; ++d) {
      const int64_t slice = d * g_.step[0] * g_.slice(blocking_);
      for (int64_t t = 0; t < of_slice; ++t) {
        *out++ = slice +
                 (g_.across ? t * g_.tile * g_.row_step()
                            : t / of_line * g_.line_pixels() * g_.depth.pitch + t % of_line * g_.tile * g_.row_step());
      }
    }
    return out - tiles;
  }

  // table[16 * tile + row] = the row of the output (or residual); null between lines and beyond the phase.
  template <class Void>
  void place_rows(const TapPhase& phase, const Block& at, const View& view, Void* base, int64_t tiles,
                  Void** table) const {
    std::fill(table, table + tiles * g_.tile, nullptr);
    const int64_t slice = g_.tiles_of_slice(at.lines) * g_.tile;
    const int64_t depth = std::min(at.depth, phase.axis[0].count - at.d);
    const int64_t lines = std::min(at.lines, phase.axis[1].count - at.h);
    const AxisPhase& ww = phase.axis[2];
    using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
    const int64_t bytes = element_bytes(view.element);
    for (int64_t d = 0; d < depth; ++d) {
      for (int64_t h = 0; h < lines; ++h) {
        const int64_t row = at.n * view.batch_stride +
                            (phase.axis[0].out_begin + (at.d + d) * phase.axis[0].out_step) * view.stride[0] +
                            (phase.axis[1].out_begin + (at.h + h) * phase.axis[1].out_step) * view.stride[1] +
                            ww.out_begin * view.stride[2];
        Void** out = table + d * slice + line_slot(h);
        Byte* const to = static_cast<Byte*>(base) + row * bytes;
        for (int64_t w = 0; w < ww.count; ++w) out[w] = to + w * ww.out_step * view.stride[2] * bytes;
      }
    }
  }

  void multiply(size_t phase, const Rows& a, int64_t split, const ConvPointers& p, const Tables& tables) const {
    const int64_t split_columns = ceil_div(g_.strips, blocking_.splits) * kColumns;
    BfloatProduct product;
    product.parts = g_.parts;
    product.a_part = a.part;
    product.a_row = a.step;
    product.tiles = tables.tiles;
    product.tile_rows = g_.tile;
    product.tile_count = a.tiles;
    product.steps = steps_[phase].data();
    product.step_count = static_cast<int64_t>(steps_[phase].size());
    end_runs(g_.depth.run(g_.phases[phase]), &product);
    product.columns = g_.columns;
    product.column_begin = std::min(g_.columns, split * split_columns);
    product.column_end = std::min(g_.columns, product.column_begin + split_columns);
    product.activation = activation_;
    for (int64_t group = 0; group < g_.groups; ++group) {
      product.a = a.first + group * g_.depth.channels;
      product.b = reinterpret_cast<const uint16_t*>(weights_.data.get()) + weights_.phase_offset[phase] +
                  group * weights_.group_step[phase];
      product.c = tables.outputs;
      product.c_offset = group * g_.columns;
      product.residual = p.residual != nullptr ? tables.residuals : nullptr;
      product.c_element = problem_.out_element;
      product.residual_element = problem_.residual_element.value_or(Element::kFloat32);
      product.bias = conv_.bias() != nullptr ? conv_.bias() + group * g_.columns : nullptr;
      unit_.product(product);
    }
  }

  const MatrixUnit& unit_;
  Geometry g_;
  Blocking blocking_;
  int64_t region_ = 0;                       // elements of each part
  int64_t tiles_ = 0;                        // of a block, at most
  std::vector<std::vector<int64_t>> steps_;  // of each phase
};

// The part of x, as microkernels split it: infinity is the last part, and what would round to infinity is cut.
Bfloat16 part_of(float x, bool last) {
  const Bfloat16 nearest = rounded(x);
  if (last || !std::isinf(widened(nearest))) return nearest;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return {static_cast<uint16_t>(std::isinf(x) ? 0 : bits >> 16)};
}

// Packs weights by phase, group, strip, step, part, tile of columns, pair of elements, column, element. Zeros fill the
// steps that have more elements than the taps and the tiles that have more columns than the output.
template <int kParts>
PackedWeights pack(const Convolution& conv, const ConvProblem&, const MicrokernelSet&, int threads) {
  const Window& window = conv.window();
  const std::vector<TapPhase> phases = plan_phases(window, Axes{1, 1, 1});
  const Depth depth(window, conv.in_channels());
  const int64_t columns = conv.out_channels() / window.groups;
  const int64_t column_tiles = ceil_div(columns, kRows), strips = ceil_div(columns, kColumns);
  PackedWeights packed;
  int64_t size = 0;  // in bfloat16
  for (const TapPhase& phase : phases) {
    packed.phase_offset.push_back(size);
    packed.group_step.push_back(depth.steps(phase) * column_tiles * kParts * kTile);
    size += window.groups * packed.group_step.back();
  }
  packed.size = (size + 1) / 2;
  packed.data = allocate_floats(packed.size);
  uint16_t* const base = reinterpret_cast<uint16_t*>(packed.data.get());
  std::memset(base, 0, static_cast<size_t>(packed.size) * sizeof(float));
  for (size_t index = 0; index < phases.size(); ++index) {
    const TapPhase& phase = phases[index];
    const int64_t steps = depth.steps(phase), width = static_cast<int64_t>(phase.axis[2].index.size());
    const int64_t run = depth.merged ? width : 1;  // taps of one row of steps
    const int64_t run_steps = ceil_div(run * depth.channels, kElements);
    parallel_for(threads, window.groups * strips, [&](int64_t chunk, int) {
      const int64_t group = chunk / strips, strip = chunk % strips, begin = strip * kColumns;
      const Kernels weights = conv.kernels(group);
      const int64_t tiles = std::min<int64_t>(2, column_tiles - 2 * strip);
      uint16_t* const to =
          base + packed.phase_offset[index] + group * packed.group_step[index] + strip * steps * kParts * 2 * kTile;
      int64_t t = 0;
      for_taps(phase, window, [&](int64_t tap) {
        for (int64_t c = 0; c < depth.channels; ++c) {
          const int64_t element = t % run * depth.channels + c;
          uint16_t* const at = to + (t / run * run_steps + element / kElements) * kParts * tiles * kTile;
          const int64_t pair = element % kElements / 2 * kElements + element % 2;
          for (int64_t k = begin; k < std::min(begin + kColumns, columns); ++k) {
            uint16_t* const place = at + (k - begin) / kRows * kTile + pair + (k - begin) % kRows * 2;
            float rest = weights.at(k, c, tap);
            for (int part = 0; part < kParts; ++part) {
              const Bfloat16 nearest = part_of(rest, part + 1 == kParts);
              place[(kParts - 1 - part) * tiles * kTile] = nearest.bits;
              rest -= widened(nearest);
            }
          }
        }
        ++t;
      });
      if (phases.size() == 1)
        conv.give_back(group * columns + begin, group * columns + std::min(begin + kColumns, columns));
    });
  }
  return packed;
}

std::string unsupported(const ConvProblem&) { return ""; }

template <int kParts>
double cost_of(const ConvProblem& p, const MicrokernelSet& set) {
  const Machine& machine = reference_machine(set.name);
  const Geometry g(p, kParts, *set.matrix_unit);
  return blocking_of(g, machine).time * machine.threads + image_bytes(p) * cost::bfloat_image_byte(machine.rates);
}

template <int kParts>
std::unique_ptr<ConvRun> plan(const ConvSetup& setup) {
  return std::make_unique<BfloatRun>(kParts, setup);
}

}  // namespace

BfloatPixels::BfloatPixels(int parts, const Convolution& conv, const PackedWeights& weights, const MicrokernelSet& set,
                           Activation activation, int64_t rows, const ConvProblem& problem)
    : parts_(parts),
      conv_(conv),
      weights_(weights),
      unit_(*set.matrix_unit),
      activation_(activation),
      rows_(round_up(rows, kRows)),
      in_(problem.in_element),
      out_(problem.out_element),
      residual_(problem.residual_element.value_or(Element::kFloat32)) {
  for (int64_t e = 0; e < conv.in_channels(); e += kElements) steps_.push_back(e);
}

// The last step of the last row reads beyond the row.
int64_t BfloatPixels::part_elements() const {
  return round_up(rows_ * Depth(conv_.window(), conv_.in_channels()).pitch + kElements, kElements);
}

// Behind the parts lie the places of the tiles.
int64_t BfloatPixels::scratch_bytes() const {
  return parts_ * part_elements() * 2 + ceil_div(rows_, unit_.least_rows) * static_cast<int64_t>(sizeof(int64_t));
}

void BfloatPixels::run(const void* src, int64_t step, int64_t rows, bool padded, void** outputs,
                       const void* const* residuals, void* scratch) const {
  const int64_t channels = conv_.in_channels();
  uint16_t* const copies = static_cast<uint16_t*>(scratch);
  int64_t* const tiles = reinterpret_cast<int64_t*>(copies + parts_ * part_elements());
  const int64_t height = tile_rows(unit_, rows);
  std::fill(outputs + rows, outputs + round_up(rows, height), nullptr);
  BfloatProduct product;
  product.parts = parts_;
  product.a = static_cast<const uint16_t*>(src);
  product.a_row = step;
  if (in_ != Element::kBfloat16 || !padded) {
    BfloatRows split;
    split.parts = parts_;
    split.dst = copies;
    split.dst_part = part_elements();
    split.dst_step = Depth(conv_.window(), channels).pitch;
    split.src = src;
    split.src_step = step;
    split.src_element = in_;
    split.rows = rows;
    split.channels = channels;
    unit_.split(split);
    for (int i = 0; i < parts_; ++i) {
      std::memset(copies + i * split.dst_part + rows * split.dst_step, 0, kElements * sizeof(uint16_t));
    }
    product.a = copies;
    product.a_part = split.dst_part;
    product.a_row = split.dst_step;
  }
  product.tiles = tiles;
  product.tile_rows = height;
  product.tile_count = ceil_div(rows, height);
  for (int64_t t = 0; t < product.tile_count; ++t) tiles[t] = t * height * product.a_row;
  product.steps = steps_.data();
  product.step_count = static_cast<int64_t>(steps_.size());
  end_runs(channels, &product);
  product.b = reinterpret_cast<const uint16_t*>(weights_.data.get());
  product.columns = product.column_end = conv_.out_channels();
  product.c = outputs;
  product.c_element = out_;
  product.residual = residuals;
  product.residual_element = residual_;
  product.bias = conv_.bias();
  product.activation = activation_;
  unit_.product(product);
}

int bfloat_parts(const Algorithm& algorithm) { return algorithm.needs_matrix_unit ? algorithm.digits / 8 : 0; }

std::vector<Algorithm> bfloat_algorithms() {
  return {
      {"bf16x6",
       "by products of bfloat16 (AMX, AVX512-BF16): floats as sums of three, six of their products; any window", true,
       unsupported, cost_of<3>, pack<3>, plan<3>, true, nullptr, true},
      {"bf16x3", "by products of bfloat16: floats as sums of two, three of their products; any window", false,
       unsupported, cost_of<2>, pack<2>, plan<2>, true, nullptr, true, 16},
      {"bf16", "by products of bfloat16, of 8 binary digits; any window", false, unsupported, cost_of<1>, pack<1>,
       plan<1>, true, nullptr, true, 8, [](const ConvProblem&) { return true; }},
  };
}

}  // namespace convoxel
