// What the machine has, as far as plans depend on it. Fixed for a process: a plan must not depend on the threads that
// run it, or its result would.
#pragma once

#include <cstdint>

namespace convoxel {

int processors();    // that this process may use
int64_t l2_bytes();  // of one core

}  // namespace convoxel
