#include "plan.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <stdexcept>

#include "depthwise_block.h"
#include "steps.h"
#include "threads.h"

namespace convoxel {
namespace {

// A convolution, or several as one: what all have in common is how their run is fed.
class ConvolveStep final : public Step {
 public:
  using Kept = std::vector<std::shared_ptr<const Convolution>>;  // whose weights the run reads

  ConvolveStep(Kept kept, std::unique_ptr<ConvRun> run, const char* op, const char* algorithm, double macs, View src,
               View dst, const View* residual, const View* gate)
      : kept_(std::move(kept)),
        run_(std::move(run)),
        op_(op),
        algorithm_(algorithm),
        macs_(macs),
        src_(src),
        dst_(dst) {
    has_residual_ = residual != nullptr;
    if (has_residual_) residual_ = *residual;
    has_gate_ = gate != nullptr;
    if (has_gate_) gate_ = *gate;
  }

  void run(const RunContext& context) const override {
    const ConvPointers p{context.at(src_),
                         context.at(dst_),
                         has_residual_ ? context.at(residual_) : nullptr,
                         &src_,
                         &dst_,
                         &residual_,
                         has_gate_ ? context.at(gate_) : nullptr,
                         gate_.batch_stride};
    for (int stage = 0; stage < run_->stages(); ++stage) {
      parallel_for(context.threads, run_->chunks(stage), [&](int64_t chunk, int worker) {
        run_->run(stage, chunk, p, {context.worker_space(worker), context.shared});
      });
    }
  }
  int64_t workspace_bytes() const override { return run_->own_bytes(); }
  int64_t shared_bytes() const override { return run_->shared_bytes(); }
  const char* op() const override { return op_; }
  const char* algorithm() const override { return algorithm_; }
  double macs() const override { return macs_; }

 private:
  Kept kept_;
  std::unique_ptr<ConvRun> run_;
  const char* op_;
  const char* algorithm_;
  double macs_;
  View src_, dst_, residual_, gate_;
  bool has_residual_ = false, has_gate_ = false;
};

std::string show(const View& v) {
  return "(" + std::to_string(v.batch) + ", " + std::to_string(v.size[0]) + ", " + std::to_string(v.size[1]) + ", " +
         std::to_string(v.size[2]) + ", " + std::to_string(v.channels) + ")";
}

void require(bool fits, const std::string& message) {
  if (!fits) throw std::invalid_argument(message);
}

void require_same_shape(const View& a, const View& b, const char* what) {
  require(a.batch == b.batch && a.size == b.size && a.channels == b.channels,
          std::string(what) + ": shapes " + show(a) + " and " + show(b) + " differ");
}

// Every axis of `narrow` is as long as that of `wide`, or 1.
void require_broadcast(const View& narrow, const View& wide, const char* what) {
  const auto fits = [](int64_t small, int64_t large) { return small == large || small == 1; };
  require(fits(narrow.batch, wide.batch) && fits(narrow.size[0], wide.size[0]) && fits(narrow.size[1], wide.size[1]) &&
              fits(narrow.size[2], wide.size[2]) && fits(narrow.channels, wide.channels),
          std::string(what) + " " + show(narrow) + " does not broadcast to " + show(wide));
}

ConvProblem problem_of(const Convolution& conv, const View& src, const View& dst, bool gated) {
  require(src.batch == dst.batch, "src and dst differ in batch: " + show(src) + " and " + show(dst));
  require(src.channels == conv.in_channels() && dst.channels == conv.out_channels(),
          "the convolution maps " + std::to_string(conv.in_channels()) + " to " + std::to_string(conv.out_channels()) +
              " channels, not " + show(src) + " to " + show(dst));
  return {conv.window(), src.batch, src.size, dst.size, src.channels, dst.channels, gated};
}

}  // namespace

// Arenas and workspaces that no run uses at the moment. At most kKept stay, so that a burst of threads does not hold
// memory for ever.
struct Plan::Store {
  static constexpr size_t kKept = 4;
  std::mutex mutex;
  std::vector<FloatBuffer> arenas;
  std::vector<FloatBuffer> workspaces;

