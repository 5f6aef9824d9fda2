#include "arena.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <queue>
#include <utility>

#include "buffer.h"

namespace convoxel {
namespace {

constexpr int64_t kAlign = kAlignBytes / static_cast<int64_t>(sizeof(float));
constexpr size_t kMostPairs = size_t{1} << 20;  // of blocks that live at one time; networks have a few for each block

using Blocks = std::vector<Block>;
using Order = std::vector<size_t>;
using Death = std::pair<int64_t, size_t>;  // the last step of a block, and the block
using Alive = std::priority_queue<Death, std::vector<Death>, std::greater<>>;

int64_t aligned(const Block& block) { return round_up(block.size, kAlign); }

template <class Key>
Order sorted_by(size_t count, const Key& key) {
  Order order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  return order;
}

Order by_birth(const Blocks& blocks) {
  return sorted_by(blocks.size(), [&](size_t i) { return blocks[i].first; });
}

// The floats that live at each step at which a block begins: no arena is smaller than the largest of them.
std::map<int64_t, int64_t> floats_alive(const Blocks& blocks, const Order& births) {
  std::map<int64_t, int64_t> alive_at;
  Alive alive;
  int64_t floats = 0;
  for (const size_t i : births) {
    for (; !alive.empty() && alive.top().first < blocks[i].first; alive.pop()) {
      floats -= aligned(blocks[alive.top().second]);
    }
    floats += aligned(blocks[i]);
    alive.push({blocks[i].last, i});
    alive_at[blocks[i].first] = floats;
  }
  return alive_at;
}

// The most floats that live at any step of each block's life. Only births add to them.
std::vector<int64_t> crowds(const Blocks& blocks, const std::map<int64_t, int64_t>& alive_at) {
  std::vector<int64_t> steps;
  std::vector<std::vector<int64_t>> most(1);  // most[k][i]: of the 2^k steps from i on
  for (const auto& [step, floats] : alive_at) {
    steps.push_back(step);
    most[0].push_back(floats);
  }
  for (size_t width = 2; width <= steps.size(); width *= 2) {
    const std::vector<int64_t>& half = most.back();
    std::vector<int64_t> whole;
    for (size_t i = 0; i + width <= steps.size(); ++i) whole.push_back(std::max(half[i], half[i + width / 2]));
    most.push_back(std::move(whole));
  }
  std::vector<int64_t> found;
  for (const Block& block : blocks) {
    const auto begin = std::lower_bound(steps.begin(), steps.end(), block.first);
    const size_t first = static_cast<size_t>(begin - steps.begin());
    const size_t count = static_cast<size_t>(std::upper_bound(begin, steps.end(), block.last) - begin);
    size_t k = 0;
    while ((size_t{2} << k) <= count) ++k;
    found.push_back(std::max(most[k][first], most[k][first + count - (size_t{1} << k)]));
  }
  return found;
}

// For every block, those that live at some step of its life; nothing for more pairs than kMostPairs.
std::vector<Order> find_rivals(const Blocks& blocks, const Order& births) {
  std::vector<Order> rivals(blocks.size());
  std::vector<size_t> alive;
  size_t pairs = 0;
  for (const size_t i : births) {
    const auto dead = [&](size_t other) { return blocks[other].last < blocks[i].first; };
    alive.erase(std::remove_if(alive.begin(), alive.end(), dead), alive.end());
    pairs += alive.size();
    if (pairs > kMostPairs) return {};
    for (const size_t other : alive) {
      rivals[i].push_back(other);
      rivals[other].push_back(i);
    }
    alive.push_back(i);
  }
  return rivals;
}

// The start of the smallest gap between sorted rivals that holds `size`, or their end.
int64_t best_gap(const std::vector<std::pair<int64_t, int64_t>>& taken, int64_t size) {
  int64_t best = -1, best_size = 0, end = 0;
  for (const auto& [start, stop] : taken) {
    const int64_t gap = start - end;
    if (gap >= size && (best < 0 || gap < best_size)) {
      best = end;
      best_size = gap;
    }
    end = std::max(end, stop);
  }
  return best < 0 ? end : best;
}

Arena place_in(const Order& order, const Blocks& blocks, const std::vector<Order>& rivals) {
  Arena arena{std::vector<int64_t>(blocks.size(), -1), 0};
  std::vector<std::pair<int64_t, int64_t>> taken;
  for (const size_t i : order) {
    taken.clear();
    for (const size_t other : rivals[i]) {
      if (arena.offsets[other] < 0) continue;
      taken.emplace_back(arena.offsets[other], arena.offsets[other] + aligned(blocks[other]));
    }
    std::sort(taken.begin(), taken.end());
    arena.offsets[i] = best_gap(taken, aligned(blocks[i]));
    arena.size = std::max(arena.size, arena.offsets[i] + aligned(blocks[i]));
  }
  return arena;
}

// Of very many blocks: placed by birth, each in the room that a dead block of its size has left, else behind all
// others. That takes no search.
Arena sweep(const Blocks& blocks, const Order& births) {
  Arena arena{std::vector<int64_t>(blocks.size()), 0};
  std::map<int64_t, std::vector<int64_t>> free;
  Alive alive;
  for (const size_t i : births) {
    for (; !alive.empty() && alive.top().first < blocks[i].first; alive.pop()) {
      const size_t dead = alive.top().second;
      free[aligned(blocks[dead])].push_back(arena.offsets[dead]);
    }
    std::vector<int64_t>& room = free[aligned(blocks[i])];
    arena.offsets[i] = room.empty() ? arena.size : room.back();
    if (!room.empty()) room.pop_back();
    arena.size = std::max(arena.size, arena.offsets[i] + aligned(blocks[i]));
    alive.push({blocks[i].last, i});
  }
  return arena;
}

}  // namespace

Arena place_blocks(const Blocks& blocks) {
  if (blocks.empty()) return {};
  const Order births = by_birth(blocks);
  const std::vector<Order> rivals = find_rivals(blocks, births);
  if (rivals.empty()) return sweep(blocks, births);
  const std::map<int64_t, int64_t> alive_at = floats_alive(blocks, births);
  int64_t needed = 0;
  for (const auto& [step, floats] : alive_at) needed = std::max(needed, floats);
  const std::vector<int64_t> crowd = crowds(blocks, alive_at);
  const size_t count = blocks.size();
  // By the most memory in use during a buffer's life, then by size; by size; by birth; by death, from the last.
  const std::function<Order()> orders[] = {
      [&] { return sorted_by(count, [&](size_t i) { return std::make_pair(-crowd[i], -blocks[i].size); }); },
      [&] { return sorted_by(count, [&](size_t i) { return -blocks[i].size; }); },
      [&] { return sorted_by(count, [&](size_t i) { return std::make_pair(blocks[i].first, -blocks[i].size); }); },
      [&] { return sorted_by(count, [&](size_t i) { return std::make_pair(-blocks[i].last, -blocks[i].size); }); },
  };
  Arena best;
  for (const auto& order : orders) {
    Arena found = place_in(order(), blocks, rivals);
    if (best.offsets.empty() || found.size < best.size) best = std::move(found);
    if (best.size <= needed) break;
  }
  return best;
}

}  // namespace convoxel
