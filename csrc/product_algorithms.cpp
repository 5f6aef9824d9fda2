// The algorithms that turn a convolution into matrix products over rows taken in place.
//
//   pointwise  a 1x1 kernel without padding: every output pixel is one input row.
//   indirect   any window: a table of row pointers per tap and output pixel; padding points at a row of zeros.
//   gathered   few input channels: the rows of all taps are copied side by side first, so that the product's inner
//              loop is taps * channels long instead of channels.
//   phases     transposed: one indirect convolution for each phase of the output.
//
// All of them cut the output pixels (of all images, taken as one list) into blocks of rows, and wide outputs into
// groups of panels; one chunk is one block of one walk times one group of panels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "convolution.h"
#include "cost.h"

namespace convoxel {
namespace {

// Rows of a block: enough to use each panel of weights often, few enough that the block's input (96 rows of up to 512
// channels: 192 KB) and pointers stay in L2.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kBlockPointers = 16384;  // 128 KB
constexpr int64_t kBlockChannels = 256;
constexpr int64_t kGatheredChannels = 8;  // up to this many input channels a group, gathering pays

// How the rows of A come about: through pointers, or copied side by side; and what they are multiplied by.
enum class Rows { kIndirect, kGathered, kDepthwise };

// Calls visit(m, n, q_d, q_h, q_w, length) for each run of outputs along w in [begin, begin + rows) of the list of
// all outputs of the walk, n-major.
template <class Visit>
void for_runs(const Walk& walk, int64_t begin, int64_t rows, const Visit& visit) {
  const int64_t size_d = walk.axis[0].count, size_h = walk.axis[1].count, size_w = walk.axis[2].count;
  int64_t w = begin % size_w;
  int64_t rest = begin / size_w;
  int64_t h = rest % size_h;
  rest /= size_h;
  int64_t d = rest % size_d;
  int64_t n = rest / size_d;
  for (int64_t m = 0; m < rows;) {
    const int64_t length = std::min(size_w - w, rows - m);
    visit(m, n, d, h, w, length);
    m += length;
    w = 0;
    if (++h == size_h) {
      h = 0;
      if (++d == size_d) {
        d = 0;
        ++n;
      }
    }
  }
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// The run [first, last) of outputs q in [q, q + length) whose input q * step + offset lies in [0, size).
void inside(int64_t q, int64_t length, int64_t step, int64_t offset, int64_t size, int64_t* first, int64_t* last) {
  *first = std::clamp(ceil_div(-offset, step) - q, int64_t{0}, length);
  *last = std::clamp(ceil_div(size - offset, step) - q, *first, length);
}

// table[t * step + m] = the input row that tap t of output m reads.
void fill_inputs(const Walk& walk, const View& view, const float* src, const float* zeros, int64_t begin, int64_t rows,
                 const float** table, int64_t step) {
  const AxisWalk& wd = walk.axis[0];
  const AxisWalk& wh = walk.axis[1];
  const AxisWalk& ww = walk.axis[2];
  for_runs(walk, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
    const float** out = table + m;
    for (const int64_t offset_d : wd.offset) {
      const int64_t d = qd * wd.in_step + offset_d;
      for (const int64_t offset_h : wh.offset) {
        const int64_t h = qh * wh.in_step + offset_h;
        const bool line_inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
        for (const int64_t offset_w : ww.offset) {
          int64_t first = 0, last = 0;
          if (line_inside) inside(qw, length, ww.in_step, offset_w, view.size[2], &first, &last);
          for (int64_t i = 0; i < first; ++i) out[i] = zeros;
          if (first < last) {
            // Only now is the address known to lie inside the tensor.
            const int64_t stride = ww.in_step * view.stride[2];
            const float* row = src + n * view.batch_stride + d * view.stride[0] + h * view.stride[1] +
                               ((qw + first) * ww.in_step + offset_w) * view.stride[2];
            for (int64_t i = first; i < last; ++i) out[i] = row + (i - first) * stride;
          }
          for (int64_t i = last; i < length; ++i) out[i] = zeros;
          out += step;
        }
      }
    }
  });
}

// table[m] = the output's (or residual's) row m.
template <class Float>
void fill_outputs(const Walk& walk, const View& view, Float* base, int64_t begin, int64_t rows, Float** table) {
  const AxisWalk& wd = walk.axis[0];
  const AxisWalk& wh = walk.axis[1];
  const AxisWalk& ww = walk.axis[2];
  for_runs(walk, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
    Float* row = base + n * view.batch_stride + (wd.out_begin + qd * wd.out_step) * view.stride[0] +
                 (wh.out_begin + qh * wh.out_step) * view.stride[1] +
                 (ww.out_begin + qw * ww.out_step) * view.stride[2];
    const int64_t stride = ww.out_step * view.stride[2];
    for (int64_t i = 0; i < length; ++i) table[m + i] = row + i * stride;
  });
}

class ProductRun final : public ConvRun {
 public:
  ProductRun(Rows source, const ConvProblem& problem, const Convolution& conv, const PackedWeights& weights,
             const KernelSet& set, Activation activation, int threads)
      : source_(source), problem_(problem), conv_(conv), weights_(weights), set_(set), activation_(activation) {
    walks_ = plan_walks(problem.window, problem.out_size);
    int64_t most_taps = 1;
    for (const Walk& walk : walks_) most_taps = std::max(most_taps, walk.taps());

    const int64_t groups = problem.window.groups;
    const int64_t panel = set.panel_vectors * set.vector_floats;
    const int64_t group_columns = problem.out_channels / groups;
    const int64_t panels = source == Rows::kDepthwise ? 1 : ceil_div(group_columns, panel);

    const int64_t step = set.tile_rows * 2;  // a multiple of every tile height of the set
    rows_ = std::clamp(kBlockPointers / most_taps / step * step, step, kBlockRows);
    // Blocks of equal height: 100 rows are 2 x 50, not 96 + 4.
    int64_t most_rows = 1;
    for (const Walk& walk : walks_) most_rows = std::max(most_rows, problem.batch * walk.pixels());
    rows_ = std::min(rows_, round_up(ceil_div(most_rows, ceil_div(most_rows, rows_)), step));

    int64_t blocks = 0;
    for (const Walk& walk : walks_) {
      walk_chunk_.push_back(blocks);
      blocks += ceil_div(problem.batch * walk.pixels(), rows_);
    }
    // Few blocks (a deep layer): the columns are shared out too, and each thread streams its part of the weights.
    const int64_t wanted = 4 * threads;
    splits_ = threads > 1 && blocks < wanted ? std::min(panels, ceil_div(wanted, std::max<int64_t>(blocks, 1))) : 1;
    split_columns_ = ceil_div(panels, splits_) * panel;
    splits_ = ceil_div(group_columns, split_columns_);
    chunks_ = blocks * splits_;
    for (int64_t& begin : walk_chunk_) begin *= splits_;

    pointers_ = source == Rows::kGathered ? 0 : rows_ * most_taps;
    gathered_channels_ = source == Rows::kGathered ? most_taps * problem.in_channels : 0;
  }

