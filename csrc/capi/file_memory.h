// The bytes of a file as memory, and how many threads this process may use.
#pragma once

#include <cstdint>
#include <memory>

namespace convoxel::capi {

class FileMemory {
 public:
  virtual ~FileMemory() = default;
  FileMemory(const FileMemory&) = delete;
  FileMemory& operator=(const FileMemory&) = delete;

  const uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }
  // Whether pages may be given back to the system, which reads them again from the file.
  virtual bool is_mapped() const { return false; }
  // Throws Mistake if the file was written to since it was opened. It may be replaced or deleted.
  virtual void check() const {}
  // Gives back the pages that were read; the system reads them again when they are asked for.
  virtual void give_back() const {}

 protected:
  FileMemory() = default;
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

// The file at a path; throws Mistake if it cannot be read.
std::shared_ptr<const FileMemory> open_file(const char* path);
// A copy of bytes.
std::shared_ptr<const FileMemory> copy_bytes(const void* bytes, int64_t count);

// CONVOXEL_THREADS if it is set, else the processors that this process may use: those of its affinity mask, or fewer if
// its control group has a quota.
constexpr int kMostThreads = 1024;
int default_threads();

}  // namespace convoxel::capi
