// Products of blocks of bfloat16 on Intel's matrix unit (AMX).
//
// A block is 2 tiles of rows by 2 of columns: 4 of the 8 registers hold its sums, 2 hold a part of the rows, 2 a part
// of the columns. The parts are loaded in an order in which every load serves two products: with three parts a step
// takes 14 loads for its 24 products, with two parts 8 loads for 12, with one 4 for 4.

constexpr int64_t kTileElements = MatrixUnit::kRows * MatrixUnit::kElements;  // of A, and of B
constexpr int64_t kLineBytes = 64;

// Configures all tiles as 16 rows of 64 bytes.
struct alignas(kLineBytes) TileConfig {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

constexpr int kTogether = 2;  // tiles of rows that are multiplied together

// Writes the sums of R tiles of rows by N of columns over all steps into rows of 2 * 16 floats. b: the strip's first
// step.
template <int kParts, int R, int N>
void multiply_tiles(const BfloatProduct& p, int64_t tile, const uint16_t* b, Prefetch&, float* sums) {
  const uint16_t* const first = p.a + p.tiles[tile];
  const uint16_t* const second = p.a + p.tiles[tile + R - 1];
  const int64_t row = p.a_row * 2;  // in bytes, as the unit counts
  _tile_zero(0);
  if (N == 2) _tile_zero(1);
  if (R == 2) _tile_zero(2);
  if (R == 2 && N == 2) _tile_zero(3);
  for (int64_t s = 0; s < p.step_count; ++s) {
    const uint16_t* const upper = first + p.steps[s];
    const uint16_t* const lower = second + p.steps[s];
    const auto rows = [&](int part) CVX_LAMBDA {
      _tile_loadd(4, upper + part * p.a_part, row);
      if (R == 2) _tile_loadd(5, lower + part * p.a_part, row);
    };
    const auto columns = [&](int part) CVX_LAMBDA {
      _tile_loadd(6, b + (kParts - 1 - part) * N * kTileElements, kLineBytes);
      if (N == 2) _tile_loadd(7, b + ((kParts - 1 - part) * N + 1) * kTileElements, kLineBytes);
    };
    const auto multiply = [&]() CVX_LAMBDA {
      _tile_dpbf16ps(0, 4, 6);
      if (N == 2) _tile_dpbf16ps(1, 4, 7);
      if (R == 2) _tile_dpbf16ps(2, 5, 6);
      if (R == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
    };
    // Small products come first where that costs no load. The pairs of parts (rows, columns) are (0, 2) (0, 1) (1, 1)
    // (1, 0) (2, 0) (0, 0) for three parts, (0, 1) (0, 0) (1, 0) for two, (0, 0) for one.
    rows(0);
    columns(kParts - 1);
    multiply();
    if (kParts == 3) {
      columns(1);
      multiply();
      rows(1);
      multiply();
      columns(0);
      multiply();
      rows(2);
      multiply();
      rows(0);
      multiply();
    } else if (kParts == 2) {
      columns(0);
      multiply();
      rows(1);
      multiply();
    }
    b += kParts * N * kTileElements;
  }
  constexpr int64_t kStep = 2 * kV * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, sums, kStep);
  if (N == 2) _tile_stored(1, sums + kV, kStep);
  if (R == 2) _tile_stored(2, sums + MatrixUnit::kRows * 2 * kV, kStep);
  if (R == 2 && N == 2) _tile_stored(3, sums + MatrixUnit::kRows * 2 * kV + kV, kStep);
}

void begin_products() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = kLineBytes;
    config.rows[i] = MatrixUnit::kRows;
  }
  _tile_loadconfig(&config);
}

void end_products() { _tile_release(); }
