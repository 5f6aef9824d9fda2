// The Python face of the core: arguments in, one call, the GIL released. No loops over data here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <thread>
#include <tuple>

#include "machine.h"
#include "plan.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace convoxel {
namespace {

using Array = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
// (buffer, offset, (n, d, h, w, c), (n, d, h, w strides))
using ViewTuple = std::tuple<int, int64_t, std::array<int64_t, 5>, std::array<int64_t, 4>>;

View to_view(const ViewTuple& t) {
  const auto& [buffer, offset, shape, strides] = t;
  View v;
  v.buffer = buffer;
  v.offset = offset;
  v.batch = shape[0];
  v.size = {shape[1], shape[2], shape[3]};
  v.channels = shape[4];
  v.batch_stride = strides[0];
  v.stride = {strides[1], strides[2], strides[3]};
  return v;
}

// The parameter of an activation, or the two of clip.
using Slope = std::array<float, 2>;

Activation to_activation(const std::string& name, const Slope& slope) {
  for (int i = 0; i < kActivationCount; ++i) {
    if (name == kActivationNames[i]) return {static_cast<ActivationKind>(i), slope[0], slope[1]};
  }
  throw std::invalid_argument("there is no activation '" + name + "'");
}

const KernelSet& kernel_set(const std::string& name) {
  const KernelSetList list = available_kernels();
  for (int i = 0; i < list.count; ++i) {
    if (name == list.sets[i]->name) return *list.sets[i];
  }
  throw std::invalid_argument("this processor has no instruction set '" + name + "'");
}

Combine to_combine(const std::string& name) {
  for (int i = 0; i < kCombineCount; ++i) {
    if (name == kCombineNames[i]) return static_cast<Combine>(i);
  }
  throw std::invalid_argument("there is no '" + name + "'");
}

Reduce to_reduce(const std::string& name) {
  for (int i = 0; i < kReduceCount; ++i) {
    if (name == kReduceNames[i]) return static_cast<Reduce>(i);
  }
  throw std::invalid_argument("there is no '" + name + "'");
}

using Weight = nb::ndarray<const float, nb::ndim<5>, nb::c_contig, nb::device::cpu>;

std::shared_ptr<Convolution> make_convolution(Weight w, std::optional<Array> bias, Axes stride, Axes padding_low,
                                              Axes dilation, int64_t groups, bool transposed, bool from_file) {
  Window window;
  window.kernel = {static_cast<int64_t>(w.shape(2)), static_cast<int64_t>(w.shape(3)),
                   static_cast<int64_t>(w.shape(4))};
  window.stride = stride;
  window.dilation = dilation;
  window.padding_low = padding_low;
  window.groups = groups;
  window.transposed = transposed;
  const int64_t first = static_cast<int64_t>(w.shape(0)), second = static_cast<int64_t>(w.shape(1));
  const int64_t in_channels = transposed ? first : second * groups;
  const int64_t out_channels = transposed ? second * groups : first;
  for (int i = 0; i < kSpatialAxes; ++i) {
    if (stride[i] < 1 || dilation[i] < 1) throw std::invalid_argument("stride and dilation must be at least 1");
  }
  if (w.size() == 0) throw std::invalid_argument("the weight is empty");
  if (groups < 1 || first % groups != 0) throw std::invalid_argument("groups must divide the weight's first axis");
  if (bias && static_cast<int64_t>(bias->size()) != out_channels) {
    throw std::invalid_argument("the bias must have one number per output channel");
  }
  // The array lives as long as its floats are needed; its last reference may go on any thread.
  const auto kept = std::make_shared<Weight>(w);
  return std::make_shared<Convolution>(window, in_channels, out_channels, std::shared_ptr<const float>(kept, w.data()),
                                       bias ? bias->data() : nullptr, from_file);
}

std::vector<float*> to_pointers(const Plan& plan, const std::vector<Array>& buffers, std::optional<Array> arena) {
  if (static_cast<int>(buffers.size()) + 1 != plan.buffer_count()) {
    throw std::invalid_argument("the plan needs " + std::to_string(plan.buffer_count() - 1) + " buffers, not " +
                                std::to_string(buffers.size()));
  }
  if (arena && static_cast<int64_t>(arena->size()) < plan.arena_size()) {
    throw std::invalid_argument("the arena is too small");
  }
  std::vector<float*> pointers = {arena ? const_cast<float*>(arena->data()) : nullptr};
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (static_cast<int64_t>(buffers[i].size()) < plan.needed(static_cast<int>(i) + 1)) {
      throw std::invalid_argument("buffer " + std::to_string(i + 1) + " has " + std::to_string(buffers[i].size()) +
                                  " floats; the plan touches " + std::to_string(plan.needed(static_cast<int>(i) + 1)));
    }
    pointers.push_back(const_cast<float*>(buffers[i].data()));
  }
  return pointers;
}

