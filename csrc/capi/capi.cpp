// The C interface: it checks pointers, finds tensors by name, and turns exceptions into statuses.
#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../machine.h"
#include "../mistake.h"
#include "include/convoxel.h"
#include "program.h"

struct convoxel_program {
  convoxel::capi::Program program;
};

namespace convoxel::capi {
namespace {

thread_local std::string last_error;

convoxel_status status_of(const char* kind) {
  if (std::strcmp(kind, "ShapeError") == 0) return CONVOXEL_SHAPE;
  if (std::strcmp(kind, "UnsupportedError") == 0) return CONVOXEL_UNSUPPORTED;
  if (std::strcmp(kind, "GraphError") == 0) return CONVOXEL_FILE;
  return CONVOXEL_ARGUMENT;
}

convoxel_status fail(convoxel_status status, const char* call, const char* reason) noexcept {
  try {
    last_error = std::string(call) + ": " + reason + ".";
  } catch (...) {
    last_error.clear();  // there is not even memory for the reason
  }
  return status;
}

// Runs what may throw; the call's name begins the reason.
template <class Run>
convoxel_status guarded(const char* call, const Run& run) noexcept {
  try {
    run();
    return CONVOXEL_OK;
  } catch (const Mistake& mistake) {
    return fail(status_of(mistake.kind), call, mistake.what());
  } catch (const std::bad_alloc&) {
    return fail(CONVOXEL_MEMORY, call, "there is not enough memory");
  } catch (const std::exception& reason) {
    return fail(CONVOXEL_INTERNAL, call, reason.what());
  } catch (...) {
    return fail(CONVOXEL_INTERNAL, call, "an unknown exception");
  }
}

void require_argument(bool fits, const std::string& reason) {
  if (!fits) throw Mistake("ConfigError", reason);
}

convoxel_status load(const char* call, convoxel_program** program,
                     std::shared_ptr<const FileMemory> (*open)(const void*, size_t), const void* bytes,
                     size_t size) noexcept {
  if (program != nullptr) *program = nullptr;
  return guarded(call, [&] {
    require_argument(program != nullptr, "program is NULL; give the address of a pointer");
    require_argument(bytes != nullptr, "the source is NULL; give a file's path, or bytes");
    require_argument(size <= SIZE_MAX / 2, "size is larger than memory can be");
    *program = new convoxel_program{Program(open(bytes, size))};
  });
}

void describe(const std::string& name, const Shape& shape, convoxel_tensor* tensor) {
  require_argument(shape.size() <= CONVOXEL_MOST_AXES,
                   name + " has more than " + std::to_string(CONVOXEL_MOST_AXES) + " axes");
  tensor->axes = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), tensor->shape);
}

convoxel_status describe_port(const char* call, const convoxel_program* program,
                              const std::vector<Port>& (Program::*ports)() const, size_t index,
                              convoxel_tensor* tensor) noexcept {
  return guarded(call, [&] {
    require_argument(program != nullptr && tensor != nullptr, "program or tensor is NULL");
    const std::vector<Port>& all = (program->program.*ports)();
    require_argument(index < all.size(), "there is no index " + std::to_string(index) + "; expected less than " +
                                             std::to_string(all.size()));
    describe(all[index].name, all[index].shape, tensor);
    tensor->name = all[index].name.c_str();
  });
}

const char* port_name(const convoxel_program* program, const std::vector<Port>& (Program::*ports)() const,
                      size_t index) {
  if (program == nullptr) return nullptr;
  const std::vector<Port>& all = (program->program.*ports)();
  return index < all.size() ? all[index].name.c_str() : nullptr;
}

// The port that each tensor stands for.
std::vector<size_t> find_ports(const std::vector<Port>& ports, const convoxel_tensor* tensors, size_t count,
                               const char* what) {
  require_argument(tensors != nullptr || count == 0, std::string(what) + "s is NULL");
  require_argument(count <= ports.size(),
                   std::to_string(count) + " " + what + "s came, the program has " + std::to_string(ports.size()));
  std::vector<size_t> found;
  for (size_t i = 0; i < count; ++i) {
    size_t at = i;
    if (tensors[i].name != nullptr) {
      at = 0;
      while (at < ports.size() && ports[at].name != tensors[i].name) ++at;
      std::string names;
      for (const Port& port : ports) names += (names.empty() ? "" : ", ") + port.name;
      require_argument(at < ports.size(),
                       std::string("there is no ") + what + " '" + tensors[i].name + "'; expected one of " + names);
    }
    require_argument(std::find(found.begin(), found.end(), at) == found.end(),
                     std::string(what) + " '" + ports[at].name + "' came twice");
    found.push_back(at);
  }
  return found;
}

size_t numbers(const Shape& shape) {
  size_t count = 1;
  for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
  return count;
}

// A call with inputs and results: which is which, and the plan for their shapes.
struct Call {
  std::vector<size_t> inputs, results;
  std::shared_ptr<const SizedProgram> sized;

