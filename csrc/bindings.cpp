// The Python interface of the core: it converts arguments and makes one call without the GIL. It holds no loops over
// data.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <tuple>
#include <variant>

#include "arena.h"
#include "checksum.h"
#include "machine.h"
#include "plan.h"
#include "system.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace convoxel {
namespace {

// (buffer, offset, (n, d, h, w, c), (n, d, h, w strides), element): the fields of native.View.
using ViewTuple = std::tuple<int, int64_t, std::array<int64_t, 5>, std::array<int64_t, 4>, std::string>;
using LevelsPair = std::pair<float, int32_t>;  // scale, zero
using SlopeVariant = std::variant<float, std::array<float, 2>>;
using Array = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
template <class Number>
using Table = nb::ndarray<const Number, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using TablePair = std::tuple<Table<int32_t>, Table<float>>;  // index, weight
using RuleTuple = std::tuple<std::vector<std::string>, std::vector<int64_t>, std::vector<double>>;
using AxisTuple = std::variant<TablePair, RuleTuple>;

View from(const ViewTuple& tuple) {
  const auto& [buffer, offset, shape, strides, element] = tuple;
  View v;
  v.buffer = buffer;
  v.offset = offset;
  v.batch = shape[0];
  v.size = {shape[1], shape[2], shape[3]};
  v.channels = shape[4];
  v.batch_stride = strides[0];
  v.stride = {strides[1], strides[2], strides[3]};
  v.element = static_cast<Element>(find_name(kElementNames, element));
  return v;
}

Slope from(const SlopeVariant& slope) {
  if (const float* single = std::get_if<float>(&slope)) return {*single};
  const auto& [low, high] = std::get<1>(slope);
  return {low, high};
}

Levels from(const LevelsPair& levels) { return {levels.first, levels.second}; }

AxisTable from(const AxisTuple& axis) {
  if (const RuleTuple* rule = std::get_if<RuleTuple>(&axis)) {
    const auto& [words, numbers, fractions] = *rule;
    return TableRule{words, numbers, fractions};
  }
  const auto& [index, weight] = std::get<TablePair>(axis);
  return ResampleAxis{static_cast<int64_t>(index.shape(1)),
                      {index.data(), index.data() + index.size()},
                      {weight.data(), weight.data() + weight.size()}};
}

std::vector<float> from(const Array& array) { return {array.data(), array.data() + array.size()}; }

}  // namespace
}  // namespace convoxel

namespace nanobind::detail {

// Converts a Python object to a Type of the core: nanobind makes a Source of it, and `from` a Type of that.
template <class Type, class Source>
struct caster_from {
  NB_TYPE_CASTER(Type, make_caster<Source>::Name)

  bool from_python(handle object, uint32_t flags, cleanup_list* cleanup) noexcept {
    make_caster<Source> source;
    if (!source.from_python(object, flags, cleanup) || !source.template can_cast<Source>()) return false;
    value = convoxel::from(source.operator cast_t<Source>());
    return true;
  }
};

template <>
struct type_caster<convoxel::View> : caster_from<convoxel::View, convoxel::ViewTuple> {
  static constexpr auto Name = const_name("convoxel.native.plan.View");
};
template <>
struct type_caster<convoxel::Slope> : caster_from<convoxel::Slope, convoxel::SlopeVariant> {
  static constexpr auto Name = const_name("float | tuple[float, float]");
};
template <>
struct type_caster<convoxel::Levels> : caster_from<convoxel::Levels, convoxel::LevelsPair> {
  static constexpr auto Name = const_name("tuple[float, int]");
};
template <>
struct type_caster<convoxel::AxisTable> : caster_from<convoxel::AxisTable, convoxel::AxisTuple> {};
template <>
struct type_caster<std::vector<float>> : caster_from<std::vector<float>, convoxel::Array> {};

}  // namespace nanobind::detail

namespace convoxel {
namespace {

// Releases the GIL for its lifetime.
//
// Once the interpreter exits, no thread but the main one gets the GIL back. Python before 3.14 ends a thread that asks,
// by pthread_exit; its unwinding meets nanobind's functions, which must not throw, and that aborts the process. So such
// a thread sleeps until the process ends, as since Python 3.14.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() { take(); }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

