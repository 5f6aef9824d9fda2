// The properties of the machine that plans depend on. They are fixed for a process: a plan, and so its result, must not
// depend on the threads that run it.
#pragma once

#include <cstdint>

namespace convoxel {

int processors();    // that this process may use
int64_t l2_bytes();  // of one core

// How much longer reading a byte takes on this machine, in multiply-adds, than on the machine that the costs (cost.h)
// were fitted on: from the next cache beyond L2, and from memory. 1 unless a calibration set them; set before plans are
// made.
struct Rates {
  double cache = 1;
  double memory = 1;
};
Rates rates();
void set_rates(Rates rates);

}  // namespace convoxel
