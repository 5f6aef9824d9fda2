// The algorithms that turn a convolution into matrix products over rows taken in place.
//
//   pointwise  A 1x1 kernel without padding: every output pixel has one input row.
//   indirect   Any window: a table of row pointers per tap and output pixel; padding points at a row of zeros.
//   stretched  Few input channels: the taps along w of one output form one stretch of memory, so that the inner loop of
//              the product has kernel_w * channels iterations instead of channels.
//   phases     Transposed convolutions: one indirect convolution for each phase of the output.
//
// All of them divide the output pixels (of all images, as one list) into blocks of rows, and wide outputs into groups
// of panels. A chunk is one block of one phase times one group of panels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "convolution.h"
#include "cost.h"
#include "rows.h"
#include "threads.h"

namespace convoxel {
namespace {

// The rows of a block: enough to use each panel of weights often, few enough that the block's input (96 rows of up to
// 512 channels: 192 KB) and pointers stay in L2.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kBlockPointers = 16384;  // 128 KB
constexpr int64_t kBlockChannels = 256;
constexpr int64_t kStretchedChannels = 8;  // with more, a pixel's channels are a long enough row

// The meaning of a row of A: the channels of one pixel, or of the pixels of all taps along w.
enum class Rows { kIndirect, kStretches };

class ProductRun final : public AlgorithmRun {
 public:
  ProductRun(Rows source, const ConvSetup& setup)
      : AlgorithmRun(setup), source_(source), phases_(plan_phases(problem_.window, problem_.out_size)) {
    const auto& [problem, conv, weights, set, activation, threads] = setup;
    int64_t most_taps = 1, most_rows = 1;
    for (const TapPhase& phase : phases_) {
      most_taps = std::max(most_taps, phase.taps());
      most_rows = std::max(most_rows, problem.batch * phase.pixels());
    }

    const int64_t groups = problem.window.groups;
    const int64_t panel = set.panel_vectors * set.vector_floats;
    const int64_t group_columns = problem.out_channels / groups;
    const int64_t panels = ceil_div(group_columns, panel);

    const int64_t step = set.tile_rows * 2;  // a multiple of every tile height of the set
    rows_ = std::clamp(kBlockPointers / most_taps / step * step, step, kBlockRows);
    // Blocks of equal height: 100 rows become 2 x 50, not 96 + 4.
    rows_ = std::min(rows_, round_up(ceil_div(most_rows, ceil_div(most_rows, rows_)), step));

    // Where blocks are few (a deep layer), threads share the columns as well, and each streams its part of the weights.
    const int64_t wanted = 4 * threads;
    int64_t blocks = ceil_div(most_rows, rows_);
    // One thread computes all phases of a block, since their outputs are neighbours.
    together_ = blocks >= wanted ? static_cast<int64_t>(phases_.size()) : 1;
    blocks *= static_cast<int64_t>(phases_.size()) / together_;
    splits_ = threads > 1 && blocks < wanted ? std::min(panels, ceil_div(wanted, std::max<int64_t>(blocks, 1))) : 1;
    split_columns_ = ceil_div(panels, splits_) * panel;
    splits_ = ceil_div(group_columns, split_columns_);
    chunks_ = blocks * splits_;

    pointers_ = rows_ * most_taps;
    if (source == Rows::kStretches) {
      const int64_t width = problem.window.kernel[2];
      const int64_t lines = most_taps / width;
      copied_ = zero_floats() + round_up(rows_ * most_taps * problem.in_channels, set.vector_floats);
      pointers_ = rows_ * lines + lines + 2 * rows_;
    }
    if (problem.gated) scaled_ = most_taps * (problem.in_channels / groups) * panel;
  }

  int64_t chunks(int) const override { return chunks_; }

  int64_t own_bytes() const override {
    // Pointers of all taps, of outputs and of residuals; then the stretches that are copied, and a panel of weights
    // times the gate.
    return pointer_bytes() + round_up((copied_ + scaled_) * static_cast<int64_t>(sizeof(float)), kAlignBytes);
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    const int64_t split = chunk % splits_;
    const int64_t first = chunk / splits_ * together_, phases = static_cast<int64_t>(phases_.size());
    for (int64_t i = first; i < first + together_; ++i) {
      run_phase(static_cast<size_t>(i % phases), i / phases * rows_, split, p, scratch);
    }
  }

