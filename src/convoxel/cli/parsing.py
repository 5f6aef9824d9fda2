"""Values as people type them: shapes, sizes, amounts, ranges, paddings, and lists of options."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from convoxel.errors import ConfigError

Value = int | float | str | bool | None | list[object] | tuple[object, ...]
Pair = tuple[int, int]

_POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_WORDS = {"true": True, "false": False, "null": None}
_MOST = 1 << 16


def split_words(given: Iterable[str] | None) -> list[str]:
    """Return words that are separated by commas or given one by one.

    >>> split_words(["vgg16,unet2d", "alexnet"])
    ['vgg16', 'unet2d', 'alexnet']
    """
    return [word.strip() for words in given or () for word in words.split(",") if word.strip()]


def parse_sizes(
    name: str, text: str, least: int = 1, most: int | None = None, count: tuple[int, int] | None = None
) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, × or spaces.

    Args:
        name: the option, for the message.
        text: text of the option.
        least, most: bounds of each number.
        count: bounds of how many there may be.

    Raises:
        ConfigError: a word is no such number, or there are too few or too many.

    >>> parse_sizes("size", "128x128x64"), parse_sizes("at", "(0, 7)", least=0)
    ((128, 128, 64), (0, 7))
    """
    words = re.split(r"[,x×\s]+", text.strip("() "))
    sizes = tuple(int(word) for word in words if word.isascii() and word.isdecimal())
    fits = len(sizes) == len(words) and all(least <= size <= (most or size) for size in sizes)
    if not fits or (count is not None and not count[0] <= len(sizes) <= count[1]):
        many = "" if count is None else f"{count[0]} to {count[1]} " if count[0] < count[1] else f"{count[0]} "
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: got {text!r}; expected {many}whole numbers {bounds}, such as {_example(count)}.")
    return sizes


