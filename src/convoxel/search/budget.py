"""Limits of what a network may cost, and by how much one breaks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from convoxel.errors import ConfigError
from convoxel.search.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A figure that a budget can limit.

    Attributes:
        word: its name for people.
        value: its value for a candidate; None if it is not known.
        unit: its unit.
        upper: whether the limit is the most, not the least.
        scale: factor from the value to the unit.
    """

    word: str
    value: Callable[[Candidate], float | None]
    unit: str = ""
    upper: bool = True
    scale: float = 1.0

    @property
    def bound(self) -> str:
        """The limit in a word: the most that is allowed, or the least that is asked for."""
        return "allowed" if self.upper else "asked for"

    def text(self, value: float) -> str:
        """Return ``value`` with its unit."""
        shown = value * self.scale
        return (f"{shown:,.0f}" if self.scale == 1.0 else f"{shown:,.3g}") + (f" {self.unit}" if self.unit else "")


LIMITS = {
    "max_params": Limit(word="parameters", value=lambda candidate: candidate.params),
    "max_macs": Limit(word="MACs", value=lambda candidate: candidate.macs),
    "max_bytes": Limit(word="memory", value=lambda candidate: candidate.memory_bytes, unit="bytes"),
    "min_field": Limit(word="receptive field", value=lambda candidate: candidate.reach, unit="pixels", upper=False),
    "max_time_s": Limit(word="time", value=lambda candidate: candidate.time_s, unit="ms", scale=1e3),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of what a network may cost; None: no limit.

    Attributes:
        max_params: most parameters.
        max_macs: most multiply-accumulates for one input.
        max_bytes: most memory: live activations at their peak, and weights, in float32.
        min_field: least receptive field in pixels along every axis.
        max_time_s: most seconds of one run on our engine.

    Raises:
        ConfigError: a limit is not above 0.

    >>> Budget(max_params=1000, min_field=64).text()
    'parameters ≤ 1,000, receptive field ≥ 64 pixels'
    """

    max_params: float | None = None
    max_macs: float | None = None
    max_bytes: float | None = None
    min_field: float | None = None
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name}: got {value!r}; expected a number above 0. Leave it out for no limit.")

    def excess(self, candidate: Candidate) -> dict[str, float]:
        """Return the limits that a candidate breaks, each with its share beyond; what is not measured breaks none.

        A field of half of what is asked for is beyond by 1, as are twice as many parameters.
        """
        found = {}
        for name, limit in LIMITS.items():
            most, value = getattr(self, name), limit.value(candidate)
            if most is None or value is None:
                continue
            beyond = value / most if limit.upper else most / max(value, 0.5)
            if beyond > 1:
                found[name] = beyond - 1
        return found

    def explain(self, candidate: Candidate) -> str:
        """Return in words which limits a candidate breaks."""
        parts = []
        for name in self.excess(candidate):
            limit, most = LIMITS[name], getattr(self, name)
            value = limit.value(candidate) or 0
            parts.append(f"{limit.word} {limit.text(value)}, where {limit.text(most)} are {limit.bound}")
        return "; ".join(parts)

    def text(self) -> str:
        """Return the limits in words."""
        stated = [(LIMITS[f.name], getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]
        return ", ".join(f"{limit.word} {'≤' if limit.upper else '≥'} {limit.text(most)}" for limit, most in stated)
