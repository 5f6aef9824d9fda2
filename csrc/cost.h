// The expected cost of algorithms, in units of one vector's multiply-add at full speed on all cores.
//
// The numbers are fitted to measured times of the layers that `convoxel bench layers` runs (AVX-512, 2 cores, 2 MB of
// L2 each, 13 G vector multiply-adds/s, 56 GB/s from L3, 30 GB/s from memory). One unit was 75 ps there. They only have
// to rank algorithms; a vector of another width changes the counts and the unit alike.
//
// The rates of a machine scale the cost of reading from beyond L2. Which machine is the caller's choice: the reference
// machine of an instruction set to choose an algorithm, this one to divide its work.
#pragma once

#include "machine.h"

namespace convoxel::cost {

constexpr double kProduct = 1.25;       // a multiply-add of the register tile over rows in place (80 % of the ceiling)
constexpr double kPackedProduct = 1.2;  // the same for Winograd's short, dense rows
constexpr double kTileStart = 12.0;     // entering and leaving a tap of a register tile, in channels
constexpr double kNarrowStart = 36.0;   // the same where a group has one vector of columns
constexpr double kRow = 10.0;           // a row of A for one tap and one panel: its pointer, the tile's loop
constexpr double kStretch = 13.0;       // copying the taps along w of one output where they do not lie side by side
constexpr double kUnpack = 2.0;         // converting weights of 24 bits to floats, per vector
constexpr double kDepthwise = 1.7;      // a multiply-add of the depthwise microkernel
constexpr double kPlanar = 1.5;         // a multiply-add over pixels along w
constexpr double kTakeApart = 8.0;      // taking a vector of pixels apart into planes, where lines are read anew
constexpr double kJoin = 6.0;           // joining a vector of sums to pixels
constexpr double kInputPoint = 9.0;     // one vector of one pass of the input transform: load, arithmetic, store
constexpr double kOutputPoint = 5.0;    // the same of the output transform, per vector loaded or stored

constexpr double kPack = 5.0;        // packing a weight, where it counts
constexpr double kPackPoint = 14.0;  // computing and packing a number of a kernel's transform

constexpr double kFft = 1.5;          // a vector computed, loaded or stored by a Fourier transform
constexpr double kFftMove = 9.0;      // moving a number to a transform and back, in vectors
constexpr double kFftProduct = 15.0;  // multiplying a number by the spectrum, in vectors

inline double weight_byte(const Rates& rates) { return 0.3 * rates.cache; }  // of a direct algorithm, read once
inline double fft_byte(const Rates& rates) { return 0.37 * rates.cache; }    // of tiles and spectra beyond L2
inline double image_byte(const Rates& rates) {
  return 0.09 * rates.cache;
}  // of input and output; products hide most of it

// The following costs of Winograd's products count rows of tiles that one thread multiplies at full speed.
constexpr double kStageRows = 2.0;  // two more barriers
// Writing and reading a row's points beyond L2: times (C + K) / (C K).
inline double point_rows(const Rates& rates) { return 28.0 * rates.cache; }

// The cost of reading weights again in the next run of the network: `from_l3` where weights of so many bytes stay in
// L3, `from_memory` where they do not.
inline double read_again(double bytes, double from_l3, double from_memory) {
  constexpr double kStay = 4e6, kGone = 32e6;
  const double share = (bytes - kStay) / (kGone - kStay);
  return from_l3 + (from_memory - from_l3) * (share < 0 ? 0 : share > 1 ? 1 : share);
}

// Reading the weights of all points.
inline double weight_rows(double bytes, const Rates& rates) {
  return read_again(bytes, 10.0 * rates.cache, 25.0 * rates.memory);
}

// Reading a byte of weights of 24 bits.
inline double fixed24_byte(double bytes, const Rates& rates) {
  return read_again(bytes, 0.14 * rates.cache, 0.33 * rates.memory);
}

// Costs of products of bfloat16, in multiply-adds of one core's vectors (of 16 floats) by that core.
struct BfloatCosts {
  double pair;    // a step of 2 x 2 tiles
  double single;  // of 1 x 2
  double split;   // splitting 32 floats
  double byte;    // reading one of weights that lie in memory
};
// By parts: on a matrix unit (those of one part are not measured, but follow from the loads and products), and by the
// vectors' instruction, which takes as long as a multiply-add and does twice as much.
constexpr BfloatCosts kTileCosts[] = {{215, 130, 8, 0.45}, {560, 345, 16, 0.45}, {1120, 680, 26, 0.45}};
constexpr BfloatCosts kPairCosts[] = {{1110, 555, 8, 0.33}, {3750, 1875, 16, 0.45}, {7500, 3750, 26, 0.45}};
constexpr double kBfloatCopy = 3;  // copying 32 numbers of bfloat16 instead
// Times the sum of the parts of a Winograd convolution whose points are rounded: 1.1 to 1.2 in time, the rest because
// it loses more digits than its rivals.
constexpr double kRoundedPoint = 1.3;
constexpr double kBfloatHalf = 0.6;     // of a whole strip: one tile of columns
constexpr double kBfloatStore = 280.0;  // storing a block's sums, finishing them, storing the results
inline double bfloat_weight_byte(double bytes, const BfloatCosts& costs, const Rates& rates) {
  return read_again(bytes, 0.09 * rates.cache, costs.byte * rates.memory);
}
inline double bfloat_image_byte(const Rates& rates) { return 0.235 * rates.cache; }  // by all cores: splitting waits

}  // namespace convoxel::cost
