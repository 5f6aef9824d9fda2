#include "system.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <malloc.h>
#include <windows.h>
#else
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#endif
#endif

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace convoxel {

// ---- Windows

#if defined(_WIN32)

void* allocate_aligned(size_t align, size_t bytes) { return _aligned_malloc(bytes, align); }
void free_aligned(void* p) { _aligned_free(p); }
void advise_huge_pages(void*, size_t) {}
void give_back_pages(const void*, size_t) {}  // the system takes pages of files as it needs them

int64_t installed_bytes() {
  MEMORYSTATUSEX found{};
  found.dwLength = sizeof(found);
  return GlobalMemoryStatusEx(&found) ? static_cast<int64_t>(found.ullTotalPhys) : INT64_MAX;
}

int64_t l2_cache_bytes() {
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> rows(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
  if (rows.empty() || !GetLogicalProcessorInformation(rows.data(), &bytes)) return 0;
  for (const auto& row : rows) {
    if (row.Relationship == RelationCache && row.Cache.Level == 2) return static_cast<int64_t>(row.Cache.Size);
  }
  return 0;
}

std::vector<int> allowed_processors() { return {}; }
int current_processor() { return 0; }
void bind_thread(std::thread::native_handle_type, const std::vector<int>&) {}
double processor_quota() { return 0; }
bool request_matrix_registers() { return false; }

void at_fork(void (*)(), void (*)(), void (*)()) {}  // processes do not fork
bool on_main_thread() { return true; }

void sleep_for_ever() {
  for (;;) Sleep(INFINITE);
}

double thread_seconds() {
  FILETIME begun, ended, kernel, user;
  if (!GetThreadTimes(GetCurrentThread(), &begun, &ended, &kernel, &user)) return 0;
  const auto ticks = [](const FILETIME& t) {
    return static_cast<double>(t.dwHighDateTime) * 4294967296.0 + t.dwLowDateTime;
  };
  return 1e-7 * (ticks(kernel) + ticks(user));
}

SignalsBlocked::SignalsBlocked() = default;
SignalsBlocked::~SignalsBlocked() = default;

MappedFile::MappedFile(const char* path) {
  const HANDLE file = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  const auto refuse = [&](const char* call) {
    refusal_ = call + (" failed with error " + std::to_string(GetLastError()));
  };
  if (file == INVALID_HANDLE_VALUE) {
    refuse("CreateFile");
    return;
  }
  file_ = reinterpret_cast<intptr_t>(file);
  if (GetFileType(file) != FILE_TYPE_DISK) {
    refusal_ = "it is no file";
    return;
  }
  opened_ = state();
  if (opened_.size <= 0) return;
  const HANDLE mapping = CreateFileMappingA(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
  if (mapping == nullptr) {
    refuse("CreateFileMapping");
    return;
  }
  data_ = static_cast<const uint8_t*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
  if (data_ == nullptr) refuse("MapViewOfFile");
  CloseHandle(mapping);  // the view keeps it
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) UnmapViewOfFile(data_);
  if (file_ != -1) CloseHandle(reinterpret_cast<HANDLE>(file_));
}

MappedFile::State MappedFile::state() const {
  BY_HANDLE_FILE_INFORMATION found;
  if (!GetFileInformationByHandle(reinterpret_cast<HANDLE>(file_), &found)) return {-1, 0, 0};
  return {static_cast<int64_t>(static_cast<uint64_t>(found.nFileSizeHigh) << 32 | found.nFileSizeLow),
          static_cast<int64_t>(found.ftLastWriteTime.dwHighDateTime),
          static_cast<int64_t>(found.ftLastWriteTime.dwLowDateTime)};
}

// ---- Linux, macOS

#else

void* allocate_aligned(size_t align, size_t bytes) { return std::aligned_alloc(align, bytes); }
void free_aligned(void* p) { std::free(p); }

void advise_huge_pages(void* p, size_t bytes) {
#if defined(__linux__)
  madvise(p, bytes, MADV_HUGEPAGE);  // advice: refusal costs nothing
#else
  (void)p, (void)bytes;
#endif
}

void give_back_pages(const void* p, size_t bytes) {
#if defined(__linux__)  // elsewhere MADV_DONTNEED is advice of another kind
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<uintptr_t>(p);
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
  (void)p, (void)bytes;
#endif
}

int64_t installed_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PAGESIZE)) * static_cast<int64_t>(sysconf(_SC_PHYS_PAGES));
}

