// Memory for floats, aligned to a cache line, that is never copied by accident.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace convoxel {

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

using FloatBuffer = std::unique_ptr<float[], FreeDeleter>;

constexpr int64_t kAlignBytes = 64;

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Uninitialised; at least one cache line, so that a pointer to it is always valid.
inline FloatBuffer allocate_floats(int64_t count) {
  const int64_t bytes = round_up((count > 0 ? count : 1) * static_cast<int64_t>(sizeof(float)), kAlignBytes);
  void* p = std::aligned_alloc(kAlignBytes, static_cast<size_t>(bytes));
  if (p == nullptr) throw std::bad_alloc();
  return FloatBuffer(static_cast<float*>(p));
}

}  // namespace convoxel
