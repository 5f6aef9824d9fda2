"""Sizes along one axis, and the meaning of paddings.

The relationships are those of Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning"
(arXiv 1603.07285), cited as DV 1 … DV 15, extended by what the guide leaves out: different padding before and
after, negative padding (a crop), dilation with transposition, ceil mode, and "same" with a stride. An N-D
layer is N independent axes: ``conv_sizes``, ``pool_sizes`` and ``transposed_sizes`` take an entry for each axis, or a
padding word. Nothing here inverts these functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convoxel.annotation import is_expression
from convoxel.arithmetic.argument import as_whole, entries, per_axis, whole
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief

Pair = tuple[int, int]

PADDING_WORDS = ("none", "half", "full", "same", "causal")


def span(k: int, d: int = 1) -> int:
    """Return the number of inputs that a dilated kernel spans: e = d (k − 1) + 1.

    Raises:
        ConfigError: ``k`` or ``d`` is below 1.

    >>> span(3), span(3, d=2)
    (3, 5)
    """
    return _natural("dilation d", d) * (_natural("kernel size k", k) - 1) + 1


def conv_size(i: int, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> int:
    """Return the output size o of a convolution.

    o = ⌊(i + p_before + p_after − e) / s⌋ + 1 with e = d (k − 1) + 1, which contains

    - DV 1 (s = 1, p = 0): o = i − k + 1
    - DV 2 (s = 1): o = i − k + 2p + 1
    - DV 3 (half padding, k odd, p = ⌊k / 2⌋): o = i
    - DV 4 (full padding, p = k − 1): o = i + k − 1
    - DV 5 (p = 0): o = ⌊(i − k) / s⌋ + 1
    - DV 6: o = ⌊(i + 2p − k) / s⌋ + 1
    - DV 15 (dilation): o = ⌊(i + 2p − k − (k − 1)(d − 1)) / s⌋ + 1

    Args:
        i: input size, at least 0.
        k: kernel size.
        s: stride.
        p: padding on both sides, or (before, after); negative numbers crop.
        d: dilation, 1 for a dense kernel.

    Raises:
        ShapeError: the padded input is smaller than the kernel's span.
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> conv_size(4, 3), conv_size(5, 4, p=2), conv_size(5, 3, p=1), conv_size(5, 3, p=2)  # DV 1, 2, 3, 4
    (2, 6, 5, 7)
    >>> conv_size(5, 3, s=2), conv_size(5, 3, s=2, p=1), conv_size(6, 3, s=2, p=1)  # DV 5, 6, 6
    (2, 3, 3)
    >>> conv_size(7, 3, d=2)  # DV 15
    3
    >>> conv_size(7, 2, s=2, p=(1, 0))
    4
    """
    room = _room(i, k, p, d)
    return room // _natural("stride s", s) + 1


def pool_size(i: int, k: int, s: int | None = None, p: int | Pair = 0, d: int = 1, ceil: bool = False) -> int:
    """Return the output size o of a pooling.

    DV 7 (p = 0): o = ⌊(i − k) / s⌋ + 1, and with padding and dilation as :func:`conv_size`. With ``ceil`` the
    division rounds up, so that a last window may hang over the end, unless it would start in the padding
    after the input (or beyond): such a window would see nothing and is dropped.

    Args:
        i: input size.
        k: kernel size.
        s: stride; the kernel size unless given.
        p: padding on both sides, or (before, after).
        d: dilation.
        ceil: whether the division rounds up (default: down).

    Raises:
        ShapeError: the padded input is smaller than the kernel's span (with ``ceil``: by a stride or more).
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> pool_size(5, 3, s=1), pool_size(7, 2), pool_size(7, 2, ceil=True)  # DV 7; floor; ceil
    (3, 3, 4)
    >>> pool_size(2, 3, s=2, ceil=True)
    1
    """
    k = _natural("kernel size k", k)
    stride = k if s is None else _natural("stride s", s)
    # Rounded up, the first window too may hang over the end, by less than a stride.
    room = _room(i, k, p, d, slack=stride - 1 if ceil else 0)
    if not ceil:
        return room // stride + 1
    o = -(-room // stride) + 1
    before = _pair(p)[0]
    return o - 1 if o > 1 and (o - 1) * stride >= i + before else o


def transposed_size(i: int, k: int, s: int = 1, p: int | Pair = 0, d: int = 1, a: int = 0) -> int:
    """Return the output size o of a transposed convolution.

    The transposed convolution maps back over a convolution with the same k, s, p, d; it puts each of its i
    inputs at distance s and lets the kernel spread it: o = s (i − 1) + e + a − p_before − p_after, e = d (k −
    1) + 1. DV write it as a convolution of the input stretched with s − 1 zeros, p' = k − p − 1 and s' = 1;
    contained are

    - DV 8 (s = 1, p = 0): o = i + k − 1
    - DV 9 (s = 1): o = i + (k − 1) − 2p
    - DV 10 (half padding): o = i
    - DV 11 (full padding): o = i − (k − 1)
    - DV 12 (p = 0, sizes divide): o = s (i − 1) + k
    - DV 13 (sizes divide): o = s (i − 1) + k − 2p
    - DV 14: o = s (i − 1) + a + k − 2p with a of :func:`output_padding`

    Args:
        i: input size, at least 1.
        k: kernel size.
        s: stride of the convolution that is transposed.
        p: its padding, on both sides or (before, after).
        d: its dilation.
        a: positions added after the end (PyTorch's ``output_padding``).

    Raises:
        ShapeError: nothing would be left.
        ConfigError: ``k``, ``s`` or ``d`` is below 1, or ``a`` is negative.

    >>> transposed_size(2, 3), transposed_size(6, 4, p=2), transposed_size(5, 3, p=1)  # DV 8, 9, 10
    (4, 5, 5)
    >>> transposed_size(7, 3, p=2), transposed_size(2, 3, s=2)  # DV 11, 12
    (5, 5)
    >>> transposed_size(3, 3, s=2, p=1)  # DV 13
    5
    >>> transposed_size(3, 3, s=2, p=1, a=1)  # DV 14
    6
    """
    i, a = _size(i), whole("a (output_padding)", a)
    if i < 1:
        raise ShapeError(f"a transposed convolution needs an input size of at least 1, but i is {i}.")
    if a < 0:
        raise ConfigError(f"a (output_padding) is {a}, but it must be at least 0. Crop with a larger padding p.")
    before, after = _pair(p)
    o = _natural("stride s", s) * (i - 1) + span(k, d) + a - before - after
    if o < 1:
        raise ShapeError(
            f"the output size would be {o}: s (i − 1) + d (k − 1) + 1 + a − padding with i={i}, k={k}, "
            f"s={s}, p=({before}, {after}), d={d}, a={a}. Use less padding or a larger input."
        )
    return o


def check_output_padding(added: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> None:
    """Raise unless PyTorch takes the output padding: along each axis below the stride or the dilation.

    Raises:
        ShapeError: it is not.

    >>> check_output_padding((1,), (2,), (1,))
    """
    if any(a >= max(s, d) for a, s, d in zip(added, stride, dilation, strict=True)):
        raise ShapeError(
            f"output_padding is {tuple(added)}, but along each axis it must be below the stride or the dilation, here "
            f"{tuple(stride)} and {tuple(dilation)}."
        )


def output_padding(i: int, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> int:
    """Return a = (i + p_before + p_after − e) mod s, DV 14: the number of inputs at the end that stay unread.

    A convolution maps s different sizes onto one; the transposed convolution with this a returns to the size
    i.

    Raises:
        ShapeError: the padded input is smaller than the kernel's span.

    >>> output_padding(6, 3, s=2, p=1), output_padding(5, 3, s=2, p=1)
    (1, 0)
    """
    return _room(i, k, p, d) % _natural("stride s", s)


def transposed_padding(k: int, p: int | Pair = 0, d: int = 1) -> Pair:
    """Return p' = e − 1 − p (DV 8, 9, 13): the padding that a transposed convolution amounts to.

    >>> transposed_padding(3, p=1), transposed_padding(3, p=(0, 2))
    ((1, 1), (2, 0))
    """
    before, after = _pair(p)
    return span(k, d) - 1 - before, span(k, d) - 1 - after


def resolve_padding(
    padding: str | int | Sequence[int] | Sequence[Pair],
    kernel: Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    size: Sequence[int] | None = None,
) -> tuple[Pair, ...]:
    """Return the padding (before, after) of every axis.

    With the kernel's span e = d (k − 1) + 1 the words mean

    - ``"none"``: (0, 0), every window lies inside the input
    - ``"half"``: ⌊e / 2⌋ on both sides, DV 3: for an odd span and stride 1 the size stays
    - ``"full"``: e − 1 on both sides, DV 4: every window that touches the input
    - ``"same"``: o = ⌈i / s⌉ for any kernel and stride; the total max((⌈i / s⌉ − 1) s + e − i, 0) is split
      evenly and an odd one puts the larger half after the input, as TensorFlow does
    - ``"causal"``: (e − 1, 0): an output never sees inputs after its own position

    Args:
        padding: a word, one int for all axes, one int for each axis, or one pair (before, after) for each axis.
        kernel: kernel size of every axis; its length is the number of axes.
        stride: stride, of all axes or of every axis.
        dilation: dilation, of all axes or of every axis.
        size: input size of every axis; needed by ``"same"`` where the stride is above 1.

    Raises:
        ConfigError: an unknown word, a wrong number of entries, or ``"same"`` without the size it needs.

    >>> resolve_padding("same", (3, 2), stride=(1, 2), size=(8, 7))
    ((1, 1), (0, 1))
    >>> resolve_padding("causal", (3,), dilation=4)
    ((8, 0),)
    >>> resolve_padding(((1, 0), (0, -2)), (3, 3))
    ((1, 0), (0, -2))
    """
    axes = len(kernel)
    strides, dilations = _per_axis(axes, stride=stride, dilation=dilation)
    if not isinstance(padding, str):
        return _given_padding(padding, axes)
    if padding not in PADDING_WORDS:
        raise ConfigError(
            f"padding is {padding!r}, but the words are {', '.join(map(repr, PADDING_WORDS))}. "
            "Or give numbers: an int, one int for each axis, or one (before, after) for each axis."
        )
    if size is not None and len(size) != axes:
        raise ConfigError(f"size has {len(size)} entries, but kernel has {axes}. Give one size for each axis.")
    spans = [span(k, d) for k, d in zip(kernel, dilations, strict=True)]
    if padding == "none":
        return ((0, 0),) * axes
    if padding == "half":
        return tuple((e // 2, e // 2) for e in spans)
    if padding == "full":
        return tuple((e - 1, e - 1) for e in spans)
    if padding == "causal":
        return tuple((e - 1, 0) for e in spans)
    if size is None and any(s > 1 for s in strides):
        raise ConfigError(
            f'padding="same" with stride {strides} depends on the input size. Give size=, or padding in numbers.'
        )
    totals = [
        # With stride 1 the size cancels: (i − 1) + e − i = e − 1.
        e - 1 if s == 1 or size is None else max((-(-size[axis] // s) - 1) * s + e - size[axis], 0)
        for axis, (e, s) in enumerate(zip(spans, strides, strict=True))
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def conv_sizes(
    size: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[Pair] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[int, ...]:
    """Return the output size of a convolution along every axis: :func:`conv_size` with :func:`resolve_padding`.

    Args:
        size: input size of every axis.
        kernel: kernel size, of all axes or of every axis; the other numbers likewise.
        stride: stride.
        padding: a word, one int for all axes, one int for each axis, or one pair (before, after) for each axis.
        dilation: dilation.

    Raises:
        ShapeError: along some axis the padded input is smaller than the kernel's span.
        ConfigError: a number is out of range, or an argument has a wrong number of entries.

    >>> conv_sizes((132, 132, 116), 3), conv_sizes((224, 224), 7, 2, "same"), conv_sizes((9,), 3, padding="causal")
    ((130, 130, 114), (112, 112), (9,))
    """
    axes = len(size)
    kernels, strides, dilations = _per_axis(axes, kernel=kernel, stride=stride, dilation=dilation)
    pairs = resolve_padding(padding, kernels, strides, dilations, size)
    return tuple(map(conv_size, size, kernels, strides, pairs, dilations))


def pool_sizes(
    size: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: str | int | Sequence[int] | Sequence[Pair] = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
) -> tuple[int, ...]:
    """Return the output size of a pooling along every axis: :func:`pool_size`; the stride is the kernel unless given.

    The arguments are those of :func:`conv_sizes`.

    Raises:
        ShapeError: along some axis the padded input is smaller than the kernel's span.
        ConfigError: a number is out of range, or an argument has a wrong number of entries.

    >>> pool_sizes((7, 8), 2, ceil=True), pool_sizes((16, 32, 32), (1, 2, 2))
    ((4, 4), (16, 16, 16))
    """
    axes = len(size)
    given = kernel if stride is None else stride
    kernels, strides, dilations = _per_axis(axes, kernel=kernel, stride=given, dilation=dilation)
    pairs = resolve_padding(padding, kernels, strides, dilations, size)
    return tuple(map(pool_size, size, kernels, strides, pairs, dilations, (ceil,) * axes))


def transposed_sizes(
    size: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[Pair] = 0,
    dilation: int | Sequence[int] = 1,
    added: int | Sequence[int] = 0,
) -> tuple[int, ...]:
    """Return the output size of a transposed convolution along every axis: :func:`transposed_size`.

    A word means the padding of the convolution that is transposed; "same" that of one from s·i to i, so that s·i
    comes out.

    Args:
        size: input size of every axis.
        kernel: kernel size; it and the others as those of :func:`conv_sizes`.
        stride: stride of the convolution that is transposed.
        padding: its padding.
        dilation: its dilation.
        added: a, positions added after the end.

    Raises:
        ShapeError: along some axis nothing would be left.
        ConfigError: a number is out of range, or an argument has a wrong number of entries.

    >>> transposed_sizes((16, 16, 16), 2, 2), transposed_sizes((7,), 3, 2, "same"), transposed_sizes((7,), 2, 3, "same")
    ((32, 32, 32), (14,), (21,))
    """
    axes = len(size)
    kernels, strides, dilations, rows = _per_axis(axes, kernel=kernel, stride=stride, dilation=dilation, added=added)
    pairs, missing = resolve_transposed(padding, kernels, strides, dilations)
    rows = tuple(a + more for a, more in zip(rows, missing, strict=True))
    return tuple(map(transposed_size, size, kernels, strides, pairs, dilations, rows))


def resolve_transposed(
    padding: str | int | Sequence[int] | Sequence[Pair],
    kernel: Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
) -> tuple[tuple[Pair, ...], tuple[int, ...]]:
    """Return the padding (before, after) of a transposed convolution along every axis, and the rows to add (a).

    A word means the padding of the convolution that is transposed, so no word but "same" adds rows: it leads from
    s·i to i, and back where kernels narrower than the stride leave the stride's last rows unwritten.

    Raises:
        ConfigError: as :func:`resolve_padding`.

    >>> resolve_transposed("same", (3, 2), (2, 3))
    (((0, 1), (0, 0)), (0, 1))
    """
    axes = len(kernel)
    strides, dilations = _per_axis(axes, stride=stride, dilation=dilation)
    # Any multiple of s does as the size that "same" is for.
    pairs = resolve_padding(padding, kernel, strides, dilations, strides)
    if padding != "same":
        return pairs, (0,) * axes
    spans = map(span, kernel, dilations)
    return pairs, tuple(s - e + sum(pair) for s, e, pair in zip(strides, spans, pairs, strict=True))


def _given_padding(padding: int | Sequence[int] | Sequence[Pair], axes: int) -> tuple[Pair, ...]:
    single = as_whole(padding)
    if single is not None:
        return ((single, single),) * axes
    found = entries("padding", padding)
    if len(found) != axes:
        raise ConfigError(
            f"padding {brief(padding)} has {len(found)} entries, but there are {axes} axes. "
            "Give one int for all axes, one int for each axis, or one (before, after) for each axis."
        )
    return tuple(_pair(entry) for entry in found)


def _pair(p: int | Pair) -> Pair:
    single = as_whole(p)
    if single is not None:
        return single, single
    found = entries("padding", p)
    if len(found) != 2:
        raise ConfigError(f"padding of one axis is {brief(p)}, but it must be an int or a pair (before, after).")
    return whole("padding", found[0]), whole("padding", found[1])


def _per_axis(axes: int, **values: int | Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give each of ``values`` an entry for each axis."""
    for name, value in values.items():
        yield per_axis(name, value, axes, least=None if name == "added" else 1)


def _size(i: int) -> int:
    """Return a size; one that is still an expression stays as it is."""
    return i if is_expression(i) else whole("size i", i)


def _natural(name: str, value: int) -> int:
    return whole(name, value, least=1)


def _room(i: int, k: int, p: int | Pair, d: int, slack: int = 0) -> int:
    """Return the distance that the kernel can move over the padded input; it may hang over the end by ``slack``."""
    i = _size(i)
    before, after = _pair(p)
    room = i + before + after - span(k, d)
    if i < 0 or room < -slack:
        raise ShapeError(
            f"an input of size {i} with padding ({before}, {after}) is {i + before + after} long, but the "
            f"kernel spans d (k − 1) + 1 = {span(k, d)} (k={k}, d={d}). "
            "Use a larger input, more padding or a smaller kernel."
        )
    return room
