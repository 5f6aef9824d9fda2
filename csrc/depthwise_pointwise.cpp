// A depthwise convolution and the 1x1 convolution that follows it, as one step.
//
//   blocked  a thread computes a block of the depthwise outputs into memory of its own, a few hundred KB that stay in
//            its L2, and multiplies them at once: what lies between the two layers is never written to memory.
//   staged   one after the other through memory that the threads share: where the outputs are so few that blocks
//            would leave the product with too few rows for each panel of weights.
#include <algorithm>
#include <stdexcept>

#include "bfloat.h"
#include "depthwise.h"
#include "machine.h"
#include "pair.h"

namespace convoxel {
namespace {

constexpr int64_t kMostRows = 96;   // of a block, as in product_algorithms.cpp
constexpr int64_t kLeastRows = 24;  // two register tiles for each panel
constexpr int64_t kTileRows = MatrixUnit::kRows;
constexpr int64_t kBlockChannels = 256;

const Algorithm& algorithm_called(const std::string& name) {
  for (const Algorithm& algorithm : algorithms()) {
    if (name == algorithm.name) return algorithm;
  }
  throw std::logic_error("there is no algorithm " + name);
}

class BlockedPair final : public ConvRun {
 public:
  BlockedPair(const std::string& algorithm, const ConvPair& pair, const KernelSet& set, int threads, int64_t rows)
      : channels_(pair.first_problem.out_channels),
        columns_(pair.second_problem.out_channels),
        pixels_(pair.second_problem.batch * pair.second_problem.out_size[0] * pair.second_problem.out_size[1] *
                pair.second_problem.out_size[2]),
        rows_(rows),
        set_(set),
        lines_(pair.first_problem, *pair.first, packed(pair.first, "depthwise", pair.first_problem, set, threads), set,
               pair.first_activation),
        second_(*pair.second),
        activation_(pair.activation),
        walk_(plan_walks(pair.second_problem.window, pair.second_problem.out_size).front()) {
    const Algorithm& cheapest = *rank_algorithms(algorithm, pair.second_problem, set).front().algorithm;
    const int parts = bfloat_parts(cheapest);
    const char* name = parts > 0 ? cheapest.name : "pointwise";
    weights_ = &packed(pair.second, name, pair.second_problem, set, threads);
    if (parts > 0) pixels_times_ = std::make_unique<BfloatPixels>(parts, second_, *weights_, set, activation_, rows);
  }

  int64_t chunks(int) const override { return ceil_div(pixels_, rows_); }
  int64_t own_bytes() const override {
    return pointer_bytes() + block_bytes() + (pixels_times_ ? pixels_times_->scratch_bytes() : 0);
  }

  void run(int, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    float** between = static_cast<float**>(scratch.own);
    float** outputs = between + table_rows();
    const float** residuals = const_cast<const float**>(outputs + table_rows());
    void* own = residuals + table_rows();
    float* block = reinterpret_cast<float*>(static_cast<char*>(scratch.own) + pointer_bytes());

    const int64_t begin = chunk * rows_, rows = std::min(rows_, pixels_ - begin);
    for (int64_t m = 0; m < rows; ++m) between[m] = block + m * channels_;
    for_runs(lines_.walks().front(), begin, rows, [&](int64_t m, int64_t, int64_t, int64_t, int64_t, int64_t length) {
      lines_.run(0, begin + m, length, p.src, *p.src_view, between + m, nullptr, own);
    });

    fill_outputs(walk_, *p.dst_view, p.dst, begin, rows, outputs);
    if (p.residual != nullptr) fill_outputs(walk_, *p.residual_view, p.residual, begin, rows, residuals);
    if (pixels_times_) {
      void* parts = static_cast<char*>(scratch.own) + pointer_bytes() + block_bytes();
      return pixels_times_->run(block, rows, outputs, p.residual != nullptr ? residuals : nullptr, parts);
    }
    Product product;
    product.a = between;
    product.a_step = 1;
    product.a_row = channels_;
    product.rows = rows;
    product.taps = 1;
    product.channels = channels_;
    product.b = weights_->data.get();
    product.columns = product.column_end = columns_;
    product.c = outputs;
    product.residual = p.residual != nullptr ? residuals : nullptr;
    product.bias = second_.bias();
    product.activation = activation_;
    product.block_channels = kBlockChannels;
    set_.product(product);
  }

 private:
  static const PackedWeights& packed(const std::shared_ptr<const Convolution>& conv, const char* name,
                                     const ConvProblem& problem, const KernelSet& set, int threads) {
    return conv->packed(algorithm_called(name), problem, set, threads);
  }
  int64_t table_rows() const { return round_up(rows_, kTileRows); }
  int64_t pointer_bytes() const {
    return round_up(3 * table_rows() * static_cast<int64_t>(sizeof(float*)) + lines_.scratch_bytes(), kAlignBytes);
  }
  int64_t block_bytes() const { return round_up(rows_ * channels_ * static_cast<int64_t>(sizeof(float)), kAlignBytes); }

