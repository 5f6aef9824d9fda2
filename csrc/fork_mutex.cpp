#include "fork_mutex.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "system.h"

namespace convoxel {
namespace {

// How many threads hold a ForkMutex or wait for one; kForking while a thread forks. A holder may take another one,
// since nobody forks meanwhile. Packing weights, which holds one, may take a tenth of a second.
std::atomic<int> holders{0};
constexpr int kForking = -1;

void wait_a_little() { std::this_thread::sleep_for(std::chrono::microseconds(50)); }

void before_fork() {
  for (int none = 0; !holders.compare_exchange_weak(none, kForking, std::memory_order_acquire); none = 0) {
    if (none != 0) wait_a_little();
  }
}

void after_fork() { holders.store(0, std::memory_order_release); }

[[maybe_unused]] const bool registered = (at_fork(before_fork, after_fork, after_fork), true);

}  // namespace

void ForkMutex::lock() {
  for (int seen = holders.load(std::memory_order_relaxed);;) {
    if (seen == kForking) {
      wait_a_little();
      seen = holders.load(std::memory_order_relaxed);
    } else if (holders.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire)) {
      break;
    }
  }
  mutex_.lock();
}

void ForkMutex::unlock() {
  mutex_.unlock();
  holders.fetch_sub(1, std::memory_order_release);
}

}  // namespace convoxel
