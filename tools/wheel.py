"""Wheels: built, repaired for older systems, and tested in an empty environment.

``make wheel`` writes the source archive and this Python's wheel into ``dist``; ``make wheel-test`` builds a wheel from
the archive in an empty folder, and tests the one in ``dist`` in an environment that holds nothing else::

    .venv/bin/python -m tools.wheel build
    .venv/bin/python -m tools.wheel test

The build folder of the set-up is used again, so a wheel compiles nothing anew.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MOST_BYTES = 8_000_000  # of a wheel

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
# The archive is compiled only to see that nothing is missing: without optimisation, and without kernels for one set.
FAST = ("cmake.build-type=Debug", "cmake.define.CMAKE_CXX_FLAGS_DEBUG=-O0", "cmake.define.CONVOXEL_PORTABLE=ON")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it prints; end with its output if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def one(folder: Path, pattern: str) -> Path:
    """Return the only file of a pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} holds {len(found)} files {pattern}; expected one. Run: make wheel")
    return found[0]


def build_wheel(source: Path, target: Path, *options: str) -> Path:
    """Build the wheel of a source tree with the packages that are installed."""
    given = [word for option in options for word in ("-C", option)]
    run(*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", target, *given, ".", cwd=source)
    return one(target, "*.whl")


def build() -> None:
    """Write the source archive and the wheel of this Python into ``dist``."""
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("convoxel-*"):
        old.unlink()
    run(sys.executable, "-c", "from scikit_build_core.build import build_sdist; build_sdist('dist')")
    with tempfile.TemporaryDirectory() as folder:
        made = build_wheel(ROOT, Path(folder), "cmake.define.CONVOXEL_STATIC_RUNTIME=ON")
        if sys.platform == "linux":  # auditwheel looks for patchelf in PATH
            print(run("auditwheel", "repair", "--strip", "-w", DIST, made).strip().splitlines()[-1])
        else:
            made.rename(DIST / made.name)
    for path in sorted(DIST.glob("convoxel-*")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")
    wheel = one(DIST, "*.whl")
    if wheel.stat().st_size > MOST_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size} bytes; expected at most {MOST_BYTES}")


def names(wheel: Path) -> set[str]:
    """Return the files of a wheel; the engine's name tells no build type."""
    with zipfile.ZipFile(wheel) as archive:
        listed = {name for name in archive.namelist() if not name.endswith("/")}
    return {name for name in listed if ".libs/" not in name and not name.endswith("/sboms/auditwheel.cdx.json")}


def check_archive(folder: Path) -> None:
    """Build a wheel from the source archive alone; it holds the files that the wheel in ``dist`` holds."""
    shutil.unpack_archive(one(DIST, "*.tar.gz"), folder)
    made = build_wheel(one(folder, "convoxel-*"), folder / "made", *FAST)
    differing = names(made) ^ names(one(DIST, "*.whl"))
    if differing:
        sys.exit(f"the wheel of the source archive differs in {', '.join(sorted(differing))}")
    print(f"source archive: builds in an empty folder, {len(names(made))} files as in dist")


class Environment:
    """An empty virtual environment, outside the source tree."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.folder = folder
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def install(self, *words: str | Path) -> None:
        """Install packages."""
        run(self.bin / "python", "-m", "pip", "--disable-pip-version-check", "-q", "install", *words, cwd=self.folder)

    def check(self, part: str) -> str:
        """Run a part of ``wheel_checks`` and return what it prints, in one line."""
        script = ROOT / "tools" / "wheel_checks.py"
        words: Sequence[str | Path] = (self.bin / "python", "-I", script, part, self.folder)
        return "; ".join(run(*words, cwd=self.folder).split("\n")).strip("; ")


def check_wheel(folder: Path) -> None:
    """Install the wheel into an empty environment and test it there, without and with the extra ``onnx``."""
    environment = Environment(folder)
    run(sys.executable, "-m", "tools.wheel_checks", "prepare", folder)
    environment.install(one(DIST, "*.whl"))
    told = environment.check("core")
    print(f"core: {told}")
    # What a message says is what makes it go away.
    (command,) = re.findall(r"pip install '(convoxel\[onnx\])'", environment.check("advice"))
    environment.install(command)
    print(f"{command}: {environment.check('onnx')}")


def test() -> None:
    """Test what ``build`` wrote."""
    for check in (check_wheel, check_archive):
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))


def main() -> None:
    """Run what the word says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("build", "test"))
    {"build": build, "test": test}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