  Call(const convoxel_program* program, const convoxel_tensor* given, size_t given_count, convoxel_tensor* wanted,
       size_t wanted_count) {
    require_argument(program != nullptr, "program is NULL");
    const Program& network = program->program;
    inputs = find_ports(network.inputs(), given, given_count, "input");
    results = find_ports(network.results(), wanted, wanted_count, "result");
    require_argument(given_count == network.inputs().size(),
                     std::to_string(given_count) + " inputs came, expected " + std::to_string(network.inputs().size()));
    Shapes shapes(given_count);
    for (size_t i = 0; i < given_count; ++i) {
      require_argument(given[i].axes >= 0 && given[i].axes <= CONVOXEL_MOST_AXES,
                       "an input has " + std::to_string(given[i].axes) + " axes");
      shapes[inputs[i]].assign(given[i].shape, given[i].shape + given[i].axes);
    }
    sized = network.sized(shapes);
    for (size_t i = 0; i < wanted_count; ++i) {
      describe(network.results()[results[i]].name, sized->results()[results[i]], &wanted[i]);
    }
  }
};

void run(const convoxel_program* program, const convoxel_tensor* inputs, size_t input_count, convoxel_tensor* results,
         size_t result_count) {
  const Call call(program, inputs, input_count, results, result_count);
  const Program& network = program->program;
  std::vector<const float*> read(input_count);
  for (size_t i = 0; i < input_count; ++i) {
    const Shape shape(inputs[i].shape, inputs[i].shape + inputs[i].axes);
    const std::string& name = network.inputs()[call.inputs[i]].name;
    require_argument(inputs[i].data != nullptr, "data of input '" + name + "' is NULL");
    require(inputs[i].count >= numbers(shape), "input '" + name + "' holds " + std::to_string(inputs[i].count) +
                                                   " numbers; its shape " + shown(shape) + " has " +
                                                   std::to_string(numbers(shape)));
    read[call.inputs[i]] = inputs[i].data;
  }
  std::vector<float*> written(network.results().size());
  for (size_t i = 0; i < result_count; ++i) {
    const Shape& shape = call.sized->results()[call.results[i]];
    require(results[i].data != nullptr && results[i].count >= numbers(shape),
            "result '" + network.results()[call.results[i]].name + "' has room for " +
                std::to_string(results[i].data == nullptr ? 0 : results[i].count) + " numbers; its shape " +
                shown(shape) + " has " + std::to_string(numbers(shape)));
    written[call.results[i]] = results[i].data;
  }
  std::vector<FloatBuffer> unwanted;  // results that nobody asked for are computed all the same
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i] != nullptr) continue;
    unwanted.push_back(allocate_floats(static_cast<int64_t>(numbers(call.sized->results()[i]))));
    written[i] = unwanted.back().get();
  }
  call.sized->run(read, written);
}

}  // namespace
}  // namespace convoxel::capi

using namespace convoxel::capi;

const char* convoxel_version(void) { return CONVOXEL_VERSION; }

const char* convoxel_instruction_set(void) {
  const char* name = "";
  guarded("convoxel_instruction_set", [&] { name = set_in_use().name; });
  return name;
}

const char* convoxel_last_error(void) { return last_error.c_str(); }

convoxel_status convoxel_load_file(const char* path, convoxel_program** program) {
  return load(
      "convoxel_load_file", program, [](const void* name, size_t) { return open_file(static_cast<const char*>(name)); },
      path, 0);
}

convoxel_status convoxel_load_bytes(const void* bytes, size_t size, convoxel_program** program) {
  return load(
      "convoxel_load_bytes", program,
      [](const void* from, size_t count) { return copy_bytes(from, static_cast<int64_t>(count)); }, bytes, size);
}

void convoxel_free(convoxel_program* program) { delete program; }

size_t convoxel_input_count(const convoxel_program* program) {
  return program == nullptr ? 0 : program->program.inputs().size();
}

size_t convoxel_result_count(const convoxel_program* program) {
  return program == nullptr ? 0 : program->program.results().size();
}

const char* convoxel_input_name(const convoxel_program* program, size_t index) {
  return port_name(program, &Program::inputs, index);
}

const char* convoxel_result_name(const convoxel_program* program, size_t index) {
  return port_name(program, &Program::results, index);
}

convoxel_status convoxel_input(const convoxel_program* program, size_t index, convoxel_tensor* tensor) {
  return describe_port("convoxel_input", program, &Program::inputs, index, tensor);
}

convoxel_status convoxel_result(const convoxel_program* program, size_t index, convoxel_tensor* tensor) {
  return describe_port("convoxel_result", program, &Program::results, index, tensor);
}

convoxel_status convoxel_set_threads(convoxel_program* program, int threads) {
  return guarded("convoxel_set_threads", [&] {
    require_argument(program != nullptr, "program is NULL");
    program->program.set_threads(threads);
  });
}

convoxel_status convoxel_prepare(const convoxel_program* program, const convoxel_tensor* inputs, size_t input_count,
                                 convoxel_tensor* results, size_t result_count) {
  return guarded("convoxel_prepare", [&] { Call(program, inputs, input_count, results, result_count); });
}

convoxel_status convoxel_run(const convoxel_program* program, const convoxel_tensor* inputs, size_t input_count,
                             convoxel_tensor* results, size_t result_count) {
  return guarded("convoxel_run", [&] { run(program, inputs, input_count, results, result_count); });
}
