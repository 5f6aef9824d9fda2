#include "integer_unit.h"
namespace convoxel {
const IntegerUnit* amx_integer_unit() { return nullptr; }
}  // namespace convoxel
