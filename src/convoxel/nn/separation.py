"""A trained network with some convolutions replaced by smaller ones, where that is measured or counted to save.

Layers, schemes and channel counts follow from three figures: the cost of each alternative (measured time, or exact
counts of operations or parameters), the harm that each alone does to the network's answer, and the harm of all
together. Harm is a change of the output, or a rise of the task's loss. The function that measures time is an argument,
so nothing here depends on an engine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.fault import plural
from convoxel.files.values import JsonObject, Options
from convoxel.inspect.factorisation import SCHEMES, Factor, Factorisation, factorise
from convoxel.inspect.rank import count_macs, factor_layers, input_shapes, least_time
from convoxel.nn.torch_layers import CONV, ConvLayer

# Relative errors of kernels at which alternatives are made: the network's own error decides among them.
_KERNEL_ERRORS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Output errors that a search under a limit of accuracy tries, from cautious to bold.
_BUDGETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
# Rises of the loss that a search under a limit of loss tries, as multiples of it: beyond it where tuning follows.
_SHARES, _BOLD_SHARES = (0.25, 0.5, 0.75, 1.0, 1.5), (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Less than this is within what two measurements of the same layer differ by.
_LEAST_SAVING = 0.05

GOALS = ("time", "macs", "params")

_Module = TypeVar("_Module", bound=nn.Module)
Measure = Callable[[nn.Module, tuple[int, ...]], float]


@dataclass(frozen=True)
class Replacement:
    """A convolution that was replaced.

    Attributes:
        name: name of the layer in the network.
        scheme: a key of ``convoxel.inspect.SCHEMES``.
        ranks: channels between the new layers.
        kernel_error: ‖W − Ŵ‖ / ‖W‖.
        output_error: relative change of the network's output from this layer alone; None where losses were compared.
        loss_rise: rise of the loss from this layer alone; None where outputs were compared.
        params, macs, time_s: before and after.
        factors: the new layers: shape of the weights, axes whose stride and padding they have, groups.
    """

    name: str
    scheme: str
    ranks: tuple[int, ...]
    kernel_error: float
    output_error: float | None
    loss_rise: float | None
    params: tuple[int, int]
    macs: tuple[int, int]
    time_s: tuple[float, float]
    factors: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Trial:
    """One point between fast and accurate that the search under ``max_accuracy_loss`` or ``max_loss`` tried.

    Attributes:
        max_error: limit of the output error, or of the rise of the loss, before fine-tuning.
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

    def cost(self, goal: str) -> float:
        """Return the time, the multiply–accumulates or the parameters after it, by a word of ``GOALS``."""
        return {"time": self.time_s, "macs": self.macs, "params": self.params}[goal][1]

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
    cost: float
    harm: float = math.inf


@dataclass
class _Place:
    """One convolution and its options, from slow and exact to fast and coarse."""

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    macs: int
    cost: float
    options: list[_Option] = field(default_factory=list)
    chosen: int = -1

    def state(self, index: int) -> tuple[float, float]:
        """Return cost and harm of an option; −1 is the layer as it is."""
        return (self.cost, 0.0) if index < 0 else (self.options[index].cost, self.options[index].harm)


@dataclass(frozen=True)
class _Harm:
    """The harm that replacements do to a network's answer.

    Attributes:
        of: harm of a changed network.
        power: harms of several layers add up in this power: errors of outputs as squares, rises of a loss as such.
        loss: whether it is a rise of the loss, not an error of the output.
    """

    of: Callable[[nn.Module], float]
    power: int
    loss: bool


class _Costs:
    """The cost of layers by the goal of a separation; equal layers are measured once."""

    def __init__(self, goal: str, measure: Measure) -> None:
        self.goal, self._measure = goal, measure
        self._times: dict[tuple[object, ...], float] = {}

    def time(self, module: nn.Module, key: tuple[object, ...], shape: tuple[int, ...]) -> float:
        """Return measured seconds; modules of the same key take the same."""
        if key not in self._times:
            self._times[key] = self._measure(module, shape)
        return self._times[key]

    def of(self, module: nn.Module, key: tuple[object, ...], shape: tuple[int, ...], macs: int) -> float:
        """Return what counts: seconds, multiply–accumulates or parameters."""
        if self.goal == "time":
            return self.time(module, key, shape)
        return float(macs if self.goal == "macs" else count_params(module))


def count_params(module: nn.Module) -> int:
    """Return the number of a module's parameters.

    >>> count_params(nn.Conv1d(2, 3, 5))
    33
    """
    return sum(parameter.numel() for parameter in module.parameters())