  int64_t chunks(int) const override { return chunks_; }

  int64_t own_bytes() const override {
    // pointers of all taps, of outputs, of residuals, of gathered rows; then the gathered rows themselves
    return round_up((pointers_ + 3 * rows_) * static_cast<int64_t>(sizeof(float*)), kAlignBytes) +
           round_up(rows_ * gathered_channels_ * static_cast<int64_t>(sizeof(float)), kAlignBytes);
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    size_t index = walks_.size() - 1;
    while (walk_chunk_[index] > chunk) --index;
    const Walk& walk = walks_[index];
    const int64_t within = chunk - walk_chunk_[index];
    const int64_t begin = within / splits_ * rows_;
    const int64_t split = within % splits_;
    const int64_t rows = std::min(rows_, problem_.batch * walk.pixels() - begin);
    if (rows <= 0) return;

    const float** inputs = static_cast<const float**>(scratch.own);
    float** outputs = const_cast<float**>(inputs + pointers_);
    const float** residuals = inputs + pointers_ + rows_;
    const float** gathered = residuals + rows_;
    float* gathered_rows =
        reinterpret_cast<float*>(static_cast<char*>(scratch.own) +
                                 round_up((pointers_ + 3 * rows_) * static_cast<int64_t>(sizeof(float*)), kAlignBytes));

    fill_outputs(walk, *p.dst_view, p.dst, begin, rows, outputs);
    if (p.residual != nullptr) fill_outputs(walk, *p.residual_view, p.residual, begin, rows, residuals);

    const int64_t groups = problem_.window.groups;
    Product product;
    product.a_step = rows_;
    product.rows = rows;
    product.c = outputs;
    product.residual = p.residual != nullptr ? residuals : nullptr;
    product.activation = activation_;
    product.block_channels = kBlockChannels;
    if (source_ == Rows::kGathered) {
      gather(walk, *p.src_view, p.src, begin, rows, gathered_rows, gathered);
      product.a = gathered;
      product.taps = 1;
      product.channels = walk.taps() * problem_.in_channels;
    } else {
      fill_inputs(walk, *p.src_view, p.src, conv_.zeros(), begin, rows, inputs, rows_);
      product.a = inputs;
      product.taps = walk.taps();
      product.channels = problem_.in_channels / groups;
    }
    if (source_ == Rows::kDepthwise) {
      product.channels = problem_.in_channels;
      product.columns = round_up(product.channels, set_.vector_floats);
      product.b = weights_.data.get() + weights_.walk_offset[index];
      product.bias = conv_.bias();
      set_.depthwise(product);
      return;
    }
    product.columns = problem_.out_channels / groups;
    product.column_begin = split * split_columns_;
    product.column_end = std::min(product.columns, product.column_begin + split_columns_);
    for (int64_t g = 0; g < groups; ++g) {
      product.a_offset = g * (problem_.in_channels / groups);
      product.b = weights_.data.get() + weights_.walk_offset[index] + g * weights_.group_step[index];
      product.c_offset = g * product.columns;
      product.bias = conv_.bias() != nullptr ? conv_.bias() + g * product.columns : nullptr;
      set_.product(product);
    }
  }

