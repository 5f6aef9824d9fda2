// Memory for floats that is aligned to a cache line and cannot be copied.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "system.h"

namespace convoxel {

struct FreeDeleter {
  void operator()(void* p) const { free_aligned(p); }
};

using FloatBuffer = std::unique_ptr<float[], FreeDeleter>;

constexpr int64_t kAlignBytes = 64;

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Uninitialised memory of at least one cache line, so that the pointer is always valid. Large buffers ask for huge
// pages, since Winograd's points are read with strides of many small pages.
inline FloatBuffer allocate_floats(int64_t count) {
  const int64_t wanted = (count > 0 ? count : 1) * static_cast<int64_t>(sizeof(float));
  const bool huge = wanted >= kHugePageBytes / 2;
  const int64_t align = huge ? kHugePageBytes : kAlignBytes;
  const int64_t bytes = round_up(wanted, align);
  void* p = allocate_aligned(static_cast<size_t>(align), static_cast<size_t>(bytes));
  if (p == nullptr) throw std::bad_alloc();
  if (huge) advise_huge_pages(p, static_cast<size_t>(bytes));
  return FloatBuffer(static_cast<float*>(p));
}

}  // namespace convoxel
