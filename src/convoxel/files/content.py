"""The content of files as hashes, by which equal files are told from changed ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from convoxel.files.fault import fault

_BLOCK = 2**20


def hash_file(path: Path, mend: str = "Check its rights and the disk") -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits; it is read in blocks.

    Raises:
        DataError: the file cannot be read; the message ends with ``mend``.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        came = f"cannot be read ({error.strerror or error})"
        raise fault(path, came, "a file that stays while it is used", mend) from None
    return digest.hexdigest()


def hash_json(value: object) -> str:
    """Return the SHA-256 of a value as JSON, in hexadecimal digits; the order of keys does not count.

    >>> hash_json({"a": 1, "b": (2,)}) == hash_json({"b": [2], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