 private:
  void run_phase(size_t index, int64_t begin, int64_t split, const ConvPointers& p, ConvScratch scratch) const {
    const TapPhase& phase = phases_[index];
    const int64_t rows = std::min(rows_, problem_.batch * phase.pixels() - begin);
    if (rows <= 0) return;

    const float** inputs = static_cast<const float**>(scratch.own);
    float** outputs = const_cast<float**>(inputs + pointers_);
    const float** residuals = inputs + pointers_ + rows_;
    float* copies = reinterpret_cast<float*>(static_cast<char*>(scratch.own) + pointer_bytes());
    float* scaled = copies + copied_;

    fill_outputs(phase, *p.dst_view, p.result(), begin, rows, outputs);
    if (p.residual != nullptr) fill_outputs(phase, *p.residual_view, p.added(), begin, rows, residuals);

    const int64_t groups = problem_.window.groups;
    Product product;
    product.a = inputs;
    product.a_step = rows_;
    product.rows = rows;
    product.c = outputs;
    product.residual = p.residual != nullptr ? residuals : nullptr;
    product.activation = activation_;
    product.block_channels = kBlockChannels;
    if (source_ == Rows::kStretches) return run_stretches(phase, p, index, begin, rows, split, inputs, product, copies);
    fill_inputs(phase, *p.src_view, p.source(), conv_.zeros(), begin, rows, inputs, rows_);
    product.taps = phase.taps();
    product.channels = problem_.in_channels / groups;
    product.columns = problem_.out_channels / groups;
    product.column_begin = split * split_columns_;
    product.column_end = std::min(product.columns, product.column_begin + split_columns_);
    for (int64_t g = 0; g < groups; ++g) {
      product.a_offset = g * (problem_.in_channels / groups);
      product.b = weights_.data.get() + weights_.phase_offset[index] + g * weights_.group_step[index];
      product.c_offset = g * product.columns;
      product.bias = conv_.bias() != nullptr ? conv_.bias() + g * product.columns : nullptr;
      if (p.gate == nullptr) {
        set_.product(product);
      } else {
        const int64_t image = problem_.batch > 0 ? phase.pixels() : 1;
        for (int64_t m = 0; m < rows;) {
          const int64_t n = (begin + m) / image;
          const int64_t end = std::min(rows, (n + 1) * image - begin);
          run_gated(product, m, end, p.gate + n * p.gate_step + product.a_offset, scaled);
          m = end;
        }
      }
    }
  }

  // Multiplies rows [begin, end), all of one image, whose input has a gate. The gate scales the weights instead, panel
  // by panel: that is one multiplication for the many rows of the block.
  void run_gated(const Product& whole, int64_t begin, int64_t end, const float* gate, float* scaled) const {
    const int64_t panel = set_.panel_vectors * set_.vector_floats;
    const int64_t depth = whole.taps * whole.channels;
    Product part = whole;
    part.rows = end - begin;
    part.a = whole.a + begin;
    part.c = whole.c + begin;
    part.residual = whole.residual != nullptr ? whole.residual + begin : nullptr;
    part.b = scaled;
    part.column_begin = 0;
    for (int64_t column = whole.column_begin; column < whole.column_end; column += panel) {
      part.columns = part.column_end = std::min(panel, whole.columns - column);
      set_.scale_rows(scaled, whole.b + column * depth, gate, depth, whole.channels,
                      round_up(part.columns, set_.vector_floats));
      part.c_offset = whole.c_offset + column;
      part.bias = whole.bias != nullptr ? whole.bias + column : nullptr;
      set_.product(part);
    }
  }

  int64_t pointer_bytes() const {
    return round_up((pointers_ + 2 * rows_) * static_cast<int64_t>(sizeof(float*)), kAlignBytes);
  }

