"""Numbers as people read them: durations, counts, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> duration(7.4), duration(182), duration(7260)
    ('7.4 s', '3 min 2 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(number: float) -> str:
    r"""Return a count with three digits and a unit, which no line break parts.

    >>> count(950), count(339603), count(3.01e9)
    ('950', '340\xa0k', '3.01\xa0G')
    """
    value, unit = float(number), ""
    for larger in ("k", "M", "G", "T", "P"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    if not unit:
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(value) + 1e-3))
    return f"{value:.{digits}f}\u00a0{unit}"


def figure(value: float | None) -> str:
    """Return a metric between 0 and 1 with three decimals; a dash where there is none.

    >>> figure(0.86551), figure(None)
    ('0.866', '–')
    """
    return "–" if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Return a share as a percentage that says 100 % only of all and 0 % only of none.

    >>> percent(0.9471), percent(0.99999), percent(0.0001), percent(1.0)
    ('94.7 %', '> 99.9 %', '< 0.1 %', '100 %')
    """
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share > 0.9995:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return an enumeration in words.

    >>> listed(["1", "2", "4"], "or")
    '1, 2 or 4'
    """
    return f" {last} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def sizes(numbers: object, *, short: bool = False) -> str:
    """Return a shape as it is spoken, a dash for what is none; ``short`` writes equal numbers once.

    >>> sizes([40, 40, 40]), sizes((2, 2), short=True)
    ('40 × 40 × 40', '2')
    """
    words = list(map(str, numbers)) if isinstance(numbers, (list, tuple)) else []
    return " × ".join(words[:1] if short and len(set(words)) == 1 else words) or "–"


def spelled(value: float) -> str:
    """Return a number as a cell shows it: whole ones of up to five digits in full, others with three digits.

    >>> spelled(-12.0), spelled(0.12345)
    ('−12', '0.123')
    """
    text = f"{value:.0f}" if abs(value) < 1e5 and value == round(value) else f"{value:.3g}"
    return text.replace("-", "−")


def number(value: object) -> float | None:
    """Return a finite number as a float; None for anything else (also NaN, which JSON of old runs may hold).

    >>> number(3), number(float("nan")), number("3")
    (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
