"""Which input sizes a network accepts: asked of the network itself, on shapes alone.

The sizes that work are taken to be every ``step``-th from ``smallest`` on; both are found by asking, beginning with a
size that is known to work. No data is needed, and no rule about any operator is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.errors import ConvoxelError

__all__ = ["Admission", "find_sizes"]

Shape = tuple[int, ...]
Accepts = Callable[[Sequence[Shape]], "tuple[Shape, ...] | None"]

_LARGEST_STEP = 64  # six halvings; a network of more asks for 128
_STEPS = (*range(1, _LARGEST_STEP + 1), 128, 256)
_CONFIRMATIONS = 3


@dataclass(frozen=True)
class Admission:
    """The input sizes that work along each image axis, for the first input.

    Attributes:
        smallest: the smallest size.
        step: from one size that works to the next; 0 where no other was found.
    """

    smallest: tuple[int, ...]
    step: tuple[int, ...]

    def to_dict(self) -> dict[str, list[int]]:
        """Return both as lists."""
        return {"smallest": list(self.smallest), "step": list(self.step)}

    def admits(self, sizes: Sequence[int]) -> bool:
        """Whether an input of these spatial sizes works.

        >>> Admission((16, 32), (16, 0)).admits((48, 32)), Admission((16,), (16,)).admits((40,))
        (True, False)
        """
        return len(sizes) == len(self.smallest) and all(
            size == least or (step > 0 and size > least and (size - least) % step == 0)
            for size, least, step in zip(sizes, self.smallest, self.step, strict=True)
        )

    def __str__(self) -> str:
        """Say it for people.

        >>> print(Admission((63, 63), (1, 1)))
        63 and more
        >>> print(Admission((188,), (16,)))
        188, 204, 220, … (188 + 16 n)
        >>> print(Admission((16, 8), (16, 8)))
        multiples of 16 × multiples of 8
        """
        axes = [_words(*axis) for axis in zip(self.smallest, self.step, strict=True)]
        return axes[0] if len(set(axes)) == 1 else " × ".join(axes)


def _words(smallest: int, step: int) -> str:
    if step == 0:
        return f"{smallest} alone"
    if step == 1:
        return "any" if smallest == 1 else f"{smallest} and more"
    if smallest == step:
        return f"multiples of {step}"
    return f"{smallest}, {smallest + step}, {smallest + 2 * step}, … ({smallest} + {step} n)"


def find_sizes(accepts: Accepts, shapes: Sequence[Shape], together: bool = False) -> Admission | None:
    """Return the sizes that ``accepts`` takes along every spatial axis, the others kept as in ``shapes``.

    Args:
        accepts: returns None for shapes that do not work.
        shapes: of the inputs, (n, c, *spatial), which work. Inputs as long as the first change with it.
        together: change all axes at once, which is quicker; right where the network treats its axes alike.

    Returns:
        None for inputs without spatial axes, or if ``shapes`` themselves do not work.

    >>> find_sizes(lambda shapes: shapes if shapes[0][2] % 4 == 0 else None, [(1, 1, 40)])
    Admission(smallest=(4,), step=(4,))
    """
    spatial = shapes[0][2:]
    if not spatial or accepts(shapes) is None:
        return None
    groups = [range(len(spatial))] if together and len(set(spatial)) == 1 else [[axis] for axis in range(len(spatial))]
    smallest, step = list(spatial), [0] * len(spatial)
    for group in groups:
        given = spatial[group[0]]

        def works(size: int, group: Any = group) -> bool:
            return size > 0 and _asked(accepts, shapes, group, size)

        least, gap = _progression(works, given)
        for axis in group:
            smallest[axis], step[axis] = least, gap
    return Admission(tuple(smallest), tuple(step))


def _asked(accepts: Accepts, shapes: Sequence[Shape], axes: Sequence[int], size: int) -> bool:
    changed = []
    for shape in shapes:
        sizes = list(shape)
        for axis in axes:
            if len(shape) == len(shapes[0]) and shape[2 + axis] == shapes[0][2 + axis]:
                sizes[2 + axis] = size
        changed.append(tuple(sizes))
    try:
        return accepts(changed) is not None
    except ConvoxelError:
        return False


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
