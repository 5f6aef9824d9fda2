// Multiplies pixels by the weights of a 1x1 convolution on a matrix unit, for steps that hold the pixels in memory of
// their own.
#pragma once

#include "convolution.h"

namespace convoxel {

// The height of the tiles in which so many rows that follow one another take least time. Whole tiles end no later than
// those of MatrixUnit::kRows would.
inline int64_t tile_rows(const MatrixUnit& unit, int64_t rows) {
  constexpr double kStart = 0.5;  // a tile's own time, in rows
  const auto tiles = [rows](int64_t height) { return (rows + height - 1) / height; };
  int64_t best = unit.least_rows;
  double least = 0;
  for (int64_t height = unit.least_rows; height <= unit.most_rows; ++height) {
    const double time = static_cast<double>(tiles(height)) * (static_cast<double>(height) + kStart);
    const bool fits = tiles(height) * height <= tiles(MatrixUnit::kRows) * MatrixUnit::kRows;
    if (least == 0 || (fits && time <= least)) {
      best = height;
      least = time;
    }
  }
  return best;
}

class BfloatPixels {
 public:
  // weights: as the algorithm with this number of parts packs them. rows: the most that one run has. The elements are
  // those of the pixels, the results and the residuals.
  BfloatPixels(int parts, const Convolution& conv, const PackedWeights& weights, const MicrokernelSet& set,
               Activation activation, int64_t rows, const ConvProblem& problem);
  int64_t scratch_bytes() const;

  // Writes the result of row m, which lies at src + m * step, to outputs[m]. outputs has room for the rows, rounded up
  // to whole tiles. padded: what lies behind each row of bfloat16 up to whole steps is zero, and whole tiles of rows
  // can be read: so they are multiplied where they lie.
  void run(const void* src, int64_t step, int64_t rows, bool padded, void** outputs, const void* const* residuals,
           void* scratch) const;

 private:
  int64_t part_elements() const;

  int parts_;
  const Convolution& conv_;
  const PackedWeights& weights_;
  const MatrixUnit& unit_;
  Activation activation_;
  int64_t rows_;
  Element in_, out_, residual_;
  std::vector<int64_t> steps_;
};

// The number of parts that an algorithm multiplies; 0 if it does not run on a matrix unit.
int bfloat_parts(const Algorithm& algorithm);

}  // namespace convoxel
