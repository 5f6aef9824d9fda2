#include "tensor_file.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "../checksum.h"
#include "../mistake.h"
#include "json.h"

namespace convoxel::capi {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMostHeader = int64_t{100} << 20;  // as the format's own library allows

int64_t type_bytes(const std::string& type) {
  static const std::map<std::string, int64_t>& sizes = *new std::map<std::string, int64_t>{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
      {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};
  const auto found = sizes.find(type);
  require_content(found != sizes.end(), "a tensor has an unknown type");
  return found->second;
}

int64_t little_endian(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<int64_t>(value);
}

StoredTensor read_tensor(const Json& entry, const uint8_t* data, int64_t available) {
  StoredTensor tensor;
  tensor.type = entry["dtype"].text();
  tensor.bytes = type_bytes(tensor.type);
  for (const Json& extent : entry["shape"].list()) {
    require_content(extent.integer() >= 0, "a tensor has a negative size");
    require_content(!__builtin_mul_overflow(tensor.bytes, extent.integer(), &tensor.bytes), "a tensor is too large");
    tensor.shape.push_back(extent.integer());
  }
  const std::vector<Json>& ends = entry["data_offsets"].list(2);
  const int64_t begin = ends[0].integer(), end = ends[1].integer();
  require_content(begin >= 0 && end >= begin && end <= available && end - begin == tensor.bytes,
                  "a tensor lies outside of the file, or has another size than it states");
  tensor.data = data + begin;
  return tensor;
}

}  // namespace

int64_t StoredTensor::count() const {
  int64_t all = 1;
  for (const int64_t extent : shape) all *= extent;
  return all;
}

TensorFile::TensorFile(std::shared_ptr<const FileMemory> memory) : memory_(std::move(memory)) {
  const int64_t size = memory_->size();
  require_content(size > kLengthBytes, "it is too short");
  const int64_t length = little_endian(memory_->data());
  require_content(length <= kMostHeader && length <= size - kLengthBytes, "it is too short for its header");
  const char* header_text = reinterpret_cast<const char*>(memory_->data() + kLengthBytes);
  const Json header = parse_json(std::string_view(header_text, static_cast<size_t>(length)));
  const uint8_t* data = memory_->data() + kLengthBytes + length;
  const int64_t available = size - kLengthBytes - length;
  require_content(header.kind == Json::Kind::kObject, "its header is no object");
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (size_t i = 0; i < header.names.size(); ++i) {
    const std::string& name = header.names[i];
    const Json& entry = header.items[i];
    if (name == "__metadata__") {
      require_content(entry.kind == Json::Kind::kObject, "its metadata is no object");
      for (size_t t = 0; t < entry.names.size(); ++t) texts_[entry.names[t]] = entry.items[t].text();
      continue;
    }
    const auto [place, is_new] = tensors_.emplace(name, read_tensor(entry, data, available));
    require_content(is_new, "two tensors have one name");
    ranges.emplace_back(place->second.data - data, place->second.bytes);
  }
  std::sort(ranges.begin(), ranges.end());
  int64_t end = 0;
  for (const auto& [begin, bytes] : ranges) {
    require_content(begin == end, "its tensors overlap or leave gaps");
    end = begin + bytes;
  }
  require_content(end == available, "its tensors are not all that it holds");
}

const std::string& TensorFile::text(const std::string& name) const {
  const auto found = texts_.find(name);
  if (found == texts_.end()) refuse_content("it has no text " + name);
  return found->second;
}

const StoredTensor& TensorFile::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) refuse_content("it has no tensor " + name);
  return found->second;
}

const StoredTensor& TensorFile::tensor(const std::string& name, const char* type) const {
  const StoredTensor& found = tensor(name);
  if (found.type != type) refuse_content("tensor " + name + " is of type " + found.type + ", not " + type);
  const uintptr_t misplaced = reinterpret_cast<uintptr_t>(found.data) % static_cast<uintptr_t>(type_bytes(type));
  if (misplaced != 0) refuse_content("tensor " + name + " is not aligned");
  return found;
}

uint64_t TensorFile::checksum_with(const std::vector<std::string>& texts, int threads) const {
  std::vector<std::string> lines;
  for (const auto& [name, tensor] : tensors_) {
    std::string line = name + "\n" + tensor.type + "\n";
    for (const int64_t extent : tensor.shape) line += std::to_string(extent) + ",";
    lines.push_back(std::move(line));
  }
  const auto bytes = [](const std::string& s) {
    return Bytes{reinterpret_cast<const uint8_t*>(s.data()), static_cast<int64_t>(s.size())};
  };
  std::vector<Bytes> areas;
  for (const std::string& text : texts) areas.push_back(bytes(text));
  size_t next = 0;
  for (const auto& [name, tensor] : tensors_) {
    areas.push_back(bytes(lines[next++]));
    areas.push_back({tensor.data, tensor.bytes});
  }
  return checksum(areas, threads);
}

}  // namespace convoxel::capi
