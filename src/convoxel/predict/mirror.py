"""Mirrored copies at prediction time: the axes that a word names, and the mean over all copies.

A network that was trained on mirrored samples sees each image in every mirrored way. The logits of the copies, turned
back, are averaged (as nnU-Net does it: Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z); so are the
numbers of a regression. Axes are those of the network's grid, numbered as ``flip_axes`` of training numbers them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from convoxel.errors import ConfigError
from convoxel.predict.network_call import Array, Call
from convoxel.predict.trained_run import AnyRun

# Names of axes, where the grid has a known direction: towards the patient's right, front and top, or a picture's.
_PATIENT = ("lr", "pa", "is")
_PICTURE = ("ud", "lr")
_SAME = {"rl": "lr", "ap": "pa", "si": "is", "du": "ud"}


def mirrored_axes(word: str | Sequence[int] | None, run: AnyRun) -> tuple[int, ...]:
    """Return the axes of the network's grid along which images are mirrored.

    Args:
        word: "none"; "auto", the axes that training mirrored; "all"; axes as numbers or, where the run turns its images
            or they are pictures, as names: "0,2", "lr" (left–right), "pa" (back–front), "is" (bottom–top), "ud"
            (up–down); None stands for what the run's configuration says, which is "none" unless somebody stated it.
        run: trained network.

    Raises:
        ConfigError: the word is none of these, or names an axis that the run does not have.
    """
    dims = run.data.dims
    if word is None:
        return _checked(run.config.prediction.mirror, dims, run.config.prediction.mirror)
    if not isinstance(word, str):
        return _checked(tuple(word), dims, word)
    if word in ("none", ""):
        return ()
    if word == "all":
        return tuple(range(dims))
    if word == "auto":
        return _checked(run.config.flip_axes or (), dims, word)
    names = axis_names(run)
    axes = []
    for part in (each.strip().lower() for each in word.split(",")):
        name = _SAME.get(part, part)
        if name in names:
            axes.append(names.index(name))
        elif part.isdecimal():
            axes.append(int(part))
        else:
            known = ", ".join(names) if names else "none, since its images lie as stored"
            raise ConfigError(
                f"mirror: got {word!r}; expected auto, none, all or axes by number (0,1) or by name "
                f"(names that this run has: {known})."
            )
    return _checked(axes, dims, word)


def axis_names(run: AnyRun) -> tuple[str, ...]:
    """Return the names of the network's axes; empty where nobody knows which way they run."""
    turned = run.data.rule.orientation == "ras"
    if run.data.rule.axes is not None:
        return ()
    if run.data.dims == 3 and turned:
        return _PATIENT
    return _PICTURE if run.data.dims == 2 and not turned else ()


def axis_words(axes: Sequence[int], run: AnyRun) -> list[str]:
    """Return axes by name where the run's have names, else by number."""
    names = axis_names(run)
    return [names[axis] if names else str(axis) for axis in axes]


def _checked(axes: Sequence[int], dims: int, given: object) -> tuple[int, ...]:
    if any(not 0 <= axis < dims for axis in axes):
        raise ConfigError(f"mirror: got {given!r}; expected axes from 0 to {dims - 1}, which the network has.")
    return tuple(sorted(set(axes)))


def mirrored_call(call: Call, axes: Sequence[int]) -> Call:
    """Return the mean of ``call`` over all copies of a batch that are mirrored along any of ``axes``.

    Args:
        call: maps (n, channels, *spatial) to logits (n, classes, *spatial), which are turned back, or (n, classes).
        axes: axes of space; none returns ``call`` itself.

    >>> image = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    >>> mirrored_call(lambda x: np.cumsum(x, axis=-1), [0])(image).tolist()
    [[[1.5, 2.0, 2.5]]]
    """
    if not axes:
        return call

    def mean(images: Array) -> Array:
        total: Array | None = None
        for count in range(len(axes) + 1):
            for chosen in itertools.combinations(axes, count):
                flips = tuple(axis + 2 for axis in chosen)
                found = call(np.ascontiguousarray(np.flip(images, flips)))
                back = np.flip(found, flips) if found.ndim > 2 else found
                total = np.array(back) if total is None else total + back
        assert total is not None
        total /= np.float32(2 ** len(axes))
        return total

    return mean
