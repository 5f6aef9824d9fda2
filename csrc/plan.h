// A plan: a list of steps over views, made once for one set of shapes and run any number of times.
//
// Invariant: after its last step is added a plan does not change. Any number of threads may run it, each with its own
// arena. Steps check their views when they are added, so that running checks nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolution.h"
#include "index_table.h"
#include "integer_unit.h"
#include "mistake.h"
#include "quantised_convolution.h"

namespace convoxel {

// The memory of one run: where each buffer begins, and scratch memory for each worker.
struct RunContext {
  std::vector<float*> buffers;  // 0: the arena
  char* workspace = nullptr;
  int64_t workspace_step = 0;  // bytes per worker
  char* shared = nullptr;      // scratch memory that all workers share
  int threads = 1;

  // T is the type of the view's elements.
  template <class T = float>
  T* at(const View& view) const {
    return reinterpret_cast<T*>(buffers[view.buffer]) + view.offset;
  }
  void* address(const View& view) const {
    return reinterpret_cast<char*>(buffers[view.buffer]) + view.offset * element_bytes(view.element);
  }
  void* worker_space(int worker) const { return workspace + worker * workspace_step; }
};

struct Step {
  const char* op;
  std::function<void(const RunContext&)> run;
  int64_t workspace_bytes = 0;  // per worker
  int64_t shared_bytes = 0;     // of all workers
  const char* algorithm = "";
  std::vector<const char*> parts = {};  // the algorithms of the convolutions of a block
  double macs = 0;
  int64_t result_bytes = 0;
  Element result_element = Element::kFloat32;
  std::string name = {};                   // of the layer
  std::vector<std::string> problems = {};  // the texts of its convolutions' problems (problem_text)
  bool integers = false;                   // whether it computes with whole numbers of 8 bits
};

// The parameter of an activation; clip has two.
struct Slope {
  float low = 0, high = 0;
};

class Plan {
 public:
  // buffers: number of buffers, the arena and the caller's. Their sizes follow from the steps that are added.
  // digits: the fewest binary digits of the numbers that a convolution may multiply.
  // chosen: algorithms that were chosen before, by the text of a problem.
  // once: whether it runs once with its weights (see Family).
  Plan(int64_t arena_size, int buffers, int threads, const MicrokernelSet& set, int digits = 24,
       std::map<std::string, std::string> chosen = {}, bool once = false);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Every step throws Mistake if the views do not fit one another or their buffers.
#define STEP(name, parameters, ...) void name parameters;
#include "steps.h"

  void name_last(std::string name) { steps_.back().name = std::move(name); }
  // The algorithms that `convolve` can choose among, cheapest first.
  std::vector<Candidate> candidates(const Convolution& conv, const View& src, const View& dst,
                                    const std::string& algorithm, bool gated) const;

  int64_t arena_size() const { return arena_size_; }
  const std::vector<int64_t>& needed() const { return needed_; }  // bytes of each buffer that the steps touch
  const std::vector<bool>& written() const { return written_; }   // whether a step writes to it
  const MicrokernelSet& microkernels() const { return set_; }
  int64_t workspace_bytes() const { return workspace_step_ * threads_ + shared_bytes_; }  // of all workers
  int threads() const { return threads_; }
  const std::vector<Step>& steps() const { return steps_; }

  // Runs steps [first, last). buffers[0] is an arena of arena_size() floats, or null for one from the plan's own store.
  // seconds, if not null, receives the time of each step.
  // go_on, if given, is asked between steps; the run ends where it says no.
  void run(std::vector<float*> buffers, size_t first, size_t last, std::vector<double>* seconds,
           const std::function<bool()>& go_on = nullptr) const;

 private:
  void add(Step step);
  // What a step can read and write. Most know float32 alone.
  enum class Takes { kFloat32, kFloats };
  void read(const View& view, const char* what, Takes takes = Takes::kFloat32) { use(view, what, false, takes); }
  void write(const View& view, const char* what, Takes takes = Takes::kFloat32) { use(view, what, true, takes); }
  // Registers a view that the step reads and one of the same shape that it writes.
  void use_alike(const View& src, const View& dst, Takes takes = Takes::kFloat32);
  void use(const View& view, const char* what, bool written, Takes takes);
  // Registers a buffer that holds a view's numbers one after another.
  void use_dense(int buffer, const View& view, const char* what, bool written);
  Family family(std::string algorithm) const { return {std::move(algorithm), digits_, once_}; }
  const std::string& chosen_for(const std::string& problem) const;
  struct Store;  // arenas and workspaces between runs

  int64_t arena_size_;
  std::vector<int64_t> needed_;
  std::vector<bool> written_;
  int threads_;
  const MicrokernelSet& set_;
  int digits_;
  std::map<std::string, std::string> chosen_;
  bool once_;
  std::vector<Step> steps_;
  View result_;  // of the step that is being added
  int64_t workspace_step_ = 0;
  int64_t shared_bytes_ = 0;
  std::shared_ptr<Store> store_;
};

// The instruction set of a name; throws Mistake if this processor lacks it.
const MicrokernelSet& microkernel_set(const std::string& name);

std::string show(const View& view);
void require_same_shape(const View& a, const View& b, const char* what);
void require_same_element(const View& a, const View& b, const char* what);
// Requires every axis of `narrow` to be as long as that of `wide`, or 1.
void require_broadcast(const View& narrow, const View& wide, const char* what);
Activation activation_of(const std::string& name, Slope slope);

// The index of a name in a list.
template <size_t kCount>
int find_name(const char* const (&names)[kCount], const std::string& name) {
  for (size_t i = 0; i < kCount; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  throw Mistake("ConfigError", "there is no '" + name + "'");
}

}  // namespace convoxel