  // The taps along w of an output read one stretch of width * channels floats for each tap of the other axes. Where the
  // image is dense along w the stretch is there already, and the stretches of neighbours lie a fixed step apart: a run
  // of outputs needs one pointer for each tap. Stretches that cross the border or are not dense are copied, with zeros
  // for the padding.
  void run_stretches(const TapPhase& phase, const ConvPointers& p, size_t index, int64_t begin, int64_t rows,
                     int64_t split, const float** table, Product product, float* copies) const {
    const View& view = *p.src_view;
    const AxisPhase& ww = phase.axis[2];
    const int64_t channels = problem_.in_channels;
    const int64_t width = static_cast<int64_t>(ww.offset.size());
    const bool dense = problem_.window.dilation[2] == 1 && view.stride[2] == channels;
    product.taps = phase.taps() / width;
    product.channels = width * channels;
    product.columns = problem_.out_channels;
    product.column_begin = split * split_columns_;
    product.column_end = std::min(product.columns, product.column_begin + split_columns_);
    product.b = weights_.data.get() + weights_.phase_offset[index];
    product.bias = conv_.bias();
    float* const* const outputs = product.c;
    const float* const* const residuals = product.residual;
    const int64_t row = ww.in_step * channels;
    std::fill(copies, copies + zero_floats(), 0.0f);
    float* copy = copies + zero_floats();
    // Behind the table of copied stretches lie the first row of each tap of a run, and the outputs and residuals of the
    // copied rows.
    const float** const run = table + product.taps * rows_;
    float** const copied_outputs = const_cast<float**>(run + product.taps);
    const float** const copied_residuals = run + product.taps + rows_;
    int64_t copied = 0;
    for_runs(phase, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
      // The outputs whose taps along w all lie inside.
      int64_t first = 0, last = 0, ignored;
      if (dense) {
        inside(qw, length, ww.in_step, ww.offset.front(), view.size[2], &first, &ignored);
        inside(qw, length, ww.in_step, ww.offset.back(), view.size[2], &ignored, &last);
        first = std::min(first, last);
      }
      int64_t tap = 0;
      for (const int64_t offset_d : phase.axis[0].offset) {
        const int64_t d = qd * phase.axis[0].in_step + offset_d;
        for (const int64_t offset_h : phase.axis[1].offset) {
          const int64_t h = qh * phase.axis[1].in_step + offset_h;
          const bool there = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
          const float* line =
              there ? p.source() + n * view.batch_stride + d * view.stride[0] + h * view.stride[1] : nullptr;
          run[tap] = there ? line + ((qw + first) * ww.in_step + ww.offset.front()) * channels : copies;
          const float** const at = table + tap * rows_ + copied;
          copy = copy_stretches(ww, view, line, qw, first, at, copy);
          copy = copy_stretches(ww, view, line, qw + last, length - last, at + first, copy);
          ++tap;
        }
      }
      for (int64_t i = 0; i < length; ++i) {
        if (i >= first && i < last) continue;
        copied_outputs[copied] = outputs[m + i];
        if (residuals != nullptr) copied_residuals[copied] = residuals[m + i];
        ++copied;
      }
      if (first == last) return;
      product.a = run;
      product.a_step = 1;
      product.a_row = row;
      product.rows = last - first;
      product.c = outputs + m + first;
      if (residuals != nullptr) product.residual = residuals + m + first;
      set_.product(product);
    });
    if (copied == 0) return;
    product.a = table;
    product.a_step = rows_;
    product.a_row = 0;
    product.rows = copied;
    product.c = copied_outputs;
    if (residuals != nullptr) product.residual = copied_residuals;
    set_.product(product);
  }

  // Copies the stretches of outputs [q, q + count) of one line, or zeros if there is no line, and stores pointers to
  // them.
  float* copy_stretches(const AxisPhase& ww, const View& view, const float* line, int64_t q, int64_t count,
                        const float** table, float* copy) const {
    for (int64_t i = 0; i < count; ++i) {
      table[i] = copy;
      for (const int64_t offset : ww.offset) {
        const int64_t w = (q + i) * ww.in_step + offset;
        const bool there = line != nullptr && w >= 0 && w < view.size[2];
        for (int64_t c = 0; c < problem_.in_channels; ++c) *copy++ = there ? line[w * view.stride[2] + c] : 0.0f;
      }
    }
    return copy;
  }

  // The zeros that the rows of a line outside of the image read.
  int64_t zero_floats() const {
    const Window& w = problem_.window;
    return round_up((rows_ * w.stride[2] + w.kernel[2]) * problem_.in_channels, kAlignBytes);
  }

