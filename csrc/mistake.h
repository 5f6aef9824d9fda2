// The exception for mistakes of the caller.
#pragma once

#include <stdexcept>
#include <string>

namespace convoxel {

struct Mistake : std::runtime_error {
  // kind: the name of the exception of convoxel.errors that Python raises.
  Mistake(const char* kind, const std::string& message) : std::runtime_error(message), kind(kind) {}
  const char* kind;
};

inline void require(bool fits, const std::string& message) {
  if (!fits) throw Mistake("ShapeError", message);
}

}  // namespace convoxel