  FloatBuffer take(std::vector<FloatBuffer>& from, int64_t floats) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (!from.empty()) {
        FloatBuffer buffer = std::move(from.back());
        from.pop_back();
        return buffer;
      }
    }
    return allocate_floats(floats);
  }
  void give(std::vector<FloatBuffer>& to, FloatBuffer buffer) {
    std::lock_guard<std::mutex> lock(mutex);
    if (to.size() < kKept) to.push_back(std::move(buffer));
  }
};

Plan::Plan(int64_t arena_size, int buffers, int threads, const KernelSet& set)
    : arena_size_(arena_size), threads_(threads), set_(set), store_(std::make_shared<Store>()) {
  require(arena_size >= 0, "arena_size must not be negative");
  require(buffers >= 1, "a plan has at least its arena, buffer 0");
  require(threads >= 1, "threads must be at least 1");
  needed_.assign(static_cast<size_t>(buffers), 0);
  written_.assign(static_cast<size_t>(buffers), false);
}

void Plan::use(const View& v, const char* what, bool written) {
  const std::string name = std::string(what) + " " + show(v);
  require(v.buffer >= 0 && v.buffer < buffer_count(), name + ": there is no buffer " + std::to_string(v.buffer));
  require(v.batch >= 0 && v.size[0] >= 0 && v.size[1] >= 0 && v.size[2] >= 0 && v.channels >= 1,
          name + ": sizes must not be negative, and there must be a channel");
  require(v.offset >= 0 && v.batch_stride >= 0 && v.stride[0] >= 0 && v.stride[1] >= 0 && v.stride[2] >= 0,
          name + ": offset and strides must not be negative");
  require(v.buffer > 0 || v.last() <= arena_size_, name + ": reaches float " + std::to_string(v.last()) +
                                                       " of the arena, which has " + std::to_string(arena_size_));
  needed_[v.buffer] = std::max(needed_[v.buffer], v.last());
  if (written) written_[v.buffer] = true;
}

void Plan::use_dense(int buffer, const View& view, const char* what, bool written) {
  View dense;
  dense.buffer = buffer;
  dense.batch = view.rows() > 0 ? 1 : 0;
  dense.channels = std::max<int64_t>(1, view.rows() * view.channels);
  use(dense, what, written);
}

void Plan::add(std::unique_ptr<Step> step, std::string name) {
  workspace_step_ = std::max(workspace_step_, round_up(step->workspace_bytes(), kAlignBytes));
  shared_bytes_ = std::max(shared_bytes_, round_up(step->shared_bytes(), kAlignBytes));
  step->name = std::move(name);
  steps_.push_back(std::move(step));
}

std::vector<Candidate> Plan::candidates(const Convolution& conv, const View& src, const View& dst, bool gated,
                                        const std::string& algorithm) const {
  return rank_algorithms(algorithm, problem_of(conv, src, dst, gated), set_);
}

void Plan::add_convolution(std::shared_ptr<const Convolution> conv, View src, View dst, const View* residual,
                           const View* gate, Activation activation, const std::string& algorithm, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  if (gate != nullptr) {
    use(*gate, "gate", false);
    require(gate->batch == src.batch && gate->pixels() == 1 && gate->channels == src.channels,
            "gate " + show(*gate) + " is not one vector of channels for each image of src " + show(src));
  }
  if (residual != nullptr) {
    use(*residual, "residual", false);
    require_same_shape(dst, *residual, "dst and residual");
  }
  const ConvProblem problem = problem_of(*conv, src, dst, gate != nullptr);
  const Algorithm& chosen = *rank_algorithms(algorithm, problem, set_).front().algorithm;
  auto run = chosen.plan(problem, *conv, conv->packed(chosen, problem, set_, threads_), set_, activation, threads_);
  const char* op = conv->window().transposed ? "conv_transpose" : "conv";
  add(std::make_unique<ConvolveStep>(ConvolveStep::Kept{std::move(conv)}, std::move(run), op, chosen.name,
                                     problem.macs(), src, dst, residual, gate),
      std::move(name));
}

