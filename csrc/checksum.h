// A number that tells whether memory has changed, read once, by all threads.
#pragma once

#include <cstdint>
#include <vector>

namespace convoxel {

struct Bytes {
  const uint8_t* data;
  int64_t count;
};

// Returns 64 bits of all bytes and of the places where areas end. Contents that differ in any way have another
// checksum, with the odds of one in 2^64 against it. It does not depend on the number of threads. It is not
// cryptographic.
uint64_t checksum(const std::vector<Bytes>& areas, int threads);

}  // namespace convoxel
