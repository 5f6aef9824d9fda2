// Solves a file of convolution problems, as tools/conformance.py does, by every algorithm of every instruction set and
// without Python: for processors and systems where an emulator runs (tools/cross.sh).
//
//   convoxel_conformance FILE [most [every]]
// most: problems of more multiply-adds than this are left out (default 2000000). every: of the others, take each such
// one (default 1). Data are small whole numbers, so that direct sums are exact. Ends with 1 if a result is wrong.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "../csrc/convolution.h"
#include "../csrc/mistake.h"
#include "../csrc/plan.h"

namespace {

using convoxel::Axes;
using convoxel::View;

struct Problem {
  int64_t batch = 1, groups = 1, in_channels = 1, out_channels = 1;
  Axes size{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1}, stride{1, 1, 1}, low{0, 0, 0}, dilation{1, 1, 1};

  double macs() const {
    double all = static_cast<double>(batch * out_channels * (in_channels / groups));
    for (size_t i = 0; i < 3; ++i) all *= static_cast<double>(out[i] * kernel[i]);
    return all;
  }
};

// Reads "2d n1 g1 ic3 oc8 i5,5 o5,5 k3,3 s1,1 pl1,1 pr1,1 d1,1"; what the padding behind is, follows from the sizes.
Problem parse(const std::string& line) {
  Problem p;
  const std::map<std::string, int64_t*> numbers{
      {"n", &p.batch}, {"g", &p.groups}, {"ic", &p.in_channels}, {"oc", &p.out_channels}};
  const std::map<std::string, Axes*> axes{{"i", &p.size},   {"o", &p.out},  {"k", &p.kernel},
                                          {"s", &p.stride}, {"pl", &p.low}, {"d", &p.dilation}};
  std::istringstream words(line.substr(0, line.find('#')));
  std::string word;
  words >> word;  // the number of axes
  while (words >> word) {
    const size_t end = word.find_first_of("-0123456789");
    const std::string name = word.substr(0, end);
    std::istringstream values(word.substr(end));
    std::vector<int64_t> list;
    for (std::string value; std::getline(values, value, ',');) list.push_back(std::stoll(value));
    if (numbers.count(name) != 0) *numbers.at(name) = list.at(0);
    if (axes.count(name) == 0) continue;
    for (size_t i = 0; i < list.size(); ++i) axes.at(name)->at(3 - list.size() + i) = list[i];
  }
  return p;
}

// Whole numbers from -4 to 4.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 2654435761u + 1) {}
  std::vector<float> numbers(int64_t count) {
    std::vector<float> all(static_cast<size_t>(count));
    for (float& number : all) {
      state_ ^= state_ << 13;
      state_ ^= state_ >> 7;
      state_ ^= state_ << 17;
      number = static_cast<float>(static_cast<int64_t>(state_ >> 33) % 9 - 4);
    }
    return all;
  }

 private:
  uint64_t state_;
};

// The sums as they are defined, exact: whole numbers far below 2^24. x and the result have channels last.
std::vector<float> truth_of(const Problem& p, const std::vector<float>& x, const std::vector<float>& w,
                            const std::vector<float>& bias) {
  const int64_t in_group = p.in_channels / p.groups, out_group = p.out_channels / p.groups;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  std::vector<float> y(static_cast<size_t>(p.batch * p.out[0] * p.out[1] * p.out[2] * p.out_channels));
  size_t at = 0;
  for (int64_t row = 0; row < p.batch * p.out[0] * p.out[1] * p.out[2]; ++row) {
    const int64_t ow = row % p.out[2], oh = row / p.out[2] % p.out[1], od = row / p.out[2] / p.out[1] % p.out[0],
                  n = row / p.out[2] / p.out[1] / p.out[0];
    for (int64_t k = 0; k < p.out_channels; ++k) {
      float sum = bias[static_cast<size_t>(k)];
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t d = od * p.stride[0] - p.low[0] + tap / p.kernel[2] / p.kernel[1] * p.dilation[0];
        const int64_t h = oh * p.stride[1] - p.low[1] + tap / p.kernel[2] % p.kernel[1] * p.dilation[1];
        const int64_t v = ow * p.stride[2] - p.low[2] + tap % p.kernel[2] * p.dilation[2];
        if (d < 0 || d >= p.size[0] || h < 0 || h >= p.size[1] || v < 0 || v >= p.size[2]) continue;
        const float* from = x.data() + (((n * p.size[0] + d) * p.size[1] + h) * p.size[2] + v) * p.in_channels +
                            k / out_group * in_group;
        const float* by = w.data() + k * in_group * taps + tap;
        for (int64_t c = 0; c < in_group; ++c) sum += from[c] * by[c * taps];
      }
      y[at++] = sum;
    }
  }
  return y;
}

