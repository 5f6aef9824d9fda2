// What the machine has, as far as plans depend on it. Fixed for a process: a plan must not depend on the threads that
// run it, or its result would.
#pragma once

#include <cstdint>

namespace convoxel {

int processors();    // that this process may use
int64_t l2_bytes();  // of one core

// How much longer reading a byte takes here, against a multiply-add, than where the costs (cost.h) were fitted: from
// the next cache beyond L2, and from memory. 1 unless somebody measured and said so; set before plans are made.
struct Rates {
  double cache = 1;
  double memory = 1;
};
Rates rates();
void set_rates(Rates rates);

}  // namespace convoxel