 private:
  // Copies the rows of all taps side by side: row m becomes taps * channels contiguous floats. The taps along w read
  // one contiguous stretch of the image if the kernel is dense there and lies inside, which nearly all do.
  void gather(const Walk& walk, const View& view, const float* src, int64_t begin, int64_t rows, float* out,
              const float** pointers) const {
    const AxisWalk& wd = walk.axis[0];
    const AxisWalk& wh = walk.axis[1];
    const AxisWalk& ww = walk.axis[2];
    const int64_t channels = problem_.in_channels;
    const int64_t width = static_cast<int64_t>(ww.offset.size());
    const int64_t row_floats = walk.taps() * channels;
    const bool dense = problem_.window.dilation[2] == 1 && view.stride[2] == channels;
    for (int64_t m = 0; m < rows; ++m) pointers[m] = out + m * row_floats;
    for_runs(walk, begin, rows, [&](int64_t m, int64_t n, int64_t qd, int64_t qh, int64_t qw, int64_t length) {
      float* to = out + m * row_floats;
      for (const int64_t offset_d : wd.offset) {
        const int64_t d = qd * wd.in_step + offset_d;
        for (const int64_t offset_h : wh.offset) {
          const int64_t h = qh * wh.in_step + offset_h;
          const bool line_inside = d >= 0 && d < view.size[0] && h >= 0 && h < view.size[1];
          const int64_t line = n * view.batch_stride + d * view.stride[0] + h * view.stride[1];
          int64_t first = 0, last = 0;  // outputs all of whose taps along w lie inside
          if (line_inside && dense) {
            int64_t ignored;
            inside(qw, length, ww.in_step, ww.offset.front(), view.size[2], &first, &ignored);
            inside(qw, length, ww.in_step, ww.offset.back(), view.size[2], &ignored, &last);
            first = std::min(first, last);
          }
          for (int64_t i = 0; i < length; ++i) {
            if (i == first && first < last) {
              const int64_t at = line + ((qw + first) * ww.in_step + ww.offset.front()) * channels;
              set_.copy_rows(to + first * row_floats, row_floats, src + at, ww.in_step * channels, last - first,
                             width * channels);
              i = last;
              if (i == length) break;
            }
            for (int64_t t = 0; t < width; ++t) {
              const int64_t w = (qw + i) * ww.in_step + ww.offset[t];
              const bool there = line_inside && w >= 0 && w < view.size[2];
              for (int64_t c = 0; c < channels; ++c) {
                to[i * row_floats + t * channels + c] = there ? src[line + w * view.stride[2] + c] : 0.0f;
              }
            }
          }
          to += width * channels;
        }
      }
    });
  }

