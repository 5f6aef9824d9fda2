"""``torch.compile`` beside training code: every situation gives what PyTorch's own backend ``aot_eager`` gives.

A situation gets the backend's ``compiled`` and returns all that a user could see: results, inputs that were written to,
state, exceptions. It runs once with either backend.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten

# PyTorch's own, while it looks at tensors between two pieces.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

Compiled = Callable[..., Any]
SITUATIONS: dict[str, Callable[[Compiled], Any]] = {}
Pair = namedtuple("Pair", "first second")


def situation(function: Callable[[Compiled], Any]) -> Callable[[Compiled], Any]:
    SITUATIONS[function.__name__] = function
    return function


def conv(channels: int = 3) -> nn.Conv2d:
    return nn.Conv2d(2, channels, 3, padding=1).eval()


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 2, 6, 5))


def raised(call: Callable[[], Any]) -> Any:
    """The type of what a call raises, by name; its result if it raises nothing."""
    try:
        return call()
    except Exception as reason:
        return type(reason).__name__


def seen_from(
    compiled: Compiled, net: nn.Module, change: Callable[[Any], object], x: torch.Tensor | None = None
) -> Any:
    """Results before and after a change of the weights."""
    x = image() if x is None else x
    fast = compiled(net)
    with torch.no_grad():
        before = fast(x)
    change(net)
    with torch.no_grad():
        return before, fast(x), fast(x)


# ---- weights that change -----------------------------------------------------------------------------------


def trained(make: Callable[..., torch.optim.Optimizer]) -> Callable[[Any], None]:
    def step(net: nn.Module) -> None:
        optimiser = make(net.parameters())
        net(image()).square().sum().backward()
        optimiser.step()

    return step


def through_numpy(net: Any) -> None:
    net.weight.detach().numpy()[0, 0, 0, 0] += 1


def exchanged(net: Any) -> None:
    old, new = net.weight, nn.Parameter(torch.randn_like(net.weight))
    torch.utils.swap_tensors(old, new)


def one_bit(net: Any) -> None:
    net.bias.detach().numpy().view(np.int32)[1] ^= 1 << 22


def averaged(net: Any) -> None:
    torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    with torch.no_grad():
        net.weight.lerp_(torch.randn_like(net.weight), 0.1)


def loaded(net: nn.Module) -> None:
    net.load_state_dict(conv().state_dict())


def assigned(net: nn.Module) -> None:
    net.load_state_dict(conv().state_dict(), assign=True)


@torch.no_grad()
def copied(net: Any) -> None:
    net.weight.copy_(torch.ones_like(net.weight))


@torch.no_grad()
def another_memory(net: Any) -> None:
    net.weight.set_(torch.randn_like(net.weight))


CHANGES: dict[str, Callable[[Any], object]] = {
    "a step of fused AdamW": trained(lambda p: torch.optim.AdamW(p, 0.1, fused=True)),
    "a step of fused SGD": trained(lambda p: torch.optim.SGD(p, 0.1, fused=True)),
    "a step of AdamW with foreach": trained(lambda p: torch.optim.AdamW(p, 0.1, foreach=True)),
    "a step of SGD": trained(lambda p: torch.optim.SGD(p, 0.1)),
    "data multiplied": lambda net: net.weight.data.mul_(0.5),
    "all signs through data": lambda net: net.weight.data.neg_(),
    "data assigned": lambda net: setattr(net.weight, "data", torch.randn_like(net.weight)),
    "one number through NumPy": through_numpy,
    "one bit of the bias": one_bit,
    "lerp_ beside an average": averaged,
    "load_state_dict": loaded,
    "load_state_dict by assignment": assigned,
    "copy_": copied,
    "a new Parameter": lambda net: setattr(net, "weight", nn.Parameter(torch.randn_like(net.weight))),
    "set_": another_memory,
    "swap_tensors": exchanged,
    "no bias any more": lambda net: setattr(net, "bias", None),
    "other memory format": lambda net: net.to(memory_format=torch.channels_last),
    "to float64": lambda net: net.double(),
    "pruned": lambda net: nn.utils.prune.l1_unstructured(net, "weight", 0.5),
    "requires no gradients": lambda net: net.requires_grad_(False),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@situation
def memory_that_is_given_away_between_steps(compiled: Compiled) -> Any:
    """As training over several machines does with the parts of weights and with inputs."""
    net, x = conv(), image()
    fast = compiled(net)
    with torch.no_grad():
        found = [fast(x)]
        for tensor in (net.weight, x):
            kept, memory = tensor.detach().clone() * 2, tensor.untyped_storage()
            size = memory.nbytes()
            memory.resize_(0)
            memory.resize_(size)
            tensor.copy_(kept)
            found += [fast(x), fast(x)]
    return found


@situation
def memory_shared_with_another_tensor(compiled: Compiled) -> Any:
    pool = torch.randn(100)
    net = conv()
    net.weight = nn.Parameter(pool[10:64].view(3, 2, 3, 3))
    return seen_from(compiled, net, lambda _: pool[10].add_(3.0))


@situation
def an_average_is_compiled(compiled: Compiled) -> Any:
    net = conv()
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    ).eval()

    def update(_: nn.Module) -> None:
        net.weight.data.mul_(2)
        average.update_parameters(net)

    average.update_parameters(net)
    return seen_from(compiled, average, update)


@situation
def statistics_of_batch_norm(compiled: Compiled) -> Any:
    net = nn.Sequential(conv(), nn.BatchNorm2d(3)).eval()
    return seen_from(compiled, net, lambda net: net.train()(image()) is net.eval())


@situation
def weights_that_change_at_every_call(compiled: Compiled) -> Any:
    net, x = conv(), image()
    fast, found = compiled(net), []
    with torch.no_grad():
        for _ in range(5):
            net.weight.data.mul_(0.9)
            found.append(fast(x))
        return found, fast(x), fast(x)


@situation
def weight_and_spectral_norms(compiled: Compiled) -> Any:
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(conv()), nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3))
    )
    return seen_from(compiled, net.eval(), lambda net: net[0].parametrizations.weight.original0.data.mul_(2))


@situation
def tied_weights(compiled: Compiled) -> Any:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)).eval()
    net[1].weight = net[0].weight
    return seen_from(compiled, net, lambda net: net[0].weight.data.mul_(2))


# ---- writes ------------------------------------------------------------------------------------------------


def written(compiled: Compiled, function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """Results and inputs after two calls."""
    inputs = inputs or (image(),)
    fast = compiled(function)
    with torch.no_grad():
        first = fast(*inputs)
        return first, [x.clone() for x in inputs], fast(*inputs), inputs


@situation
def input_multiplied(compiled: Compiled) -> Any:
    return written(compiled, lambda x: torch.relu(x.mul_(2)))


@situation
def a_part_of_the_input_cleared(compiled: Compiled) -> Any:
    def clear(x: torch.Tensor) -> torch.Tensor:
        x[:, 0] = 0
        return x + 1

    return written(compiled, clear)


@situation
def in_place_activation_of_the_input(compiled: Compiled) -> Any:
    return written(compiled, nn.Sequential(nn.ReLU(inplace=True), conv()).eval())


@situation
def written_through_a_transposed_view(compiled: Compiled) -> Any:
    return written(compiled, lambda x: (x.transpose(1, 2).reshape(-1), x.permute(0, 2, 3, 1)[0].add_(1))[0])


@situation
def written_into_an_out_argument(compiled: Compiled) -> Any:
    return written(compiled, lambda x, out: torch.add(x, 1, out=out), image(), image())


@situation
def one_of_two_inputs_written(compiled: Compiled) -> Any:
    return written(compiled, lambda x, y: (y.copy_(F.avg_pool2d(x, 3, 1, 1)), x * 2)[1], image(), image())


@situation
def inputs_that_share_memory(compiled: Compiled) -> Any:
    x = image()
    return written(compiled, lambda a, b: a.add_(1) * b, x, x[:, :1])


@situation
def the_same_input_twice(compiled: Compiled) -> Any:
    x = image()
    return written(compiled, lambda a, b: (a.mul_(2), a + b)[1], x, x)


@situation
def a_result_that_is_the_input(compiled: Compiled) -> Any:
    x = image()
    with torch.no_grad():
        y, z = compiled(lambda x: (x, torch.relu(x)))(x)
    return y is x, z


@situation
def a_result_that_is_a_view_of_the_input(compiled: Compiled) -> Any:
    x = image()
    with torch.no_grad():
        y, z = compiled(lambda x: (x[:, 0], torch.relu(x)))(x)
        y.add_(1)
    return x, y, z


@situation
def results_that_overlap(compiled: Compiled) -> Any:
    net = conv()

    def both(x: torch.Tensor) -> Any:
        y = net(x)
        return y, y[:, 1:], y.flatten(1), y.transpose(2, 3)

    fast = compiled(both)
    with torch.no_grad():
        results = [fast(image(n, 2, 6, 5)) for n in (2, 3)]
        for y, part, *_ in results:
            part.add_(1)
            y.mul_(2)
    return results, [[x.stride() for x in result] for result in results]


@situation
def results_that_are_halves(compiled: Compiled) -> Any:
    net = conv(4)
    with torch.no_grad():
        mean, spread = compiled(lambda x: net(x).chunk(2, 1))(image())
        return mean.add_(1), spread


@situation
def a_buffer_that_is_counted_up(compiled: Compiled) -> Any:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("whole", torch.zeros((), dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.whole.add_(2)
            return self.conv(x) * self.calls

    net = Counter().eval()
    fast, x = compiled(net), image()
    with torch.no_grad():
        return fast(x), fast(x), fast(x), net.calls, net.whole


@situation
def statistics_are_updated_without_gradients(compiled: Compiled) -> Any:
    net = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU()).train()
    fast = compiled(net)
    with torch.no_grad():
        found = [fast(image()) for _ in range(3)]
        net.eval()
        return found, fast(image()), list(net.buffers())


@situation
def a_new_buffer_is_assigned(compiled: Compiled) -> Any:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(2, 2, 6, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(x) + self.last
            self.last = y
            return y * 2

    net = Last()
    fast, x = compiled(net), image()
    with torch.no_grad():
        return fast(x), fast(x), net.last


# ---- types -------------------------------------------------------------------------------------------------


def typed(dtype: torch.dtype) -> Callable[[Compiled], Any]:
    def run(compiled: Compiled) -> Any:
        net = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU()).eval().to(dtype)
        with torch.no_grad():
            return compiled(net)(image().to(dtype))

    return run


for _dtype in (torch.bfloat16, torch.float16, torch.float64):
    SITUATIONS[f"a network in {str(_dtype)[6:]}"] = typed(_dtype)


@situation
def whole_numbers_complex_numbers_and_truths(compiled: Compiled) -> Any:
    def mixed(x: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> Any:
        return x[index], torch.where(mask, x, -x), index * 2 + 1, mask & (x > 0), x.sum((2, 3)) / index[:, None]

    mask = torch.rand(2, 2, 6, 5) > 0.5
    with torch.no_grad():
        found = compiled(mixed)(image(), torch.tensor([1, 0]), mask)
        return found, compiled(lambda x: torch.fft.rfft2(x).abs())(image())


@situation
def float64_inside(compiled: Compiled) -> Any:
    with torch.no_grad():
        return compiled(lambda x: (F.relu(x).double().mean((2, 3)) / 3).float())(image())


@situation
def autocast_around(compiled: Compiled) -> Any:
    fast = compiled(conv())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return fast(image()).float()


@situation
def autocast_inside(compiled: Compiled) -> Any:
    net = conv()

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
        return y.float() + x.mean()

    with torch.no_grad():
        return compiled(run)(image())


@situation
def quantised_numbers_outside(compiled: Compiled) -> Any:
    with torch.no_grad():
        x = (image() * 20).to(torch.int8)
        return compiled(lambda x: F.conv2d(x.float(), torch.ones(1, 2, 3, 3)).clamp(0, 200).to(torch.uint8))(x)


# ---- modes -------------------------------------------------------------------------------------------------


@situation
def inference_mode(compiled: Compiled) -> Any:
    with torch.inference_mode():
        net = nn.Sequential(conv(), nn.BatchNorm2d(3)).eval()
        fast, x = compiled(net), image()
        found = fast(x), fast(x)
        return *found, found[0].is_inference()


@situation
def inference_mode_of_an_older_network(compiled: Compiled) -> Any:
    net, x = conv(), image()
    fast = compiled(net)
    with torch.no_grad():
        first = fast(x)
    with torch.inference_mode():
        return first, fast(x), fast(image())


@situation
def vmap_inside(compiled: Compiled) -> Any:
    net = conv()
    with torch.no_grad():
        return compiled(lambda x: torch.func.vmap(lambda y: net(y[None])[0] * 2)(x))(image())


@situation
def vmap_outside(compiled: Compiled) -> Any:
    fast = compiled(lambda x: torch.relu(x).mean(-1))
    with torch.no_grad():
        return raised(lambda: torch.func.vmap(fast)(image()))


@situation
def gradients_switched_after_compiling(compiled: Compiled) -> Any:
    net, x = conv(), image()
    fast = compiled(net)
    with torch.no_grad():
        first = fast(x)
    y = fast(x)
    y.sum().backward()
    with torch.no_grad():
        last = fast(x)
    return first, y.detach(), y.requires_grad, net.weight.grad, last


@situation
def gradients_of_the_input(compiled: Compiled) -> Any:
    x = image().requires_grad_()
    fast = compiled(conv().requires_grad_(False))
    fast(x).square().sum().backward()
    with torch.no_grad():
        return fast(x), x.grad


@situation
def gradients_enabled_but_none_needed(compiled: Compiled) -> Any:
    y = compiled(conv().requires_grad_(False))(image())
    return y, y.requires_grad


@situation
def gradients_enabled_inside(compiled: Compiled) -> Any:
    net = conv()

    def run(x: torch.Tensor) -> Any:
        with torch.enable_grad():
            return net(x)

    with torch.no_grad():
        y = compiled(run)(image())
    return y.detach()


@situation
def gradients_disabled_inside(compiled: Compiled) -> Any:
    net, x = conv(), image()

    def run(x: torch.Tensor) -> Any:
        with torch.no_grad():
            features = net(x)
        return features * net.bias.sum()

    compiled(run)(x).sum().backward()
    return net.bias.grad, net.weight.grad


class Marked(torch.Tensor):
    """A subclass that does nothing."""


@situation
def subclasses_of_tensors(compiled: Compiled) -> Any:
    with torch.no_grad():
        y = compiled(lambda x: torch.relu(x) + 1)(image().as_subclass(Marked))
    return type(y).__name__, y.as_subclass(torch.Tensor)


@situation
def training_and_evaluation_in_turns(compiled: Compiled) -> Any:
    net, x = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Dropout(0.5)), image()
    fast, found = compiled(net), []
    with torch.no_grad():
        for training in (False, True, False):
            torch.manual_seed(1)
            found.append(fast.train(training)(x))
    return found


@situation
def random_numbers(compiled: Compiled) -> Any:
    fast = compiled(lambda x: F.relu(x) + torch.rand_like(x) + torch.randn(5))
    torch.manual_seed(5)
    with torch.no_grad():
        return fast(image()), fast(image())


@situation
def dropout_that_stays_on(compiled: Compiled) -> Any:
    net = conv()
    fast = compiled(lambda x: F.dropout(net(x), 0.3, training=True))
    with torch.no_grad():
        torch.manual_seed(5)
        first = fast(image())
        return first, fast(image())


# ---- shapes and memory -------------------------------------------------------------------------------------


@situation
def channels_last(compiled: Compiled) -> Any:
    net = conv().to(memory_format=torch.channels_last)
    with torch.no_grad():
        y = compiled(net)(image().to(memory_format=torch.channels_last))
        return y, y.stride()


@situation
def inputs_with_gaps(compiled: Compiled) -> Any:
    fast = compiled(conv())
    with torch.no_grad():
        return (
            fast(image(4, 4, 12, 10)[::2, ::2, ::2, ::2]),
            fast(image(1, 2, 1, 1).expand(2, 2, 6, 5)),
            fast(image().mT),
        )


@situation
def batches_without_images(compiled: Compiled) -> Any:
    fast = compiled(conv())
    with torch.no_grad():
        return fast(image(2, 2, 6, 5)), fast(image(0, 2, 6, 5)), fast(image(3, 2, 6, 5)), fast(image(0, 2, 6, 5))


@situation
def sizes_that_change(compiled: Compiled) -> Any:
    net = nn.Sequential(conv(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    fast = compiled(net)
    with torch.no_grad():
        return [fast(image(*shape)) for shape in ((1, 2, 6, 6), (2, 2, 8, 6), (3, 2, 8, 10))]


@situation
def sizes_said_to_be_open(compiled: Compiled) -> Any:
    x = image(4, 2, 6, 5)
    torch._dynamo.mark_dynamic(x, 0)
    torch._dynamo.mark_dynamic(x, 2)
    fast = compiled(conv())
    with torch.no_grad():
        return fast(x), fast(image(3, 2, 9, 5))


@situation
def open_from_the_first_call(compiled: Compiled) -> Any:
    fast = compiled(nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), dynamic=True)
    with torch.no_grad():
        return fast(image(2, 2, 6, 5)), fast(image(3, 2, 8, 8))


@situation
def closed_for_ever(compiled: Compiled) -> Any:
    fast = compiled(conv(), dynamic=False, fullgraph=True)
    with torch.no_grad():
        return fast(image(2, 2, 6, 5)), fast(image(3, 2, 8, 8))


@situation
def sizes_that_depend_on_values(compiled: Compiled) -> Any:
    with torch.no_grad():
        return compiled(lambda x: torch.relu(x)[x > 0] * 2)(image())


@situation
def numbers_with_no_axis(compiled: Compiled) -> Any:
    with torch.no_grad():
        return compiled(lambda x, a: (x * a).sum() + a)(image(), torch.tensor(2.0))


# ---- arguments and results ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Scores:
    logits: torch.Tensor
    note: str = "none"


@situation
def keyword_arguments_and_numbers(compiled: Compiled) -> Any:
    def run(x: torch.Tensor, *, factor: float = 1.0, size: int = 2, masks: Any = ()) -> Any:
        y = F.avg_pool2d(x, size) * factor
        return sum(masks, y)

    fast = compiled(run)
    with torch.no_grad():
        return [fast(image(), factor=n / 2, size=n, masks=[torch.ones(1)] * n) for n in (1, 2, 3)]


@situation
def nested_results(compiled: Compiled) -> Any:
    net = conv()

    def run(x: torch.Tensor, more: dict[str, Any]) -> Any:
        y = net(x)
        return {"y": [y, None, 3, more["name"]], "pair": Pair(y.mean(), x.shape), "scores": Scores(y * more["scale"])}

    fast = compiled(run)
    with torch.no_grad():
        found = [fast(image(n, 2, 6, 5), {"name": "a", "scale": torch.tensor(2.0)}) for n in (2, 3, 4)]
    return [(each["y"], each["pair"].first, tuple(each["pair"].second), each["scores"].logits) for each in found]


@situation
def a_result_twice(compiled: Compiled) -> Any:
    with torch.no_grad():
        y, z = compiled(lambda x: (torch.relu(x),) * 2)(image())
    return y, z, y is z


@situation
def constants_as_results(compiled: Compiled) -> Any:
    net = conv()
    with torch.no_grad():
        y, bias, ones, total = compiled(lambda x: (net(x), net.bias, torch.ones(2, 2), net.weight.sum()))(image())
    return y, bias is net.bias, bias.detach(), ones, total


@situation
def hooks(compiled: Compiled) -> Any:
    net, seen = nn.Sequential(conv(), nn.ReLU()).eval(), []
    net[0].register_forward_hook(lambda module, x, y: y * 2)
    net[0].register_forward_pre_hook(lambda module, x: (x[0] + 1,))
    net[1].register_forward_hook(lambda module, x, y: seen.append(y.shape))
    with torch.no_grad():
        return compiled(net)(image()), len(seen)


@situation
def graph_breaks(compiled: Compiled) -> Any:
    net = conv()

    def run(x: torch.Tensor) -> Any:
        y = net(x)
        torch._dynamo.graph_break()
        y += 1
        if float(y.sum()) > 1e9:
            return y
        return y.numpy().sum(axis=1), F.relu_(y)

    with torch.no_grad():
        return compiled(run)(image())


@situation
def compiled_inside_compiled(compiled: Compiled) -> Any:
    inner = compiled(conv())
    with torch.no_grad():
        return compiled(lambda x: inner(x * 2) + 1)(image())


@situation
def copies_of_the_compiled_network(compiled: Compiled) -> Any:
    fast, x = compiled(conv()), image()
    with torch.no_grad():
        first = fast(x)
        other = copy.deepcopy(fast)
        other.weight.mul_(2)
        return first, fast(x), other(x)


@situation
def several_threads(compiled: Compiled) -> Any:
    fast, x, found = compiled(conv()), image(), {}

    def work(number: int) -> None:
        with torch.no_grad():
            found[number] = [fast(x * number) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(4)]


@situation
def functional_call(compiled: Compiled) -> Any:
    net = conv()
    fast = compiled(lambda weights, x: torch.func.functional_call(net, weights, (x,)))
    with torch.no_grad():
        return [fast({"weight": torch.ones(3, 2, 3, 3) * n, "bias": torch.zeros(3)}, image()) for n in (1, 2)]


@situation
def weights_that_the_function_closes_over(compiled: Compiled) -> Any:
    weight = torch.randn(3, 2, 3, 3)
    fast, x = compiled(lambda x: F.conv2d(x, weight)), image()
    with torch.no_grad():
        first = fast(x)
        weight.mul_(2)
        return first, fast(x)


# ---- errors ------------------------------------------------------------------------------------------------


@situation
def channels_that_do_not_fit(compiled: Compiled) -> Any:
    fast = compiled(conv())
    with torch.no_grad():
        return fast(image()), raised(lambda: fast(image(2, 5, 6, 5))), fast(image())


@situation
def indices_outside(compiled: Compiled) -> Any:
    net = nn.Embedding(4, 3)
    fast = compiled(lambda i: net(i) * 2)
    with torch.no_grad():
        good, bad = torch.tensor([0, 3]), torch.tensor([1, 9])
        return fast(good), raised(lambda: fast(bad)), fast(good)


@situation
def errors_of_the_model(compiled: Compiled) -> Any:
    def run(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 2:
            raise KeyError("three")
        return torch.relu(x)

    fast = compiled(run)
    with torch.no_grad():
        return fast(image()), raised(lambda: fast(image(3, 2, 6, 5)))


@situation
def a_view_of_memory_that_has_none(compiled: Compiled) -> Any:
    with torch.no_grad():
        return raised(lambda: compiled(lambda x: x.transpose(1, 2).view(-1) + 1)(image()))


# ---- the test ----------------------------------------------------------------------------------------------

# Situations in which some piece runs in PyTorch, and why the warning says so. In all others none does.
IN_PYTORCH = {
    "inputs_that_share_memory": "share memory",
    "a network in bfloat16": "bfloat16",
    "a network in float16": "float16",
    "a network in float64": "float64",
    "float64_inside": "float64",
    "autocast_around": "bfloat16",
    "autocast_inside": "bfloat16",
    "keyword_arguments_and_numbers": "float64",
    "whole_numbers_complex_numbers_and_truths": "complex64",
    "subclasses_of_tensors": "Marked",
    "training_and_evaluation_in_turns": "random numbers",
    "random_numbers": "random numbers",
    "dropout_that_stays_on": "random numbers",
}


def outcome(run: Callable[[Compiled], Any], backend: str) -> tuple[Any, set[str]]:
    """The outcome of a situation, and why pieces ran in PyTorch."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = run(lambda model, **options: torch.compile(model, backend=backend, **options))
    told = [str(warning.message) for warning in seen if "runs in PyTorch" in str(warning.message)]
    assert len(told) == len(set(told)), "a reason was told twice"
    return found, set(told)