int64_t l2_cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  return std::max<int64_t>(0, sysconf(_SC_LEVEL2_CACHE_SIZE));
#else
  return 0;
#endif
}

#if defined(__linux__)

std::vector<int> allowed_processors() {
  std::vector<int> found;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return found;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) found.push_back(i);
  }
  return found;
}

int current_processor() { return sched_getcpu(); }

void bind_thread(std::thread::native_handle_type thread, const std::vector<int>& processors) {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const int processor : processors) CPU_SET(processor, &wanted);
  pthread_setaffinity_np(thread, sizeof(wanted), &wanted);
}

double processor_quota() {
  double quota = 0, period = 0;  // of version 2 of control groups; "max" is no number
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    if (std::fscanf(file, "%lf %lf", &quota, &period) != 2) quota = period = 0;
    std::fclose(file);
  }
  return period > 0 ? quota / period : 0;
}

bool request_matrix_registers() {
#if defined(__x86_64__)
  // The registers are large, so Linux gives them only to processes that ask. It refuses if a thread's signal stack is
  // too small to save them.
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

bool on_main_thread() { return syscall(SYS_gettid) == getpid(); }

#else

std::vector<int> allowed_processors() { return {}; }
int current_processor() { return 0; }
void bind_thread(std::thread::native_handle_type, const std::vector<int>&) {}
double processor_quota() { return 0; }
bool request_matrix_registers() { return false; }

bool on_main_thread() {
#if defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return true;
#endif
}

#endif

void at_fork(void (*before)(), void (*parent)(), void (*child)()) { pthread_atfork(before, parent, child); }

void sleep_for_ever() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  for (;;) pause();
}

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

SignalsBlocked::SignalsBlocked() {
  static_assert(sizeof(sigset_t) <= sizeof(before_), "a mask of signals needs more room");
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_SETMASK, &blocked, reinterpret_cast<sigset_t*>(before_));
}

SignalsBlocked::~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, reinterpret_cast<sigset_t*>(before_), nullptr); }

MappedFile::MappedFile(const char* path) {
  file_ = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat found;
  const bool opened = file_ >= 0 && fstat(static_cast<int>(file_), &found) == 0;
  if (!opened || !S_ISREG(found.st_mode)) {
    refusal_ = opened ? "it is no file" : std::strerror(errno);
    return;
  }
  opened_ = state();
  if (opened_.size <= 0) return;
  void* mapped = mmap(nullptr, static_cast<size_t>(opened_.size), PROT_READ, MAP_PRIVATE, static_cast<int>(file_), 0);
  if (mapped == MAP_FAILED) {
    refusal_ = std::strerror(errno);
  } else {
    data_ = static_cast<const uint8_t*>(mapped);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(opened_.size));
  if (file_ >= 0) close(static_cast<int>(file_));
}

MappedFile::State MappedFile::state() const {
  struct stat now;
  if (fstat(static_cast<int>(file_), &now) != 0) return {-1, 0, 0};
#if defined(__APPLE__)
  const timespec& written = now.st_mtimespec;
#else
  const timespec& written = now.st_mtim;
#endif
  return {static_cast<int64_t>(now.st_size), static_cast<int64_t>(written.tv_sec),
          static_cast<int64_t>(written.tv_nsec)};
}

#endif

}  // namespace convoxel
