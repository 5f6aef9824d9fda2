#include "checksum.h"

#include <algorithm>
#include <cstring>

#include "threads.h"

namespace convoxel {
namespace {

// Bytes of a part that one thread reads at a time: 2 us of work, some 100 times what it costs to take a part.
constexpr int64_t kPart = 1 << 16;
constexpr int64_t kSerial = 4 * kPart;  // less takes one thread no longer than waking another

// Four chains of 16 bytes each: a link takes some 6 cycles, so that a core reads about 10 bytes a cycle, which is more
// than memory delivers.
constexpr int kChains = 4;
constexpr int64_t kLine = 16 * kChains;

// The first digits of the fractions of sqrt(2), sqrt(3), sqrt(5), sqrt(7), made odd: numbers that no weights hold.
constexpr uint64_t kKeys[kChains] = {0x6a09e667f3bcc909, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1};

// Both halves of the product of 128 bits. Every bit of either factor reaches the upper bits of the low half or the
// lower bits of the high one; sums or products of 64 bits alone would lose pairs of sign bits that change together.
uint64_t fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t word(const uint8_t* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void add_line(uint64_t* chains, const uint8_t* p) {
  for (int i = 0; i < kChains; ++i) chains[i] = fold(word(p + 16 * i) ^ kKeys[i], word(p + 16 * i + 8) ^ chains[i]);
}

uint64_t checksum_part(const Bytes& part) {
  uint64_t chains[kChains];
  std::copy(kKeys, kKeys + kChains, chains);
  int64_t at = 0;
  for (; at + kLine <= part.count; at += kLine) add_line(chains, part.data + at);
  uint8_t rest[kLine] = {};
  std::copy(part.data + at, part.data + part.count, rest);
  add_line(chains, rest);
  uint64_t all = static_cast<uint64_t>(part.count);
  for (int i = 0; i < kChains; ++i) all = fold(all ^ kKeys[i], chains[i] ^ kKeys[kChains - 1 - i]);
  return all;
}

}  // namespace

uint64_t checksum(const std::vector<Bytes>& areas, int threads) {
  std::vector<Bytes> parts;
  int64_t total = 0;
  for (const Bytes& area : areas) {
    total += area.count;
    for (int64_t at = 0; at < area.count; at += kPart) {
      parts.push_back({area.data + at, std::min(kPart, area.count - at)});
    }
    if (area.count % kPart == 0) parts.push_back({nullptr, 0});  // where the area ends
  }
  std::vector<uint64_t> found(parts.size());
  const int64_t chunks = static_cast<int64_t>(parts.size());
  parallel_for(total < kSerial ? 1 : threads, chunks, [&](int64_t chunk, int) {
    const size_t i = static_cast<size_t>(chunk);
    found[i] = checksum_part(parts[i]);
  });
  uint64_t all = kKeys[0];
  for (const uint64_t part : found) all = fold(all ^ kKeys[1], part ^ kKeys[2]);
  return all;
}

}  // namespace convoxel
