"""Prints the requirements of pyproject.toml: the core's and those of the extras named as arguments.

Lets the Makefile install packages before the engine is built, without saying twice what they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Python 3.10 has no tomllib; the lists of pyproject.toml are plain enough to read as text.
text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
for name in ["dependencies", *sys.argv[1:]]:
    match = re.search(rf"^{re.escape(name)} = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if match is None:
        sys.exit(f"pyproject.toml has no list '{name}'")
    for requirement in re.findall(r'"([^"]+)"', match[1]):
        print(requirement.replace(" ", ""))
