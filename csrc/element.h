// The type in which the numbers of a tensor are stored. All sums and functions are computed in float32.
#pragma once

#include <cstdint>

namespace convoxel {

enum class Element : int { kFloat32, kBfloat16 };

// Names as Python spells them, in the order of Element.
constexpr const char* kElementNames[] = {"float32", "bfloat16"};

// The upper half of a float: its sign, its exponent and 8 binary digits.
struct Bfloat16 {
  uint16_t bits;
};

// x rounded to nearest, ties to even; NaN stays NaN. Static, as everything that microkernels include: the linker must
// not share it among instruction sets.
static inline Bfloat16 rounded(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const uint32_t upper = bits >> 16;
  const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return {static_cast<uint16_t>(nan ? upper | 0x40 : (bits + 0x7FFF + (upper & 1)) >> 16)};
}

static inline float widened(Bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
constexpr Element kElementOf = Element::kFloat32;
template <>
constexpr Element kElementOf<Bfloat16> = Element::kBfloat16;

constexpr int64_t element_bytes(Element element) { return element == Element::kBfloat16 ? 2 : 4; }
constexpr const char* element_name(Element element) { return kElementNames[static_cast<int>(element)]; }

// Calls run with a number of the type that an element stands for.
template <class Run>
auto with_element(Element element, const Run& run) {
  return element == Element::kBfloat16 ? run(Bfloat16{}) : run(float{});
}

}  // namespace convoxel
