"""A command as the child of another process: it obeys words that come by its standard input, and ends with its parent.

``python -m convoxel.cli.child WORDS…`` runs ``convoxel WORDS…``. The line "stop" acts as Ctrl-C, "leave" lets the
command go on when its parent ends, and "hold" takes that back. A parent that ends, in any way, closes the input: then
the command stops as by Ctrl-C, unless it was told "leave". So a crashed parent leaves no work behind that nobody asked
for, and a training that stops keeps a checkpoint.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading

from convoxel.cli.application import main

_CHUNK = 256


def obey(descriptor: int) -> None:
    """Follow the words that come by a pipe until it is closed."""
    rest, leave = b"", False
    # Not by sys.stdin, whose lock would be held when the interpreter ends.
    while part := os.read(descriptor, _CHUNK):
        *words, rest = (rest + part).split(b"\n")
        for word in words:
            if word == b"stop":
                _thread.interrupt_main()
            else:
                leave = word == b"leave"
    if not leave:
        _thread.interrupt_main()


if __name__ == "__main__":
    # A parent that was itself started in the background lets its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=obey, args=(0,), daemon=True).start()
    sys.exit(main())