  Rows source_;
  ConvProblem problem_;
  const Convolution& conv_;
  const PackedWeights& weights_;
  const KernelSet& set_;
  Activation activation_;
  std::vector<Walk> walks_;
  std::vector<int64_t> walk_chunk_;  // the first chunk of each walk
  int64_t rows_ = 0;                 // of a block
  int64_t splits_ = 1;               // of the columns
  int64_t split_columns_ = 0;
  int64_t chunks_ = 0;
  int64_t pointers_ = 0;
  int64_t gathered_channels_ = 0;
};

// Calls visit(flat index of the tap) for each tap of the walk, in the order in which rows are read.
template <class Visit>
void for_taps(const Walk& walk, const Window& window, const Visit& visit) {
  for (const int64_t d : walk.axis[0].index) {
    for (const int64_t h : walk.axis[1].index) {
      for (const int64_t w : walk.axis[2].index) visit((d * window.kernel[1] + h) * window.kernel[2] + w);
    }
  }
}

// Weights by walk, group, panel, tap, channel, column; the columns of the last panel filled up with zeros.
PackedWeights pack_panels(const Convolution& conv, const KernelSet& set, int) {
  const Window& window = conv.window();
  const std::vector<Walk> walks = plan_walks(window, Axes{1, 1, 1});
  const int64_t channels = conv.in_channels() / window.groups;
  const int64_t columns = conv.out_channels() / window.groups;
  const int64_t panel = set.panel_vectors * set.vector_floats;
  const int64_t padded = round_up(columns, set.vector_floats);

  PackedWeights packed;
  for (const Walk& walk : walks) {
    packed.walk_offset.push_back(packed.size);
    packed.group_step.push_back(walk.taps() * channels * padded);
    packed.size += window.groups * packed.group_step.back();
  }
  packed.data = allocate_floats(packed.size);
  float* out = packed.data.get();
  for (const Walk& walk : walks) {
    for (int64_t g = 0; g < window.groups; ++g) {
      for (int64_t begin = 0; begin < columns; begin += panel) {
        const int64_t end = std::min(begin + panel, padded);
        for_taps(walk, window, [&](int64_t tap) {
          for (int64_t c = 0; c < channels; ++c) {
            for (int64_t k = begin; k < end; ++k) {
              *out++ = k < columns ? conv.weight(g * columns + k, c, tap) : 0.0f;
            }
          }
        });
      }
    }
  }
  return packed;
}

// Weights by walk, tap, channel, each tap's channels rounded up to whole vectors.
PackedWeights pack_depthwise(const Convolution& conv, const KernelSet& set, int) {
  const Window& window = conv.window();
  const int64_t channels = conv.in_channels();
  const int64_t padded = round_up(channels, set.vector_floats);
  PackedWeights packed;
  const std::vector<Walk> walks = plan_walks(window, Axes{1, 1, 1});
  for (const Walk& walk : walks) {
    packed.walk_offset.push_back(packed.size);
    packed.group_step.push_back(0);
    packed.size += walk.taps() * padded;
  }
  packed.data = allocate_floats(packed.size);
  float* out = packed.data.get();
  for (const Walk& walk : walks) {
    for_taps(walk, window, [&](int64_t tap) {
      for (int64_t c = 0; c < padded; ++c) *out++ = c < channels ? conv.weight(c, 0, tap) : 0.0f;
    });
  }
  return packed;
}

template <Rows source>
std::unique_ptr<ConvRun> plan_product(const ConvProblem& problem, const Convolution& conv, const PackedWeights& weights,
                                      const KernelSet& set, Activation activation, int threads) {
  return std::make_unique<ProductRun>(source, problem, conv, weights, set, activation, threads);
}

double image_bytes(const ConvProblem& p) {
  const double in = static_cast<double>(p.in_size[0]) * p.in_size[1] * p.in_size[2] * p.in_channels;
  const double out = static_cast<double>(p.out_size[0]) * p.out_size[1] * p.out_size[2] * p.out_channels;
  return 4.0 * p.batch * (in + out);
}

// Output pixels times taps: of a transposed convolution, those that a tap reaches.
double tap_rows(const ConvProblem& p) {
  const Axes& size = p.window.transposed ? p.in_size : p.out_size;
  return static_cast<double>(p.batch) * size[0] * size[1] * size[2] * p.window.taps();
}

double product_cost(const ConvProblem& p, const KernelSet& set) {
  const double groups = static_cast<double>(p.window.groups);
  const double vectors = std::ceil(p.out_channels / groups / set.vector_floats);
  const double panels = std::ceil(vectors / set.panel_vectors);
  const double weights = 4.0 * p.window.taps() * p.in_channels * p.out_channels / groups;
  return tap_rows(p) * (p.in_channels * vectors * cost::kProduct + groups * panels * cost::kRow) +
         weights * cost::kWeightByte + image_bytes(p) * cost::kImageByte;
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

// Slightly below indirect's, which would do the same with a table for taps that do not exist.
double pointwise_cost(const ConvProblem& p, const KernelSet& set) { return 0.99 * product_cost(p, set); }

std::string indirect_unsupported(const ConvProblem& p) {
  return p.window.transposed ? "it runs no transposed convolution" : "";
}

double indirect_cost(const ConvProblem& p, const KernelSet& set) { return product_cost(p, set); }

std::string gathered_unsupported(const ConvProblem& p) {
  if (p.window.transposed) return "it runs no transposed convolution";
  if (p.window.groups != 1) return "groups must be 1";
  if (p.in_channels > kGatheredChannels) {
    return "in_channels must be at most " + std::to_string(kGatheredChannels);
  }
  return "";
}

double gathered_cost(const ConvProblem& p, const KernelSet& set) {
  const double pixels = tap_rows(p) / p.window.taps();
  const double vectors = std::ceil(static_cast<double>(p.out_channels) / set.vector_floats);
  const double panels = std::ceil(vectors / set.panel_vectors);
  const double stretches = static_cast<double>(p.window.kernel[0] * p.window.kernel[1]) *
                           (p.window.dilation[2] == 1 ? 1 : p.window.kernel[2]);
  return pixels * (p.window.taps() * p.in_channels * vectors * cost::kProduct + panels * cost::kRow +
                   stretches * cost::kStretch) +
         image_bytes(p) * cost::kBareImageByte;
}

std::string depthwise_unsupported(const ConvProblem& p) {
  if (p.window.groups != p.in_channels || p.window.groups != p.out_channels) {
    return "groups, in_channels and out_channels must be equal";
  }
  return "";
}

double depthwise_cost(const ConvProblem& p, const KernelSet& set) {
  const double vectors = std::ceil(static_cast<double>(p.in_channels) / set.vector_floats);
  return tap_rows(p) * vectors * cost::kDepthwise + image_bytes(p) * cost::kImageByte;
}

std::string phases_unsupported(const ConvProblem& p) {
  return p.window.transposed ? "" : "it runs only transposed convolutions";
}

}  // namespace

std::vector<Algorithm> product_algorithms() {
  return {
      {"pointwise", "one matrix product over the pixels; kernel 1 on every axis, no padding, any stride and groups",
       true, pointwise_unsupported, pointwise_cost, pack_panels, plan_product<Rows::kIndirect>},
      {"indirect", "matrix products over a table of row pointers; any window, stride, dilation, padding and groups",
       true, indirect_unsupported, indirect_cost, pack_panels, plan_product<Rows::kIndirect>},
      {"gathered", "the taps of few input channels copied side by side, then one product; in_channels <= 8, groups 1",
       true, gathered_unsupported, gathered_cost, pack_panels, plan_product<Rows::kGathered>},
      {"depthwise",
       "one weight per tap and channel, vectors over channels; groups = in_channels = out_channels, any window", true,
       depthwise_unsupported, depthwise_cost, pack_depthwise, plan_product<Rows::kDepthwise>},
      {"phases", "transposed convolution: one indirect convolution for each phase of the output; any window", true,
       phases_unsupported, indirect_cost, pack_panels, plan_product<Rows::kIndirect>},
  };
}

}  // namespace convoxel
