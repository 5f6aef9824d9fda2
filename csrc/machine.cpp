#include "machine.h"

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <thread>

namespace convoxel {

int processors() {
  static const int count = [] {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

int64_t l2_bytes() {
  static const int64_t bytes = [] {
    const int64_t usual = 1 << 20, least = 256 << 10;  // where the system does not say, or says too little
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (found > 0) return std::max(found, least);
#endif
    return usual;
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

}  // namespace convoxel