def _example(count: tuple[int, int] | None) -> str:
    return "3 or 3,5" if count is None or count[0] < 2 else "x".join(["4"] * count[0])


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return the shape of an input; None for None.

    Raises:
        ConfigError: it is no list of three to five sizes.

    >>> parse_shape("1,3,224,224"), parse_shape("1x1x64x64x64")
    ((1, 3, 224, 224), (1, 1, 64, 64, 64))
    """
    if text is None:
        return None
    with contextlib.suppress(ConfigError):
        return parse_sizes("shape", text, count=(3, 5))
    raise ConfigError(f"shape: got {text!r}; expected n,channels,*sizes, such as 1,3,224,224.")


def parse_tile(text: str | None) -> int | tuple[int, ...] | None:
    """Return the size of tiles: one number for all axes, or one for each; None for None.

    >>> parse_tile("256"), parse_tile("64,256,256")
    (256, (64, 256, 256))
    """
    if text is None:
        return None
    sizes = parse_sizes("tile", text, count=(1, 3))
    return sizes[0] if len(sizes) == 1 else sizes


def parse_part(text: str | None) -> tuple[int, int]:
    """Return the number of a part and the number of parts, (1, 1) for None.

    Raises:
        ConfigError: it is no such pair.

    >>> parse_part("3/16"), parse_part(None)
    ((3, 16), (1, 1))
    """
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text or "1/1")
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"part: got {text!r}; expected a number and the number of parts, such as 3/16.")
    return int(found[1]), int(found[2])


def parse_box(text: str) -> tuple[tuple[int, int], ...]:
    """Return the first voxel and the one behind the last along each axis.

    Raises:
        ConfigError: it is no list of two numbers each, or they leave nothing.

    >>> parse_box("10:20,0:8")
    ((10, 20), (0, 8))
    """
    with contextlib.suppress(ValueError):
        pairs = [tuple(int(end) for end in part.split(":")) for part in text.strip("() ").split(",")]
        found = tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2 and 0 <= pair[0] < pair[1])
        if len(found) == len(pairs):
            return found
    raise ConfigError(f"box: got {text!r}; expected FIRST:STOP along each axis, such as 10:20,5:15,0:8.")


def parse_range(name: str, text: str | None) -> list[int] | None:
    """Return the numbers of ``3``, ``1,3,5`` or ``1..7``; None for None.

    Raises:
        ConfigError: it is none of these, or a number is below 1.

    >>> parse_range("kernel", "1..4"), parse_range("kernel", "3,5")
    ([1, 2, 3, 4], [3, 5])
    """
    if text is None:
        return None
    first, dots, last = text.partition("..")
    found: list[int] = []
    with contextlib.suppress(ValueError):
        found = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    if not found or min(found) < 1 or max(found) > _MOST:
        raise ConfigError(f"{name}: got {text!r}; expected numbers of at least 1, such as 3, 1,3,5 or 1..7.")
    return found


def parse_padding(text: str, axes: int) -> str | tuple[Pair, ...]:
    """Return a word, which the layer must know, or a pair (before, after) for each axis.

    Raises:
        ConfigError: it is no word, and not ``1``, ``1x2`` or ``1:0``.

    >>> parse_padding("same", 2), parse_padding("1x0:2", 2)
    ('same', ((1, 1), (0, 2)))
    """
    if re.fullmatch(r"[a-z]+", text):
        return text
    found = [re.fullmatch(r"(-?\d+)(?::(-?\d+))?", word) for word in re.split(r"[,x×]", text.strip())]
    pairs = [(int(each[1]), int(each[2] or each[1])) for each in found if each]
    if len(pairs) < len(found):
        raise ConfigError(f"padding: got {text!r}; expected a word such as same, or numbers: 1, 1x2, 1:0.")
    return tuple(pairs * axes if len(pairs) == 1 else pairs)


def parse_numbers(name: str, text: str | None) -> list[Any] | None:
    """Return numbers as nested lists: columns by spaces or commas, rows by ``;``, slices by ``|``; None for None.

    Raises:
        ConfigError: a word is no finite number, or rows are of different lengths.

    >>> parse_numbers("x", "1 2 3"), parse_numbers("x", "1 0; 0 -1.5")
    ([1, 2, 3], [[1, 0], [0, -1.5]])
    """
    if text is None:
        return None
    slices = [[_numbers(name, row) for row in part.split(";") if row.strip()] for part in text.split("|")]
    rows = [row for part in slices for row in part]
    if len({len(row) for row in rows}) != 1 or len({len(part) for part in slices}) != 1:
        raise ConfigError(f"{name}: got {text[:60]!r}; expected rows of one length, such as '1 2; 3 4'.")
    return slices if len(slices) > 1 else rows if len(rows) > 1 or ";" in text else rows[0]


def _numbers(name: str, row: str) -> list[int | float]:
    found: list[int | float] = []
    for word in re.split(r"[,\s]+", row.strip(" \t\n,[]")):
        if not re.fullmatch(r"[-+]?(\d{1,15}(\.\d*)?|\.\d+)(e[-+]?\d{1,2})?", word):
            raise ConfigError(f"{name}: got {word[:40]!r}; expected numbers, such as '1 0 -1; 2 0 -2; 1 0 -1'.")
        found.append(int(word) if re.fullmatch(r"[-+]?\d+", word) else float(word))
    return found


def parse_paddings(text: str | None, known: Sequence[str]) -> list[str | Pair | list[int] | None]:
    """Return paddings to try: words of ``known``, pairs, and all single numbers together; [None] for None.

    Raises:
        ConfigError: a part is none of these.

    >>> parse_paddings("same,0..2,1:2", ["same"])
    ['same', (1, 2), [0, 1, 2]]
    """
    if text is None:
        return [None]
    found: list[str | Pair | list[int] | None] = []
    numbers: list[int] = []
    for part in text.split(","):
        if part in known:
            found.append(part)
        elif match := re.fullmatch(r"(-?\d+):(-?\d+)", part):
            found.append((int(match[1]), int(match[2])))
        elif match := re.fullmatch(r"(-?\d+)(?:\.\.(\d+))?", part):
            numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
        else:
            expected = f"a number, 1:2 (before, after), 0..3 or one of {', '.join(known)}"
            raise ConfigError(f"padding: got {part!r}; expected {expected}.")
    return [*found, *([numbers] if numbers else [])]


def parse_amount(name: str, text: str | None) -> float | None:
    """Return a count or a number of bytes; None for None.

    Raises:
        ConfigError: it is no such number, or not above 0.

    >>> [parse_amount("max-memory", text) for text in ("1.5M", "64 MiB", "100kB")]
    [1500000.0, 67108864.0, 100000.0]
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*(|k|m|g|t|ki|mi|gi)b?\s*", text.lower())
    value = float(found[1]) * _POWERS[found[2]] if found else 0.0
    if value <= 0:
        raise ConfigError(f"{name}: got {text!r}; expected a number above 0, such as 500k, 1.5M or 64MiB.")
    return value