std::vector<float> to_floats(const Array& a) { return std::vector<float>(a.data(), a.data() + a.size()); }

using Int32Array = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using AxisTuple = std::tuple<Int32Array, nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>>;

ResampleAxis to_axis(const AxisTuple& t) {
  const auto& [index, weight] = t;
  if (index.shape(0) != weight.shape(0) || index.shape(1) != weight.shape(1)) {
    throw std::invalid_argument("resample: index and weight differ in shape");
  }
  ResampleAxis axis;
  axis.taps = static_cast<int64_t>(index.shape(1));
  axis.index.assign(index.data(), index.data() + index.size());
  axis.weight.assign(weight.data(), weight.data() + weight.size());
  return axis;
}

nb::list list_algorithms() {
  nb::list out;
  for (const Algorithm& a : algorithms()) {
    nb::dict row;
    row["name"] = a.name;
    row["summary"] = a.summary;
    row["exact"] = a.exact;
    row["matrix_unit"] = a.needs_matrix_unit;
    out.append(row);
  }
  return out;
}

// Seconds that this thread has run: what else the processor does meanwhile does not count.
double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The longest that one of these threads runs for its call of work(thread).
template <class Work>
double longest_run(int threads, const Work& work) {
  std::vector<double> seconds(static_cast<size_t>(threads));
  parallel_for(threads, threads, [&](int64_t chunk, int) {
    const double start = thread_seconds();
    work(static_cast<size_t>(chunk));
    seconds[static_cast<size_t>(chunk)] = thread_seconds() - start;
  });
  return *std::max_element(seconds.begin(), seconds.end());
}

// Operations per second of independent fused multiply-adds on this many threads.
double measure_ceiling(const std::string& isa, int threads, int64_t rounds) {
  const KernelSet& set = kernel_set(isa);
  std::vector<double> done(static_cast<size_t>(threads), 0.0);
  const double seconds = longest_run(threads, [&](size_t thread) { done[thread] = set.fma_burst(rounds); });
  double total = 0;
  for (const double d : done) total += d;
  return total / seconds;
}

// Bytes per second that all threads together read from buffers of their own, each `bytes` long.
double measure_reading(int threads, int64_t bytes) {
  const int64_t words = bytes / static_cast<int64_t>(sizeof(uint64_t));
  std::vector<FloatBuffer> buffers(static_cast<size_t>(threads));
  std::vector<uint64_t> found(static_cast<size_t>(threads));
  const auto read = [&](size_t thread) {  // integers: the compiler may take several at a time
    const uint64_t* p = reinterpret_cast<const uint64_t*>(buffers[thread].get());
    uint64_t all = 0;
    for (int64_t i = 0; i < words; ++i) all ^= p[i];
    found[thread] = all;
  };
  longest_run(threads, [&](size_t thread) {
    buffers[thread] = allocate_floats(2 * words);
    std::memset(buffers[thread].get(), static_cast<int>(thread), static_cast<size_t>(bytes));
    read(thread);
  });
  double best = 0, spent = 0;
  for (int i = 0; i < 5 || spent < 0.15; ++i) {
    const double seconds = longest_run(threads, read);
    spent += seconds;
    best = std::max(best, static_cast<double>(words) * sizeof(uint64_t) * threads / seconds);
  }
  return best;
}

}  // namespace
}  // namespace convoxel

