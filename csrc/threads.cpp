#include "threads.h"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace convoxel {
namespace {

// A worker that waits between two steps of a program spins about this long (20 us) before it sleeps: waking a
// sleeping thread costs more than most layers' remaining work.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Keeps worker `index` (1 ..) of a pool on a processor of its own, counted from the one that the pool's first caller
// runs on. Left free, a worker that wakes is often put on the caller's processor and waits there for a time slice,
// which is longer than most layers. With more workers than processors nobody is kept anywhere.
void settle(std::thread& thread, int index) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || index >= CPU_COUNT(&allowed)) return;
  std::vector<int> processors;
  size_t here = 0;
  const int current = sched_getcpu();
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed)) continue;
    if (i == current) here = processors.size();
    processors.push_back(i);
  }
  cpu_set_t own;
  CPU_ZERO(&own);
  CPU_SET(processors[(here + static_cast<size_t>(index)) % processors.size()], &own);
  pthread_setaffinity_np(thread.native_handle(), sizeof(own), &own);
#else
  (void)thread;
  (void)index;
#endif
}

// One call of parallel_for.
struct Job {
  const Chunk* run = nullptr;
  int64_t chunks = 0;
  int max_workers = 0;
  int joined = 1;  // workers that took part, the caller being worker 0; guarded by Pool::mutex_
  std::atomic<int64_t> next{0};
  std::atomic<int> active{0};  // workers other than the caller that are still inside
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int worker) {
    try {
      for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) (*run)(chunk, worker);
    } catch (...) {
      next.store(chunks, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }
};

thread_local bool inside_work = false;

class Pool {
 public:
  // Runs the job if no other is running; false if the pool is busy.
  bool try_run(Job& job) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < job.max_workers - 1) {
        threads_.emplace_back([this] { wait_for_jobs(); });
        settle(threads_.back(), static_cast<int>(threads_.size()));
        threads_.back().detach();  // lives as long as the process; the pool is never destroyed
      }
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    inside_work = true;
    job.work(0);
    inside_work = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;  // nobody joins any more; those inside are counted in active
    }
    while (job.active.load(std::memory_order_acquire) != 0) relax();
    return true;
  }

 private:
  void wait_for_jobs() {
    inside_work = true;
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) relax();
      Job* job = nullptr;
      int worker = 0;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        if (job_ != nullptr && job_->joined < job_->max_workers) {
          job = job_;
          worker = job->joined++;
          job->active.fetch_add(1, std::memory_order_relaxed);
        }
      }
      if (job != nullptr) {
        job->work(worker);
        job->active.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  std::mutex turn_;   // held by the caller whose job is running
  std::mutex mutex_;  // guards job_ and threads_
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  std::vector<std::thread> threads_;
};

// Never destroyed: threads may outlive main's statics. Replaced in a forked child, where the threads do not exist.
Pool* current_pool = nullptr;

Pool& pool() {
  static const bool created = [] {
    current_pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] {
      current_pool = new Pool;
      inside_work = false;
    });
    return true;
  }();
  (void)created;
  return *current_pool;
}

}  // namespace

void parallel_for(int threads, int64_t chunks, const Chunk& run) {
  if (chunks <= 0) return;
  Job job;
  job.run = &run;
  job.chunks = chunks;
  job.max_workers = static_cast<int>(threads < chunks ? threads : chunks);
  if (job.max_workers <= 1 || inside_work || !pool().try_run(job)) job.work(0);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace convoxel
