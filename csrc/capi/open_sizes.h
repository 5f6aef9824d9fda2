// Numbers that follow from the sizes of a program's inputs: expressions as files hold them, and their values.
//
// A file lists expressions, each a list of an operation and its operands: a number, the name of a size, or [k] for the
// value of expression k, which comes before. What divides by zero or leaves 64 bits has no value, and is an error only
// where it is asked for. Where a network computes with a size as a float, so do the expressions, in double precision.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "json.h"

namespace convoxel::capi {

struct Number {
  explicit Number(int64_t value) : whole(value) {}
  explicit Number(double value) : fraction(value), is_whole(false) {}
  double as_double() const { return is_whole ? static_cast<double>(whole) : fraction; }

  int64_t whole = 0;
  double fraction = 0;
  bool is_whole = true;
};

class OpenSizes {
 public:
  // names: what is known before the first expression is computed.
  OpenSizes(const Json& expressions, std::map<std::string, int64_t> names);

  // Computes the expressions that can be: up to the first one with a name that `define` has yet to define.
  void define(const std::string& name, int64_t value);
  // The number that a value of the file stands for: itself, the size of a name, or [k]. Throws Mistake if there is
  // none.
  int64_t number(const Json& value) const;

 private:
  using Value = std::optional<Number>;
  void compute();
  bool operand(const Json& value, Value* found) const;  // false: a name that is not defined yet

  const Json& expressions_;
  std::map<std::string, int64_t> names_;
  std::vector<Value> values_;
};

}  // namespace convoxel::capi
