// Convolutions of quantised tensors (integer_unit.h): whole numbers of 8 bits, with sums that are exact.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convolution.h"
#include "integer_unit.h"

namespace convoxel {

// A layer with whole weights w and levels q at its input: sum of (q - zero) * w, times scale, plus bias. Padding reads
// the level of zero. Without a scale the results are the sums, whole numbers of 32 bits. Immutable.
class QuantisedConvolution {
 public:
  // weight: as of Convolution, numbers of at most 9 bits and a sign (the difference of two bytes).
  QuantisedConvolution(Window window, int64_t in_channels, int64_t out_channels, std::vector<int16_t> weight,
                       std::vector<float> scale, std::vector<float> bias, int32_t zero);
  QuantisedConvolution(const QuantisedConvolution&) = delete;
  QuantisedConvolution& operator=(const QuantisedConvolution&) = delete;

  const Window& window() const { return window_; }
  int64_t in_channels() const { return in_channels_; }
  int64_t out_channels() const { return out_channels_; }
  const float* scale() const { return scale_.empty() ? nullptr : scale_.data(); }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  const float* padding() const { return padding_.get(); }  // a row of levels of zero
  // Groups that are multiplied together, as one with zeros between them: so many that their channels fill words.
  int64_t joined() const { return joined_; }
  int64_t groups() const { return window_.groups / joined_; }  // of joined ones
  int64_t words() const;                                       // of a row, for one of these
  // One channel makes one channel, so vectors lie along channels. Then all groups are joined.
  bool depthwise() const {
    return window_.groups > 1 && window_.groups == in_channels_ && in_channels_ == out_channels_;
  }

  // The weights of the phases of plan_phases, and what sums begin with.
  struct Packed {
    std::vector<uint8_t> weights;
    std::vector<int64_t> offset;      // of each phase
    std::vector<int64_t> group_step;  // bytes from one group to the next, of each phase
    std::vector<int32_t> start;       // of each phase and output channel: -zero * sum of the weights
    int64_t repeats = 1;
  };
  const Packed& packed(const IntegerUnit& unit) const;

 private:
  int16_t weight(int64_t k, int64_t c, int64_t tap) const;  // k in all, c in k's group
  Packed pack(const IntegerUnit& unit) const;
  Packed pack_depthwise() const;

  Window window_;
  int64_t in_channels_, out_channels_, joined_ = 1;
  std::vector<int16_t> weight_;
  std::vector<float> scale_, bias_;
  int32_t zero_;
  FloatBuffer padding_;
  mutable ForkMutex mutex_;
  mutable std::map<std::string, std::unique_ptr<Packed>> packed_;
};

// The most products of a sum that cannot leave 32 bits: 255 * 255 each.
constexpr int64_t kMostProducts = (int64_t{1} << 31) / (255 * 255);

}  // namespace convoxel
