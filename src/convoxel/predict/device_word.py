"""The words that name devices; reading them needs no PyTorch."""

from __future__ import annotations

import re

from convoxel.errors import ConfigError

DEVICE_WORDS = "auto, cpu, cuda, cuda:1 (the second GPU), or mps"
_WORD = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def is_device_word(word: str) -> bool:
    """Return whether a word names a device, which need not be here.

    >>> is_device_word("cuda:1"), is_device_word("gpu")
    (True, False)
    """
    return _WORD.fullmatch(word) is not None


def check_device_word(word: str) -> None:
    """Refuse what names no device; it need not be here.

    Raises:
        ConfigError: ``word`` is none of ``DEVICE_WORDS``.
    """
    if not is_device_word(word):
        raise ConfigError(f"device: got {word!r}; expected {DEVICE_WORDS}.")
