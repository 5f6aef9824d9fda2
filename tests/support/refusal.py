"""One check of every refusal: of an outside file, with the four parts of its message, and of a command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convoxel.cli import main
from convoxel.errors import DataError


def refused(call: Callable[[], object], where: object, *words: str) -> None:
    """The call raises a DataError: where it is, what came, what was expected, how to mend it; and ``words``."""
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