def separate(
    model: nn.Module,
    example: Tensor,
    *,
    max_error: float | None = None,
    max_accuracy_loss: float | None = None,
    max_loss: float | None = None,
    loss: Callable[[nn.Module], float] | None = None,
    score: Callable[[nn.Module], float] | None = None,
    fine_tune: Callable[[nn.Module], None] | None = None,
    measure: Measure | None = None,
    goal: str = "time",
    schemes: Iterable[str] = tuple(SCHEMES),
    on_progress: Callable[[str], None] | None = None,
) -> Separation:
    """Return ``model`` with convolutions replaced by smaller ones, within a limit of error, lost accuracy or loss.

    Each convolution without groups is factorised by each scheme (along space, planar and deep, along channels, along
    both, each channel by itself; see :mod:`convoxel.inspect.factorisation`) at several errors. Alternatives that are
    not measured to be faster (or, by ``goal``, counted to be smaller) are dropped. Of the others those are taken first
    that save most for the harm that they add; each step is checked on the whole network. That is timed or counted at
    the end: if it is no better, nothing is replaced.

    Args:
        model: a trained network of one input and one output tensor. Not changed.
        example: input ``(n, channels, *spatial)``; typical data, as errors are measured on it.
        max_error: largest ‖f̂(x) − f(x)‖ / ‖f(x)‖ on the example. Give one of these three limits.
        max_accuracy_loss: largest fall of ``score``; the fastest network within it is returned.
        max_loss: largest rise of ``loss``, by which the rank of every layer is chosen.
        loss: function of a network in eval mode, smaller is better: the task's loss on samples that were held out.
        score: function of a network in eval mode, larger is better; with ``max_accuracy_loss``. With ``max_loss`` it
            judges whole networks, as a loss on more samples with the opposite sign (default: that of ``loss``).
        fine_tune: function that trains a network in place, called before ``score``.
        measure: function (module, input shape) → seconds; :func:`time_torch` unless given. For the engine
            ``convoxel.inspect.time_engine``.
        goal: what has to fall: measured "time", "macs" (multiply–accumulates) or "params" (default "time").
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
    _check_limits((max_error, max_accuracy_loss, max_loss), score, loss, goal, schemes)
    if isinstance(model, CONV):
        raise ConfigError("separate: model is a single convolution. Put it into nn.Sequential to have it replaced.")
    costs = _Costs(goal, measure or time_torch)
    tell = on_progress or (lambda line: None)
    work = copy.deepcopy(model).eval()
    with torch.no_grad():
        exact = work(example)
        if not isinstance(exact, Tensor):
            raise ShapeError(f"separate: model returns a {type(exact).__name__}; expected one tensor. Wrap the network "
                             "in a module that returns the tensor that counts.")  # fmt: skip
        harm = _Harm(lambda net: _distance(net(example), exact), 2, False)
        if max_loss is not None and loss is not None:
            harm = _rise(loss, loss(work))
        places = _find_options(work, tuple(example.shape), harm, tuple(schemes), costs, tell)
    task = _Task(model, work, places, example, exact, harm, costs)
    if max_error is not None:
        with torch.no_grad():
            _choose(work, places, harm, max_error)
        return task.result()
    if max_loss is not None and loss is not None:
        judge = score or (lambda net: -loss(net))
        shares = _SHARES if fine_tune is None else _BOLD_SHARES
        return _search(task, max_loss, [share * max_loss for share in shares], judge, fine_tune, tell)
    assert max_accuracy_loss is not None and score is not None
    return _search(task, max_accuracy_loss, _BUDGETS, score, fine_tune, tell)


def _rise(loss: Callable[[nn.Module], float], before: float) -> _Harm:
    return _Harm(lambda net: loss(net) - before, 1, True)


def _check_limits(
    limits: Sequence[float | None], score: object, loss: object, goal: str, schemes: Iterable[str]
) -> None:
    if sum(value is not None for value in limits) != 1:
        raise ConfigError("separate: give one limit, max_error, max_accuracy_loss or max_loss.")
    for name, value in zip(("max_error", "max_accuracy_loss", "max_loss"), limits, strict=True):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{name} is {value!r}, but it must be a number of at least 0, such as 0.05.")
    if limits[1] is not None and score is None:
        raise ConfigError("separate: max_accuracy_loss needs score, a function from a network to its accuracy.")
    if limits[2] is not None and loss is None:
        raise ConfigError("separate: max_loss needs loss, a function from a network to its loss.")
    check_choice("goal", goal, GOALS)
    for scheme in schemes:
        if scheme not in SCHEMES:
            raise ConfigError(f"schemes has {scheme!r}, but there are {', '.join(map(repr, SCHEMES))}.")


# ---- what could be done ----------------------------------------------------------------------------------


def _find_options(
    work: nn.Module,
    shape: tuple[int, ...],
    harm: _Harm,
    schemes: Sequence[str],
    costs: _Costs,
    tell: Callable[[str], None],
) -> list[_Place]:
    shapes = input_shapes(work, shape)
    layers = [(name, layer) for name, layer in work.named_modules()
              if isinstance(layer, CONV) and layer.groups == 1 and name in shapes]  # fmt: skip
    places = []
    for number, (name, layer) in enumerate(layers, 1):
        seen, sort = shapes[name], _sort(layer)
        macs = count_macs(nn.Sequential(layer), seen)
        place = _Place(name, layer, seen, macs, costs.of(layer, (seen, sort), seen, macs))
        for made in _factorisations(layer, schemes):
            made_layers = factor_layers(layer, made).eval()
            macs = count_macs(made_layers, seen)
            if macs >= place.macs:
                continue
            cost = costs.of(made_layers, (seen, sort, made.scheme, made.ranks), seen, macs)
            if cost <= (1 - _LEAST_SAVING) * place.cost:
                place.options.append(_Option(made, made_layers, macs, cost, made.error))
        place.options = _front(place.options)  # coarser kernels that cost no less are not worth a run of the network
        for option in place.options:
            _put(work, name, option.layers)
            option.harm = harm.of(work)
            _put(work, name, layer)
        place.options = _front(place.options)
        tell(f"{number} of {len(layers)} layers, {name}: {plural(len(place.options), 'smaller way')}")
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
    """Return the options than which none costs less with no more harm, from dear and exact to cheap and coarse."""
    kept: list[_Option] = []
    for option in sorted(options, key=lambda option: (option.harm, option.cost)):
        if math.isfinite(option.harm) and (not kept or option.cost < kept[-1].cost):
            kept.append(option)
    return kept


# ---- what is done ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """A network in the course of its separation: as it was, as it is now, and what could be done.

    Attributes:
        model: the network as it was.
        work: a copy, whose layers are those that are chosen.
        places: its convolutions.
        example, exact: an input and the output of ``model``.
        harm, costs: by which ways are compared.
    """

    model: nn.Module
    work: nn.Module
    places: list[_Place]
    example: Tensor
    exact: Tensor
    harm: _Harm
    costs: _Costs

    def unchanged(self) -> Separation:
        """Return the result in which nothing is replaced."""
        spent = self.costs.time(self.model, (), tuple(self.example.shape))
        params, macs = count_params(self.model), sum(place.macs for place in self.places)
        return Separation(copy.deepcopy(self.model).eval(), (), 0.0, (params,) * 2, (macs,) * 2, (spent,) * 2)

    def result(self) -> Separation:
        """Return the network as it is now; without replacements if the whole did not become cheaper."""
        before = self.unchanged()
        done = [(place, place.options[place.chosen]) for place in self.places if place.chosen >= 0]
        if not done:
            return before
        key = tuple((place.name, place.chosen) for place in self.places)
        spent = self.costs.time(self.work, key, tuple(self.example.shape))
        if self.costs.goal == "time" and spent >= before.time_s[0]:
            return before
        saved = sum(place.macs - option.macs for place, option in done)
        with torch.no_grad():
            error = _distance(self.work(self.example), self.exact)
        return Separation(
            copy.deepcopy(self.work).eval(),
            tuple(self._replacement(place, option) for place, option in done),
            error,
            (before.params[0], count_params(self.work)),
            (before.macs[0], before.macs[0] - saved),
            (before.time_s[0], spent),
        )

    def _replacement(self, place: _Place, option: _Option) -> Replacement:
        factors = tuple(
            {"shape": list(factor.weight.shape), "axes": list(factor.axes), "groups": factor.groups}
            for factor in option.made.factors
        )
        sort = _sort(place.layer)  # type: ignore[arg-type]  # a convolution
        was = self.costs.time(place.layer, (place.shape, sort), place.shape)
        now = self.costs.time(option.layers, (place.shape, sort, option.made.scheme, option.made.ranks), place.shape)
        return Replacement(
            name=place.name,
            scheme=option.made.scheme,
            ranks=option.made.ranks,
            kernel_error=option.made.error,
            output_error=None if self.harm.loss else option.harm,
            loss_rise=option.harm if self.harm.loss else None,
            params=(count_params(place.layer), count_params(option.layers)),
            macs=(place.macs, option.macs),
            time_s=(was, now),
            factors=factors,
        )


def _choose(work: nn.Module, places: list[_Place], harm: _Harm, limit: float) -> None:
    """Bring ``work`` from its state to the cheapest within ``limit`` that greedy steps find."""
    refused = {id(place): len(place.options) for place in places}
    while True:
        best: tuple[float, _Place, int] | None = None
        for place in places:
            now_cost, now_harm = place.state(place.chosen)
            for index in range(place.chosen + 1, refused[id(place)]):
                then_cost, then_harm = place.state(index)
                added = _power(then_harm, harm.power) - _power(now_harm, harm.power)
                gain = (now_cost - then_cost) / max(added, 1e-12)
                if best is None or gain > best[0]:
                    best = gain, place, index
        if best is None:
            return
        _, place, index = best
        _put(work, place.name, place.options[index].layers)
        if harm.of(work) <= limit:
            place.chosen = index
        else:
            refused[id(place)] = index  # what is coarser would be refused too
            _put(work, place.name, place.layer if place.chosen < 0 else place.options[place.chosen].layers)


def _power(harm: float, power: int) -> float:
    return math.copysign(abs(harm) ** power, harm)


def _search(
    task: _Task,
    limit: float,
    budgets: Iterable[float],
    score: Callable[[nn.Module], float],
    fine_tune: Callable[[nn.Module], None] | None,
    tell: Callable[[str], None],
) -> Separation:
    """Return the cheapest network whose score has not fallen by more than ``limit``; harms grow step by step."""
    start = score(copy.deepcopy(task.model).eval())
    best = replace(task.unchanged(), score=(start, start))
    trials: list[Trial] = []
    last = [-1] * len(task.places)
    for budget in budgets:
        with torch.no_grad():
            _choose(task.work, task.places, task.harm, budget)
        chosen = [place.chosen for place in task.places]
        if chosen == last:
            continue
        last = chosen
        found = task.result()
        if not found.replacements:
            continue
        if fine_tune is not None:
            fine_tune(found.model)
        reached = score(found.model.eval())
        trials.append(Trial(budget, len(found.replacements), found.time_s[1], found.params[1], reached))
        smaller = found.params[0] / found.params[1]
        tell(f"output error {found.error:.3f}: {found.speedup:.2f} × as fast, {smaller:.2f} × as small, score "
             f"{reached:.4f} after {start:.4f}")  # fmt: skip
        if start - reached <= limit and found.cost(task.costs.goal) < best.cost(task.costs.goal):
            best = replace(found, score=(start, reached))
        elif start - reached > 4 * limit + 0.05:
            break  # far beyond: bolder ones will not come back
    return replace(best, trials=tuple(trials))


def restore_separated(model: _Module, structure: Sequence[Options]) -> _Module:
    """Return a copy of ``model`` whose layers are those of a separated network, ready for its weights.

    Args:
        model: the network as it was before :func:`separate`.
        structure: what :meth:`Separation.structure` returned; may come from JSON.

    Raises:
        ConfigError: a layer is missing in ``model`` or is no convolution, or the factors do not make its kernel.

    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3))
    >>> row = {"name": "0", "factors": [{"shape": [2, 8, 3, 1], "axes": [0], "groups": 1},
    ...                                 {"shape": [8, 2, 1, 3], "axes": [1], "groups": 1}]}
    >>> sorted(restore_separated(net, [row]).state_dict())
    ['0.0.weight', '0.1.bias', '0.1.weight']
    """
    made = copy.deepcopy(model)
    for row in structure:
        layer = dict(made.named_modules()).get(row["name"])  # anew: layers of layers may have been separated
        if not isinstance(layer, CONV):
            came = "is not in the model" if layer is None else f"is a {type(layer).__name__}"
            raise ConfigError(f"structure: {row['name']!r} {came}; expected a convolution there. "
                              "Give the model that was separated.")  # fmt: skip
        if not _makes(layer, row["factors"]):
            raise ConfigError(
                f"structure: the factors of {row['name']!r} do not make its kernel {tuple(layer.weight.shape)}; "
                "expected convolutions from its inputs to its outputs, each axis in one. Give what separate wrote."
            )
        factors = tuple(
            Factor(torch.zeros(*entry["shape"]), tuple(entry["axes"]), int(entry["groups"])) for entry in row["factors"]
        )
        _put(made, row["name"], factor_layers(layer, Factorisation("restored", (), factors, 0.0)))
    return made


def _makes(layer: ConvLayer, factors: Sequence[Options]) -> bool:
    """Return whether factors lead from a layer's inputs to its outputs over its kernel, through no more than it has."""
    outputs, channels, *kernel = layer.weight.shape
    most, owned = max(outputs, channels) * math.prod(kernel), list[int]()
    for factor in factors:
        made, given, *size = factor["shape"]
        axes, groups = factor["axes"], factor["groups"]
        expected = [wide if axis in axes else 1 for axis, wide in enumerate(kernel)]
        if size != expected or given * groups != channels or not 0 < made <= most or made % groups:
            return False
        channels, owned = made, owned + [axis for axis in axes if kernel[axis] > 1]
    wide = [axis for axis, size in enumerate(kernel) if size > 1]
    return layer.groups == 1 and channels == outputs and sorted(owned) == wide


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
