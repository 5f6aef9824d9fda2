// What an algorithm is expected to cost, in units of one vector's multiply-add at full speed on all cores.
//
// Fitted by non-negative least squares to the measured times of VGG-16's and the U-Nets' layers of bench/layers.txt
// (AVX-512, 2 cores, 13 G vector multiply-adds/s, 15 GB/s from beyond L2): root mean square error 3 % for the direct
// algorithms' times, 18 % for Winograd's. One unit was 73 ps there. The numbers only have to rank algorithms; a vector
// of another width changes the counts and the unit alike.
#pragma once

namespace convoxel::cost {

constexpr double kProduct = 1.4;        // a multiply-add of the register tile over rows in place (71 % of the ceiling)
constexpr double kPackedProduct = 1.0;  // the same over Winograd's short, dense rows
constexpr double kRow = 10.0;           // a row of A for one tap and one panel: its pointer, the tile's loop
constexpr double kStretch = 13.0;       // copying the taps along w of one output, side by side
constexpr double kDepthwise = 7.0;      // a multiply-add with two loads of its own
constexpr double kInputPoint = 13.0;    // one vector of one pass of the input transform: load, arithmetic, store
constexpr double kOutputPoint = 11.0;   // the same of the output transform, per vector loaded or stored
constexpr double kWeightByte = 0.65;    // of the direct algorithms, once
constexpr double kStreamedByte = 0.95;  // Winograd's weights, read from beyond L2
constexpr double kCachedByte = 0.2;     // the same where they fit L2
constexpr double kPointByte = 1.2;      // Winograd's points, written and read beyond L2
constexpr double kImageByte = 0.09;     // of input and output, mostly hidden behind products
constexpr double kBareImageByte = 0.5;  // where there is little arithmetic to hide them behind

// What a byte of weights costs that are read again and again, by the bytes there are: between what L2 has room for
// beside the points, and what it keeps nothing of.
inline double weight_byte(double bytes) {
  constexpr double kFits = 1.2e6, kSpills = 4e6;
  if (bytes <= kFits) return kCachedByte;
  if (bytes >= kSpills) return kStreamedByte;
  return kCachedByte + (kStreamedByte - kCachedByte) * (bytes - kFits) / (kSpills - kFits);
}

}  // namespace convoxel::cost
