// Segments a volume with a network in a .cvx file.
//
//   segment net.cvx volume.raw DEPTH HEIGHT WIDTH labels.raw
//
// The volume is float32 in this machine's byte order, of one channel, (depth, height, width) with the width running
// fastest, prepared as the network was trained (scaled intensities, its own spacing). The labels are one byte for each
// voxel: the class with the largest result. The file comes from Python:
//
//   convoxel.compile(network, volume).save("net.cvx")
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "convoxel.hpp"

namespace {

std::vector<float> read_numbers(const std::string& path, std::size_t count) {
  std::ifstream file(path, std::ios::binary);
  std::vector<float> numbers(count);
  const auto bytes = static_cast<std::streamsize>(count * sizeof(float));
  file.read(reinterpret_cast<char*>(numbers.data()), bytes);
  if (file.gcount() != bytes || file.peek() != std::ifstream::traits_type::eof()) {
    throw std::runtime_error(path + " does not hold " + std::to_string(count) + " float32 numbers");
  }
  return numbers;
}

// The class with the largest result at each voxel; the first of equals.
std::vector<std::uint8_t> largest_class(const convoxel::Tensor& scores) {
  const std::size_t classes = static_cast<std::size_t>(scores.shape[1]);
  const std::size_t voxels = scores.data.size() / classes;
  std::vector<std::uint8_t> labels(voxels);
  for (std::size_t i = 0; i < voxels; ++i) {
    for (std::size_t c = 1; c < classes; ++c) {
      if (scores.data[c * voxels + i] > scores.data[labels[i] * voxels + i]) labels[i] = static_cast<std::uint8_t>(c);
    }
  }
  return labels;
}

}  // namespace

int main(int count, char** words) try {
  if (count != 7) throw std::runtime_error("expected net.cvx volume.raw DEPTH HEIGHT WIDTH labels.raw");
  const convoxel::Program network(words[1]);
  const convoxel::Shape shape{1, 1, std::stol(words[3]), std::stol(words[4]), std::stol(words[5])};
  network.prepare({shape});  // refuses sizes that the network does not accept
  const convoxel::Tensor volume(shape, read_numbers(words[2], convoxel::Tensor::count(shape)));
  const std::vector<convoxel::Tensor> results = network.run({volume});
  const std::vector<std::uint8_t> labels = largest_class(results.at(0));
  std::ofstream file(words[6], std::ios::binary);
  file.write(reinterpret_cast<const char*>(labels.data()), static_cast<std::streamsize>(labels.size()));
  if (!file.flush()) throw std::runtime_error(std::string(words[6]) + " cannot be written");
  std::cout << labels.size() << " voxels\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "segment: " << error.what() << "\n";
  return 2;
}
