// Steps on quantised tensors: convolutions, and conversions from and to floats.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "partition.h"
#include "plan.h"
#include "quantised_convolution.h"
#include "rows.h"
#include "threads.h"

namespace convoxel {

QuantisedConvolution::QuantisedConvolution(Window window, int64_t in_channels, int64_t out_channels,
                                           std::vector<int16_t> weight, std::vector<float> scale,
                                           std::vector<float> bias, int32_t zero)
    : window_(window),
      in_channels_(in_channels),
      out_channels_(out_channels),
      weight_(std::move(weight)),
      scale_(std::move(scale)),
      bias_(std::move(bias)),
      zero_(zero) {
  require(zero >= 0 && zero <= 255, "zero is " + std::to_string(zero) + "; expected a level, 0 to 255");
  require(scale_.empty() || static_cast<int64_t>(scale_.size()) == out_channels,
          "scale must have one number per output channel, or none");
  require(bias_.empty() || static_cast<int64_t>(bias_.size()) == out_channels,
          "bias must have one number per output channel");
  const int64_t group = in_channels / window.groups;
  require(group * window.taps() <= kMostProducts, "a sum of " + std::to_string(group * window.taps()) +
                                                      " products of 8 bits may leave 32 bits; at most " +
                                                      std::to_string(kMostProducts) + " cannot");
  for (const int16_t w : weight_) require(w >= -255 && w <= 255, "weights must be from -255 to 255");
  if (depthwise()) {
    joined_ = window.groups;
  } else if (window.groups > 1) {
    joined_ = kWordBytes / std::gcd(group, kWordBytes);
    if (window.groups % joined_ != 0) joined_ = window.groups;
  }
  const int64_t row = ceil_div(in_channels, kWordBytes);
  padding_ = allocate_floats(row);
  std::memset(padding_.get(), zero, static_cast<size_t>(row * kWordBytes));
}

int64_t QuantisedConvolution::words() const {
  return depthwise() ? round_up(in_channels_, kMostLanes) : ceil_div(in_channels_ / groups(), kWordBytes);
}

int16_t QuantisedConvolution::weight(int64_t k, int64_t c, int64_t tap) const {
  const int64_t in_group = in_channels_ / window_.groups, out_group = out_channels_ / window_.groups;
  const int64_t row = window_.transposed ? (k / out_group * in_group + c) * out_group + k % out_group  //
                                         : k * in_group + c;
  return weight_[static_cast<size_t>(row * window_.taps() + tap)];
}

const QuantisedConvolution::Packed& QuantisedConvolution::packed(const IntegerUnit& unit) const {
  std::lock_guard<ForkMutex> lock(mutex_);
  std::unique_ptr<Packed>& slot = packed_[unit.name];
  if (!slot) slot = std::make_unique<Packed>(pack(unit));
  return *slot;
}

QuantisedConvolution::Packed QuantisedConvolution::pack_depthwise() const {
  Packed out;
  for (const TapPhase& phase : plan_phases(window_, Axes{1, 1, 1})) {
    const size_t first = out.weights.size();
    out.offset.push_back(static_cast<int64_t>(first));
    out.group_step.push_back(0);
    out.weights.resize(first + static_cast<size_t>(ceil_div(phase.taps(), 2) * words() * kWordBytes));
    const size_t start = out.start.size();
    out.start.resize(start + static_cast<size_t>(out_channels_));
    int64_t place = 0;
    for_taps(phase, window_, [&](int64_t tap) {
      for (int64_t k = 0; k < out_channels_; ++k) {
        const int16_t number = weight(k, 0, tap);
        uint8_t* const to = out.weights.data() + first + (place / 2 * words() + k) * kWordBytes + place % 2 * 2;
        std::memcpy(to, &number, sizeof number);
        out.start[start + static_cast<size_t>(k)] -= zero_ * number;
      }
      ++place;
    });
  }
  return out;
}

QuantisedConvolution::Packed QuantisedConvolution::pack(const IntegerUnit& unit) const {
  if (depthwise()) return pack_depthwise();
  Packed out;
  // A byte with a sign holds -128 to 127; what is larger is a sum of two or three.
  const auto [least, most] = std::minmax_element(weight_.begin(), weight_.end());
  if (unit.weight_bytes == 1 && !weight_.empty()) {
    out.repeats = std::max({int64_t{1}, ceil_div(-*least, 128), ceil_div(*most, 127)});
  }
  const int64_t columns = out_channels_ / groups(), in_group = in_channels_ / window_.groups;
  const int64_t out_group = out_channels_ / window_.groups, words = this->words(), vector = unit.vector_columns;
  const std::vector<TapPhase> phases = plan_phases(window_, Axes{1, 1, 1});
  int64_t size = 0;
  for (const TapPhase& phase : phases) {
    out.offset.push_back(size);
    out.group_step.push_back(out.repeats * phase.taps() * words * ceil_div(columns, vector) * unit.group_bytes());
    size += groups() * out.group_step.back();
  }
  out.weights.assign(static_cast<size_t>(size), 0);
  out.start.assign(phases.size() * static_cast<size_t>(out_channels_), 0);
  for (size_t index = 0; index < phases.size(); ++index) {
    const TapPhase& phase = phases[index];
    const int64_t taps = phase.taps(), rows = out.repeats * taps * words;
    std::vector<int64_t> order;
    for_taps(phase, window_, [&](int64_t tap) { order.push_back(tap); });
    for (int64_t k = 0; k < out_channels_; ++k) {
      const int64_t group = k / columns, column = k % columns, panel = column / unit.panel_columns();
      const int64_t first = panel * unit.panel_columns();
      const int64_t width = std::min<int64_t>(unit.panel_vectors, ceil_div(columns - first, vector));
      const int64_t lane = column % vector, j = (column - first) / vector;
      const int64_t skipped = k / out_group % joined_ * in_group;  // channels of the groups joined before k's
      uint8_t* const base = out.weights.data() + out.offset[index] + group * out.group_step[index] +
                            first / vector * rows * unit.group_bytes();
      int32_t total = 0;
      for (int64_t t = 0; t < taps; ++t) {
        for (int64_t c = 0; c < in_group; ++c) {
          int32_t left = weight(k, c, order[static_cast<size_t>(t)]);
          total += left;
          const int64_t channel = skipped + c, word = channel / kWordBytes, place = channel % kWordBytes;
          for (int64_t part = 0; part < out.repeats; ++part) {
            const int32_t some = out.repeats == 1 ? left : std::clamp(left, -128, 127);
            left -= some;
            uint8_t* const to = base + (((part * taps + t) * words + word) * width + j) * unit.group_bytes();
            if (unit.weight_bytes == 1) {
              to[lane * 4 + place] = static_cast<uint8_t>(static_cast<int8_t>(some));
            } else if (unit.weight_bytes == 2) {
              const int16_t number = static_cast<int16_t>(some);
              std::memcpy(to + (place % 2 * vector + lane) * 4 + place / 2 * 2, &number, sizeof number);
            } else {
              std::memcpy(to + (place * vector + lane) * 4, &some, sizeof some);
            }
          }
        }
      }
      out.start[index * static_cast<size_t>(out_channels_) + static_cast<size_t>(k)] = -zero_ * total;
    }
  }
  return out;
}

namespace {

// The rows of a block: each panel of weights serves them all, and their levels and pointers stay in L2.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kBlockPointers = 16384;

// The outputs, as one list over all images, in blocks of rows; wide outputs also in groups of panels.
class QuantisedRun {
 public:
  QuantisedRun(const QuantisedConvolution& conv, const Window& window, const View& src, const View& dst,
               const IntegerUnit& unit, int threads)
      : conv_(conv),
        unit_(unit),
        weights_(conv.packed(unit)),
        phases_(plan_phases(window, dst.size)),
        batch_(src.batch),
        columns_(conv.out_channels() / conv.groups()) {
    int64_t most_rows = 1;
    for (const TapPhase& phase : phases_) {
      taps_ = std::max(taps_, phase.taps());
      most_rows = std::max(most_rows, batch_ * phase.pixels());
    }
    const int64_t step = unit.tile_rows * 2, panel = unit.panel_columns(), panels = ceil_div(columns_, panel);
    rows_ = std::clamp(kBlockPointers / taps_ / step * step, step, kBlockRows);
    rows_ = std::min(rows_, round_up(ceil_div(most_rows, ceil_div(most_rows, rows_)), step));
    const int64_t wanted = 4 * threads, blocks = ceil_div(most_rows, rows_);
    together_ = blocks >= wanted ? static_cast<int64_t>(phases_.size()) : 1;
    const int64_t units = blocks * static_cast<int64_t>(phases_.size()) / together_;
    splits_ = threads > 1 && units < wanted ? std::min(panels, ceil_div(wanted, units)) : 1;
    split_columns_ = ceil_div(panels, splits_) * panel;
    splits_ = ceil_div(columns_, split_columns_);
    chunks_ = units * splits_;
  }

