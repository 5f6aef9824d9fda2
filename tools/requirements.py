"""Print the requirements in pyproject.toml: the core's and those of the extras named as arguments.

The Makefile installs them before the engine is built, from the only list of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Python 3.10 has no tomllib; the lists of pyproject.toml are plain enough to read as text.
_TEXT = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")


def requirements(name: str) -> list[str]:
    """Return the requirements of one list: "dependencies", the core's, or an extra."""
    match = re.search(rf"^{re.escape(name)} = \[(.*?)\]", _TEXT, re.MULTILINE | re.DOTALL)
    if match is None:
        sys.exit(f"pyproject.toml has no list '{name}'")
    return [requirement.replace(" ", "") for requirement in re.findall(r'"([^"]+)"', match[1])]


def extras() -> list[str]:
    """Return the names of all extras."""
    section = _TEXT.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return re.findall(r"^(\w+) = ", section, re.MULTILINE)


if __name__ == "__main__":
    print("\n".join(line for name in ("dependencies", *sys.argv[1:]) for line in requirements(name)))
