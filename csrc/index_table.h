// Tables of weighted sums along an axis, computed from rules: what resizing, average pooling and padding read.
//
// Python takes its tables from here, too. A rule knows no sizes, so a file that holds rules serves all of them.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace convoxel {

// One axis of a resampling: output o = sum over t of weight[o * taps + t] * input[index[o * taps + t]]; an index
// below 0 is no tap.
struct ResampleAxis {
  int64_t taps = 0;
  std::vector<int32_t> index;
  std::vector<float> weight;
};

// convoxel.graph.operators.index_tables writes them and says what they mean.
struct TableRule {
  std::vector<std::string> words;  // the rule's name, and its modes
  std::vector<int64_t> numbers;
  std::vector<double> fractions;
};

using AxisTable = std::variant<ResampleAxis, TableRule>;

// The table from an axis of `size` to one of `out` positions; throws Mistake if there is no such rule.
ResampleAxis make_table(const TableRule& rule, int64_t size, int64_t out);

// Whether the tables average every axis that they do not copy as a whole.
bool is_mean(const std::vector<AxisTable>& axes, const int64_t* sizes, const int64_t* outs);

}  // namespace convoxel
