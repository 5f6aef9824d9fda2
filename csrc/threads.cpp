#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "system.h"

namespace convoxel {
namespace {

// How long a worker spins before it sleeps. Waking a sleeping thread costs more than most layers, and a caller that
// runs one network after another comes back within this time.
constexpr std::chrono::microseconds kSpin{200};

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Keeps each worker on a processor of its own, and all workers off the caller's processor. The system often puts a
// worker that wakes on the caller's processor, where it waits for a time slice, which is longer than most layers. With
// more workers than processors none is bound.
class Seats {
 public:
  // `thread` is the newest worker.
  void add(std::thread& thread) {
    workers_.push_back(thread.native_handle());
    const std::vector<int> processors = allowed_processors();
    crowded_ = workers_.size() >= processors.size();
    if (crowded_) {
      if (processors.empty()) return;  // the system does not say
      for (const Handle worker : workers_) bind_thread(worker, processors);
      return;
    }
    caller_ = current_processor();
    size_t here = 0;
    while (here < processors.size() - 1 && processors[here] != caller_) ++here;
    processor_.clear();
    for (size_t i = 0; i < workers_.size(); ++i) processor_.push_back(processors[(here + 1 + i) % processors.size()]);
    for (size_t i = 0; i < workers_.size(); ++i) bind_thread(workers_[i], {processor_[i]});
  }

  // The operating system moves the caller as it likes. A worker on the caller's new processor changes places with it.
  void make_room() {
    if (crowded_) return;
    const int here = current_processor();
    if (here == caller_) return;
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (processor_[i] != here) continue;
      processor_[i] = caller_;
      bind_thread(workers_[i], {caller_});
    }
    caller_ = here;
  }

 private:
  using Handle = std::thread::native_handle_type;
  std::vector<Handle> workers_;
  std::vector<int> processor_;  // of each worker
  int caller_ = -1;             // the processor without a worker, if there is one
  bool crowded_ = true;
};

// One call of parallel_for. Every worker begins with its own share, the same in every call, and then helps with the
// others: so it finds what it computed of the previous layer in its own L2.
struct Job {
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  static constexpr int kShares = 16;

  const Chunk& run;
  const int workers;  // the caller is worker 0
  const int shares;
  Share share[kShares];
  std::atomic<int> active{0};  // workers other than the caller that are still working
  std::mutex error_mutex;
  std::exception_ptr error;

  Job(const Chunk& chunk, int64_t chunks, int most)
      : run(chunk), workers(static_cast<int>(most < chunks ? most : chunks)), shares(std::min(workers, kShares)) {
    for (int i = 0; i < shares; ++i) {
      share[i].next.store(chunks * i / shares, std::memory_order_relaxed);
      share[i].end = chunks * (i + 1) / shares;
    }
  }

  void work(int worker) {
    try {
      for (int i = 0; i < shares; ++i) {
        Share& some = share[(worker + i) % shares];
        for (int64_t at; (at = some.next.fetch_add(1, std::memory_order_relaxed)) < some.end;) run(at, worker);
      }
    } catch (...) {
      for (int i = 0; i < shares; ++i) share[i].next.store(share[i].end, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }
};

thread_local bool inside_work = false;

class Pool {
 public:
  // Runs the job unless another one is running; returns false if so.
  bool try_run(Job& job) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < job.workers - 1 && add_worker()) continue;
      seats_.make_room();
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    inside_work = true;
    job.work(0);
    inside_work = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;  // no worker joins any more; `active` counts those still working
    }
    while (job.active.load(std::memory_order_acquire) != 0) relax();
    return true;
  }

 private:
  // Returns false if the system gives no more threads: those that there are do the work.
  bool add_worker() {
    const int worker = static_cast<int>(threads_.size()) + 1;
    try {
      const SignalsBlocked blocked;
      threads_.emplace_back([this, worker] { wait_for_jobs(worker); });
    } catch (const std::system_error&) {
      return false;
    }
    seats_.add(threads_.back());
    threads_.back().detach();  // lives as long as the process; the pool is never destroyed
    return true;
  }

  void wait_for_jobs(int worker) {
    inside_work = true;
    uint64_t seen = 0;
    for (;;) {
      const auto sleep = std::chrono::steady_clock::now() + kSpin;
      while (generation_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < sleep) relax();
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        if (job_ != nullptr && worker < job_->workers) {
          job = job_;
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
  std::mutex mutex_;  // guards job_, threads_ and seats_
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  std::vector<std::thread> threads_;
  Seats seats_;
};

// Never destroyed, since threads may outlive main's static objects. A forked child gets a new one, since it has none of
// the threads. Made as the engine loads: a child that forks during a first use would wait for its end for ever.
Pool* pool = new Pool;

void renew() {
  pool = new Pool;
  inside_work = false;
}

[[maybe_unused]] const bool registered = (at_fork(nullptr, nullptr, renew), true);

}  // namespace

void parallel_for(int threads, int64_t chunks, const Chunk& run) {
  if (chunks <= 0) return;
  Job job(run, chunks, threads);
  if (job.workers <= 1 || inside_work || !pool->try_run(job)) job.work(0);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace convoxel
