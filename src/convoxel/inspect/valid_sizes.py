"""Which input sizes a network accepts, and what comes out: solved from its layers, confirmed by the network itself.

The layers of one record give every size that fits and the output's size as a function of it (``axis_graph``). That is
believed only if the network, read on shapes alone, agrees at sizes on both sides of every bound. Where it does not, as
in networks that choose their layers by the size, the sizes that work are taken to be every ``step``-th from
``smallest`` on, and both are found by asking, beginning with a size that is known to work. No data is needed.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.arithmetic import Inputs, PeriodicAffine, SizeSet, output_equation, solve_inputs
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.inspect.axis_graph import AxisGraph

Shape = tuple[int, ...]
Accepts = Callable[[Sequence[Shape]], "tuple[Shape, ...] | None"]

_LARGEST_STEP = 64  # six halvings; a network of more asks for 128
_STEPS = (*range(1, _LARGEST_STEP + 1), 128, 256)
_CONFIRMATIONS = 3


@dataclass(frozen=True)
class ValidSizes:
    """The input sizes that work along each image axis, for the first input.

    Attributes:
        sizes: all of them.
        outputs: the output's size as a function of the input's, right for ``sizes``; None where the output has no such
            axis, or none that is known.

    Raises:
        ConfigError: ``outputs`` has another number of axes than ``sizes``.
    """

    sizes: tuple[SizeSet, ...]
    outputs: tuple[PeriodicAffine | None, ...]

    def __post_init__(self) -> None:
        if len(self.outputs) != len(self.sizes):
            raise ConfigError(
                f"ValidSizes: outputs has {len(self.outputs)} entries; expected {len(self.sizes)}, one for each axis "
                "of sizes. Give None for an axis whose output is not known."
            )

    @property
    def smallest(self) -> tuple[int, ...]:
        """The smallest size along each axis."""
        return tuple(sizes.smallest or 0 for sizes in self.sizes)

    @property
    def step(self) -> tuple[int, ...]:
        """After how many rows the pattern of sizes that work repeats; 0 where there are only a few."""
        return tuple(sizes.step if sizes.endless else 0 for sizes in self.sizes)

    @property
    def inputs(self) -> tuple[Inputs, ...] | None:
        """The same with the equation of what comes out, an entry an axis; None where that is not known.

        >>> (even,) = ValidSizes((SizeSet(starts=(2,), step=2),), (PeriodicAffine((0, 0), 1),)).inputs
        >>> str(even), str(even.giving(8).sizes)
        ('2 + 2 n (n ≥ 0): o = ⌊i / 2⌋', '16')
        """
        found = []
        for sizes, climb in zip(self.sizes, self.outputs, strict=True):
            if climb is None:
                return None
            found.append(Inputs(sizes, climb, output_equation(climb, sizes)))
        return tuple(found)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return everything as lists, an entry an axis."""
        axes = []
        for sizes, climb in zip(self.sizes, self.outputs, strict=True):
            equation = None if climb is None else output_equation(climb, sizes)
            axes.append(
                {
                    "exceptions": list(sizes.exceptions),
                    "starts": list(sizes.starts),
                    "text": str(sizes),
                    "equation": equation,
                }
            )
        return {"smallest": list(self.smallest), "step": list(self.step), "axes": axes}

    def admits(self, sizes: Sequence[int]) -> bool:
        """Return True if an input of these spatial sizes works.

        >>> ValidSizes((SizeSet(starts=(16,), step=16), SizeSet((32,))), (None, None)).admits((48, 32))
        True
        """
        return len(sizes) == len(self.sizes) and all(
            size in known for size, known in zip(sizes, self.sizes, strict=True)
        )

    def __str__(self) -> str:
        """Say it for people.

        >>> print(ValidSizes((SizeSet(starts=(63,)), SizeSet(starts=(63,))), (None, None)))
        63 and more
        >>> print(ValidSizes((SizeSet(starts=(188,), step=16),), (None,)))
        188, 204, 220, … (188 + 16 n)
        >>> print(ValidSizes((SizeSet(starts=(16,), step=16), SizeSet(starts=(8,), step=8)), (None, None)))
        multiples of 16 × multiples of 8
        """
        axes = [say_sizes(sizes) for sizes in self.sizes]
        return axes[0] if len(set(axes)) == 1 else " × ".join(axes)


def say_sizes(sizes: SizeSet) -> str:
    """Return the sizes in words.

    >>> say_sizes(SizeSet(starts=(16,), step=16)), say_sizes(SizeSet((32,)))
    ('multiples of 16', '32 alone')
    """
    if not sizes.endless:
        return f"{sizes} alone" if len(sizes.exceptions) == 1 else str(sizes)
    if sizes.exceptions or len(sizes.starts) > 1:
        return str(sizes)
    smallest, step = sizes.starts[0], sizes.step
    if step == 1:
        return "any" if smallest == 1 else f"{smallest} and more"
    if smallest == step:
        return f"multiples of {step}"
    return f"{smallest}, {smallest + step}, {smallest + 2 * step}, … ({smallest} + {step} n)"