def parse_factors(name: str, text: str | None) -> tuple[float, ...]:
    """Return numbers with fractions; () for None.

    Raises:
        ConfigError: one is no number.

    >>> parse_factors("width", "0.25, 1")
    (0.25, 1.0)
    """
    try:
        return () if text is None else tuple(float(word) for word in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        raise ConfigError(f"{name}: got {text!r}; expected numbers, such as 0.25,0.5,1.") from None


def parse_options(assignments: Iterable[str] | None) -> dict[str, Value]:
    """Return the options that ``name=value`` texts state; numbers become numbers.

    Raises:
        ConfigError: an entry has no name or no ``=``.

    >>> parse_options(["levels=2", "norm=none", "width=0.5", "strides=[(1, 2, 2), 2]"])
    {'levels': 2, 'norm': 'none', 'width': 0.5, 'strides': [(1, 2, 2), 2]}
    """
    found: dict[str, Value] = {}
    for assignment in assignments or ():
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigError(f"set: got {assignment!r}; expected name=value, such as levels=2.")
        found[name] = _parse_value(text)
    return found


def parse_values(assignments: Iterable[str] | None) -> dict[str, tuple[Value, ...]]:
    """Return the values that ``name=value,value`` texts list; numbers become numbers.

    Raises:
        ConfigError: an entry has no name or no values, or a name comes twice.

    >>> parse_values(["levels=2,3", "norm=batch,none"])
    {'levels': (2, 3), 'norm': ('batch', 'none')}
    """
    found: dict[str, tuple[Value, ...]] = {}
    for assignment in assignments or ():
        name, _, text = (part.strip() for part in assignment.partition("="))
        # A comma within brackets belongs to one value: strides=(1, 2, 2),2.
        words = [word.strip() for word in re.split(r",(?![^(\[]*[)\]])", text)]
        if not name or not all(words):
            raise ConfigError(f"vary: got {assignment!r}; expected name=value,value, such as levels=2,3,4.")
        if name in found:
            raise ConfigError(f"vary: {name} came twice; expected all its values at once: --vary {name}={text},….")
        found[name] = tuple(map(_parse_value, words))
    return found


def _parse_value(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text.startswith(("[", "(")):
        with contextlib.suppress(ValueError, SyntaxError):
            found: list[object] | tuple[object, ...] = ast.literal_eval(text)
            return found
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def parse_regions(text: str) -> dict[str, list[int]]:
    """Return the label values of each region.

    >>> parse_regions("tumour=1+2, core=2")
    {'tumour': [1, 2], 'core': [2]}

    Raises:
        ConfigError: a part is no name with numbers, or a name comes twice.
    """
    found: dict[str, list[int]] = {}
    for part in text.split(","):
        name, _, values = (word.strip() for word in part.partition("="))
        if not name or name in found or not re.fullmatch(r"\d{1,3}(\s*\+\s*\d{1,3})*", values):
            raise ConfigError(
                f"regions: got {text!r}; expected the label values of each region, such as tumour=1+2,core=2."
            )
        found[name] = [int(value) for value in values.split("+")]
    return found


def parse_share(text: str) -> int | float:
    """Return a count (30) or a fraction (0.2) of samples."""
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else float(text)
    except ValueError:
        raise ConfigError(f"validation: got {text!r}; expected a count (30) or a fraction (0.2).") from None
