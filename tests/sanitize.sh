#!/usr/bin/env bash
# Builds the engine with AddressSanitizer and UndefinedBehaviourSanitizer beside the normal one, and runs its tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=build/sanitize
python=.venv/bin/python
cmake -S . -B "$root" -G Ninja -DCONVOXEL_SANITIZE=ON -DPython_EXECUTABLE="$PWD/$python" \
  -Dnanobind_DIR="$($python -m nanobind --cmake_dir)" >/dev/null
cmake --build "$root"
rm -rf "$root/package" && mkdir -p "$root/package"
cp -r src/convoxel "$root/package/convoxel"
cp "$root"/_core*.so "$root/package/convoxel/native/"
preload="$(${CXX:-g++} -print-file-name=libasan.so):$(${CXX:-g++} -print-file-name=libubsan.so)"
# Python itself leaks by design; a report of anything else fails the run.
LD_PRELOAD="$preload" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  PYTHONPATH="$root/package:tests" $python -c '
import sys
sys.meta_path = [f for f in sys.meta_path if "scikit" not in type(f).__module__ and "editable" not in repr(f)]
import convoxel.native, pytest
assert "sanitize" in convoxel.native._core.__file__, convoxel.native._core.__file__
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
' tests/test_native_conformance.py tests/test_native_plan.py
