#!/usr/bin/env bash
# Builds libconvoxel, the examples and tools/conformance.cpp for another processor or system, and says how to run them
# here: under an emulator.
#   tools/cross.sh aarch64|windows [OUTPUT]
# OUTPUT (default build/TARGET) then holds include, lib, bin/convoxel_conformance, the examples in examples, and `run`,
# which runs a program of these: OUTPUT/run OUTPUT/examples/classify net.cvx picture.ppm.
# Ends with 3 where the compiler or the emulator is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
target="${1:-}"
output="${2:-build/$target}"
need() {
  command -v "$1" >/dev/null || { echo "$1 is missing (Debian: apt install $2)" >&2; exit 3; }
}
case "$target" in
  aarch64)
    need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    need qemu-aarch64 qemu-user
    system=(-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc
            -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++)
    emulator="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
    ;;
  windows)
    need x86_64-w64-mingw32-g++-posix g++-mingw-w64-x86-64-posix
    PATH="$PATH:/usr/lib/wine" need wine64 wine64
    system=(-DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=x86_64 -DCMAKE_C_COMPILER=x86_64-w64-mingw32-gcc-posix
            -DCMAKE_CXX_COMPILER=x86_64-w64-mingw32-g++-posix -DCMAKE_EXE_LINKER_FLAGS=-static)
    emulator="env WINEDEBUG=-all PATH=$PATH:/usr/lib/wine wine64"
    ;;
  *)
    echo "usage: tools/cross.sh aarch64|windows [OUTPUT]" >&2
    exit 2
    ;;
esac
mkdir -p "$output"
output="$(realpath "$output")"
cmake -S . -B "$output/build" -G Ninja -DCONVOXEL_PYTHON=OFF -DCONVOXEL_CONFORMANCE=ON -DCMAKE_INSTALL_PREFIX="$output" \
  -DCMAKE_INSTALL_LIBDIR=lib "${system[@]}" >/dev/null
cmake --build "$output/build" -j "${JOBS:-2}" >/dev/null
cmake --install "$output/build" >/dev/null
cmake -S examples/native -B "$output/examples" -G Ninja -Dconvoxel_DIR="$output/lib/cmake/convoxel" "${system[@]}" >/dev/null
cmake --build "$output/examples" >/dev/null
# Windows looks for libraries beside the program.
cp "$output"/bin/*.dll "$output/examples" 2>/dev/null || true
printf '#!/bin/sh\nLD_LIBRARY_PATH= exec %s "$@"\n' "$emulator" >"$output/run"
chmod +x "$output/run"
echo "$output"
