// The arguments of a plan's steps, read from a file: one reader for each type that a step takes (csrc/steps.h).
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../plan.h"
#include "json.h"
#include "layers.h"
#include "open_sizes.h"
#include "tensor_file.h"

namespace convoxel::capi {

// What arguments refer to.
struct Source {
  const TensorFile& file;
  const OpenSizes& sizes;
  Layers& layers;
};

// Bounds within which no product or sum of the engine leaves 64 bits.
constexpr int64_t kMostExtent = int64_t{1} << 31;
constexpr int64_t kMostNumbers = int64_t{1} << 46;  // of a tensor, and of a buffer
constexpr int64_t kMostStep = int64_t{1} << 19;     // of a window of a pooling

inline int64_t bounded(int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    throw Mistake("ShapeError", "a number of the network is " + std::to_string(value) + ", expected " +
                                    std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

// A float as the whole number of its bits.
inline float float_of(const Json& value) {
  const uint32_t bits = static_cast<uint32_t>(bounded(value.integer(), 0, UINT32_MAX));
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

template <class Number>
std::vector<Number> numbers_of(const TensorFile& file, const Json& name, const char* type) {
  const StoredTensor& tensor = file.tensor(name.text(), type);
  const Number* data = reinterpret_cast<const Number*>(tensor.data);
  return {data, data + tensor.count()};
}

template <class T>
struct Argument;

template <class T>
T argument(const Source& source, const Json& value) {
  return Argument<T>::read(source, value);
}

template <>
struct Argument<std::string> {
  static std::string read(const Source&, const Json& value) { return value.text(); }
};
template <>
struct Argument<bool> {
  static bool read(const Source&, const Json& value) { return value.truth(); }
};
template <>
struct Argument<float> {
  static float read(const Source&, const Json& value) { return float_of(value); }
};
template <>
struct Argument<int64_t> {
  static int64_t read(const Source& source, const Json& value) {
    return bounded(source.sizes.number(value), -kMostExtent, kMostExtent);
  }
};
template <>
struct Argument<int> {
  static int read(const Source&, const Json& value) { return static_cast<int>(bounded(value.integer(), 0, 1 << 30)); }
};
template <>
struct Argument<size_t> {
  static size_t read(const Source&, const Json& value) {
    return static_cast<size_t>(bounded(value.integer(), 0, 1 << 30));
  }
};
template <>
struct Argument<Axes> {
  static Axes read(const Source& source, const Json& value) {
    Axes axes;
    for (size_t i = 0; i < axes.size(); ++i) {
      axes[i] = bounded(source.sizes.number(value.list(axes.size())[i]), -kMostStep, kMostStep);
    }
    return axes;
  }
};
template <>
struct Argument<Slope> {
  static Slope read(const Source&, const Json& value) {
    return {float_of(value.list(2)[0]), float_of(value.list(2)[1])};
  }
};
template <>
struct Argument<Levels> {
  static Levels read(const Source&, const Json& value) {
    const float scale = float_of(value.list(2)[0]);
    return {scale, static_cast<int32_t>(bounded(value.list(2)[1].integer(), 0, 255))};
  }
};
template <>
struct Argument<View> {
  static View read(const Source& source, const Json& value) {
    const std::vector<Json>& parts = value.list(5);
    const auto numbers = [&](const Json& list, size_t count, int64_t least, int64_t most) {
      std::vector<int64_t> found;
      for (const Json& each : list.list(count)) found.push_back(bounded(source.sizes.number(each), least, most));
      return found;
    };
    const std::vector<int64_t> shape = numbers(parts[2], 5, 1, kMostExtent);
    const std::vector<int64_t> strides = numbers(parts[3], 4, 0, kMostNumbers);
    View v;
    v.buffer = argument<int>(source, parts[0]);
    v.offset = bounded(source.sizes.number(parts[1]), 0, kMostNumbers);
    v.batch = shape[0];
    v.size = {shape[1], shape[2], shape[3]};
    v.channels = shape[4];
    v.batch_stride = strides[0];
    v.stride = {strides[1], strides[2], strides[3]};
    v.element = static_cast<Element>(find_name(kElementNames, parts[4].text()));
    int64_t last = v.offset + v.channels, count = 1;
    for (size_t i = 0; i < 5; ++i) {
      int64_t reach = 0;
      bool overflows = __builtin_mul_overflow(count, shape[i], &count);
      if (i < 4) overflows |= __builtin_mul_overflow(shape[i] - 1, strides[i], &reach);
      overflows |= __builtin_add_overflow(last, reach, &last);
      bounded(overflows ? INT64_MAX : std::max(count, last), 0, kMostNumbers);
    }
    return v;
  }
};
template <>
struct Argument<std::vector<float>> {
  static std::vector<float> read(const Source& source, const Json& value) {
    return numbers_of<float>(source.file, value, "F32");
  }
};
template <>
struct Argument<std::vector<int32_t>> {
  static std::vector<int32_t> read(const Source& source, const Json& value) {
    return numbers_of<int32_t>(source.file, value, "I32");
  }
};
template <>
struct Argument<double> {  // as the whole number of its bits
  static double read(const Source&, const Json& value) {
    const int64_t bits = value.integer();
    double number;
    std::memcpy(&number, &bits, sizeof(number));
    return number;
  }
};
template <class Kind>
struct Argument<std::shared_ptr<const Kind>> {  // the number of a layer, or that and its padding
  static std::shared_ptr<const Kind> read(const Source& source, const Json& value) {
    if (!value.is_list()) return source.layers.find<Kind>(argument<size_t>(source, value), std::nullopt);
    return source.layers.find<Kind>(argument<size_t>(source, value.list(2)[0]),
                                    argument<Axes>(source, value.list(2)[1]));
  }
};
template <class T>
struct Argument<std::optional<T>> {
  static std::optional<T> read(const Source& source, const Json& value) {
    if (value.is_null()) return std::nullopt;
    return argument<T>(source, value);
  }
};
template <class First, class Second>
struct Argument<std::pair<First, Second>> {
  static std::pair<First, Second> read(const Source& source, const Json& value) {
    return {argument<First>(source, value.list(2)[0]), argument<Second>(source, value.list(2)[1])};
  }
};
template <class T>
struct Argument<std::vector<T>> {
  static std::vector<T> read(const Source& source, const Json& value) {
    std::vector<T> all;
    for (const Json& each : value.list()) all.push_back(argument<T>(source, each));
    return all;
  }
};

template <>
struct Argument<AxisTable> {  // the names of index and weight, or a rule: words, numbers, fractions
  static AxisTable read(const Source& source, const Json& value) {
    const std::vector<Json>& parts = value.list();
    if (parts.size() == 3) {
      return TableRule{argument<std::vector<std::string>>(source, parts[0]),
                       argument<std::vector<int64_t>>(source, parts[1]),
                       argument<std::vector<double>>(source, parts[2])};
    }
    const StoredTensor& index = source.file.tensor(value.list(2)[0].text(), "I32");
    require_content(index.shape.size() == 2, "a table has other axes than two");
    return ResampleAxis{bounded(index.shape[1], 0, kMostExtent), numbers_of<int32_t>(source.file, parts[0], "I32"),
                        numbers_of<float>(source.file, parts[1], "F32")};
  }
};

// Calls the member function of a plan that adds a step.
template <class... Args, size_t... kIndex>
void add_step(Plan& plan, void (Plan::*add)(Args...), const Source& source, const std::vector<Json>& values,
              std::index_sequence<kIndex...>) {
  std::tuple<Args...> arguments{argument<Args>(source, values[kIndex])...};
  (plan.*add)(std::move(std::get<kIndex>(arguments))...);
}

template <class... Args>
void add_step(Plan& plan, void (Plan::*add)(Args...), const Source& source, const Json& values) {
  add_step(plan, add, source, values.list(sizeof...(Args)), std::index_sequence_for<Args...>{});
}

}  // namespace convoxel::capi