  // Runs Python's signal handlers if some time has passed since they last could; returns false, with the error set, if
  // one raised. Interrupts then arrive between the steps of a long run.
  bool check_signals() {
    const auto now = std::chrono::steady_clock::now();
    if (now - checked_ < kPatience || !on_main_thread()) return true;
    checked_ = now;
    take();
    const bool fine = PyErr_CheckSignals() == 0;
    state_ = PyEval_SaveThread();
    return fine;
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{50};

  void take() {
    struct SleepIfUnwound {
      bool taken = false;
      ~SleepIfUnwound() {
        if (!taken) sleep_for_ever();
      }
    } guard;
    PyEval_RestoreThread(state_);
    guard.taken = true;
  }

  PyThreadState* state_;
  std::chrono::steady_clock::time_point checked_ = std::chrono::steady_clock::now();
};

using Weight = nb::ndarray<const float, nb::ndim<5>, nb::device::cpu>;  // of any layout whose taps follow one another

template <class AnyWeight>
Layer layer_of_array(const AnyWeight& w, const Axes& stride, const Axes& padding_low, const Axes& dilation,
                     int64_t groups, bool transposed) {
  std::array<int64_t, 5> shape;
  for (size_t i = 0; i < shape.size(); ++i) shape[i] = static_cast<int64_t>(w.shape(i));
  return layer_of(shape, stride, padding_low, dilation, groups, transposed);
}

// turned: the taps are those of the array in reverse.
Kernels kernels_of(const Weight& w, const Window& window, bool turned) {
  Kernels found;
  found.tap = w.shape(4) > 1 ? w.stride(4) : w.shape(3) > 1 ? w.stride(3) : w.stride(2);
  int64_t step = found.tap;
  for (size_t axis = 5; axis-- > 2; step *= static_cast<int64_t>(w.shape(axis))) {
    require(w.shape(axis) == 1 || w.stride(axis) == step, "Convolution: the weight's taps must follow one another.");
  }
  found.out = w.stride(window.transposed ? 1 : 0);
  found.in = w.stride(window.transposed ? 0 : 1);
  found.group = w.stride(0) * static_cast<int64_t>(w.shape(0)) / window.groups;
  found.first = w.data() + (turned ? (window.taps() - 1) * found.tap : 0);
  if (turned) found.tap = -found.tap;
  return found;
}

void make_convolution(Convolution* self, Weight w, std::optional<Array> bias, Axes stride, Axes padding_low,
                      Axes dilation, int64_t groups, bool transposed, bool from_file, bool turned) {
  const Layer layer = layer_of_array(w, stride, padding_low, dilation, groups, transposed);
  if (bias) require_bias(layer, static_cast<int64_t>(bias->size()));
  // The array lives as long as its floats are needed. Any thread may drop the last reference.
  const auto kept = std::make_shared<Weight>(w);
  new (self)
      Convolution(layer.window, layer.in_channels, layer.out_channels, std::shared_ptr<const float>(kept, w.data()),
                  bias ? bias->data() : nullptr, from_file, kernels_of(w, layer.window, turned));
}

using WholeWeight = nb::ndarray<const int16_t, nb::ndim<5>, nb::c_contig, nb::device::cpu>;

void make_quantised(QuantisedConvolution* self, WholeWeight w, std::vector<float> scale, std::optional<Array> bias,
                    int32_t zero, Axes stride, Axes padding_low, Axes dilation, int64_t groups, bool transposed) {
  const Layer layer = layer_of_array(w, stride, padding_low, dilation, groups, transposed);
  new (self) QuantisedConvolution(
      layer.window, layer.in_channels, layer.out_channels, {w.data(), w.data() + w.size()}, std::move(scale),
      bias ? std::vector<float>(bias->data(), bias->data() + bias->size()) : std::vector<float>(), zero);
}

template <class AnyConvolution>
auto window_of(const AnyConvolution& self) {
  const auto triple = [](const Axes& axes) { return std::make_tuple(axes[0], axes[1], axes[2]); };
  const Window& w = self.window();
  return std::make_tuple(triple(w.kernel), triple(w.stride), triple(w.dilation), triple(w.padding_low), w.groups,
                         w.transposed);
}

// Runs steps and returns the seconds of each.
std::vector<double> run_steps(const Plan& plan, const std::vector<Array>& buffers, std::optional<Array> arena,
                              size_t first, size_t last, bool timed) {
  require(first <= last && last <= plan.steps().size(), "run: there are no such steps.");
  const size_t count = plan.needed().size() - 1;
  require(buffers.size() == count,
          "run: the plan needs " + std::to_string(count) + " buffers, not " + std::to_string(buffers.size()) + ".");
  require(!arena || static_cast<int64_t>(arena->size()) >= plan.arena_size(), "run: the arena is too small.");
  std::vector<float*> pointers = {arena ? const_cast<float*>(arena->data()) : nullptr};
  for (size_t i = 0; i < count; ++i) {
    const int64_t bytes = static_cast<int64_t>(buffers[i].nbytes()), needed = plan.needed()[i + 1];
    require(bytes >= needed, "run: buffer " + std::to_string(i + 1) + " has " + std::to_string(bytes) +
                                 " bytes; the plan touches " + std::to_string(needed) + ".");
    pointers.push_back(const_cast<float*>(buffers[i].data()));
  }
  std::vector<double> seconds;
  {
    GilReleased released;
    plan.run(std::move(pointers), first, last, timed ? &seconds : nullptr, [&] { return released.check_signals(); });
  }
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return seconds;
}

nb::list list_steps(const Plan& plan) {
  nb::list out;
  for (const Step& step : plan.steps()) {
    nb::dict row;
    row["name"] = step.name;
    row["operator"] = step.op;
    row["algorithm"] = step.algorithm;
    row["parts"] = step.parts;
    row["problems"] = step.problems;
    row["integers"] = step.integers;
    row["macs"] = step.macs;
    row["workspace_bytes"] = step.workspace_bytes * plan.threads() + step.shared_bytes;
    row["bytes"] = step.result_bytes;
    row["element"] = element_name(step.result_element);
    out.append(row);
  }
  return out;
}

// Gives Python's Plan the method `step`. It releases the GIL, since packing weights takes a while. The step gets copies
// of the arguments: what they refer to in Python is then dropped with the GIL held, after `released` has ended.
template <class... Args, class... Extra>
void bind_step(nb::class_<Plan>& plan, const char* step, void (Plan::*add)(Args...), const Extra&... extra) {
  plan.def(
      step,
      [step, add](Plan& self, Args... args, std::string name) {
        const GilReleased released;
        try {
          (self.*add)(args...);
        } catch (const Mistake& mistake) {
          throw Mistake(mistake.kind, std::string(step) + ": " + mistake.what() + ".");
        }
        self.name_last(std::move(name));
      },
      extra..., "name"_a = "");
}

// The name of a type of step arguments, by which files write them (capi/argument.h reads them).
template <class T>
struct TypeName;
template <class T>
nb::object type_name() {
  return TypeName<T>::make();
}
#define NAMED(type, text)                              \
  template <>                                          \
  struct TypeName<type> {                              \
    static nb::object make() { return nb::str(text); } \
  };
NAMED(View, "view")
NAMED(std::shared_ptr<const Convolution>, "layer")
NAMED(std::shared_ptr<const QuantisedConvolution>, "layer")
NAMED(std::string, "text")
NAMED(bool, "bool")
NAMED(float, "float")
NAMED(int, "int")
NAMED(int64_t, "int")
NAMED(size_t, "int")
NAMED(Axes, "axes")
NAMED(Slope, "slope")
NAMED(Levels, "levels")
NAMED(AxisTable, "table")
NAMED(std::vector<float>, "floats")
NAMED(std::vector<int32_t>, "int32s")
#undef NAMED
template <class T>
struct TypeName<std::optional<T>> {
  static nb::object make() { return nb::make_tuple("optional", type_name<T>()); }
};
template <class T>
struct TypeName<std::vector<T>> {
  static nb::object make() { return nb::make_tuple("list", type_name<T>()); }
};
template <class A, class B>
struct TypeName<std::pair<A, B>> {
  static nb::object make() { return nb::make_tuple("pair", type_name<A>(), type_name<B>()); }
};

// nanobind has a type for each kind of argument; those with a default hold it as `value`.
template <class Named>
auto described(const nb::object& type, const Named& a, int) -> decltype(nb::object(a.value)) {
  return nb::make_tuple(a.name_, type, a.value);
}
template <class Named>
nb::object described(const nb::object& type, const Named& a, long) {
  return nb::make_tuple(a.name_, type);
}

template <class... Args, class... Names>
nb::list list_parameters(void (Plan::*)(Args...), const char*, const Names&... names) {
  nb::list out;
  (out.append(described(type_name<Args>(), names, 0)), ...);
  return out;
}

nb::dict step_parameters() {
  nb::dict out;
#define STEP(name, parameters, ...) out[#name] = list_parameters(&Plan::name, __VA_ARGS__);
#include "steps.h"
  return out;
}

nb::list list_algorithms() {
  nb::list out;
  for (const Algorithm& a : algorithms()) {
    nb::dict row;
    row["name"] = a.name;
    row["summary"] = a.summary;
    row["exact"] = a.exact;
    row["bfloat16"] = a.needs_matrix_unit;
    row["digits"] = a.digits;
    out.append(row);
  }
  return out;
}

// The longest time that one of the threads takes for its call of work(thread).
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
  const MicrokernelSet& set = microkernel_set(isa);
  std::vector<double> done(static_cast<size_t>(threads), 0.0);
  const double seconds = longest_run(threads, [&](size_t thread) { done[thread] = set.fma_burst(rounds); });
  double total = 0;
  for (const double d : done) total += d;
  return total / seconds;
}

// A NumPy array that owns the numbers.
template <class Number>
nb::ndarray<nb::numpy, Number, nb::ndim<1>> array_of(std::vector<Number> numbers) {
  auto* kept = new std::vector<Number>(std::move(numbers));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<Number>*>(p); });
  return nb::ndarray<nb::numpy, Number, nb::ndim<1>>(kept->data(), {kept->size()}, owner);
}

