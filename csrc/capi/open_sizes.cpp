#include "open_sizes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "../buffer.h"
#include "../mistake.h"

namespace convoxel::capi {
namespace {

// Sizes, strides and offsets; products of two of them with 2^14 to spare are still numbers of 64 bits.
constexpr int64_t kLargest = int64_t{1} << 48;

using Value = std::optional<Number>;

Value within(bool overflows, int64_t value) {
  if (overflows || value > kLargest || value < -kLargest) return std::nullopt;
  return Number(value);
}

Value within(double value) { return std::isfinite(value) ? Value(Number(value)) : std::nullopt; }

// A fraction that was rounded to a whole number.
Value whole(double value) {
  if (!(std::abs(value) <= static_cast<double>(kLargest))) return std::nullopt;
  return Number(static_cast<int64_t>(value));
}

// What an operation makes of whole numbers, and of fractions if one of its operands is one; null: nothing.
struct Operation {
  const char* name;
  Value (*of_whole)(int64_t a, int64_t b);
  Value (*of_fractions)(double a, double b);
};

template <class Compare>
constexpr Operation comparison(const char* name) {
  return {name, [](int64_t a, int64_t b) { return within(false, Compare()(a, b)); },
          [](double a, double b) { return within(false, Compare()(a, b)); }};
}

constexpr Operation kOperations[] = {
    {"+", [](int64_t a, int64_t b) { return within(false, a + b); },  // operands are within kLargest
     [](double a, double b) { return within(a + b); }},
    {"-", [](int64_t a, int64_t b) { return within(false, a - b); }, [](double a, double b) { return within(a - b); }},
    {"*",
     [](int64_t a, int64_t b) {
       int64_t product = 0;
       const bool overflows = __builtin_mul_overflow(a, b, &product);
       return within(overflows, product);
     },
     [](double a, double b) { return within(a * b); }},
    {"/", nullptr, [](double a, double b) { return within(a / b); }},
    {"//", [](int64_t a, int64_t b) { return b == 0 ? Value() : within(false, floor_div(a, b)); }, nullptr},
    {"%", [](int64_t a, int64_t b) { return b == 0 ? Value() : within(false, a - floor_div(a, b) * b); }, nullptr},
    {"ceil", [](int64_t a, int64_t b) { return b == 0 ? Value() : within(false, ceil_div(a, b)); }, nullptr},
    {"truncate", [](int64_t a, int64_t b) { return b == 0 ? Value() : within(false, a / b); }, nullptr},
    {"max", [](int64_t a, int64_t b) { return within(false, std::max(a, b)); },
     [](double a, double b) { return within(std::max(a, b)); }},
    {"min", [](int64_t a, int64_t b) { return within(false, std::min(a, b)); },
     [](double a, double b) { return within(std::min(a, b)); }},
    comparison<std::equal_to<>>("=="),
    comparison<std::not_equal_to<>>("!="),
    comparison<std::less<>>("<"),
    comparison<std::less_equal<>>("<="),
    comparison<std::greater<>>(">"),
    comparison<std::greater_equal<>>(">="),
    {"and", [](int64_t a, int64_t b) { return within(false, a != 0 && b != 0); }, nullptr},
    {"or", [](int64_t a, int64_t b) { return within(false, a != 0 || b != 0); }, nullptr},
    // The halves of the bits of a fraction.
    {"fraction",
     [](int64_t upper, int64_t lower) {
       const uint64_t bits = static_cast<uint64_t>(upper) << 32 | (static_cast<uint64_t>(lower) & UINT32_MAX);
       double value;
       std::memcpy(&value, &bits, sizeof(value));
       return within(value);
     },
     nullptr},
};

struct Rounding {
  const char* name;
  Value (*compute)(double a);
};

constexpr Rounding kRoundings[] = {
    {"float64", [](double a) { return within(a); }},
    {"float32", [](double a) { return within(static_cast<double>(static_cast<float>(a))); }},
    {"floor", [](double a) { return whole(std::floor(a)); }},
    {"ceiling", [](double a) { return whole(std::ceil(a)); }},
    {"trunc", [](double a) { return whole(std::trunc(a)); }},
    {"round", [](double a) { return whole(std::nearbyint(a)); }},  // half-way to the even number
    {"sqrt", [](double a) { return within(std::sqrt(a)); }},
};

Value result_of(const std::string& name, const std::vector<Value>& operands) {
  if (name == "where" && operands.size() == 3) {  // what is not chosen may have no value
    if (!operands[0]) return std::nullopt;
    return operands[operands[0]->as_double() != 0 ? 1 : 2];
  }
  if (operands.size() == 2) {
    for (const Operation& operation : kOperations) {
      if (name != operation.name) continue;
      if (!operands[0] || !operands[1]) return std::nullopt;
      const Number &a = *operands[0], &b = *operands[1];
      if (a.is_whole && b.is_whole) {
        return operation.of_whole != nullptr ? operation.of_whole(a.whole, b.whole) : std::nullopt;
      }
      return operation.of_fractions != nullptr ? operation.of_fractions(a.as_double(), b.as_double()) : std::nullopt;
    }
  }
  for (const Rounding& rounding : kRoundings) {
    if (name != rounding.name || operands.size() != 1) continue;
    return operands[0] ? rounding.compute(operands[0]->as_double()) : std::nullopt;
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
    *found = Number(known->second);
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
  if (!found || !found->is_whole)
    throw Mistake("ShapeError", "the sizes of the inputs leave no number for one within the network");
  return found->whole;
}

}  // namespace convoxel::capi