  int64_t channels_;  // between the two
  int64_t columns_;
  int64_t pixels_;
  int64_t rows_;  // of a block
  const KernelSet& set_;
  DepthwiseLines lines_;
  const Convolution& second_;
  const PackedWeights* weights_ = nullptr;
  std::unique_ptr<BfloatPixels> pixels_times_;  // if the product runs on a matrix unit
  Activation activation_;
  Walk walk_;
};

// Two runs, the second reading what the first wrote at the beginning of the shared memory.
class StagedPair final : public ConvRun {
 public:
  StagedPair(const ConvPair& pair, const std::string& algorithm, const KernelSet& set, int threads) {
    between_.batch = pair.first_problem.batch;
    between_.size = pair.first_problem.out_size;
    between_.channels = pair.first_problem.out_channels;
    between_.stride[2] = between_.channels;
    between_.stride[1] = between_.size[2] * between_.stride[2];
    between_.stride[0] = between_.size[1] * between_.stride[1];
    between_.batch_stride = between_.size[0] * between_.stride[0];
    first_ = planned(algorithm, *pair.first, pair.first_problem, pair.first_activation, set, threads);
    second_ = planned(algorithm, *pair.second, pair.second_problem, pair.activation, set, threads);
  }

  int stages() const override { return first_->stages() + second_->stages(); }
  int64_t chunks(int stage) const override {
    return stage < first_->stages() ? first_->chunks(stage) : second_->chunks(stage - first_->stages());
  }
  int64_t own_bytes() const override { return std::max(first_->own_bytes(), second_->own_bytes()); }
  int64_t shared_bytes() const override {
    return between_bytes() + std::max(first_->shared_bytes(), second_->shared_bytes());
  }

  void run(int stage, int64_t chunk, const ConvPointers& p, ConvScratch scratch) const override {
    float* between = static_cast<float*>(scratch.shared);
    scratch.shared = static_cast<char*>(scratch.shared) + between_bytes();
    ConvPointers own = p;
    if (stage < first_->stages()) {
      own.dst = between;
      own.dst_view = &between_;
      own.residual = nullptr;
      return first_->run(stage, chunk, own, scratch);
    }
    own.src = between;
    own.src_view = &between_;
    second_->run(stage - first_->stages(), chunk, own, scratch);
  }

 private:
  static std::unique_ptr<ConvRun> planned(const std::string& algorithm, const Convolution& conv,
                                          const ConvProblem& problem, Activation activation, const KernelSet& set,
                                          int threads) {
    const Algorithm& best = *rank_algorithms(algorithm, problem, set).front().algorithm;
    return best.plan(problem, conv, conv.packed(best, problem, set, threads), set, activation, threads);
  }
  int64_t between_bytes() const {
    return round_up(between_.rows() * between_.channels * static_cast<int64_t>(sizeof(float)), kAlignBytes);
  }

  View between_;
  std::unique_ptr<ConvRun> first_, second_;
};

std::string why_no_pair(const ConvPair& pair) {
  const Window& first = pair.first->window();
  const Window& second = pair.second->window();
  if (first.groups != pair.first->in_channels() || first.groups != pair.first->out_channels() || first.transposed) {
    return "the first convolution is not depthwise";
  }
  if (second.taps() != 1 || second.groups != 1 || second.transposed || second.stride != Axes{1, 1, 1} ||
      second.padding_low != Axes{0, 0, 0}) {
    return "the second convolution is not 1x1 of stride 1 without padding and groups";
  }
  return "";
}

}  // namespace

PairPlan plan_pair(const std::string& algorithm, const ConvPair& pair, const KernelSet& set, int threads) {
  const std::string reason = why_no_pair(pair);
  if (!reason.empty()) throw std::invalid_argument("pair: " + reason);
  const Axes& size = pair.second_problem.out_size;
  const int64_t pixels = pair.second_problem.batch * size[0] * size[1] * size[2];
  // A block's numbers take up a quarter of L2; all blocks are of about one height, two or more for each thread.
  const int64_t fits = l2_bytes() / 4 / (pair.first_problem.out_channels * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::clamp<int64_t>(fits, 1, kMostRows);
  const int64_t blocks = std::max<int64_t>(threads > 1 ? 2 * threads : 1, ceil_div(pixels, most));
  const int64_t rows = std::max<int64_t>(1, ceil_div(pixels, blocks));
  const bool chosen = algorithm == "auto" || algorithm == "fast" || algorithm == "direct";
  if (algorithm == "blocked" || (chosen && rows >= kLeastRows)) {
    return {std::make_unique<BlockedPair>(chosen ? algorithm : "auto", pair, set, threads, rows), "blocked"};
  }
  const std::string parts = algorithm == "staged" ? "auto" : algorithm;
  return {std::make_unique<StagedPair>(pair, parts, set, threads), "staged"};
}

}  // namespace convoxel
