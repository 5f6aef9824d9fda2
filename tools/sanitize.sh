#!/usr/bin/env bash
# Builds the engine with AddressSanitizer and UndefinedBehaviourSanitizer beside the normal one (which stays as it is),
# and runs its tests: the cases of test_guard.py with buffers from the allocator, damaged files and senseless calls
# through the C interface (FILES and CALLS of them), the steps, and every algorithm.
set -euo pipefail
cd "$(dirname "$0")/.."
root=build/sanitize
python=.venv/bin/python
# RelWithDebInfo, because nanobind strips a release of the names and lines that a finding is reported with.
cmake -S . -B "$root" -G Ninja -DCONVOXEL_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DPython_EXECUTABLE="$PWD/$python" -Dnanobind_DIR="$($python -m nanobind --cmake_dir)" >/dev/null
cmake --build "$root"
rm -rf "$root/package" && mkdir -p "$root/package"
cp -r src/convoxel "$root/package/convoxel"
cp "$root"/_core*.so "$root/package/convoxel/native/"
rm -rf "$root/seeds" && $python -m tools.c_api_fuzz --files 0 --calls 0 --seeds "$root/seeds" >/dev/null
# Without the finder of the editable install, every process that Python starts finds this package first.
cat >"$root/package/sitecustomize.py" <<'PYTHON'
import sys

sys.meta_path = [f for f in sys.meta_path if "scikit" not in type(f).__module__ and "editable" not in repr(f)]
PYTHON
export LD_PRELOAD PYTHONPATH="$root/package:."
LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so):$(${CXX:-g++} -print-file-name=libubsan.so)"
# Python leaks by design, so leaks are not reported; any other finding ends the run.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
$python -c 'from convoxel.native import _core; assert "sanitize" in _core.__file__, _core.__file__'
log="$root/guard.log"
$python -m tests.native.test_guard all --memory heap >"$log" || { tail -n 3 "$log" >&2; exit 1; }
grep '^ran' "$log"
ASAN_OPTIONS="$ASAN_OPTIONS:allocator_may_return_null=1" $python -m tools.c_api_fuzz --seeds "$root/seeds" --files "${FILES:-2000}" --calls "${CALLS:-2000}"
exec $python -m pytest -p no:cacheprovider "$@" tests/native/test_plan.py tests/native/test_conformance.py
