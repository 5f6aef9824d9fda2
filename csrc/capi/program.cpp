#include "program.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "../arena.h"
#include "../machine.h"
#include "../mistake.h"
#include "../system.h"
#include "argument.h"

namespace convoxel::capi {
namespace {

constexpr char kFormat[] = "convoxel-program";
constexpr int kVersion = 5;        // of the format
constexpr size_t kMostPlans = 16;  // input sizes kept planned, as in Python
constexpr size_t kMostBlocks = size_t{1} << 20;

struct StepReader {
  const char* name;
  void (*add)(Plan& plan, const Source& source, const Json& arguments);
};

// Every step of the engine.
constexpr StepReader kSteps[] = {
#define STEP(name, parameters, ...) \
  {#name, [](Plan& plan, const Source& source, const Json& values) { add_step(plan, &Plan::name, source, values); }},
#include "../steps.h"
};

// Until a calibration says otherwise, the machine is taken to be as the reference machine of its instruction set.
void use_reference_rates(const MicrokernelSet& set) {
  const Rates now = rates();
  if (now.cache == 1 && now.memory == 1) set_rates(reference_machine(set.name).rates);
}

Json checked_content(const TensorFile& file) {
  if (!file.has_text("format") || file.text("format") != kFormat) {
    throw Mistake("GraphError", "the file is no saved program; expected a file that program.save(…) wrote");
  }
  const std::string& version = file.text("version");
  const bool decimal =
      !version.empty() && version.size() < 6 && version.find_first_not_of("0123456789") == version.npos;
  if (!decimal || std::stoi(version) > kVersion) {
    throw Mistake("GraphError", "the file has format version '" + version.substr(0, 20) +
                                    "'; this library reads up to " + std::to_string(kVersion) +
                                    ". Take the library of the Convoxel that wrote it");
  }
  if (!file.has_text("native")) {
    throw Mistake("UnsupportedError",
                  "the file holds no native plans; an older Convoxel wrote it. Load it there with convoxel.load and "
                  "save it again");
  }
  const std::string& text = file.text("native");
  file.memory()->check();
  const std::string expected = file.text("checksum");
  const uint64_t found = file.checksum_with({file.text("program"), text}, default_threads());
  file.memory()->give_back();
  if (expected != std::to_string(found)) {
    throw Mistake("GraphError", "the file is damaged: its checksum is another. Save or copy the program again");
  }
  return parse_json(text);
}

std::vector<Port> read_ports(const Json& listed) {
  std::vector<Port> ports;
  for (const Json& each : listed.list()) {
    Port port;
    port.name = each.list(2)[0].text();
    for (const Json& extent : each.list(2)[1].list()) {
      const bool open = extent.kind == Json::Kind::kText;
      port.shape.push_back(open ? kOpen : bounded(extent.integer(), 1, kMostExtent));
      port.text += (port.text.empty() ? "(" : ", ") + (open ? extent.text() : std::to_string(extent.integer()));
    }
    port.text += port.text.empty() ? "()" : ")";
    ports.push_back(std::move(port));
  }
  return ports;
}

int64_t numbers(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) {
    const bool overflows = __builtin_mul_overflow(count, extent, &count);
    bounded(overflows ? INT64_MAX : count, 0, kMostNumbers);
  }
  return count;
}

}  // namespace

const MicrokernelSet& set_in_use() {
  const char* wanted = std::getenv("CONVOXEL_ISA");
  if (wanted != nullptr && *wanted != '\0') return microkernel_set(wanted);
  return *available_microkernels().sets[0];
}

std::string shown(const Shape& shape) {
  std::string text;
  for (const int64_t extent : shape) text += (text.empty() ? "(" : ", ") + std::to_string(extent);
  return text.empty() ? "()" : text + ")";
}

void SizedProgram::run(const std::vector<const float*>& inputs, const std::vector<float*>& results) const {
  const auto address = [&](const Buffer& buffer) {
    switch (buffer.role) {
      case Role::kInput:
        return const_cast<float*>(inputs[buffer.index]);  // which no step writes to
      case Role::kResult:
        return results[buffer.index];
      case Role::kConstant:
        break;
    }
    return const_cast<float*>(buffer.constant.data());
  };
  std::vector<float*> pointers{nullptr};
  for (const Buffer& buffer : buffers_) pointers.push_back(address(buffer));
  plan_->run(pointers, 0, plan_->steps().size(), nullptr);
  for (size_t i = 0; i < results.size(); ++i) {
    const float* made = pointers[sources_[i]];
    if (made != results[i]) std::memcpy(results[i], made, static_cast<size_t>(numbers(results_[i])) * sizeof(float));
  }
}

Program::Program(std::shared_ptr<const FileMemory> memory)
    : file_(std::move(memory)), content_(checked_content(file_)), set_(set_in_use()) {
  if (const Json* reason = content_.find("refused")) throw Mistake("UnsupportedError", reason->text());
  inputs_ = read_ports(content_["inputs"]);
  results_ = read_ports(content_["results"]);
  digits_ = static_cast<int>(bounded(content_["digits"].integer(), 1, 24));
  if (const Json* choices = content_["choices"].find(set_.name)) {
    require_content(choices->kind == Json::Kind::kObject, "its choices are none");
    for (size_t i = 0; i < choices->names.size(); ++i) chosen_[choices->names[i]] = choices->items[i].text();
  }
  use_reference_rates(set_);
  layers_ = std::make_unique<Layers>(file_, content_["layers"]);
}

void Program::set_threads(int threads) {
  if (threads < 0 || threads > kMostThreads) {
    throw Mistake("ConfigError", "threads is " + std::to_string(threads) + ", expected 1 to " +
                                     std::to_string(kMostThreads) + ", or 0 for all that the process may use");
  }
  std::lock_guard<ForkMutex> lock(mutex_);
  threads_ = threads;
}

int Program::threads() const {
  std::lock_guard<ForkMutex> lock(mutex_);
  return threads_ == 0 ? default_threads() : threads_;
}

std::shared_ptr<const SizedProgram> Program::sized(const Shapes& inputs) const {
  std::lock_guard<ForkMutex> lock(mutex_);
  const int threads = threads_ == 0 ? default_threads() : threads_;
  const auto found = std::find_if(planned_.begin(), planned_.end(), [&](const Planned& each) {
    return each.threads == threads && each.inputs == inputs;
  });
  if (found != planned_.end()) {
    std::rotate(found, found + 1, planned_.end());
  } else {
    std::shared_ptr<const SizedProgram> made = plan(inputs, threads);
    if (planned_.size() == kMostPlans) planned_.erase(planned_.begin());
    planned_.push_back({inputs, threads, std::move(made)});
  }
  return planned_.back().sized;
}

std::shared_ptr<const SizedProgram> Program::plan(const Shapes& inputs, int threads) const {
  std::string came;
  for (const Shape& shape : inputs) came += (came.empty() ? "" : ", ") + shown(shape);
  const std::string where = "inputs " + came + ": ";
  require(inputs.size() == inputs_.size(), where + "expected " + std::to_string(inputs_.size()) + " inputs");
  for (size_t i = 0; i < inputs.size(); ++i) {
    bool fits = inputs[i].size() == inputs_[i].shape.size();
    for (size_t axis = 0; fits && axis < inputs[i].size(); ++axis) {
      const int64_t expected = inputs_[i].shape[axis], length = inputs[i][axis];
      fits = length >= 1 && length <= kMostExtent && (expected == kOpen || expected == length);
    }
    require(fits, where + inputs_[i].name + " has shape " + shown(inputs[i]) + ", expected " + inputs_[i].text);
    numbers(inputs[i]);
  }
  file_.memory()->check();  // weights are read as they are packed
  std::string refusals;
  for (const Json& described : content_["plans"].list()) {
    const Json& bfloat16 = described["bfloat16"];  // whether tensors are stored so; null: the same on all machines
    if (!bfloat16.is_null() && bfloat16.truth() != (set_.matrix_unit != nullptr)) continue;
    std::string refusal;
    try {
      auto made = plan_as(described, inputs, threads, &refusal);
      if (made != nullptr) return made;
    } catch (const Mistake& mistake) {
      throw Mistake(mistake.kind, where + mistake.what());
    }
    refusals += (refusals.empty() ? "" : "; or ") + refusal;
  }
  throw Mistake("ShapeError", where + "the file holds plans for " + (refusals.empty() ? "no sizes" : refusals) +
                                  ". Give inputs of such sizes, or save the program with sizes=[…] that name these");
}

std::shared_ptr<const SizedProgram> Program::plan_as(const Json& described, const Shapes& inputs, int threads,
                                                     std::string* refusal) const {
  std::map<std::string, int64_t> names;
  for (const Json& each : described["axes"].list()) {
    const std::vector<Json>& axis = each.list(3);
    const size_t input = static_cast<size_t>(bounded(axis[1].integer(), 0, static_cast<int64_t>(inputs.size()) - 1));
    const int64_t last = static_cast<int64_t>(inputs[input].size()) - 1;
    names.emplace(axis[0].text(), inputs[input][static_cast<size_t>(bounded(axis[2].integer(), 0, last))]);
  }
  *refusal = described["text"].text();
  const Json& fixed = described["fixed"];
  require_content(fixed.kind == Json::Kind::kObject, "a plan fixes no sizes");
  for (size_t i = 0; i < fixed.names.size(); ++i) {
    const auto found = names.find(fixed.names[i]);
    if (found == names.end() || found->second != fixed.items[i].integer()) return nullptr;
  }

  OpenSizes sizes(described["expressions"], names);
  const auto shapes = [&](const Json& listed, size_t count) {
    Shapes found;
    for (const Json& extents : listed.list(count)) {
      found.emplace_back();
      for (const Json& extent : extents.list()) found.back().push_back(bounded(sizes.number(extent), 1, kMostExtent));
      numbers(found.back());
    }
    return found;
  };
  if (shapes(described["inputs"], inputs.size()) != inputs) return nullptr;
  for (const Json& condition : described["conditions"].list()) {
    if (sizes.number(condition.list(2)[0]) != 0) continue;
    *refusal += " where " + condition.list(2)[1].text();
    return nullptr;
  }
  auto sized = std::make_shared<SizedProgram>();
  sized->inputs_ = inputs;
  sized->results_ = shapes(described["results"], results_.size());

  const std::vector<Json>& listed = described["blocks"].list();
  require_content(listed.size() <= kMostBlocks, "it has too many buffers");
  std::vector<Block> blocks;
  for (const Json& each : listed) {
    const std::vector<Json>& parts = each.list(4);
    const int64_t first = bounded(parts[2].integer(), 0, kMostExtent);
    blocks.push_back(
        {bounded(sizes.number(parts[1]), 0, kMostNumbers), first, bounded(parts[3].integer(), first, kMostExtent)});
  }
  // The sum of all blocks, which no arena exceeds, must be a number.
  int64_t floats = 0;
  for (const Block& block : blocks) floats = bounded(floats + block.size + kAlignBytes, 0, int64_t{1} << 60);
  const Arena arena = place_blocks(blocks);
  for (size_t i = 0; i < blocks.size(); ++i) sizes.define(listed[i].list(4)[0].text(), arena.offsets[i]);
  const int64_t installed = installed_bytes();
  const auto require_memory = [&](int64_t bytes) {
    if (bytes <= installed) return;
    throw Mistake("ShapeError", "its results need " + std::to_string(bytes >> 30) + " GiB, this machine has " +
                                    std::to_string(installed >> 30));
  };
  require_memory(bounded(arena.size, 0, kMostNumbers) * static_cast<int64_t>(sizeof(float)));

  const Json& buffers = described["buffers"];
  sized->plan_ =
      std::make_unique<Plan>(arena.size, static_cast<int>(buffers.list().size()) + 1, threads, set_, digits_, chosen_);
  const Source source{file_, sizes, *layers_};
  for (const Json& step : described["steps"].list()) {
    const std::string& operation = step.list(3)[0].text();
    const auto known = std::find_if(std::begin(kSteps), std::end(kSteps),
                                    [&](const StepReader& reader) { return operation == reader.name; });
    if (known == std::end(kSteps)) refuse_content("there is no step " + operation);
    try {
      known->add(*sized->plan_, source, step.list(3)[2]);
    } catch (const Mistake& mistake) {
      throw Mistake(mistake.kind, operation + " " + step.list(3)[1].text() + ": " + mistake.what());
    }
    require_memory(sized->plan_->workspace_bytes());
  }

  const std::vector<int64_t>& needed = sized->plan_->needed();
  const std::vector<bool>& written = sized->plan_->written();
  for (size_t i = 0; i < buffers.list().size(); ++i) {
    const std::vector<Json>& parts = buffers.list()[i].list(2);
    const std::string& role = parts[0].text();
    int64_t floats_there = 0;
    SizedProgram::Buffer buffer;
    if (role == "constant") {
      // A copy: it is read in every run, and the file may change.
      buffer = {SizedProgram::Role::kConstant, 0, numbers_of<float>(file_, parts[1], "F32")};
      floats_there = static_cast<int64_t>(buffer.constant.size());
    } else {
      const bool result = role == "result";
      require_content(result || role == "input", "a buffer has an unknown role");
      const Shapes& all = result ? sized->results_ : inputs;
      const int64_t last = static_cast<int64_t>(all.size()) - 1;
      buffer = {result ? SizedProgram::Role::kResult : SizedProgram::Role::kInput,
                static_cast<size_t>(bounded(parts[1].integer(), 0, last)),
                {}};
      floats_there = numbers(all[buffer.index]);
    }
    require_content(needed[i + 1] <= floats_there * static_cast<int64_t>(sizeof(float)), "a step leaves its buffer");
    require_content(!written[i + 1] || buffer.role == SizedProgram::Role::kResult, "a step writes to what it may not");
    sized->buffers_.push_back(std::move(buffer));
  }
  for (size_t i = 0; i < results_.size(); ++i) {
    const int64_t last = static_cast<int64_t>(sized->buffers_.size());
    const size_t number =
        static_cast<size_t>(bounded(described["sources"].list(results_.size())[i].integer(), 1, last));
    const SizedProgram::Buffer& from = sized->buffers_[number - 1];
    const bool own = from.role == SizedProgram::Role::kResult && from.index == i;
    if (!own) {  // it is copied from there
      const int64_t there = from.role == SizedProgram::Role::kConstant ? -1
                            : from.role == SizedProgram::Role::kInput  ? numbers(inputs[from.index])
                                                                       : numbers(sized->results_[from.index]);
      require_content(there == numbers(sized->results_[i]), "a result has another size than its source");
    }
    sized->sources_.push_back(number);
  }
  return sized;
}

}  // namespace convoxel::capi