NB_MODULE(_core, m) {
  using namespace convoxel;
  m.doc() = "The C++ core of Convoxel. Use convoxel.native, which checks and documents.";

  nb::class_<Convolution>(m, "Convolution")
      .def_prop_ro("in_channels", &Convolution::in_channels)
      .def_prop_ro("out_channels", &Convolution::out_channels)
      .def_prop_ro("packed_bytes", &Convolution::packed_bytes);
  m.def("make_convolution", &make_convolution, "weight"_a, "bias"_a.none(), "stride"_a, "padding_low"_a, "dilation"_a,
        "groups"_a, "transposed"_a, "from_file"_a);

  nb::class_<Plan>(m, "Plan")
      .def(
          "__init__",
          [](Plan* self, int64_t arena_size, int buffers, int threads, const std::string& isa) {
            new (self) Plan(arena_size, buffers, threads, kernel_set(isa));
          },
          "arena_size"_a, "buffers"_a, "threads"_a, "isa"_a)
      .def(
          "convolve",
          [](Plan& self, std::shared_ptr<Convolution> conv, const ViewTuple& src, const ViewTuple& dst,
             const std::optional<ViewTuple>& residual, const std::optional<ViewTuple>& gate,
             const std::string& activation, const Slope& slope, const std::string& algorithm, std::string name) {
            View view, gate_view;
            if (residual) view = to_view(*residual);
            if (gate) gate_view = to_view(*gate);
            nb::gil_scoped_release release;  // packing weights takes a while
            self.add_convolution(std::move(conv), to_view(src), to_view(dst), residual ? &view : nullptr,
                                 gate ? &gate_view : nullptr, to_activation(activation, slope), algorithm,
                                 std::move(name));
          },
          "convolution"_a, "src"_a, "dst"_a, "residual"_a.none(), "gate"_a.none(), "activation"_a, "slope"_a,
          "algorithm"_a, "name"_a)
      .def(
          "convolve_block",
          [](Plan& self, std::vector<std::shared_ptr<Convolution>> convolutions, size_t depthwise, const ViewTuple& src,
             const ViewTuple& dst, const std::optional<ViewTuple>& residual,
             const std::vector<std::pair<std::string, Slope>>& activations, const std::string& algorithm,
             std::string name) {
            View view;
            if (residual) view = to_view(*residual);
            std::vector<Activation> made;
            for (const auto& [kind, slope] : activations) made.push_back(to_activation(kind, slope));
            nb::gil_scoped_release release;  // packing weights takes a while
            self.add_depthwise_block({convolutions.begin(), convolutions.end()}, depthwise, to_view(src), to_view(dst),
                                     residual ? &view : nullptr, made, algorithm, std::move(name));
          },
          "convolutions"_a, "depthwise"_a, "src"_a, "dst"_a, "residual"_a.none(), "activations"_a, "algorithm"_a,
          "name"_a)
      .def(
          "candidates",
          [](const Plan& self, const Convolution& conv, const ViewTuple& src, const ViewTuple& dst, bool gated,
             const std::string& algorithm) {
            std::vector<std::pair<std::string, double>> out;
            for (const Candidate& c : self.candidates(conv, to_view(src), to_view(dst), gated, algorithm)) {
              out.emplace_back(c.algorithm->name, c.cost);
            }
            return out;
          },
          "convolution"_a, "src"_a, "dst"_a, "gated"_a, "algorithm"_a)
      .def(
          "max_pool",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, Axes kernel, Axes stride, Axes dilation,
             Axes padding_low, std::string name) {
            self.add_max_pool(to_view(src), to_view(dst), kernel, stride, dilation, padding_low, std::move(name));
          },
          "src"_a, "dst"_a, "kernel"_a, "stride"_a, "dilation"_a, "padding_low"_a, "name"_a)
      .def(
          "resample",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, const std::vector<AxisTuple>& axes,
             std::string name) {
            std::vector<ResampleAxis> tables;
            for (const AxisTuple& axis : axes) tables.push_back(to_axis(axis));
            self.add_resample(to_view(src), to_view(dst), std::move(tables), std::move(name));
          },
          "src"_a, "dst"_a, "axes"_a, "name"_a)
      .def(
          "combine",
          [](Plan& self, const std::string& op, const ViewTuple& a, const ViewTuple& b, const ViewTuple& dst,
             const std::string& activation, const Slope& slope, std::string name) {
            self.add_combine(to_combine(op), to_view(a), to_view(b), to_view(dst), to_activation(activation, slope),
                             std::move(name));
          },
          "op"_a, "a"_a, "b"_a, "dst"_a, "activation"_a, "slope"_a, "name"_a)
      .def(
          "reduce",
          [](Plan& self, const std::string& op, const ViewTuple& src, const ViewTuple& dst, std::string name) {
            self.add_reduce(to_reduce(op), to_view(src), to_view(dst), std::move(name));
          },
          "op"_a, "src"_a, "dst"_a, "name"_a)
      .def(
          "softmax",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, bool log, std::string name) {
            self.add_softmax(to_view(src), to_view(dst), log, std::move(name));
          },
          "src"_a, "dst"_a, "log"_a, "name"_a)
      .def(
          "permute_channels",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, std::vector<int32_t> index, std::string name) {
            self.add_permute_channels(to_view(src), to_view(dst), std::move(index), std::move(name));
          },
          "src"_a, "dst"_a, "index"_a, "name"_a)
      .def(
          "local_response_norm",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, int64_t size, float alpha, float beta, float bias,
             std::string name) {
            self.add_response_norm(to_view(src), to_view(dst), size, alpha, beta, bias, std::move(name));
          },
          "src"_a, "dst"_a, "size"_a, "alpha"_a, "beta"_a, "bias"_a, "name"_a)
      .def(
          "prelu",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, const Array& slope, std::string name) {
            self.add_prelu(to_view(src), to_view(dst), to_floats(slope), std::move(name));
          },
          "src"_a, "dst"_a, "slope"_a, "name"_a)
      .def(
          "affine",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, const Array& scale, const Array& shift,
             const std::string& activation, const Slope& slope, std::string name) {
            self.add_affine(to_view(src), to_view(dst), to_floats(scale), to_floats(shift),
                            to_activation(activation, slope), std::move(name));
          },
          "src"_a, "dst"_a, "scale"_a, "shift"_a, "activation"_a, "slope"_a, "name"_a)
      .def(
          "normalise",
          [](Plan& self, const ViewTuple& src, const ViewTuple& dst, int64_t groups, const Array& weight,
             const Array& bias, float eps, const std::string& activation, const Slope& slope, std::string name) {
            self.add_normalise(to_view(src), to_view(dst), groups, to_floats(weight), to_floats(bias), eps,
                               to_activation(activation, slope), std::move(name));
          },
          "src"_a, "dst"_a, "groups"_a, "weight"_a, "bias"_a, "eps"_a, "activation"_a, "slope"_a, "name"_a)
      .def(
          "import_channels_first",
          [](Plan& self, int buffer, const ViewTuple& dst, std::string name) {
            self.add_import(buffer, to_view(dst), std::move(name));
          },
          "buffer"_a, "dst"_a, "name"_a)
      .def(
          "export_channels_first",
          [](Plan& self, const ViewTuple& src, int buffer, std::string name) {
            self.add_export(to_view(src), buffer, std::move(name));
          },
          "src"_a, "buffer"_a, "name"_a)
      .def_prop_ro("arena_size", &Plan::arena_size)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes)
      .def_prop_ro("threads", &Plan::threads)
      .def_prop_ro("isa", [](const Plan& self) { return self.kernels().name; })
      .def_prop_ro("written",
                   [](const Plan& self) {
                     std::vector<bool> out;
                     for (int i = 0; i < self.buffer_count(); ++i) out.push_back(self.written(i));
                     return out;
                   })
      .def_prop_ro("needed",
                   [](const Plan& self) {
                     std::vector<int64_t> out;
                     for (int i = 0; i < self.buffer_count(); ++i) out.push_back(self.needed(i));
                     return out;
                   })
      .def_prop_ro("steps",
                   [](const Plan& self) {
                     nb::list out;
                     for (const auto& step : self.steps()) {
                       nb::dict row;
                       row["name"] = step->name;
                       row["operator"] = step->op();
                       row["algorithm"] = step->algorithm();
                       row["macs"] = step->macs();
                       row["workspace_bytes"] = step->workspace_bytes() * self.threads() + step->shared_bytes();
                       out.append(row);
                     }
                     return out;
                   })
      .def(
          "run",
          [](const Plan& self, const std::vector<Array>& buffers, std::optional<Array> arena, size_t first, size_t last,
             bool timed) {
            if (first > last || last > self.steps().size()) throw std::invalid_argument("there are no such steps");
            std::vector<float*> pointers = to_pointers(self, buffers, arena);
            std::vector<double> seconds;
            {
              nb::gil_scoped_release release;
              self.run(std::move(pointers), first, last, timed ? &seconds : nullptr);
            }
            return seconds;
          },
          "buffers"_a, "arena"_a.none(), "first"_a, "last"_a, "timed"_a);

  m.def("list_algorithms", &list_algorithms);
  m.def("measure_ceiling", &measure_ceiling, "isa"_a, "threads"_a, "rounds"_a,
        nb::call_guard<nb::gil_scoped_release>());
  m.def("measure_reading", &measure_reading, "threads"_a, "bytes"_a, nb::call_guard<nb::gil_scoped_release>());
  m.def("l2_bytes", &l2_bytes);
  m.def("set_rates", [](double near, double far) { set_rates({near, far}); }, "near"_a, "far"_a);
  m.def("rates", [] { return std::make_pair(rates().near, rates().far); });
  m.def("instruction_sets", [] {
    nb::list out;
    const KernelSetList list = available_kernels();
    for (int i = 0; i < list.count; ++i) {
      const KernelSet& set = *list.sets[i];
      nb::dict row;
      row["name"] = set.name;
      row["vector_floats"] = set.vector_floats;
      row["registers"] = set.registers;
      row["tile"] = std::to_string(set.tile_rows) + "x" + std::to_string(set.panel_vectors * set.vector_floats);
      row["matrix_unit"] = set.matrix_unit != nullptr;
      out.append(row);
    }
    return out;
  });
  m.attr("compiler") = CONVOXEL_COMPILER;
  nb::list names;
  for (const char* name : kActivationNames) names.append(name);
  m.attr("activations") = nb::tuple(names);
}
