"""One trainer per run folder: a lock that the operating system drops when its process ends, in any way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convoxel.errors import CheckpointError

LOCK = ".lock"
_TRIES = 16


class Hold(NamedTuple):
    """A folder that this process holds, and the folder itself, which is open; None where the system opens none."""

    folder: Path
    descriptor: int | None

    @property
    def lasts(self) -> bool:
        """True if the name still leads to the folder that was taken."""
        if self.descriptor is None:
            return True
        try:
            return os.path.samestat(self.folder.stat(), os.fstat(self.descriptor))
        except OSError:
            return False

    def check(self) -> None:
        """Raise CheckpointError if another folder has this name now, or none."""
        if not self.lasts:
            raise CheckpointError(
                f"output: {self.folder} was moved, removed or replaced while a run wrote there. "
                "Go on by --resume with the folder where it lies now: it holds the checkpoints so far."
            )


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[Hold]:
    """Hold the run folder for this process.

    A lock file alone would outlive a killed trainer and refuse its resumption; the lock on the file does not. The file
    is removed at the end, and stays where a trainer is killed. A trainer that has opened a file which the one before it
    then removes finds that the folder has another one or none, and begins again.

    Raises:
        CheckpointError: another process trains in this folder, or the folder cannot be written.
    """
    path = folder / LOCK
    descriptor = _take(path)
    hold = Hold(folder, _opened(folder))
    try:
        with contextlib.suppress(OSError):  # the number only helps people; a full disk must not stop us here
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        yield hold
    finally:
        if hold.lasts:
            with contextlib.suppress(OSError):  # Windows does not remove what is open
                path.unlink()
        os.close(descriptor)
        if hold.descriptor is not None:
            os.close(hold.descriptor)


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:  # Windows, which lets nobody move a folder with open files
        return None


def _take(path: Path) -> int:
    """Return the open lock file, locked and still the one of that name."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(
                f"output: cannot write in {path.parent} ({error.strerror or error}). Give another --output."
            ) from None
        if not _try_lock(descriptor):
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise CheckpointError(
                f"output: process {owner} is training in {path.parent}. Wait for it, stop it, or give another --output."
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)
    raise CheckpointError(f"output: other processes remove {path} again and again. Give another --output.")


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(folder: Path) -> bool:
    """Return True while a process holds the folder.

    The lock itself is not touched, since a trainer that starts at that moment would be refused. A process that was
    killed leaves the file behind, and its number may be another's now: the owner has the file open.
    """
    path = folder / LOCK
    try:
        owner = int(path.read_text("ascii")[:20])
    except (OSError, ValueError):
        return False
    if os.name == "posix":
        try:
            os.kill(owner, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # another user's
            pass
    try:
        opened = list(Path(f"/proc/{owner}/fd").iterdir())
    except OSError:  # no such list on this system, or another user's
        return True
    held = path.resolve()
    return any(_target(entry) == held for entry in opened)


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:  # closed meanwhile
        return None
