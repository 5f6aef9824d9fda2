// All that the engine asks of the operating system itself, for Linux, macOS and Windows. Everything else is standard
// C++. What a system lacks and only speed wants, such as huge pages, is left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace convoxel {

// ---- memory

void* allocate_aligned(size_t align, size_t bytes);  // null if there is no more
void free_aligned(void* p);
void advise_huge_pages(void* p, size_t bytes);
// Gives back the pages of a mapped file that lie within; the system reads them again when they are asked for.
void give_back_pages(const void* p, size_t bytes);
int64_t installed_bytes();  // of this machine's memory

// ---- processors

int64_t l2_cache_bytes();               // of one core; 0 where the system does not say
std::vector<int> allowed_processors();  // that this process may use; empty where the system does not say
int current_processor();                // of the calling thread; one of those
void bind_thread(std::thread::native_handle_type thread, const std::vector<int>& processors);
double processor_quota();         // how many processors' time the control group has; 0: no limit
bool request_matrix_registers();  // of AMX, for this process; false if there are none

// ---- threads and processes

// Calls `before` in the thread that forks, and then the others in parent and child. Null: nothing.
void at_fork(void (*before)(), void (*parent)(), void (*child)());
// True in the thread that runs Python's signal handlers: the process's first, or a forked child's only one.
bool on_main_thread();
[[noreturn]] void sleep_for_ever();
double thread_seconds();  // processor time of this thread: other processes do not count

// Blocks the signals that a thread made meanwhile shall not see: all but those of its own faults. Handlers belong to
// the threads of the program, and so do system calls that a signal shall interrupt.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  alignas(8) unsigned char before_[128];  // the thread's mask of signals
};

// ---- files

// A file as memory. It may be replaced or deleted meanwhile.
class MappedFile {
 public:
  explicit MappedFile(const char* path);  // the name in the system's encoding; see `refusal`
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& refusal() const { return refusal_; }  // why it cannot be read; "" if it can
  const uint8_t* data() const { return data_; }
  int64_t size() const { return opened_.size; }
  bool is_unchanged() const { return state() == opened_; }  // since it was opened

 private:
  struct State {
    int64_t size = 0, seconds = 0, fraction = 0;
    bool operator==(const State& o) const { return size == o.size && seconds == o.seconds && fraction == o.fraction; }
  };
  State state() const;

  std::string refusal_;
  intptr_t file_ = -1;
  State opened_;
  const uint8_t* data_ = nullptr;
};

}  // namespace convoxel
