// Divides the pixels of a reduction into blocks, which threads share.
//
// Invariant: blocks depend on the shapes alone, so sums are added in the same order for any number of threads.
#pragma once

#include <algorithm>

#include "partition.h"

namespace convoxel {

// Each output (a sample, at a position along the axes that stay) is computed from the pixels along the axes that are
// reduced. These pixels are divided into blocks. Each block has a result of its own: slot output * blocks() + block.
class Reduction {
 public:
  // An axis is reduced if the result has size 1.
  Reduction(const View& src, const Axes& out_size) : src_(src) {
    outputs_ = src.batch;
    for (int i = 0; i < kSpatialAxes; ++i) {
      goes_[i] = out_size[i] == 1;
      (goes_[i] ? pixels_ : outputs_) *= src.size[i];
    }
    // Joins reduced axes that follow one another without a gap.
    for (int i = 1; i >= 0; --i) {
      if (!goes_[i] || !goes_[2] || src_.stride[i] != src_.size[2] * src_.stride[2]) continue;
      src_.size[2] *= src_.size[i];
      src_.size[i] = 1;
    }
    for (int i = 0; i < kSpatialAxes; ++i) {
      if (goes_[i] && src_.size[i] > 1) run_axis_ = i;
    }
    const int64_t c = src.channels;
    block_ = std::clamp<int64_t>(kBlockFloats / c, kShortest, std::max(kShortest, pixels_));
    blocks_ = ceil_div(pixels_, block_);
    const int64_t row = std::min(block_, std::max<int64_t>(1, pixels_));
    channels_ = std::min(c, round_up(std::max<int64_t>(1, kPartFloats / row), kPartChannels));
    splits_ = ceil_div(c, channels_);
    together_ = blocks_ == 1 && splits_ == 1 ? std::max<int64_t>(1, kPartFloats / (row * c)) : 1;
  }

  int64_t outputs() const { return outputs_; }
  int64_t blocks() const { return blocks_; }
  int64_t pixels() const { return pixels_; }  // of each output
  int64_t slots() const { return outputs_ * blocks_; }

  // The distance from the view's first float to the output's first pixel.
  int64_t offset(int64_t output) const {
    const int64_t kept = outputs_ / std::max<int64_t>(1, src_.batch);
    return output / kept * src_.batch_stride + position(output % kept, false, -1);
  }

  // Calls begin(slot, first channel, channels) for each part of a slot. Then, for every run of its pixels that lie
  // `step` floats apart, calls add(slot, first channel, channels, offset from the view's first float, rows, step).
  template <class Begin, class Add>
  void each(const RunContext& context, const Begin& begin, const Add& add) const {
    const int64_t chunks = ceil_div(slots() * splits_, together_);
    parallel_for(context.threads, chunks, [&](int64_t chunk, int) {
      for (int64_t i = chunk * together_; i < std::min(slots() * splits_, (chunk + 1) * together_); ++i) {
        const int64_t slot = i / splits_;
        const int64_t c = i % splits_ * channels_;
        const int64_t channels = std::min(channels_, src_.channels - c);
        begin(slot, c, channels);
        reduce_slot(slot, c, channels, add);
      }
    });
  }

 private:
  // Blocks divide pixels rather than channels, as do the steps that wrote them: then a thread finds most of its block
  // in its own cache. They are long enough to pay for joining their results.
  static constexpr int64_t kShortest = 16, kBlockFloats = 16384;

  template <class Add>
  void reduce_slot(int64_t slot, int64_t c, int64_t channels, const Add& add) const {
    const int64_t first = slot % blocks_ * block_;
    const int64_t last = std::min(pixels_, first + block_);
    const int64_t base = offset(slot / blocks_) + c;
    const int64_t length = src_.size[run_axis_];
    for (int64_t i = first; i < last;) {
      const int64_t rows = std::min(length - i % length, last - i);
      const int64_t start = base + position(i / length, true, run_axis_) + i % length * src_.stride[run_axis_];
      add(slot, c, channels, start, rows, src_.stride[run_axis_]);
      i += rows;
    }
  }

  // The offset of an index among the positions along the axes that are reduced (or stay), except axis `less`.
  int64_t position(int64_t index, bool going, int less) const {
    int64_t at = 0;
    for (int i = kSpatialAxes - 1; i >= 0; --i) {
      if (goes_[i] != going || i == less) continue;
      at += index % src_.size[i] * src_.stride[i];
      index /= src_.size[i];
    }
    return at;
  }

  View src_;
  bool goes_[kSpatialAxes];
  int run_axis_ = kSpatialAxes - 1;
  int64_t outputs_, pixels_ = 1;
  int64_t block_, blocks_;     // pixels of a block, blocks of an output
  int64_t channels_, splits_;  // channels of a chunk, chunks of a block
  int64_t together_;           // slots of a chunk, more than one where slots are small
};

}  // namespace convoxel
