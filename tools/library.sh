#!/usr/bin/env bash
# Links libconvoxel from the objects of a build of the engine, installs it, and builds the examples in C and C++ against
# the installed package.
#   tools/library.sh [BUILD [OUTPUT]]   BUILD: a CMake build folder (default: the one that `make setup` made)
# OUTPUT (default build/library) then holds include, lib, and the examples in examples.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
build="${1:-$(dirname "$(ls -t build/cp*/CMakeCache.txt | head -n 1)")}"
output="${2:-build/library}"
cmake --build "$build" --target convoxel_shared convoxel_static >/dev/null
cmake --install "$build" --component library --prefix "$output" >/dev/null
cmake -S examples/native -B "$output/examples" -DCMAKE_PREFIX_PATH="$(realpath "$output")" >/dev/null
cmake --build "$output/examples" >/dev/null
echo "$output"
