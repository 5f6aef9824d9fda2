"""A few cases of ``tools.faults``, so that the sweeps themselves stay right; the command runs thousands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("cc")),
    reason="faults are injected by a library for Linux, built here",
)


def test_a_few_faults_are_survived(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tools.faults", "--folder", str(tmp_path), "--cases", "4", "writes", "mutations"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "seed0" / "sample.jsonl").read_text().splitlines()]
    assert [row for row in rows if row[2]] == []
    assert [(name, number) for name, number, _ in rows] == [(s, n) for s in ("writes", "mutations") for n in range(4)]


def test_a_writer_that_is_not_atomic_is_found(tmp_path: Path) -> None:
    """The sweep must reject a command that opens its file by name and writes it piece by piece."""
    code = """
import sys
from pathlib import Path
from convoxel.files import atomic
def careless(path, content, error=None):
    try:
        with open(path, "wb", buffering=0) as file:
            for begin in range(0, len(content), 512):
                file.write(content[begin:begin + 512])
    except OSError as reason:
        raise error(str(reason))
    return Path(path)
import convoxel.draw.figure
convoxel.draw.figure.write_bytes = careless
sys.argv = ["faults", *sys.argv[1:]]
from tools.faults.__main__ import main
sys.exit(main())
"""
    folder = tmp_path / "faults"
    build = f"from pathlib import Path; from tools.faults import shim; print(shim.build(Path({str(folder)!r})))"
    here = Path(__file__).parents[1]
    library = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=True, cwd=here).stdout
    words = [sys.executable, "-c", code, "--folder", str(folder), "--cases", "1", "--seed", "1", "writes"]
    environment = {"LD_PRELOAD": library.strip(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=here, env=environment)
    assert done.returncode == 1 and "is not whole" in done.stdout, done.stdout + done.stderr
