// A plan: a list of steps over views, made once for one set of shapes and run any number of times.
//
// Invariant: after the last step is added a plan does not change; any number of threads may run it, each with its
// own arena. Steps check their views when they are added, so that running checks nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "convolution.h"

namespace convoxel {

// What one run works on: where each buffer begins, and scratch memory for each worker.
struct RunContext {
  std::vector<float*> buffers;  // 0: the arena
  char* workspace = nullptr;
  int64_t workspace_step = 0;  // bytes per worker
  char* shared = nullptr;      // scratch memory of all workers together
  int threads = 1;

  float* at(const View& view) const { return buffers[view.buffer] + view.offset; }
  void* worker_space(int worker) const { return workspace + worker * workspace_step; }
};

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(const RunContext& context) const = 0;
  virtual int64_t workspace_bytes() const { return 0; }  // per worker
  virtual int64_t shared_bytes() const { return 0; }     // of all workers together
  virtual const char* op() const = 0;
  virtual const char* algorithm() const { return ""; }
  virtual double macs() const { return 0; }

  std::string name;
};

// One axis of a resampling: output o = sum over t of weight[o * taps + t] * input[index[o * taps + t]]; an index
// below 0 is no tap.
struct ResampleAxis {
  int64_t taps = 0;
  std::vector<int32_t> index;
  std::vector<float> weight;
};

class Plan {
 public:
  // buffers: the arena and the caller's, whose sizes follow from the steps that are added.
  Plan(int64_t arena_size, int buffers, int threads, const KernelSet& set);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Every `add` throws std::invalid_argument if the views do not fit one another or their buffers.
  // gate: (n, 1, 1, 1, c), what the input is multiplied by; or null.
  void add_convolution(std::shared_ptr<const Convolution> conv, View src, View dst, const View* residual,
                       const View* gate, Activation activation, const std::string& algorithm, std::string name);
  // What add_convolution could choose among, cheapest first.
  std::vector<Candidate> candidates(const Convolution& conv, const View& src, const View& dst, bool gated,
                                    const std::string& algorithm) const;
  // Convolutions one after another, one of them depthwise, the others 1x1; algorithm as in depthwise_block.h.
  void add_depthwise_block(std::vector<std::shared_ptr<const Convolution>> convs, size_t depthwise, View src, View dst,
                           const View* residual, const std::vector<Activation>& activations,
                           const std::string& algorithm, std::string name);
  void add_max_pool(View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low, std::string name);
  void add_resample(View src, View dst, std::vector<ResampleAxis> axes, std::string name);
  void add_combine(Combine op, View a, View b, View dst, Activation activation, std::string name);
  // Reduces every axis along which dst has size 1.
  void add_reduce(Reduce op, View src, View dst, std::string name);
  void add_softmax(View src, View dst, bool log_of, std::string name);
  void add_permute_channels(View src, View dst, std::vector<int32_t> index, std::string name);
  void add_response_norm(View src, View dst, int64_t size, float alpha, float beta, float bias, std::string name);
  void add_prelu(View src, View dst, std::vector<float> slope, std::string name);
  void add_affine(View src, View dst, std::vector<float> scale, std::vector<float> shift, Activation activation,
                  std::string name);
  void add_normalise(View src, View dst, int64_t groups, std::vector<float> weight, std::vector<float> bias, float eps,
                     Activation activation, std::string name);
  void add_import(int buffer, View dst, std::string name);
  void add_export(View src, int buffer, std::string name);

  int64_t arena_size() const { return arena_size_; }
  int buffer_count() const { return static_cast<int>(needed_.size()); }
  int64_t needed(int buffer) const { return needed_[buffer]; }  // floats that the steps touch
  bool written(int buffer) const { return written_[buffer]; }
  const KernelSet& kernels() const { return set_; }
  int64_t workspace_bytes() const;  // of all workers
  int threads() const { return threads_; }
  const std::vector<std::unique_ptr<Step>>& steps() const { return steps_; }

  // Runs steps [first, last). buffers[0] is an arena of arena_size() floats, or null to take one from the plan's own
  // store. seconds, if not null, receives the time of each step run.
  void run(std::vector<float*> buffers, size_t first, size_t last, std::vector<double>* seconds) const;

 private:
  void add(std::unique_ptr<Step> step, std::string name);
  void use(const View& view, const char* what, bool written);
  void use_dense(int buffer, const View& view, const char* what, bool written);
  struct Store;  // arenas and workspaces between runs

  int64_t arena_size_;
  std::vector<int64_t> needed_;
  std::vector<bool> written_;
  int threads_;
  const KernelSet& set_;
  std::vector<std::unique_ptr<Step>> steps_;
  int64_t workspace_step_ = 0;
  int64_t shared_bytes_ = 0;
  std::shared_ptr<Store> store_;
};

}  // namespace convoxel