  int64_t chunks() const { return chunks_; }
  int64_t own_bytes() const { return (rows_ * taps_ + 2 * rows_) * static_cast<int64_t>(sizeof(float*)); }

  void run(int64_t chunk, IntegerProduct product, const ConvPointers& p, void* scratch) const {
    const int64_t split = chunk % splits_, first = chunk / splits_ * together_;
    const int64_t phases = static_cast<int64_t>(phases_.size());
    for (int64_t i = first; i < first + together_; ++i) {
      const size_t index = static_cast<size_t>(i % phases);
      const TapPhase& phase = phases_[index];
      const int64_t begin = i / phases * rows_, rows = std::min(rows_, batch_ * phase.pixels() - begin);
      if (rows <= 0) continue;
      const float** inputs = static_cast<const float**>(scratch);
      const float** residuals = inputs + rows_ * taps_;
      float** outputs = const_cast<float**>(residuals + rows_);
      fill_inputs(phase, *p.src_view, p.source(), conv_.padding(), begin, rows, inputs, rows_);
      fill_outputs(phase, *p.dst_view, p.result(), begin, rows, outputs);
      if (p.residual != nullptr) fill_outputs(phase, *p.residual_view, p.added(), begin, rows, residuals);
      product.a = reinterpret_cast<const uint8_t* const*>(inputs);
      product.a_step = rows_;
      product.rows = rows;
      product.taps = phase.taps();
      product.repeats = weights_.repeats;
      product.words = conv_.words();
      product.columns = columns_;
      product.column_begin = split * split_columns_;
      product.column_end = std::min(columns_, product.column_begin + split_columns_);
      product.c = outputs;
      product.residual = p.residual != nullptr ? residuals : nullptr;
      for (int64_t group = 0; group < conv_.groups(); ++group) {
        const int64_t column = group * columns_;
        product.a_offset = group * (conv_.in_channels() / conv_.groups());
        product.b = weights_.weights.data() + weights_.offset[index] + group * weights_.group_step[index];
        product.start = weights_.start.data() + static_cast<int64_t>(index) * conv_.out_channels() + column;
        product.scale = conv_.scale() != nullptr ? conv_.scale() + column : nullptr;
        product.bias = conv_.bias() != nullptr ? conv_.bias() + column : nullptr;
        product.c_offset = column;
        conv_.depthwise() ? unit_.depthwise(product) : unit_.product(product);
      }
    }
  }