using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

uint64_t checksum_arrays(const std::vector<ByteArray>& arrays, int threads) {
  std::vector<Bytes> areas;
  for (const ByteArray& array : arrays) areas.push_back({array.data(), static_cast<int64_t>(array.size())});
  const GilReleased released;
  return checksum(areas, threads);
}

// Bytes per second that all threads together read from buffers of their own, each `bytes` long: one figure a trial.
std::vector<double> measure_reading(int threads, int64_t bytes, int trials) {
  const int64_t words = bytes / static_cast<int64_t>(sizeof(uint64_t));
  std::vector<FloatBuffer> buffers(static_cast<size_t>(threads));
  std::vector<uint64_t> found(static_cast<size_t>(threads));
  const auto read = [&](size_t thread) {  // integers, whose order the compiler may change
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
  std::vector<double> speeds;
  for (int i = 0; i < trials; ++i) {
    speeds.push_back(static_cast<double>(words) * sizeof(uint64_t) * threads / longest_run(threads, read));
  }
  return speeds;
}

}  // namespace
}  // namespace convoxel

NB_MODULE(_core, m) {
  using namespace convoxel;
  m.doc() = "The C++ core of Convoxel. Use convoxel.native, which checks and documents.";
  // At exit, threads may still be inside the engine; what they hold is no leak to report.
  nb::set_leak_warnings(false);
  // First uses whose results stay. A child that forks during one would wait for its end for ever.
  algorithms(), available_microkernels(), processors(), l2_bytes(), reference_machines();
  // Imported once and kept: an import runs Python code, during which a thread may have to end.
  PyObject* errors = nb::module_::import_("convoxel.errors").release().ptr();
  nb::register_exception_translator(
      [](const std::exception_ptr& thrown, void* errors) {
        try {
          std::rethrow_exception(thrown);
        } catch (const Mistake& mistake) {
          PyErr_SetString(nb::handle(static_cast<PyObject*>(errors)).attr(mistake.kind).ptr(), mistake.what());
        }
      },
      errors);

  nb::class_<Convolution>(m, "Convolution")
      .def("__init__", &make_convolution, "weight"_a, "bias"_a.none(), "stride"_a, "padding_low"_a, "dilation"_a,
           "groups"_a, "transposed"_a, "from_file"_a, "turned"_a)
      .def_prop_ro("window", &window_of<Convolution>, "kernel, stride, dilation, padding_low, groups, transposed.")
      .def_prop_ro("in_channels", &Convolution::in_channels)
      .def_prop_ro("out_channels", &Convolution::out_channels)
      .def_prop_ro("packed_bytes", &Convolution::packed_bytes,
                   "Bytes of weights packed so far, over all algorithms that asked for them.");

  nb::class_<QuantisedConvolution>(m, "QuantisedConvolution")
      .def("__init__", &make_quantised, "weight"_a, "scale"_a, "bias"_a.none(), "zero"_a, "stride"_a, "padding_low"_a,
           "dilation"_a, "groups"_a, "transposed"_a)
      .def_prop_ro("window", &window_of<QuantisedConvolution>,
                   "kernel, stride, dilation, padding_low, groups, transposed.")
      .def_prop_ro("in_channels", &QuantisedConvolution::in_channels)
      .def_prop_ro("out_channels", &QuantisedConvolution::out_channels);

  nb::class_<Plan> plan(m, "Plan");
  plan.def(
          "__init__",
          [](Plan* self, int64_t arena_size, int buffers, int threads, const std::string& isa, int digits,
             std::map<std::string, std::string> chosen, bool once) {
            new (self) Plan(arena_size, buffers, threads, microkernel_set(isa), digits, std::move(chosen), once);
          },
          "arena_size"_a, "buffers"_a, "threads"_a, "isa"_a, "digits"_a = 24, "chosen"_a = nb::dict(), "once"_a = false)
      .def(
          "candidates",
          [](const Plan& self, const Convolution& conv, View src, View dst, const std::string& algorithm, bool gated) {
            std::vector<std::pair<std::string, double>> out;
            for (const Candidate& c : self.candidates(conv, src, dst, algorithm, gated)) {
              out.emplace_back(c.algorithm->name, c.cost);
            }
            return out;
          },
          "The algorithms that ``convolve`` could choose among and their expected cost, cheapest first.\n\n"
          "A unit of cost is one vector's multiply-add at full speed on all cores. An infinite one says that the\n"
          "algorithm can run but loses more accuracy than it may unasked.",
          "convolution"_a, "src"_a, "dst"_a, "algorithm"_a = "auto", "gated"_a = false)
      .def_prop_ro("arena_size", &Plan::arena_size)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes,
                   "Scratch bytes that the steps' threads need together, beside the arena.")
      .def_prop_ro("threads", &Plan::threads)
      .def_prop_ro("isa", [](const Plan& self) { return self.microkernels().name; })
      .def_prop_ro("written", &Plan::written)
      .def_prop_ro(
          "steps", &list_steps,
          "The steps so far: name, operator, algorithm, parts (the algorithms of a block), problems (the texts of its "
          "convolutions' problems), integers, macs, workspace_bytes (of all threads), bytes and element (of the "
          "result).")
      .def("__len__", [](const Plan& self) { return self.steps().size(); })
      .def("run_steps", &run_steps, "buffers"_a, "arena"_a.none(), "first"_a, "last"_a, "timed"_a);
