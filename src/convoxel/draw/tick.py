"""Round numbers for axes."""

from __future__ import annotations

import math

__all__ = ["power_ticks", "ticks"]


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round values from at most ``low`` to at least ``high``, about ``wanted`` of them.

    >>> ticks(0, 9.3, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def power_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two positive numbers; powers alone where those are too many.

    >>> power_ticks(30, 700)
    [50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [tick for tick in found if low <= tick <= high]
    return found if len(found) <= most else [tick for tick in found if f"{tick:e}"[0] == "1"]