void Plan::add_depthwise_block(std::vector<std::shared_ptr<const Convolution>> convs, size_t depthwise, View src,
                               View dst, const View* residual, const std::vector<Activation>& activations,
                               const std::string& algorithm, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  if (residual != nullptr) {
    use(*residual, "residual", false);
    require_same_shape(dst, *residual, "dst and residual");
  }
  require(convs.size() == activations.size() && depthwise < convs.size() && convs.size() <= 3 && depthwise <= 1 &&
              convs.size() - depthwise <= 2,
          "a depthwise block has one activation for each convolution, one of them in front and behind at most");
  // In front of the depthwise convolution all is of src's size, from there on of dst's.
  View before = src, after = dst;
  double macs = 0;
  const auto part = [&](size_t i) {
    const View from = i <= depthwise ? before : after;
    View to = i < depthwise ? src : dst;
    to.channels = convs[i]->out_channels();
    before = after = to;
    const BlockPart made{convs[i], problem_of(*convs[i], from, to, false), activations[i]};
    macs += made.problem.macs();
    return made;
  };
  DepthwiseBlock block;
  if (depthwise > 0) block.expand = part(0);
  block.depthwise = part(depthwise);
  if (depthwise + 1 < convs.size()) block.project = part(depthwise + 1);
  require(after.channels == dst.channels, "dst " + show(dst) + " has not the channels of the last convolution");
  BlockPlan planned = plan_block(algorithm, block, set_, threads_);
  add(std::make_unique<ConvolveStep>(std::move(convs), std::move(planned.run), "depthwise_block", planned.algorithm,
                                     macs, src, dst, residual, nullptr),
      std::move(name));
}

void Plan::add_max_pool(View src, View dst, Axes kernel, Axes stride, Axes dilation, Axes padding_low,
                        std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require(src.batch == dst.batch && src.channels == dst.channels,
          "max_pool: batch or channels of src " + show(src) + " and dst " + show(dst) + " differ");
  add(make_max_pool(set_, src, dst, kernel, stride, dilation, padding_low), std::move(name));
}

void Plan::add_resample(View src, View dst, std::vector<ResampleAxis> axes, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require(src.batch == dst.batch && src.channels == dst.channels,
          "resample: batch or channels of src " + show(src) + " and dst " + show(dst) + " differ");
  require(axes.size() == kSpatialAxes, "resample: one table for each of the 3 spatial axes");
  for (int i = 0; i < kSpatialAxes; ++i) {
    const size_t count = static_cast<size_t>(dst.size[i] * axes[i].taps);
    require(axes[i].index.size() == count && axes[i].weight.size() == count,
            "resample: axis " + std::to_string(i) + " needs one index and one weight per output and tap");
    for (const int32_t index : axes[i].index) {
      require(index < src.size[i], "resample: index " + std::to_string(index) + " is outside of src " + show(src));
    }
  }
  add(make_resample(set_, src, dst, std::move(axes)), std::move(name));
}

void Plan::add_combine(Combine op, View a, View b, View dst, Activation activation, std::string name) {
  use(a, "a", false);
  use(b, "b", false);
  use(dst, "dst", true);
  require_broadcast(a, dst, "combine: a");
  require_broadcast(b, dst, "combine: b");
  add(make_combine(set_, op, a, b, dst, activation), std::move(name));
}

void Plan::add_reduce(Reduce op, View src, View dst, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require(src.batch == dst.batch, "reduce: src " + show(src) + " and dst " + show(dst) + " differ in batch");
  require_broadcast(dst, src, "reduce: dst");
  require(src.pixels() > 0, "reduce: src " + show(src) + " has no pixel to reduce");
  add(make_reduce(set_, op, src, dst), std::move(name));
}

void Plan::add_softmax(View src, View dst, bool log_of, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require_same_shape(src, dst, "src and dst");
  add(make_softmax(set_, src, dst, log_of), std::move(name));
}