#define STEP(name, parameters, ...) bind_step(plan, #name, &Plan::name, __VA_ARGS__);
#include "steps.h"

  m.def("list_algorithms", &list_algorithms);
  m.def("step_parameters", &step_parameters,
        "The parameters of every step by its name: (name, type) or (name, type, default) of each.");
  m.def(
      "problem_text",
      [](const Axes& kernel, const Axes& stride, const Axes& dilation, const Axes& padding_low, int64_t groups,
         bool transposed, const std::array<int64_t, 5>& in_shape, const std::array<int64_t, 5>& out_shape,
         const std::string& activation, bool residual, bool gated, const std::string& in_element,
         const std::string& out_element) {
        const Window window{kernel, stride, dilation, padding_low, groups, transposed};
        const auto element = [](const std::string& name) {
          return static_cast<Element>(find_name(kElementNames, name));
        };
        return problem_text(window, in_shape, out_shape, activation, residual, gated, element(in_element),
                            element(out_element));
      },
      "kernel"_a, "stride"_a, "dilation"_a, "padding_low"_a, "groups"_a, "transposed"_a, "in_shape"_a, "out_shape"_a,
      "activation"_a, "residual"_a, "gated"_a, "in_element"_a, "out_element"_a);
  m.def(
      "place_blocks",
      [](const std::vector<std::array<int64_t, 3>>& blocks) {
        std::vector<Block> given;
        for (const auto& [size, first, last] : blocks) given.push_back({size, first, last});
        const Arena arena = place_blocks(given);
        return std::make_pair(arena.offsets, arena.size);
      },
      "blocks"_a);
  m.def(
      "index_table",
      [](std::vector<std::string> words, std::vector<int64_t> numbers, std::vector<double> fractions, int64_t size,
         int64_t out) {
        ResampleAxis made = make_table({std::move(words), std::move(numbers), std::move(fractions)}, size, out);
        return std::make_tuple(made.taps, array_of(std::move(made.index)), array_of(std::move(made.weight)));
      },
      "words"_a, "numbers"_a, "fractions"_a, "size"_a, "out"_a);
  m.def("checksum", &checksum_arrays, "arrays"_a, "threads"_a);
  m.def("measure_ceiling", &measure_ceiling, "isa"_a, "threads"_a, "rounds"_a, nb::call_guard<GilReleased>());
  m.def("measure_reading", &measure_reading, "threads"_a, "bytes"_a, "trials"_a, nb::call_guard<GilReleased>());
  m.def("l2_bytes", &l2_bytes);
  m.def("set_rates", [](double cache, double memory) { set_rates({cache, memory}); }, "cache"_a, "memory"_a);
  m.def("rates", [] { return std::make_pair(rates().cache, rates().memory); });
  m.def("reference_machines", [] {
    nb::list out;
    for (const auto& [set, machine] : reference_machines()) {
      nb::dict row;
      row["instruction_set"] = set;
      row["threads"] = machine.threads;
      row["l2_bytes"] = machine.l2_bytes;
      row["cache"] = machine.rates.cache;
      row["memory"] = machine.rates.memory;
      out.append(row);
    }
    return out;
  });
  m.def("most_integer_products", [] { return kMostProducts; });
  m.def(
      "integer_units",
      [](const std::string& isa) {
        nb::list out;
        for (const IntegerUnit* unit : available_integer_units(isa)) {
          nb::dict row;
          row["name"] = unit->name;
          row["summary"] = unit->summary;
          out.append(row);
        }
        return out;
      },
      "isa"_a);
  m.def("instruction_sets", [] {
    nb::list out;
    const MicrokernelSetList list = available_microkernels();
    for (int i = 0; i < list.count; ++i) {
      const MicrokernelSet& set = *list.sets[i];
      nb::dict row;
      row["name"] = set.name;
      row["vector_floats"] = set.vector_floats;
      row["registers"] = set.registers;
      row["tile"] = std::to_string(set.tile_rows) + "x" + std::to_string(set.panel_vectors * set.vector_floats);
      row["bfloat16"] = set.matrix_unit != nullptr;
      row["matrix_unit"] = set.matrix_unit != nullptr && set.matrix_unit->tiles;
      out.append(row);
    }
    return out;
  });
  m.attr("compiler") = CONVOXEL_COMPILER;
  nb::list names;
  for (const char* name : kActivationNames) names.append(name);
  m.attr("activations") = nb::tuple(names);
}
