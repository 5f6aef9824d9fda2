#include "file_memory.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../buffer.h"
#include "../machine.h"
#include "../mistake.h"
#include "../system.h"

namespace convoxel::capi {
namespace {

class File final : public FileMemory {
 public:
  explicit File(const char* path) : path_(path), file_(path) {
    if (!file_.refusal().empty()) {
      throw Mistake("GraphError", path_ + " cannot be read (" + file_.refusal() + "); expected a .cvx file");
    }
    data_ = file_.data();
    size_ = file_.size();
  }

  bool is_mapped() const override { return true; }
  void check() const override {
    if (file_.is_unchanged()) return;
    throw Mistake("GraphError", path_ +
                                    " was overwritten while a program of it was in use; expected the file as it "
                                    "was, or a new one in its place. Load the program again");
  }
  void give_back() const override { give_back_pages(data_, static_cast<size_t>(size_)); }

 private:
  std::string path_;
  MappedFile file_;
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

std::shared_ptr<const FileMemory> open_file(const char* path) { return std::make_shared<File>(path); }

std::shared_ptr<const FileMemory> copy_bytes(const void* bytes, int64_t count) {
  return std::make_shared<CopiedBytes>(bytes, count);
}

int default_threads() {
  if (const char* wanted = std::getenv("CONVOXEL_THREADS"); wanted != nullptr && *wanted != '\0') {
    char* end = nullptr;
    const long count = std::strtol(wanted, &end, 10);
    if (*end == '\0' && count >= 1 && count <= kMostThreads) return static_cast<int>(count);
    throw Mistake("ConfigError", "CONVOXEL_THREADS is '" + std::string(wanted) + "'; give a whole number from 1 to " +
                                     std::to_string(kMostThreads) + ", or unset it");
  }
  const double quota = processor_quota();
  const int most = processors();
  return quota > 0 ? std::clamp(static_cast<int>(std::ceil(quota)), 1, most) : most;
}

}  // namespace convoxel::capi