  Rows source_;
  std::vector<TapPhase> phases_;
  int64_t rows_ = 0;      // of a block
  int64_t together_ = 1;  // phases of a chunk
  int64_t splits_ = 1;    // of the columns
  int64_t split_columns_ = 0;
  int64_t chunks_ = 0;
  int64_t pointers_ = 0;
  int64_t copied_ = 0;  // floats of stretches
  int64_t scaled_ = 0;  // floats of a panel
};

// Packs weights by phase, group, panel, tap, channel, column. Zeros fill the columns of the last panel.
PackedWeights pack_panels(const Convolution& conv, const ConvProblem&, const MicrokernelSet& set, int threads) {
  const Window& window = conv.window();
  const std::vector<TapPhase> phases = plan_phases(window, Axes{1, 1, 1});
  const int64_t channels = conv.in_channels() / window.groups;
  const int64_t columns = conv.out_channels() / window.groups;
  const int64_t panel = set.panel_vectors * set.vector_floats;
  const int64_t padded = round_up(columns, set.vector_floats);

  PackedWeights packed;
  for (const TapPhase& phase : phases) {
    packed.phase_offset.push_back(packed.size);
    packed.group_step.push_back(phase.taps() * channels * padded);
    packed.size += window.groups * packed.group_step.back();
  }
  packed.data = allocate_floats(packed.size);
  const int64_t panels = ceil_div(padded, panel);
  parallel_for(threads, window.groups * panels, [&](int64_t chunk, int) {
    const int64_t g = chunk / panels, begin = chunk % panels * panel, end = std::min(begin + panel, padded);
    const Kernels weights = conv.kernels(g);
    // A vector of columns through all taps: what lies side by side in memory is read in one go.
    for (int64_t k = begin; k < end; k += set.vector_floats) {
      for (size_t index = 0; index < phases.size(); ++index) {
        const TapPhase& phase = phases[index];
        float* out = packed.data.get() + packed.phase_offset[index] + g * packed.group_step[index] +
                     begin * phase.taps() * channels + k - begin;
        for_taps(phase, window, [&](int64_t tap) {
          weights.copy_columns(set, tap, 0, channels, k, std::min(k + set.vector_floats, columns), out, end - begin);
          out += channels * (end - begin);
        });
      }
    }
    conv.give_back(g * columns + begin, g * columns + std::min(end, columns));
  });
  return packed;
}

template <Rows source>
std::unique_ptr<ConvRun> plan_product(const ConvSetup& setup) {
  return std::make_unique<ProductRun>(source, setup);
}

double product_cost(const ConvProblem& p, const MicrokernelSet& set) {
  const double groups = static_cast<double>(p.window.groups);
  const double vectors = std::ceil(p.out_channels / groups / set.vector_floats);
  const double panels = std::ceil(vectors / set.panel_vectors);
  const double weights = 4.0 * p.window.taps() * p.in_channels * p.out_channels / groups;
  const Rates& rates = reference_machine(set.name).rates;
  return tap_rows(p) * (p.in_channels * vectors * cost::kProduct + groups * panels * cost::kRow) +
         weights * cost::weight_byte(rates) + image_bytes(p) * cost::image_byte(rates);
}

std::string pointwise_unsupported(const ConvProblem& p) {
  const Window& w = p.window;
  if (w.transposed) return "it runs no transposed convolution";
  if (w.taps() != 1) return "the kernel must be 1 on every axis";
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (w.padding_low[i] > 0 || (p.out_size[i] - 1) * w.stride[i] - w.padding_low[i] >= p.in_size[i]) {
      return "padding must be 0";
    }
  }
  return "";
}

// Slightly below the cost of `indirect`, which would do the same with a table for taps that do not exist.
double pointwise_cost(const ConvProblem& p, const MicrokernelSet& set) { return 0.99 * product_cost(p, set); }

std::string indirect_unsupported(const ConvProblem& p) {
  return p.window.transposed ? "it runs no transposed convolution" : "";
}

double indirect_cost(const ConvProblem& p, const MicrokernelSet& set) { return product_cost(p, set); }

std::string stretched_unsupported(const ConvProblem& p) {
  if (p.window.transposed) return "it runs no transposed convolution";
  if (p.window.groups != 1) return "groups must be 1";
  if (p.in_channels > kStretchedChannels) {
    return "in_channels must be at most " + std::to_string(kStretchedChannels);
  }
  return "";
}

double stretched_cost(const ConvProblem& p, const MicrokernelSet& set) {
  const double lines = tap_rows(p) / p.window.kernel[2];
  const double vectors = std::ceil(static_cast<double>(p.out_channels) / set.vector_floats);
  const double panels = std::ceil(vectors / set.panel_vectors);
  const double floats = static_cast<double>(p.window.kernel[2] * p.in_channels);
  const double copies = p.window.dilation[2] == 1 ? 0 : lines * cost::kStretch;
  return lines * (floats * vectors * cost::kProduct + panels * cost::kRow) + copies +
         image_bytes(p) * cost::image_byte(reference_machine(set.name).rates);
}

std::string phases_unsupported(const ConvProblem& p) {
  return p.window.transposed ? "" : "it runs only transposed convolutions";
}

}  // namespace

std::vector<Algorithm> product_algorithms() {
  return {
      {"pointwise", "one matrix product over the pixels; kernel 1 on every axis, no padding, any stride and groups",
       true, pointwise_unsupported, pointwise_cost, pack_panels, plan_product<Rows::kIndirect>, true},
      {"indirect", "matrix products over a table of row pointers; any window, stride, dilation, padding and groups",
       true, indirect_unsupported, indirect_cost, pack_panels, plan_product<Rows::kIndirect>, true},
      {"stretched", "indirect, with all taps along w of few input channels as one; in_channels <= 8, groups 1", true,
       stretched_unsupported, stretched_cost, pack_panels, plan_product<Rows::kStretches>},
      {"phases", "transposed convolution: one indirect convolution for each phase of the output; any window", true,
       phases_unsupported, indirect_cost, pack_panels, plan_product<Rows::kIndirect>, true},
  };
}

}  // namespace convoxel
