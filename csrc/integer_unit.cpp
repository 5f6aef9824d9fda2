// The units for products of 8 bits that this processor can run. This file is compiled for the plainest machine, since
// it runs before a unit is chosen.
#include "integer_unit.h"

#include "mistake.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace convoxel {
namespace {

#if defined(__x86_64__)
// Bits of the processor's answer to leaf 7, part 0 (ecx, edx) and part 1 (eax). Compilers have no names for all of
// them.
struct Features {
  unsigned ecx = 0, edx = 0, eax = 0;
  Features() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
      ecx = c;
      edx = d;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) eax = a;
  }
  bool avx512_vnni() const { return (ecx >> 11 & 1) != 0; }
  bool avx_vnni() const { return (eax >> 4 & 1) != 0; }
  bool amx_int8() const { return (edx >> 25 & 1) != 0; }
};
#endif

}  // namespace

std::vector<const IntegerUnit*> available_integer_units(const std::string& instruction_set) {
  std::vector<const IntegerUnit*> units;
#if defined(__x86_64__)
  static const Features features;
  // Each set of instructions holds those after it, so the units of lesser sets run, too.
  const bool amx = instruction_set == "amx";
  const bool avx512 = amx || instruction_set.compare(0, 6, "avx512") == 0;
  const auto add = [&](bool can, const IntegerUnit* unit) {
    if (can && unit != nullptr) units.push_back(unit);
  };
  if (amx) add(features.amx_int8() && features.avx512_vnni(), amx_integer_unit());
  if (avx512) {
    add(features.avx512_vnni(), vnni_integer_unit());
    add(true, avx512_integer_unit());
  }
  if (avx512 || instruction_set == "avx2") {
    add(features.avx_vnni(), avx_vnni_integer_unit());
    add(true, avx2_integer_unit());
  }
#else
  (void)instruction_set;
#endif
  units.push_back(portable_integer_unit());
  return units;
}

const IntegerUnit& integer_unit(const std::string& instruction_set, const std::string& name) {
  const std::vector<const IntegerUnit*> units = available_integer_units(instruction_set);
  if (name.empty()) return *units.front();
  std::string names;
  for (const IntegerUnit* unit : units) {
    if (name == unit->name) return *unit;
    names += std::string(names.empty() ? "" : ", ") + unit->name;
  }
  throw Mistake("ConfigError", "there is no unit '" + name + "' for products of 8 bits beside " + instruction_set +
                                   "; expected one of " + names);
}

}  // namespace convoxel
