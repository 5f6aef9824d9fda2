#include "json.h"

#include <algorithm>

#include "../mistake.h"

namespace convoxel::capi {

void refuse_content(const std::string& reason) {
  throw Mistake("GraphError", "the file is broken (" + reason + "). Save or copy the program again");
}

int64_t Json::integer() const {
  require_content(kind == Kind::kInteger, "a whole number is missing");
  return number;
}

bool Json::truth() const {
  require_content(kind == Kind::kBool, "a truth value is missing");
  return number != 0;
}

const std::string& Json::text() const {
  require_content(kind == Kind::kText, "a text is missing");
  return content;
}

const std::vector<Json>& Json::list() const {
  require_content(kind == Kind::kList, "a list is missing");
  return items;
}

const std::vector<Json>& Json::list(size_t count) const {
  require_content(list().size() == count, "a list has another length");
  return items;
}

const Json* Json::find(std::string_view name) const {
  require_content(kind == Kind::kObject, "an object is missing");
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? nullptr : &items[static_cast<size_t>(found - names.begin())];
}

const Json& Json::operator[](std::string_view name) const {
  const Json* found = find(name);
  if (found == nullptr) refuse_content("it lacks " + std::string(name));
  return *found;
}

namespace {

constexpr int kDeepest = 32;
constexpr size_t kMostValues = size_t{1} << 21;  // a hundred bytes each; a network of a thousand layers has some 10^5

class Parser {
 public:
  explicit Parser(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  Json whole() {
    Json value = any(0);
    skip_blanks();
    require_content(at_ == end_, "text follows its JSON");
    return value;
  }

 private:
  void skip_blanks() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  char peek() {
    skip_blanks();
    require_content(at_ != end_, "its JSON is cut off");
    return *at_;
  }

  bool take(char expected) {
    if (peek() != expected) return false;
    ++at_;
    return true;
  }

  void expect(char expected) { require_content(take(expected), "its JSON cannot be read"); }

  Json word(std::string_view spelled, Json::Kind kind, int64_t number) {
    require_content(
        static_cast<size_t>(end_ - at_) >= spelled.size() && std::string_view(at_, spelled.size()) == spelled,
        "its JSON cannot be read");
    at_ += spelled.size();
    Json value;
    value.kind = kind;
    value.number = number;
    return value;
  }

  Json any(int depth) {
    require_content(depth < kDeepest, "its JSON is nested too deeply");
    require_content(++values_ <= kMostValues, "its JSON has too many values");
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return list(depth);
      case '"': {
        Json value;
        value.kind = Json::Kind::kText;
        value.content = text();
        return value;
      }
      case 't':
        return word("true", Json::Kind::kBool, 1);
      case 'f':
        return word("false", Json::Kind::kBool, 0);
      case 'n':
        return word("null", Json::Kind::kNull, 0);
      default:
        return integer();
    }
  }

  Json object(int depth) {
    Json value;
    value.kind = Json::Kind::kObject;
    expect('{');
    if (take('}')) return value;
    do {
      require_content(peek() == '"', "its JSON cannot be read");
      value.names.push_back(text());
      expect(':');
      value.items.push_back(any(depth + 1));
    } while (take(','));
    expect('}');
    return value;
  }

  Json list(int depth) {
    Json value;
    value.kind = Json::Kind::kList;
    expect('[');
    if (take(']')) return value;
    do value.items.push_back(any(depth + 1));
    while (take(','));
    expect(']');
    return value;
  }

  Json integer() {
    Json value;
    value.kind = Json::Kind::kInteger;
    const bool negative = take('-');
    const char* first = at_;
    for (; at_ != end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
      require_content(!__builtin_mul_overflow(value.number, int64_t{10}, &value.number) &&
                          !__builtin_add_overflow(value.number, int64_t{*at_ - '0'}, &value.number),
                      "a number is too large");
    }
    require_content(at_ != first, "its JSON cannot be read");
    require_content(at_ == end_ || (*at_ != '.' && *at_ != 'e' && *at_ != 'E'), "a number is a fraction");
    if (negative) value.number = -value.number;
    return value;
  }

  uint32_t hexadecimal() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      require_content(at_ != end_, "its JSON is cut off");
      const char c = *at_++;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      require_content(digit >= 0, "its JSON has a wrong escape");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  // Appends a character of Unicode as UTF-8.
  static void append(std::string& out, uint32_t code) {
    const auto add = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      add(code);
    } else if (code < 0x800) {
      add(0xC0 | code >> 6);
      add(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      add(0xE0 | code >> 12);
      add(0x80 | (code >> 6 & 0x3F));
      add(0x80 | (code & 0x3F));
    } else {
      add(0xF0 | code >> 18);
      add(0x80 | (code >> 12 & 0x3F));
      add(0x80 | (code >> 6 & 0x3F));
      add(0x80 | (code & 0x3F));
    }
  }

  std::string text() {
    expect('"');
    std::string out;
    for (;;) {
      const char* first = at_;
      while (at_ != end_ && *at_ != '"' && *at_ != '\\') ++at_;
      out.append(first, at_);
      require_content(at_ != end_, "its JSON is cut off");
      if (*at_++ == '"') return out;
      require_content(at_ != end_, "its JSON is cut off");
      const char escape = *at_++;
      constexpr std::string_view kNames = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
      const size_t plain = kNames.find(escape);
      if (plain != std::string_view::npos) {
        out.push_back(kMeant[plain]);
        continue;
      }
      require_content(escape == 'u', "its JSON has a wrong escape");
      uint32_t code = hexadecimal();
      if (code >= 0xD800 && code < 0xDC00) {  // the first half of a pair
        require_content(end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u', "its JSON has a wrong escape");
        at_ += 2;
        code = 0x10000 + ((code - 0xD800) << 10) + ((hexadecimal() - 0xDC00) & 0x3FF);
      }
      append(out, code);
    }
  }

  const char* at_;
  const char* end_;
  size_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).whole(); }

}  // namespace convoxel::capi
