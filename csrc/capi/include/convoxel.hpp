// convoxel.h for C++17: programs and tensors that free themselves, and exceptions. Header only.
//
//   convoxel::Program network("net.cvx");
//   convoxel::Tensor image({1, 3, 224, 224});
//   std::copy(pixels.begin(), pixels.end(), image.data.begin());
//   std::vector<convoxel::Tensor> results = network.run({image});
//
// What convoxel.h says of tensors, sizes, threads and files holds here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "convoxel.h"

namespace convoxel {
inline namespace api1 {

// Why a call failed.
class Error : public std::runtime_error {
 public:
  Error(convoxel_status status, const char* reason) : std::runtime_error(reason), status_(status) {}
  convoxel_status status() const noexcept { return status_; }

 private:
  convoxel_status status_;
};

using Shape = std::vector<std::int64_t>;

// Float32 numbers, dense, channels first.
struct Tensor {
  Shape shape;
  std::vector<float> data;

  Tensor() = default;
  // Zeros.
  explicit Tensor(Shape axes) : shape(std::move(axes)), data(count(shape)) {}
  Tensor(Shape axes, std::vector<float> numbers) : shape(std::move(axes)), data(std::move(numbers)) {}

  static std::size_t count(const Shape& shape) {
    std::size_t all = 1;
    for (const std::int64_t extent : shape) all *= static_cast<std::size_t>(extent);
    return all;
  }
};

// An input or a result of a program. Axes whose length the inputs decide are CONVOXEL_OPEN.
struct Port {
  std::string name;
  Shape shape;
};

// A loaded network. Any number of threads may run it at the same time.
class Program {
 public:
  // Loads a .cvx file. Throws Error, as every function here does.
  explicit Program(const std::string& path) { check(convoxel_load_file(path.c_str(), &program_)); }
  // Loads the bytes of a .cvx file, which are copied.
  Program(const void* bytes, std::size_t size) { check(convoxel_load_bytes(bytes, size, &program_)); }
  ~Program() { convoxel_free(program_); }
  Program(Program&& other) noexcept : program_(std::exchange(other.program_, nullptr)) {}
  Program& operator=(Program&& other) noexcept {
    std::swap(program_, other.program_);
    return *this;
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  std::vector<Port> inputs() const { return ports(convoxel_input_count(program_), convoxel_input); }
  std::vector<Port> results() const { return ports(convoxel_result_count(program_), convoxel_result); }

  // 1 to 1024, or 0 for all that the process may use.
  void set_threads(int threads) { check(convoxel_set_threads(program_, threads)); }

  // Plans the program for inputs of these shapes and returns the shapes of the results.
  std::vector<Shape> prepare(const std::vector<Shape>& inputs) const {
    std::vector<convoxel_tensor> given;
    for (const Shape& shape : inputs) given.push_back(described(shape, nullptr, 0));
    std::vector<convoxel_tensor> made(convoxel_result_count(program_));
    check(convoxel_prepare(program_, given.data(), given.size(), made.data(), made.size()));
    std::vector<Shape> shapes;
    for (const convoxel_tensor& tensor : made) shapes.emplace_back(tensor.shape, tensor.shape + tensor.axes);
    return shapes;
  }

  // Returns the results for all inputs, both in the program's order.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const {
    std::vector<Shape> shapes;
    std::vector<convoxel_tensor> given;
    for (const Tensor& tensor : inputs) {
      shapes.push_back(tensor.shape);
      given.push_back(described(tensor.shape, const_cast<float*>(tensor.data.data()), tensor.data.size()));
    }
    std::vector<Tensor> results;
    std::vector<convoxel_tensor> made;
    for (Shape& shape : prepare(shapes)) results.emplace_back(std::move(shape));
    for (Tensor& tensor : results) made.push_back(described(tensor.shape, tensor.data.data(), tensor.data.size()));
    check(convoxel_run(program_, given.data(), given.size(), made.data(), made.size()));
    return results;
  }

  // For the functions of convoxel.h.
  const convoxel_program* get() const noexcept { return program_; }

 private:
  static void check(convoxel_status status) {
    if (status != CONVOXEL_OK) throw Error(status, convoxel_last_error());
  }

  static convoxel_tensor described(const Shape& shape, float* data, std::size_t count) {
    if (shape.size() > CONVOXEL_MOST_AXES) throw Error(CONVOXEL_SHAPE, "a tensor has more than 8 axes");
    convoxel_tensor tensor{nullptr, data, count, static_cast<int>(shape.size()), {}};
    for (std::size_t i = 0; i < shape.size(); ++i) tensor.shape[i] = shape[i];
    return tensor;
  }

  template <class Describe>
  std::vector<Port> ports(std::size_t count, const Describe& describe) const {
    std::vector<Port> all;
    for (std::size_t i = 0; i < count; ++i) {
      convoxel_tensor tensor{};
      check(describe(program_, i, &tensor));
      all.push_back({tensor.name, Shape(tensor.shape, tensor.shape + tensor.axes)});
    }
    return all;
  }

  convoxel_program* program_ = nullptr;
};

}  // namespace api1
}  // namespace convoxel
