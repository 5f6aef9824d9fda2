"""The command line ``convoxel``: one file for each command, which parses, calls the library and prints.

Read ``application`` (the commands, errors and exit codes) first, then ``options`` and ``parsing`` (what commands
share), ``screen`` (tables and JSON) and ``progress``. Exit codes: 0 done; 1 a bug of ours; 2 wrong input; 3 some of
many images could not be predicted; 130 and 143 stopped by Ctrl-C and SIGTERM; 141 the reader of our output has gone.
Heavy packages are imported inside the commands, so that help is immediate. Absent on purpose: numpy, torch, and every
number that the library does not compute.
"""

from __future__ import annotations

from convoxel.cli.application import main

__all__ = ["main"]
