"""A trained network with some convolutions replaced by smaller ones, where that is measured to be faster.

Layers, schemes and channel counts follow from three measurements: the time of each alternative, the error that each
alone causes in the network's output, and the error of all together. The function that measures time is an argument, so
nothing here depends on an engine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import JsonObject, Options
from convoxel.inspect.factorisation import SCHEMES, Factor, Factorisation, factorise
from convoxel.inspect.rank import count_macs, factor_layers, input_shapes, least_time
from convoxel.nn.torch_layers import CONV, ConvLayer

# Relative errors of kernels at which alternatives are made: the network's own error decides among them.
_KERNEL_ERRORS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Output errors that a search under a limit of accuracy tries, from cautious to bold.
_BUDGETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
# Less than this is within what two measurements of the same layer differ by.
_LEAST_SAVING = 0.05

Measure = Callable[[nn.Module, tuple[int, ...]], float]


@dataclass(frozen=True)
class Replacement:
    """A convolution that was replaced.

    Attributes:
        name: name of the layer in the network.
        scheme: a key of ``convoxel.inspect.SCHEMES``.
        ranks: channels between the new layers.
        kernel_error: ‖W − Ŵ‖ / ‖W‖.
        output_error: relative change of the network's output from this layer alone.
        params, macs, time_s: before and after.
        factors: the new layers: shape of the weights, axes whose stride and padding they have, groups.
    """

    name: str
    scheme: str
    ranks: tuple[int, ...]
    kernel_error: float
    output_error: float
    params: tuple[int, int]
    macs: tuple[int, int]
    time_s: tuple[float, float]
    factors: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Trial:
    """One point between fast and accurate that the search under ``max_accuracy_loss`` tried.

    Attributes:
        max_error: limit of the output error before fine-tuning.
        layers: number of layers replaced.
        time_s: measured time of the whole network.
        params: parameters of the whole network.
        score: result of ``score``.
    """

    max_error: float
    layers: int
    time_s: float
    params: int
    score: float


@dataclass(frozen=True)
class Separation:
    """The result of :func:`separate`.

    Attributes:
        model: the new network, in eval mode.
        replacements: one for each convolution that was replaced.
        error: ‖f̂(x) − f(x)‖ / ‖f(x)‖ on the example, before fine-tuning.
        params, macs, time_s: of the whole network, before and after; macs of its convolutions.
        score: before and after, where a score was asked for.
        trials: points that the search tried.
    """

    model: nn.Module
    replacements: tuple[Replacement, ...]
    error: float
    params: tuple[int, int]
    macs: tuple[int, int]
    time_s: tuple[float, float]
    score: tuple[float, float] | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def speedup(self) -> float:
        """Measured time before, divided by that after."""
        return self.time_s[0] / self.time_s[1]

    def structure(self) -> list[JsonObject]:
        """Return, as JSON values, all that :func:`restore_separated` needs beside the weights."""
        return [{"name": row.name, "factors": list(row.factors)} for row in self.replacements]

    def to_dict(self) -> JsonObject:
        """Return everything but the network as JSON values."""
        found = {name: value for name, value in vars(self).items() if name not in ("model", "replacements", "trials")}
        rows = [asdict(row) for row in self.replacements]
        return {**found, "speedup": self.speedup, "replacements": rows, "trials": [asdict(row) for row in self.trials]}


@dataclass
class _Option:
    """One factorisation of a layer, with its costs."""

    made: Factorisation
    layers: nn.Sequential
    macs: int
    time_s: float
    output_error: float = math.inf


@dataclass
class _Place:
    """One convolution and its options, from slow and exact to fast and coarse."""

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    macs: int
    time_s: float
    options: list[_Option] = field(default_factory=list)
    chosen: int = -1

    def state(self, index: int) -> tuple[float, float]:
        """Return time and output error of an option; −1 is the layer as it is."""
        return (self.time_s, 0.0) if index < 0 else (self.options[index].time_s, self.options[index].output_error)


def separate(
    model: nn.Module,
    example: Tensor,
    *,
    max_error: float | None = None,
    max_accuracy_loss: float | None = None,
    score: Callable[[nn.Module], float] | None = None,
    fine_tune: Callable[[nn.Module], None] | None = None,
    measure: Measure | None = None,
    schemes: Iterable[str] = tuple(SCHEMES),
    on_progress: Callable[[str], None] | None = None,
) -> Separation:
    """Return ``model`` with convolutions replaced by smaller ones, within a limit of error or of lost accuracy.

    Each convolution without groups is factorised by each scheme (along space, planar and deep, along channels, each
    channel by itself; see :mod:`convoxel.inspect.factorisation`) at several errors. Alternatives that are not
    measured to be faster are dropped. Of the others those are taken first that save most time for the squared error
    that they add; each step is checked on the network's output. The whole network is timed at the end: if it is not
    faster, nothing is replaced.

    Args:
        model: a trained network of one input and one output tensor. Not changed.
        example: input ``(n, channels, *spatial)``; typical data, as errors are measured on it.
        max_error: largest ‖f̂(x) − f(x)‖ / ‖f(x)‖ on the example. Give this or ``max_accuracy_loss``.
        max_accuracy_loss: largest fall of ``score``; the fastest network within it is returned.
        score: function of a network in eval mode, larger is better; with ``max_accuracy_loss``.
        fine_tune: function that trains a network in place, called before ``score``.
        measure: function (module, input shape) → seconds; :func:`time_torch` unless given. For the engine
            ``convoxel.inspect.time_engine``.
        schemes: which may be used.
        on_progress: called with one line for each step.

    Returns:
        A :class:`Separation`. The state dict of its ``model`` has ``NAME.0.weight``, ``NAME.1.weight``, … in place
        of ``NAME.weight``; :func:`restore_separated` makes such a network.

    Raises:
        ConfigError: limits contradict each other, or a scheme is unknown.
        ShapeError: the output is no single tensor.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> with torch.no_grad(): _ = net[0].weight.copy_(torch.ones(8, 8, 3, 3) / 9)
    >>> macs = lambda module, shape: float(sum(p.numel() for p in module.parameters()))  # no clock in an example
    >>> found = separate(net, torch.rand(2, 8, 9, 9), max_error=1e-3, measure=macs)
    >>> [row.name for row in found.replacements], found.error < 1e-3, found.params[1] < found.params[0]
    (['0'], True, True)
    """
    _check_limits(max_error, max_accuracy_loss, score, schemes)
    if isinstance(model, CONV):
        raise ConfigError("separate: model is a single convolution. Put it into nn.Sequential to have it replaced.")
    measure = measure or time_torch
    tell = on_progress or (lambda line: None)
    work = copy.deepcopy(model).eval()
    with torch.no_grad():
        exact = work(example)
        if not isinstance(exact, Tensor):
            raise ShapeError(f"separate: model returns a {type(exact).__name__}; expected one tensor. Wrap the network "
                             "in a module that returns the tensor that counts.")  # fmt: skip
        places = _find_options(work, example, exact, tuple(schemes), measure, tell)
    shape = tuple(example.shape)
    before = measure(work, shape)
    if max_error is not None:
        with torch.no_grad():
            error = _choose(work, places, example, exact, max_error)
        return _result(work, model, places, error, before, measure(work, shape))
    assert max_accuracy_loss is not None and score is not None
    return _search(work, model, places, (example, exact), max_accuracy_loss, score, fine_tune, measure, before, tell)


def _check_limits(
    max_error: float | None, max_accuracy_loss: float | None, score: object, schemes: Iterable[str]
) -> None:
    if (max_error is None) == (max_accuracy_loss is None):
        raise ConfigError("separate: give one limit, max_error or max_accuracy_loss.")
    for name, value in (("max_error", max_error), ("max_accuracy_loss", max_accuracy_loss)):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{name} is {value!r}, but it must be a number of at least 0, such as 0.05.")
    if max_accuracy_loss is not None and score is None:
        raise ConfigError("separate: max_accuracy_loss needs score, a function from a network to its accuracy.")
    for scheme in schemes:
        if scheme not in SCHEMES:
            raise ConfigError(f"schemes has {scheme!r}, but there are {', '.join(map(repr, SCHEMES))}.")


# ---- what could be done ----------------------------------------------------------------------------------


def _find_options(
    work: nn.Module,
    example: Tensor,
    exact: Tensor,
    schemes: Sequence[str],
    measure: Measure,
    tell: Callable[[str], None],
) -> list[_Place]:
    shapes = input_shapes(work, tuple(example.shape))
    layers = [(name, layer) for name, layer in work.named_modules()
              if isinstance(layer, CONV) and layer.groups == 1 and name in shapes]  # fmt: skip
    times: dict[tuple[object, ...], float] = {}

    def timed(layers: nn.Module, key: tuple[object, ...], shape: tuple[int, ...]) -> float:
        if key not in times:
            times[key] = measure(layers, shape)
        return times[key]

    places = []
    for number, (name, layer) in enumerate(layers, 1):
        shape, sort = shapes[name], _sort(layer)
        place = _Place(name, layer, shape, count_macs(nn.Sequential(layer), shape), timed(layer, (shape, sort), shape))
        for made in _factorisations(layer, schemes):
            made_layers = factor_layers(layer, made).eval()
            macs = count_macs(made_layers, shape)
            if macs >= place.macs:
                continue
            spent = timed(made_layers, (shape, sort, made.scheme, made.ranks), shape)
            if spent <= (1 - _LEAST_SAVING) * place.time_s:
                place.options.append(_Option(made, made_layers, macs, spent))
        for option in place.options:
            _put(work, name, option.layers)
            option.output_error = _distance(work(example), exact)
            _put(work, name, layer)
        place.options = _front(place.options)
        tell(f"{number} of {len(layers)} layers, {name}: {len(place.options)} faster ways")
        places.append(place)
    return places


def _sort(layer: ConvLayer) -> tuple[object, ...]:
    """Return everything that the time of a layer depends on, beside the shape of its input."""
    return (tuple(layer.weight.shape), layer.stride, layer.padding, layer.dilation, layer.bias is None)


def _factorisations(layer: ConvLayer, schemes: Sequence[str]) -> list[Factorisation]:
    found: dict[tuple[object, ...], Factorisation] = {}
    for scheme in schemes:
        for error in _KERNEL_ERRORS:
            made = factorise(layer.weight, scheme, error)
            if made is not None:
                found.setdefault((scheme, made.ranks), made)
    return list(found.values())


def _front(options: list[_Option]) -> list[_Option]:
    """Return the options than which no other is faster with no more error, from slow and exact to fast and coarse."""
    kept: list[_Option] = []
    for option in sorted(options, key=lambda option: (option.output_error, option.time_s)):
        if math.isfinite(option.output_error) and (not kept or option.time_s < kept[-1].time_s):
            kept.append(option)
    return kept


# ---- what is done ----------------------------------------------------------------------------------------


def _choose(work: nn.Module, places: list[_Place], example: Tensor, exact: Tensor, limit: float) -> float:
    """Bring ``work`` to the fastest state within ``limit`` that greedy steps find; return its output error."""
    for place in places:
        place.chosen = -1
        _put(work, place.name, place.layer)
    error, refused = 0.0, {id(place): len(place.options) for place in places}
    while True:
        best: tuple[float, _Place, int] | None = None
        for place in places:
            now_s, now_error = place.state(place.chosen)
            for index in range(place.chosen + 1, refused[id(place)]):
                then_s, then_error = place.state(index)
                gain = (now_s - then_s) / max(then_error**2 - now_error**2, 1e-12)
                if best is None or gain > best[0]:
                    best = gain, place, index
        if best is None:
            return error
        _, place, index = best
        _put(work, place.name, place.options[index].layers)
        found = _distance(work(example), exact)
        if found <= limit:
            place.chosen, error = index, found
        else:
            refused[id(place)] = index  # what is coarser would be refused too
            _put(work, place.name, place.layer if place.chosen < 0 else place.options[place.chosen].layers)


def _search(
    work: nn.Module,
    model: nn.Module,
    places: list[_Place],
    sight: tuple[Tensor, Tensor],
    limit: float,
    score: Callable[[nn.Module], float],
    fine_tune: Callable[[nn.Module], None] | None,
    measure: Measure,
    before: float,
    tell: Callable[[str], None],
) -> Separation:
    """Return the fastest network whose score has not fallen by more than ``limit``; errors grow step by step."""
    example, exact = sight
    shape = tuple(example.shape)
    start = score(copy.deepcopy(model).eval())
    best = replace(_result(copy.deepcopy(model).eval(), model, [], 0.0, before, before), score=(start, start))
    trials: list[Trial] = []
    last: list[int] = []
    for budget in _BUDGETS:
        with torch.no_grad():
            error = _choose(work, places, example, exact, budget)
        chosen = [place.chosen for place in places]
        if chosen == last or max(chosen, default=-1) < 0:
            continue
        last = chosen
        found = _result(copy.deepcopy(work), model, places, error, before, measure(work, shape))
        if fine_tune is not None:
            fine_tune(found.model)
        reached = score(found.model.eval())
        trials.append(Trial(budget, sum(index >= 0 for index in chosen), found.time_s[1], found.params[1], reached))
        tell(f"output error {error:.3f}: {found.speedup:.2f} × as fast, score {reached:.4f} after {start:.4f}")
        if start - reached <= limit and found.time_s[1] < best.time_s[1]:
            best = replace(found, score=(start, reached))
        elif start - reached > 4 * limit + 0.05:
            break  # far beyond: bolder ones will not come back
    return replace(best, trials=tuple(trials))


def _result(
    work: nn.Module, model: nn.Module, places: list[_Place], error: float, before: float, after: float
) -> Separation:
    """Return the result; without replacements if the whole network did not become faster."""
    if after >= before or all(place.chosen < 0 for place in places):
        work, error, after = copy.deepcopy(model).eval(), 0.0, before
        done = []
    else:
        done = [(place, place.options[place.chosen]) for place in places if place.chosen >= 0]
    macs = sum(place.macs for place in places)
    saved = sum(place.macs - option.macs for place, option in done)
    params = [sum(parameter.numel() for parameter in net.parameters()) for net in (model, work)]
    rows = tuple(_replacement(place, option) for place, option in done)
    return Separation(work, rows, error, (params[0], params[1]), (macs, macs - saved), (before, after))


def _replacement(place: _Place, option: _Option) -> Replacement:
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in (place.layer, option.layers)]
    factors = tuple(
        {"shape": list(factor.weight.shape), "axes": list(factor.axes), "groups": factor.groups}
        for factor in option.made.factors
    )
    return Replacement(
        name=place.name,
        scheme=option.made.scheme,
        ranks=option.made.ranks,
        kernel_error=option.made.error,
        output_error=option.output_error,
        params=(counts[0], counts[1]),
        macs=(place.macs, option.macs),
        time_s=(place.time_s, option.time_s),
        factors=factors,
    )


def restore_separated(model: nn.Module, structure: Sequence[Options]) -> nn.Module:
    """Return a copy of ``model`` whose layers are those of a separated network, ready for its weights.

    Args:
        model: the network as it was before :func:`separate`.
        structure: what :meth:`Separation.structure` returned; may come from JSON.

    Raises:
        ConfigError: a layer is missing in ``model``, or is no convolution.

    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3))
    >>> row = {"name": "0", "factors": [{"shape": [2, 8, 3, 1], "axes": [0], "groups": 1},
    ...                                 {"shape": [8, 2, 1, 3], "axes": [1], "groups": 1}]}
    >>> sorted(restore_separated(net, [row]).state_dict())
    ['0.0.weight', '0.1.bias', '0.1.weight']
    """
    made = copy.deepcopy(model)
    layers = dict(made.named_modules())
    for row in structure:
        layer = layers.get(row["name"])
        if not isinstance(layer, CONV):
            came = "is not in the model" if layer is None else f"is a {type(layer).__name__}"
            raise ConfigError(f"structure: {row['name']!r} {came}; expected a convolution there. "
                              "Give the model that was separated.")  # fmt: skip
        factors = tuple(
            Factor(torch.zeros(*entry["shape"]), tuple(entry["axes"]), int(entry["groups"])) for entry in row["factors"]
        )
        _put(made, row["name"], factor_layers(layer, Factorisation("restored", (), factors, 0.0)))
    return made


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _distance(found: Tensor, exact: Tensor) -> float:
    size = float(exact.norm())
    return float((found - exact).norm()) / size if size else float((found - exact).norm())


def time_torch(module: nn.Module, shape: Sequence[int], *, runs: int = 7, budget_s: float = 0.2) -> float:
    """Return the seconds that a module takes in PyTorch on its device's CPU: the least of several runs.

    >>> time_torch(nn.Conv1d(1, 1, 3), (1, 1, 8), budget_s=0.0) > 0
    True
    """
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return least_time(lambda: module(x), runs, budget_s)
