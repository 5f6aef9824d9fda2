#include "system.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../buffer.h"
#include "../machine.h"
#include "../mistake.h"

namespace convoxel::capi {
namespace {

[[noreturn]] void refuse_file(const std::string& path, const char* reason) {
  throw Mistake("GraphError", path + " cannot be read (" + reason + "); expected a .cvx file");
}

struct State {
  int64_t size = 0, seconds = 0, nanoseconds = 0;
  bool operator==(const State& o) const {
    return size == o.size && seconds == o.seconds && nanoseconds == o.nanoseconds;
  }
};

State state_of(int file) {
  struct stat now;
  if (fstat(file, &now) != 0) return {-1, 0, 0};
#if defined(__APPLE__)
  const timespec& written = now.st_mtimespec;
#else
  const timespec& written = now.st_mtim;
#endif
  return {static_cast<int64_t>(now.st_size), static_cast<int64_t>(written.tv_sec),
          static_cast<int64_t>(written.tv_nsec)};
}

class MappedFile final : public FileMemory {
 public:
  explicit MappedFile(const char* path) : path_(path), file_(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (file_ < 0) refuse_file(path_, std::strerror(errno));
    struct stat found;
    if (fstat(file_, &found) != 0 || !S_ISREG(found.st_mode)) {
      close(file_);
      refuse_file(path_, "it is no file");
    }
    opened_ = state_of(file_);
    size_ = opened_.size;
    if (size_ == 0) return;
    void* mapped = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, file_, 0);
    if (mapped == MAP_FAILED) {
      const int reason = errno;
      close(file_);
      refuse_file(path_, std::strerror(reason));
    }
    data_ = static_cast<const uint8_t*>(mapped);
  }
  ~MappedFile() override {
    if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
    close(file_);
  }

  bool is_mapped() const override { return true; }
  void check() const override {
    if (state_of(file_) == opened_) return;
    throw Mistake("GraphError", path_ +
                                    " was overwritten while a program of it was in use; expected the file as it "
                                    "was, or a new one in its place. Load the program again");
  }
  void give_back() const override {
#if defined(MADV_DONTNEED)
    if (data_ != nullptr) madvise(const_cast<uint8_t*>(data_), static_cast<size_t>(size_), MADV_DONTNEED);
#endif
  }

 private:
  std::string path_;
  int file_;
  State opened_;
};

class CopiedBytes final : public FileMemory {
 public:
  CopiedBytes(const void* bytes, int64_t count)
      : copy_(allocate_floats(ceil_div(count, static_cast<int64_t>(sizeof(float))))) {
    if (count > 0) std::memcpy(copy_.get(), bytes, static_cast<size_t>(count));
    data_ = reinterpret_cast<const uint8_t*>(copy_.get());
    size_ = count;
  }

 private:
  FloatBuffer copy_;
};

}  // namespace

std::shared_ptr<const FileMemory> open_file(const char* path) { return std::make_shared<MappedFile>(path); }

std::shared_ptr<const FileMemory> copy_bytes(const void* bytes, int64_t count) {
  return std::make_shared<CopiedBytes>(bytes, count);
}

int64_t installed_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PAGESIZE)) * static_cast<int64_t>(sysconf(_SC_PHYS_PAGES));
}

int default_threads() {
  if (const char* wanted = std::getenv("CONVOXEL_THREADS"); wanted != nullptr && *wanted != '\0') {
    char* end = nullptr;
    const long count = std::strtol(wanted, &end, 10);
    if (*end == '\0' && count >= 1 && count <= kMostThreads) return static_cast<int>(count);
    throw Mistake("ConfigError", "CONVOXEL_THREADS is '" + std::string(wanted) + "'; give a whole number from 1 to " +
                                     std::to_string(kMostThreads) + ", or unset it");
  }
  double quota = 0, period = 0;  // of version 2 of control groups; "max" is no number
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    if (std::fscanf(file, "%lf %lf", &quota, &period) != 2) quota = period = 0;
    std::fclose(file);
  }
  const int most = processors();
  return period > 0 ? std::clamp(static_cast<int>(std::ceil(quota / period)), 1, most) : most;
}

}  // namespace convoxel::capi
