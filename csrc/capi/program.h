// A program of a .cvx file: its steps as the file lists them, planned for the sizes that come.
//
// The planner of convoxel.graph wrote the steps once, with numbers that follow from the open sizes as expressions. Here
// they are computed, buffers get their places in the arena, and the steps are added to a Plan, which checks them as it
// checks Python's. So no rule for a shape, and no choice of steps, is known here.
//
// Invariant: a program does not change but for its caches, behind a lock. Any number of threads may use it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../fork_mutex.h"
#include "../plan.h"
#include "json.h"
#include "layers.h"
#include "tensor_file.h"

namespace convoxel::capi {

using Shape = std::vector<int64_t>;
using Shapes = std::vector<Shape>;

constexpr int64_t kOpen = -1;  // an axis whose length an input decides

std::string shown(const Shape& shape);

const MicrokernelSet& set_in_use();  // the processor's best, or the one that CONVOXEL_ISA names

// An input or a result.
struct Port {
  std::string name;
  Shape shape;       // kOpen where a length is open
  std::string text;  // such as "(n, 3, h, w)"
};

// A program planned for the shapes of its inputs.
class SizedProgram {
 public:
  const Shapes& results() const { return results_; }
  // inputs, results: dense numbers, channels first, of all inputs and results in order.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& results) const;

 private:
  friend class Program;
  enum class Role { kInput, kResult, kConstant };
  struct Buffer {
    Role role;
    size_t index = 0;  // of the input or result
    std::vector<float> constant = {};
  };

  std::unique_ptr<Plan> plan_;
  Shapes inputs_, results_;
  std::vector<Buffer> buffers_;  // buffer i + 1 of the plan
  std::vector<size_t> sources_;  // the buffer that holds each result
};

class Program {
 public:
  // Throws Mistake if the file is broken, or holds steps that the engine does not have.
  explicit Program(std::shared_ptr<const FileMemory> memory);

  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& results() const { return results_; }
  void set_threads(int threads);  // 0: all that the process may use
  int threads() const;

  // The plan for inputs of these shapes; throws Mistake if the network does not accept them.
  std::shared_ptr<const SizedProgram> sized(const Shapes& inputs) const;

 private:
  std::shared_ptr<const SizedProgram> plan(const Shapes& inputs, int threads) const;
  std::shared_ptr<const SizedProgram> plan_as(const Json& described, const Shapes& inputs, int threads,
                                              std::string* refusal) const;

  TensorFile file_;
  Json content_;
  const MicrokernelSet& set_;
  std::vector<Port> inputs_, results_;
  std::map<std::string, std::string> chosen_;
  int digits_ = 24;

  struct Planned {
    Shapes inputs;
    int threads;
    std::shared_ptr<const SizedProgram> sized;
  };
  mutable ForkMutex mutex_;
  std::unique_ptr<Layers> layers_;        // changes, behind the lock, as plans ask for other paddings
  mutable std::vector<Planned> planned_;  // the latest last
  int threads_ = 0;
};

}  // namespace convoxel::capi
