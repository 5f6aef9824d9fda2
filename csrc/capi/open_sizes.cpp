#include "open_sizes.h"

#include <algorithm>
#include <utility>

#include "../buffer.h"
#include "../mistake.h"

namespace convoxel::capi {
namespace {

// Sizes, strides and offsets; products of two of them with 2^14 to spare are still numbers of 64 bits.
constexpr int64_t kLargest = int64_t{1} << 48;

using Value = std::optional<int64_t>;

Value within(bool overflows, int64_t value) {
  if (overflows || value > kLargest || value < -kLargest) return std::nullopt;
  return value;
}

struct Operation {
  const char* name;
  Value (*compute)(int64_t a, int64_t b);
};

constexpr Operation kOperations[] = {
    {"+", [](int64_t a, int64_t b) { return within(false, a + b); }},  // operands are within kLargest
    {"-", [](int64_t a, int64_t b) { return within(false, a - b); }},
    {"*",
     [](int64_t a, int64_t b) {
       int64_t product = 0;
       const bool overflows = __builtin_mul_overflow(a, b, &product);
       return within(overflows, product);
     }},
    {"//", [](int64_t a, int64_t b) { return b == 0 ? Value() : Value(floor_div(a, b)); }},
    {"%", [](int64_t a, int64_t b) { return b == 0 ? Value() : Value(a - floor_div(a, b) * b); }},
    {"ceil", [](int64_t a, int64_t b) { return b == 0 ? Value() : Value(ceil_div(a, b)); }},
    {"truncate", [](int64_t a, int64_t b) { return b == 0 ? Value() : Value(a / b); }},
    {"max", [](int64_t a, int64_t b) { return Value(std::max(a, b)); }},
    {"min", [](int64_t a, int64_t b) { return Value(std::min(a, b)); }},
    {"==", [](int64_t a, int64_t b) { return Value(a == b); }},
    {"!=", [](int64_t a, int64_t b) { return Value(a != b); }},
    {"<", [](int64_t a, int64_t b) { return Value(a < b); }},
    {"<=", [](int64_t a, int64_t b) { return Value(a <= b); }},
    {">", [](int64_t a, int64_t b) { return Value(a > b); }},
    {">=", [](int64_t a, int64_t b) { return Value(a >= b); }},
    {"and", [](int64_t a, int64_t b) { return Value(a != 0 && b != 0); }},
    {"or", [](int64_t a, int64_t b) { return Value(a != 0 || b != 0); }},
};

Value result_of(const std::string& name, const std::vector<Value>& operands) {
  if (name == "where" && operands.size() == 3) {  // what is not chosen may have no value
    if (!operands[0]) return std::nullopt;
    return operands[*operands[0] != 0 ? 1 : 2];
  }
  for (const Operation& operation : kOperations) {
    if (name != operation.name || operands.size() != 2) continue;
    if (!operands[0] || !operands[1]) return std::nullopt;
    return operation.compute(*operands[0], *operands[1]);
  }
  refuse_content("a size has an unknown operation " + name);
}

}  // namespace

OpenSizes::OpenSizes(const Json& expressions, std::map<std::string, int64_t> names)
    : expressions_(expressions), names_(std::move(names)) {
  for (const auto& [name, value] : names_) require_content(within(false, value).has_value(), "a size is too large");
  expressions_.list();
  compute();
}

void OpenSizes::define(const std::string& name, int64_t value) {
  require_content(within(false, value).has_value(), "a size is too large");
  names_[name] = value;
  compute();
}

bool OpenSizes::operand(const Json& value, Value* found) const {
  if (value.kind == Json::Kind::kText) {
    const auto known = names_.find(value.content);
    if (known == names_.end()) return false;
    *found = known->second;
  } else if (value.is_list()) {
    const int64_t index = value.list(1)[0].integer();
    require_content(index >= 0 && index < static_cast<int64_t>(values_.size()), "a size refers to none before it");
    *found = values_[static_cast<size_t>(index)];
  } else {
    *found = within(false, value.integer());
  }
  return true;
}

void OpenSizes::compute() {
  const std::vector<Json>& all = expressions_.list();
  while (values_.size() < all.size()) {
    const std::vector<Json>& parts = all[values_.size()].list();
    require_content(!parts.empty(), "a size has no operation");
    std::vector<Value> operands(parts.size() - 1);
    for (size_t i = 0; i < operands.size(); ++i) {
      if (!operand(parts[i + 1], &operands[i])) return;
    }
    values_.push_back(result_of(parts[0].text(), operands));
  }
}

int64_t OpenSizes::number(const Json& value) const {
  Value found;
  require_content(operand(value, &found), "a size has no number");
  if (!found) throw Mistake("ShapeError", "the sizes of the inputs leave no number for one within the network");
  return *found;
}

}  // namespace convoxel::capi