 private:
  const QuantisedConvolution& conv_;
  const IntegerUnit& unit_;
  const QuantisedConvolution::Packed& weights_;
  std::vector<TapPhase> phases_;
  int64_t batch_, columns_;  // columns of a group
  int64_t taps_ = 1, rows_ = 1, together_ = 1, splits_ = 1, split_columns_ = 1, chunks_ = 1;
};

int64_t words_of(int64_t channels) { return ceil_div(channels, kWordBytes); }

void require_levels(const View& view, int64_t channels, bool levels, const char* what) {
  const int64_t expected = levels ? words_of(channels) : channels;
  require(view.channels == expected, std::string(what) + " " + show(view) + " has " + std::to_string(view.channels) +
                                         (levels ? " words" : " floats") + " per row; expected " +
                                         std::to_string(expected));
}

void require_same_size(const View& a, const View& b, const char* what) {
  require(a.batch == b.batch && a.size == b.size,
          std::string(what) + ": sizes " + show(a) + " and " + show(b) + " differ");
}

}  // namespace

void Plan::convolve_quantised(std::shared_ptr<const QuantisedConvolution> conv, View src, View dst,
                              std::optional<View> residual, std::string activation, Slope slope,
                              std::optional<Levels> result, std::optional<Levels> residual_levels,
                              std::optional<Axes> padding_low, std::string unit) {
  read(src, "src");
  write(dst, "dst");
  require(src.batch == dst.batch, "src and dst differ in batch: " + show(src) + " and " + show(dst));
  require_levels(src, conv->in_channels(), true, "src");
  require_levels(dst, conv->out_channels(), result.has_value(), "dst");
  if (residual) {
    read(*residual, "residual");
    require_same_size(dst, *residual, "dst and residual");
    require_levels(*residual, conv->out_channels(), residual_levels.has_value(), "residual");
  }
  Window window = conv->window();
  if (padding_low) window.padding_low = *padding_low;
  IntegerProduct product;
  product.activation = activation_of(activation, slope);
  product.levels = result.has_value();
  product.result = result.value_or(Levels{});
  product.residual_levels = residual_levels.has_value();
  product.residual_as = residual_levels.value_or(Levels{});
  require(conv->scale() != nullptr || !(result || residual || activation != "none"),
          "sums without a scale have no activation, residual or levels");
  const IntegerUnit& chosen = integer_unit(set_.name, unit);
  const auto made = std::make_shared<const QuantisedRun>(*conv, window, src, dst, chosen, threads_);
  ConvProblem problem{window, src.batch, src.size, dst.size, conv->in_channels(), conv->out_channels()};
  Step step;
  step.op = window.transposed ? "conv_transpose" : "conv";
  step.workspace_bytes = made->own_bytes();
  step.algorithm = chosen.name;
  step.integers = true;
  step.macs = problem.macs();
  step.run = [made, conv, src, dst, residual, product](const RunContext& context) {
    const ConvPointers p{context.at(src),
                         context.at(dst),
                         residual ? context.at(*residual) : nullptr,
                         &src,
                         &dst,
                         residual ? &*residual : nullptr};
    parallel_for(context.threads, made->chunks(),
                 [&](int64_t chunk, int worker) { made->run(chunk, product, p, context.worker_space(worker)); });
  };
  add(std::move(step));
}

void Plan::quantise(View src, View dst, Levels levels) {
  read(src, "src");
  write(dst, "dst");
  require_same_size(src, dst, "src and dst");
  require_levels(dst, src.channels, true, "dst");
  const IntegerUnit& unit = integer_unit(set_.name, "");
  const int64_t channels = src.channels;
  join_lines({&src, &dst});
  add({"quantise", by_parts(src, [=, &unit](const RunContext& context, const Part& part) {
         unit.quantise({part.of(dst, context), part.of(src, context), dst.stride[2], src.stride[2], part.width(),
                        channels, levels});
       })});
  steps_.back().integers = true;
}

void Plan::dequantise(View src, View dst, Levels levels) {
  read(src, "src");
  write(dst, "dst");
  require_same_size(src, dst, "src and dst");
  require_levels(src, dst.channels, true, "src");
  const IntegerUnit& unit = integer_unit(set_.name, "");
  const int64_t channels = dst.channels;
  join_lines({&src, &dst});
  add({"dequantise", by_parts(dst, [=, &unit](const RunContext& context, const Part& part) {
         unit.dequantise({part.of(dst, context), part.of(src, context), dst.stride[2], src.stride[2], part.width(),
                          channels, levels});
       })});
  steps_.back().integers = true;
}

void Plan::max_pool_levels(View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low) {
  read(src, "src");
  write(dst, "dst");
  require(src.batch == dst.batch && src.channels == dst.channels,
          "src " + show(src) + " and dst " + show(dst) + " differ in batch or words per row");
  for (int i = 0; i < kSpatialAxes; ++i) {
    require(kernel[i] >= 1 && stride[i] >= 1 && dilation[i] >= 1, "kernel, stride and dilation must be at least 1");
  }
  add({"max_pool", by_parts(dst, [=](const RunContext& context, const Part& part) {
         const float* const from = context.at(src);
         float* const to = part.of(dst, context) - part.w_begin * dst.stride[2];
         const int64_t bytes = src.channels * kWordBytes;
         for (int64_t w = part.w_begin; w < part.w_end; ++w) {
           uint8_t* const best = reinterpret_cast<uint8_t*>(to + w * dst.stride[2]);
           std::memset(best, 0, static_cast<size_t>(bytes));
           for (int64_t kd = 0; kd < kernel[0]; ++kd) {
             const int64_t d = part.line.d * stride[0] - padding_low[0] + kd * dilation[0];
             if (d < 0 || d >= src.size[0]) continue;
             for (int64_t kh = 0; kh < kernel[1]; ++kh) {
               const int64_t h = part.line.h * stride[1] - padding_low[1] + kh * dilation[1];
               if (h < 0 || h >= src.size[1]) continue;
               for (int64_t kw = 0; kw < kernel[2]; ++kw) {
                 const int64_t x = w * stride[2] - padding_low[2] + kw * dilation[2];
                 if (x < 0 || x >= src.size[2]) continue;
                 const uint8_t* const row = reinterpret_cast<const uint8_t*>(from + at(src, {part.line.n, d, h}, x));
                 for (int64_t i = 0; i < bytes; ++i) best[i] = std::max(best[i], row[i]);
               }
             }
           }
         }
       })});
  steps_.back().integers = true;
}

void Plan::copy(View src, View dst) {
  use_alike(src, dst);
  join_lines({&src, &dst});
  add({"copy", by_parts(dst, [=](const RunContext& context, const Part& part) {
         float* to = part.of(dst, context);
         const float* from = part.of(src, context);
         for (int64_t w = 0; w < part.width(); ++w, to += dst.stride[2], from += src.stride[2]) {
           std::memcpy(to, from, static_cast<size_t>(dst.channels) * sizeof(float));
         }
       })});
}

}  // namespace convoxel