def find_sizes(
    accepts: Accepts, shapes: Sequence[Shape], graphs: Sequence[AxisGraph] | None = None
) -> ValidSizes | None:
    """Return the sizes that ``accepts`` takes along every spatial axis, the others kept as in ``shapes``.

    Args:
        accepts: returns the shapes that come out, or None for shapes that do not work.
        shapes: of the inputs, (n, c, *spatial), which work. Inputs as long as the first change with it.
        graphs: the network along each axis, if it is known; axes of equal graphs are asked together.

    Returns:
        None for inputs without spatial axes, or if ``shapes`` themselves do not work.

    >>> find_sizes(lambda shapes: shapes if shapes[0][2] % 4 == 0 else None, [(1, 1, 40)]).sizes
    (SizeSet(exceptions=(), starts=(4,), step=4),)
    """
    spatial = shapes[0][2:]
    if not spatial or accepts(shapes) is None:
        return None
    alike = graphs is not None and len(set(zip(graphs, spatial, strict=True))) == 1
    groups = [range(len(spatial))] if alike else [[axis] for axis in range(len(spatial))]
    found: dict[int, tuple[SizeSet, PeriodicAffine | None]] = {}
    for group in groups:
        ask = _Question(accepts, shapes, group)
        known = ask.confirm(None if graphs is None else graphs[group[0]]) or ask.search()
        found.update(dict.fromkeys(group, known))
    sizes, outputs = zip(*(found[axis] for axis in range(len(spatial))), strict=True)
    return ValidSizes(sizes, outputs)


class _Question:
    """Return the output for a size along some axes, the other sizes as given; every answer is kept."""

    def __init__(self, accepts: Accepts, shapes: Sequence[Shape], axes: Sequence[int]) -> None:
        self.accepts, self.shapes, self.axes = accepts, shapes, axes
        self.given = shapes[0][2 + axes[0]]
        self.answers: dict[int, Shape | None] = {}

    def shape(self, size: int) -> Shape | None:
        """Return the shape that comes out, or None."""
        if size not in self.answers:
            self.answers[size] = self._asked(size) if size > 0 else None
        return self.answers[size]

    def _asked(self, size: int) -> Shape | None:
        changed = []
        for shape in self.shapes:
            sizes = list(shape)
            for axis in self.axes:
                if len(shape) == len(self.shapes[0]) and shape[2 + axis] == self.shapes[0][2 + axis]:
                    sizes[2 + axis] = size
            changed.append(tuple(sizes))
        try:
            results = self.accepts(changed)
        except ConvoxelError:
            return None
        # Slices of too short an axis leave nothing, which no layer behind them would take.
        return results[0] if results and all(results[0]) else None

    def output(self, size: int) -> int | None:
        """Return the output's size along the axis, or None where it has none."""
        shape = self.shape(size)
        same = shape is not None and len(shape) == len(self.shapes[0])
        return shape[2 + self.axes[0]] if same and shape is not None else None

    def confirm(self, axis: AxisGraph | None) -> tuple[SizeSet, PeriodicAffine | None] | None:
        """Return what the graph says if the network says the same, but perhaps for the smallest sizes.

        Those a network may refuse that takes all larger ones: a norm measures no variance of a single position.
        """
        if axis is None:
            return None
        try:
            answer = solve_inputs(axis.graph)
        except ConvoxelError:
            return None
        if self.given not in answer.sizes:
            return None
        if self._agrees(answer.sizes):
            return answer.sizes, self._agreeing(None if axis.ends else answer.output)
        larger = answer.sizes.beginning(self._least(answer.sizes))
        if not self._agrees(larger):
            return None
        output = self._agreeing(None if axis.ends else answer.output)
        # With other outputs than the graph's it is another network that happens to take these sizes.
        return (larger, output) if axis.ends or output else None

    def _agrees(self, sizes: SizeSet) -> bool:
        """Return True if the network takes these sizes and no others, around the smallest and the given one."""
        step = sizes.step
        starts = {size + shift for size in (*sizes.exceptions, *sizes.starts) for shift in (-step, -1, 0, 1, step)}
        near = sorted(starts)[: 4 * _CONFIRMATIONS]
        far = self.given + step * (self.given // step + 1)  # twice as large
        asked = (*near, self.given - 1, self.given + 1, self.given + step, far, far + 1)
        return all((self.shape(size) is not None) == (size in sizes) for size in asked if size > 0)

    def _least(self, sizes: SizeSet) -> int:
        """Return the smallest of ``sizes`` from which on the network takes them all, up to the given one."""
        known = list(itertools.takewhile(lambda size: size <= self.given, sizes))
        return known[bisect.bisect_left(known, True, hi=len(known) - 1, key=lambda size: self.shape(size) is not None)]

    def search(self) -> tuple[SizeSet, PeriodicAffine | None]:
        """Return the progression through the given size that works, and what it makes if that is even simple."""
        least, step = _progression(lambda size: self.shape(size) is not None, self.given)
        sizes = SizeSet(starts=(least,), step=step) if step else SizeSet((least,))
        first, second = self.output(least), self.output(least + step)
        if first is None or second is None:
            return sizes, None
        period, climb = max(step, 1), second - first
        line = PeriodicAffine.sample(lambda i: first + (i - least) * climb // period, period, climb)
        return sizes, self._agreeing(line)

    def _agreeing(self, climb: PeriodicAffine | None) -> PeriodicAffine | None:
        """Return the function if all that was asked agrees with it."""
        agreed = climb is not None and all(
            self.output(size) == climb.at(size) for size, shape in self.answers.items() if shape is not None
        )
        return climb if agreed else None


def _progression(works: Callable[[int], bool], given: int) -> tuple[int, int]:
    """Return (smallest, step) of the progression through ``given`` that works."""
    for step in _STEPS:
        # One size may fit by chance, as where two roundings meet; several in a row do not.
        if all(works(given + turn * step) for turn in range(1, _CONFIRMATIONS + 1)):
            break
    else:
        return given, 0
    low, high = 0, (given - 1) // step  # how often the step can be taken back: low works, beyond high does not
    while low < high:
        middle = (low + high + 1) // 2
        if works(given - middle * step):
            low = middle
        else:
            high = middle - 1
    return given - low * step, step
