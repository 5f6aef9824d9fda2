"""``python -m convoxel``: the command line, where the script ``convoxel`` is not on the path."""

from __future__ import annotations

import sys

from convoxel.cli import main

if __name__ == "__main__":
    sys.exit(main())