void Plan::add_permute_channels(View src, View dst, std::vector<int32_t> index, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require(src.batch == dst.batch && src.size == dst.size,
          "permute_channels: src " + show(src) + " and dst " + show(dst) + " differ in more than channels");
  require(static_cast<int64_t>(index.size()) == dst.channels,
          "permute_channels: index needs one number per channel of dst " + show(dst));
  for (const int32_t i : index) {
    require(i >= 0 && i < src.channels, "permute_channels: src " + show(src) + " has no channel " + std::to_string(i));
  }
  add(make_permute_channels(set_, src, dst, std::move(index)), std::move(name));
}

void Plan::add_response_norm(View src, View dst, int64_t size, float alpha, float beta, float bias, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require_same_shape(src, dst, "src and dst");
  require(size >= 1, "local_response_norm: size must be at least 1");
  require(alpha >= 0 && bias > 0, "local_response_norm: alpha must not be negative, and bias must be positive");
  add(make_response_norm(set_, src, dst, size, alpha, beta, bias), std::move(name));
}

void Plan::add_prelu(View src, View dst, std::vector<float> slope, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require_same_shape(src, dst, "src and dst");
  require(static_cast<int64_t>(slope.size()) == src.channels,
          "prelu: slope needs one number per channel of " + show(src));
  add(make_prelu(set_, src, dst, std::move(slope)), std::move(name));
}

void Plan::add_affine(View src, View dst, std::vector<float> scale, std::vector<float> shift, Activation activation,
                      std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require_same_shape(src, dst, "src and dst");
  require(static_cast<int64_t>(scale.size()) == src.channels && static_cast<int64_t>(shift.size()) == src.channels,
          "affine: scale and shift need one number per channel of " + show(src));
  add(make_affine(set_, src, dst, std::move(scale), std::move(shift), activation), std::move(name));
}

void Plan::add_normalise(View src, View dst, int64_t groups, std::vector<float> weight, std::vector<float> bias,
                         float eps, Activation activation, std::string name) {
  use(src, "src", false);
  use(dst, "dst", true);
  require_same_shape(src, dst, "src and dst");
  require(groups >= 1 && src.channels % groups == 0,
          "normalise: " + std::to_string(groups) + " groups do not divide the channels of " + show(src));
  require(static_cast<int64_t>(weight.size()) == src.channels && static_cast<int64_t>(bias.size()) == src.channels,
          "normalise: weight and bias need one number per channel of " + show(src));
  add(make_normalise(set_, src, dst, groups, std::move(weight), std::move(bias), eps, activation), std::move(name));
}

void Plan::add_import(int buffer, View dst, std::string name) {
  use(dst, "dst", true);
  use_dense(buffer, dst, "import", false);
  add(make_import(set_, buffer, dst), std::move(name));
}

void Plan::add_export(View src, int buffer, std::string name) {
  use(src, "src", false);
  use_dense(buffer, src, "export", true);
  add(make_export(set_, src, buffer), std::move(name));
}

int64_t Plan::workspace_bytes() const { return workspace_step_ * threads_ + shared_bytes_; }

void Plan::run(std::vector<float*> buffers, size_t first, size_t last, std::vector<double>* seconds) const {
  FloatBuffer arena;
  if (buffers[0] == nullptr) {
    arena = store_->take(store_->arenas, arena_size());
    buffers[0] = arena.get();
  }
  FloatBuffer workspace = store_->take(store_->workspaces, workspace_bytes() / static_cast<int64_t>(sizeof(float)));
  RunContext context;
  context.buffers = std::move(buffers);
  context.workspace = reinterpret_cast<char*>(workspace.get());
  context.workspace_step = workspace_step_;
  context.shared = context.workspace + workspace_step_ * threads_;
  context.threads = threads_;
  for (size_t i = first; i < last; ++i) {
    const auto start = std::chrono::steady_clock::now();
    steps_[i]->run(context);
    if (seconds != nullptr) {
      seconds->push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  if (arena) store_->give(store_->arenas, std::move(arena));
  store_->give(store_->workspaces, std::move(workspace));
}

}  // namespace convoxel
