// JSON as .cvx files hold it: texts, whole numbers, lists and objects. Fractions are not read; files write the bits of
// a float as a whole number, so that no locale and no rounding can change it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace convoxel::capi {

class Json {
 public:
  enum class Kind : uint8_t { kNull, kBool, kInteger, kText, kList, kObject };

  Kind kind = Kind::kNull;
  int64_t number = 0;              // of kInteger and kBool
  std::string content;             // of kText
  std::vector<Json> items;         // of kList, and the values of kObject
  std::vector<std::string> names;  // of kObject

  bool is_null() const { return kind == Kind::kNull; }
  bool is_list() const { return kind == Kind::kList; }
  // The following throw Mistake where the value is of another kind, or absent.
  int64_t integer() const;
  bool truth() const;
  const std::string& text() const;
  const std::vector<Json>& list() const;
  const std::vector<Json>& list(size_t count) const;  // of so many items
  const Json* find(std::string_view name) const;      // of an object; null if it has no such member
  const Json& operator[](std::string_view name) const;
};

// Throws Mistake unless the text is one JSON value, of bounded depth and number of values.
Json parse_json(std::string_view text);

// Throws the Mistake that says that a file's content makes no sense.
[[noreturn]] void refuse_content(const std::string& reason);
inline void require_content(bool fits, const char* reason) {
  if (!fits) refuse_content(reason);
}

}  // namespace convoxel::capi
