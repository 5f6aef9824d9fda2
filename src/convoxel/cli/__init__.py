"""The command line ``convoxel``: one file per command, and nothing that the library cannot do without it.

Read ``application`` (the commands, errors and exit codes) first, then ``screen`` (what is printed where) and
``meter`` (progress). Exit codes: 0 done; 1 a bug of ours; 2 something came that cannot be used; 130 and 143
stopped by Ctrl-C and SIGTERM. Heavy packages are imported inside the commands, so that help is immediate.
"""

from __future__ import annotations

from convoxel.cli.application import main

__all__ = ["main"]
