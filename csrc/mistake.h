// The exception for what a caller does wrong.
#pragma once

#include <stdexcept>
#include <string>

namespace convoxel {

struct Mistake : std::runtime_error {
  // kind: the exception of convoxel.errors that Python raises for it.
  Mistake(const char* kind, const std::string& message) : std::runtime_error(message), kind(kind) {}
  const char* kind;
};

inline void require(bool fits, const std::string& message) {
  if (!fits) throw Mistake("ShapeError", message);
}

}  // namespace convoxel
