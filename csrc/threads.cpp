#include "threads.h"

#include <pthread.h>
#include <signal.h>
#if defined(__linux__)
#include <sched.h>
#endif

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
#if defined(__linux__)
    workers_.push_back(thread.native_handle());
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    std::vector<int> processors;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) processors.push_back(i);
    }
    crowded_ = workers_.size() >= processors.size();
    if (crowded_) {
      for (const pthread_t worker : workers_) pthread_setaffinity_np(worker, sizeof(allowed), &allowed);
      return;
    }
    caller_ = sched_getcpu();
    size_t here = 0;
    while (here < processors.size() - 1 && processors[here] != caller_) ++here;
    processor_.clear();
    for (size_t i = 0; i < workers_.size(); ++i) processor_.push_back(processors[(here + 1 + i) % processors.size()]);
    for (size_t i = 0; i < workers_.size(); ++i) keep(i);
#else
    (void)thread;
#endif
  }

  // The operating system moves the caller as it likes. A worker on the caller's new processor changes places with it.
  void make_room() {
#if defined(__linux__)
    if (crowded_) return;
    const int here = sched_getcpu();
    if (here == caller_) return;
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (processor_[i] != here) continue;
      processor_[i] = caller_;
      keep(i);
    }
    caller_ = here;
#endif
  }

#if defined(__linux__)
 private:
  void keep(size_t worker) const {
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(processor_[worker], &own);
    pthread_setaffinity_np(workers_[worker], sizeof(own), &own);
  }

  std::vector<pthread_t> workers_;
  std::vector<int> processor_;  // of each worker
  int caller_ = -1;             // the processor without a worker, if there is one
  bool crowded_ = true;
#endif
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

// Blocks the signals that a thread made meanwhile shall not see: all but those of its own faults. Handlers belong to
// the threads of the program, and so do system calls that a signal shall interrupt.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

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

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  pool = new Pool;
  inside_work = false;
});

}  // namespace

void parallel_for(int threads, int64_t chunks, const Chunk& run) {
  if (chunks <= 0) return;
  Job job(run, chunks, threads);
  if (job.workers <= 1 || inside_work || !pool->try_run(job)) job.work(0);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace convoxel
