#include "machine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "system.h"

namespace convoxel {

int processors() {
  static const int count = [] {
    const size_t allowed = allowed_processors().size();
    return static_cast<int>(std::max<size_t>(1, allowed > 0 ? allowed : std::thread::hardware_concurrency()));
  }();
  return count;
}

int64_t l2_bytes() {
  static const int64_t bytes = [] {
    const int64_t usual = 1 << 20, least = 256 << 10;  // where the system does not say, or says too little
    const int64_t found = l2_cache_bytes();
    return found > 0 ? std::max(found, least) : usual;
  }();
  return bytes;
}

namespace {
std::atomic<double> cache_rate{1}, memory_rate{1};
}

Rates rates() { return {cache_rate.load(std::memory_order_relaxed), memory_rate.load(std::memory_order_relaxed)}; }

void set_rates(Rates rates) {
  cache_rate.store(rates.cache, std::memory_order_relaxed);
  memory_rate.store(rates.memory, std::memory_order_relaxed);
}

Machine this_machine(int threads) { return {threads, l2_bytes(), rates()}; }

const std::vector<ReferenceMachine>& reference_machines() {
  constexpr int64_t kKiB = 1024;
  // The rates are (operations per second / bytes per second) over those of the machine that the costs were fitted on,
  // 430 GFLOP/s over 56 GB/s from L3 and 30 GB/s from memory. Each row joins what two-core machines measured.
  static const auto& table = *new std::vector<ReferenceMachine>{
      {"amx", {2, 2048 * kKiB, {1, 1}}},              // Emerald Rapids, where the costs were fitted
      {"avx512_bf16", {2, 1024 * kKiB, {0.6, 0.7}}},  // Zen 5: products hide most of what comes from L3
      {"avx512", {2, 1024 * kKiB, {1, 0.8}}},      // the same, and Zen 5: 542 GFLOP/s over 68 and 58 GB/s, (1.03, 0.65)
      {"avx2", {2, 512 * kKiB, {0.5, 0.45}}},      // Zen 3: 225 over 27 GB/s of memory, 0.58; Zen 5: (0.52, 0.33)
      {"neon", {2, 512 * kKiB, {0.25, 0.2}}},      // not measured: that of the other set of 4 floats a vector
      {"portable", {2, 512 * kKiB, {0.25, 0.2}}},  // Zen 5: 135 GFLOP/s, (0.26, 0.16)
  };
  return table;
}

const Machine& reference_machine(const char* set) {
  for (const ReferenceMachine& row : reference_machines()) {
    if (std::strcmp(row.set, set) == 0) return row.machine;
  }
  throw std::logic_error(std::string("there is no reference machine for the instruction set ") + set);
}

}  // namespace convoxel
