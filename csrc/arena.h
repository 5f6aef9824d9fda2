// Offsets of buffers in the arena: best fit by lifetime.
//
// Buffers are placed one after another. Each goes into the smallest gap that holds it among the buffers that live at
// the same time, or behind them all. Buffers that live when most memory is in use come first, since there is least
// room; the result is nearly always the smallest arena possible. No single order always gives that, so others are tried
// until one needs no more than is in use at once, and the smallest arena is kept.
#pragma once

#include <cstdint>
#include <vector>

namespace convoxel {

// A buffer of `size` floats, in use from step `first` to step `last`, both included.
struct Block {
  int64_t size = 0;
  int64_t first = 0;
  int64_t last = 0;
};

struct Arena {
  std::vector<int64_t> offsets;  // of each block, in floats: whole cache lines
  int64_t size = 0;
};

// The smallest arena found that holds all blocks.
Arena place_blocks(const std::vector<Block>& blocks);

}  // namespace convoxel
