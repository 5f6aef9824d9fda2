#include "plan.h"

#include <algorithm>
#include <chrono>
#include <mutex>

namespace convoxel {

const MicrokernelSet& microkernel_set(const std::string& name) {
  const MicrokernelSetList list = available_microkernels();
  for (int i = 0; i < list.count; ++i) {
    if (name == list.sets[i]->name) return *list.sets[i];
  }
  throw Mistake("ConfigError", "this processor has no instruction set '" + name + "'");
}

std::string show(const View& v) {
  return "(" + std::to_string(v.batch) + ", " + std::to_string(v.size[0]) + ", " + std::to_string(v.size[1]) + ", " +
         std::to_string(v.size[2]) + ", " + std::to_string(v.channels) + ")";
}

void require_same_shape(const View& a, const View& b, const char* what) {
  require(a.batch == b.batch && a.size == b.size && a.channels == b.channels,
          std::string(what) + ": shapes " + show(a) + " and " + show(b) + " differ");
}

void require_same_element(const View& a, const View& b, const char* what) {
  require(a.element == b.element, std::string(what) + ": one is stored as " + element_name(a.element) +
                                      ", the other as " + element_name(b.element));
}

void require_broadcast(const View& narrow, const View& wide, const char* what) {
  const auto fits = [](int64_t small, int64_t large) { return small == large || small == 1; };
  require(fits(narrow.batch, wide.batch) && fits(narrow.size[0], wide.size[0]) && fits(narrow.size[1], wide.size[1]) &&
              fits(narrow.size[2], wide.size[2]) && fits(narrow.channels, wide.channels),
          std::string(what) + " " + show(narrow) + " does not broadcast to " + show(wide));
}

Activation activation_of(const std::string& name, Slope slope) {
  return {static_cast<ActivationKind>(find_name(kActivationNames, name)), slope.low, slope.high};
}

// Arenas and workspaces that no run uses at the moment. The store keeps at most kKept of each, so that a burst of
// threads does not hold memory for ever.
struct Plan::Store {
  static constexpr size_t kKept = 4;
  ForkMutex mutex;
  std::vector<FloatBuffer> arenas;
  std::vector<FloatBuffer> workspaces;

  FloatBuffer take(std::vector<FloatBuffer>& from, int64_t floats) {
    {
      std::lock_guard<ForkMutex> lock(mutex);
      if (!from.empty()) {
        FloatBuffer buffer = std::move(from.back());
        from.pop_back();
        return buffer;
      }
    }
    return allocate_floats(floats);
  }
  void give(std::vector<FloatBuffer>& to, FloatBuffer buffer) {
    std::lock_guard<ForkMutex> lock(mutex);
    if (to.size() < kKept) to.push_back(std::move(buffer));
  }
};

Plan::Plan(int64_t arena_size, int buffers, int threads, const MicrokernelSet& set, int digits,
           std::map<std::string, std::string> chosen, bool once)
    : arena_size_(arena_size),
      threads_(threads),
      set_(set),
      digits_(digits),
      chosen_(std::move(chosen)),
      once_(once),
      store_(std::make_shared<Store>()) {
  require(arena_size >= 0, "arena_size must not be negative");
  require(buffers >= 1, "a plan has at least its arena, buffer 0");
  require(threads >= 1, "threads must be at least 1");
  needed_.assign(static_cast<size_t>(buffers), 0);
  written_.assign(static_cast<size_t>(buffers), false);
}

const std::string& Plan::chosen_for(const std::string& problem) const {
  static const std::string& none = *new std::string;
  const auto found = chosen_.find(problem);
  return found == chosen_.end() ? none : found->second;
}

void Plan::use(const View& v, const char* what, bool written, Takes takes) {
  const std::string name = std::string(what) + " " + show(v);
  require(v.buffer >= 0 && v.buffer < static_cast<int>(needed_.size()),
          name + ": there is no buffer " + std::to_string(v.buffer));
  require(v.batch >= 0 && v.size[0] >= 0 && v.size[1] >= 0 && v.size[2] >= 0 && v.channels >= 1,
          name + ": sizes must not be negative, and there must be a channel");
  require(v.offset >= 0 && v.batch_stride >= 0 && v.stride[0] >= 0 && v.stride[1] >= 0 && v.stride[2] >= 0,
          name + ": offset and strides must not be negative");
  require(takes == Takes::kFloats || v.element == Element::kFloat32,
          name + ": the step takes float32, not " + element_name(v.element));
  const int64_t bytes = v.last() * element_bytes(v.element);
  const int64_t arena = arena_size_ * element_bytes(Element::kFloat32);
  require(v.buffer > 0 || bytes <= arena,
          name + ": reaches byte " + std::to_string(bytes) + " of the arena, which has " + std::to_string(arena));
  needed_[v.buffer] = std::max(needed_[v.buffer], bytes);
  if (!written) return;
  written_[v.buffer] = true;
  result_ = v;
}

void Plan::use_alike(const View& src, const View& dst, Takes takes) {
  read(src, "src", takes);
  write(dst, "dst", takes);
  require_same_shape(src, dst, "src and dst");
  require_same_element(src, dst, "src and dst");
}

void Plan::use_dense(int buffer, const View& view, const char* what, bool written) {
  View dense;
  dense.buffer = buffer;
  dense.batch = view.rows() > 0 ? 1 : 0;
  dense.channels = std::max<int64_t>(1, view.rows() * view.channels);
  use(dense, what, written, Takes::kFloat32);
}

void Plan::add(Step step) {
  workspace_step_ = std::max(workspace_step_, round_up(step.workspace_bytes, kAlignBytes));
  shared_bytes_ = std::max(shared_bytes_, round_up(step.shared_bytes, kAlignBytes));
  step.result_bytes = result_.rows() * result_.channels * element_bytes(result_.element);
  step.result_element = result_.element;
  steps_.push_back(std::move(step));
}

void Plan::run(std::vector<float*> buffers, size_t first, size_t last, std::vector<double>* seconds,
               const std::function<bool()>& go_on) const {
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
    if (i > first && go_on && !go_on()) break;
    const auto start = std::chrono::steady_clock::now();
    steps_[i].run(context);
    if (seconds != nullptr) {
      seconds->push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  if (arena) store_->give(store_->arenas, std::move(arena));
  store_->give(store_->workspaces, std::move(workspace));
}

}  // namespace convoxel