def compare(run: Callable[[Compiled], Any], reason: str = "") -> None:
    # aot_eager checks itself while it runs, and its check refuses subclasses of tensors.
    (ours, told), (theirs, _) = outcome(run, "convoxel"), outcome(run, "eager" if reason == "Marked" else "aot_eager")
    assert bool(told) == bool(reason) and all(reason in text for text in told), told
    (mine, structure), (others, expected) = tree_flatten(ours), tree_flatten(theirs)
    assert structure == expected
    for value, other in zip(mine, others, strict=True):
        assert type(value) is type(other)
        if isinstance(value, torch.Tensor):
            rough = value.dtype in (torch.bfloat16, torch.float16)
            relative, absolute = (2e-2, 1e-2) if rough else (1e-4, 1e-5)
            torch.testing.assert_close(value.detach(), other.detach(), rtol=relative, atol=absolute)
        elif isinstance(value, np.ndarray):
            np.testing.assert_allclose(value, other, 1e-4, 1e-5)
        else:
            assert value == other


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_weights_are_seen(name: str) -> None:
    compare(lambda compiled: raised(lambda: seen_from(compiled, conv(), CHANGES[name])))


@pytest.mark.parametrize("name", SITUATIONS)
def test_situations(name: str) -> None:
    compare(SITUATIONS[name], IN_PYTORCH.get(name, ""))
