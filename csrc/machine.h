// The machine as costs see it: the one that runs, and the ones by whose costs algorithms are chosen.
#pragma once

#include <cstdint>
#include <vector>

namespace convoxel {

int processors();    // that this process may use
int64_t l2_bytes();  // of one core

// How much longer reading a byte takes on a machine, in multiply-adds, than on the machine that the costs (cost.h) were
// fitted on: from the next cache beyond L2, and from memory.
struct Rates {
  double cache = 1;
  double memory = 1;
};
void set_rates(Rates rates);  // of this machine, which a calibration measured; until then 1
Rates rates();

struct Machine {
  int threads = 1;
  int64_t l2_bytes = 1 << 20;  // of one core
  Rates rates = {};
};

// This machine. Only what leaves the bits of results alone may depend on it: blocks, stages, shares of threads.
Machine this_machine(int threads);

// The machine for which algorithms are chosen, shipped for each instruction set: what changes the bits of results
// depends on the instruction set, never on the machine that runs it or on its calibration.
struct ReferenceMachine {
  const char* set;
  Machine machine;
};
const std::vector<ReferenceMachine>& reference_machines();
const Machine& reference_machine(const char* set);

}  // namespace convoxel
