"""Checks of refusals: of files, with the four parts of the message, and of commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convoxel.cli import main
from convoxel.errors import DataError


def refused(call: Callable[[], object], where: object, *words: str) -> None:
    """Check that the call raises a DataError that names the place, the value, the expectation and the remedy."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(where)), message
    fact, _, rest = message.partition("; expected ")
    expected, _, mend = rest.partition(". ")
    assert fact and expected and len(mend) > 8 and mend.endswith("."), message
    for word in words:
        assert word in message, (word, message)


def refused_command(capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    """Return the one line on stderr with which a command of ``convoxel`` ends."""
    assert main([str(word) for word in words]) == code
    line = capsys.readouterr().err
    assert line.startswith("convoxel: ") and line.count("\n") == 1, line
    return line
