// A safetensors file, checked: texts by name, and tensors where they lie.
//
// The file may come from anybody. Every length, offset and type that it states is checked before it is used, and the
// tensors together are exactly the bytes behind the header.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "file_memory.h"

namespace convoxel::capi {

struct StoredTensor {
  std::string type;  // as the format spells it, such as "F32"
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  int64_t bytes = 0;
  int64_t count() const;  // of its numbers
};

class TensorFile {
 public:
  // Throws Mistake unless the memory holds a safetensors file.
  explicit TensorFile(std::shared_ptr<const FileMemory> memory);

  const std::shared_ptr<const FileMemory>& memory() const { return memory_; }
  // The text of the metadata; throws Mistake if there is none.
  const std::string& text(const std::string& name) const;
  bool has_text(const std::string& name) const { return texts_.count(name) != 0; }
  // Throws Mistake if there is no such tensor, or its type is another.
  const StoredTensor& tensor(const std::string& name, const char* type) const;
  const StoredTensor& tensor(const std::string& name) const;

  // The engine's checksum of texts, then of every tensor in the order of names: a line of its name, type and shape, and
  // its bytes.
  uint64_t checksum_with(const std::vector<std::string>& texts, int threads) const;

 private:
  std::shared_ptr<const FileMemory> memory_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace convoxel::capi