// Why a result is wrong; "" if it is right.
std::string mistake_of(const std::vector<float>& y, const std::vector<float>& truth, bool exact) {
  constexpr double kBound = 2e-5;  // of the relative L2 error
  double error = 0, size = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    if (exact && y[i] != truth[i]) {
      return "number " + std::to_string(i) + " is " + std::to_string(y[i]) + " instead of " + std::to_string(truth[i]);
    }
    error += (static_cast<double>(y[i]) - truth[i]) * (static_cast<double>(y[i]) - truth[i]);
    size += static_cast<double>(truth[i]) * truth[i];
  }
  return std::sqrt(error) <= kBound * std::sqrt(size) ? ""
                                                      : "relative error " + std::to_string(std::sqrt(error / size));
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::cerr << "usage: convoxel_conformance FILE [most [every]]\n";
    return 2;
  }
  const double most = count > 2 ? std::atof(words[2]) : 2e6;
  const int64_t every = count > 3 ? std::atoll(words[3]) : 1;
  std::ifstream file(words[1]);
  if (!file) {
    std::cerr << "there is no " << words[1] << "; give a file of problems\n";
    return 2;
  }
  std::map<std::string, int64_t> ran;
  int64_t number = 0, solved = 0, wrong = 0;
  const convoxel::MicrokernelSetList sets = convoxel::available_microkernels();
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const Problem p = parse(line);
    if (p.macs() > most || number++ % every != 0) continue;
    ++solved;
    Draw draw(static_cast<uint64_t>(number));
    const convoxel::Window window{p.kernel, p.stride, p.dilation, p.low, p.groups, false};
    const int64_t weights = p.out_channels * (p.in_channels / p.groups) * window.taps();
    const View src = [&] {
      View v = View::dense(p.batch, p.size, p.in_channels);
      v.buffer = 1;
      return v;
    }();
    View dst = View::dense(p.batch, p.out, p.out_channels);
    dst.buffer = 2;
    std::vector<float> x = draw.numbers(src.rows() * p.in_channels), bias = draw.numbers(p.out_channels);
    const auto w = std::make_shared<std::vector<float>>(draw.numbers(weights));
    const std::vector<float> truth = truth_of(p, x, *w, bias);
    const auto layer = std::make_shared<const convoxel::Convolution>(
        window, p.in_channels, p.out_channels, std::shared_ptr<const float>(w, w->data()), bias.data());
    int64_t algorithms = 0;
    for (int i = 0; i < sets.count; ++i) {
      for (const convoxel::Algorithm& algorithm : convoxel::algorithms()) {
        if (algorithm.digits < 16) continue;  // which has another bound
        convoxel::Plan plan(0, 3, 2, *sets.sets[i], algorithm.digits);
        try {
          plan.convolve(layer, src, dst, {}, "none", {}, algorithm.name, {}, {}, "");
        } catch (const convoxel::Mistake&) {
          continue;  // it does not support the problem
        }
        ++algorithms;
        std::vector<float> y(truth.size(), std::nanf(""));
        plan.run({nullptr, x.data(), y.data()}, 0, 1, nullptr);
        const std::string mistake = mistake_of(y, truth, algorithm.exact);
        ++ran[std::string(algorithm.name) + " " + sets.sets[i]->name];
        if (mistake.empty()) continue;
        ++wrong;
        std::cout << "WRONG " << algorithm.name << " " << sets.sets[i]->name << ": " << mistake << ": " << line << "\n";
      }
    }
    if (algorithms == 0) {
      ++wrong;
      std::cout << "WRONG no algorithm solves " << line << "\n";
    }
  }
  for (const auto& [name, times] : ran) std::cout << name << " " << times << "\n";
  std::cout << solved << " problems, " << wrong << " wrong\n";
  return wrong == 0 && solved > 0 ? 0 : 1;
}
