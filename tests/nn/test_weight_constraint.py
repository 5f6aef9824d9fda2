"""Constraints hold to the last bit, for every kind of layer, after every step of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convoxel import nn as cnn
from convoxel.errors import ConfigError
from convoxel.nn.kind import kernels
from convoxel.train import TrainConfig, fit, load_model


def layers(dims: int) -> list[nn.Module]:
    """One of each kind, with groups, and with weights that no bound of these tests allows."""
    torch.manual_seed(0)
    made = [
        cnn.conv(dims, 8, 12, 3),
        cnn.conv(dims, 8, 12, 3, groups=4),
        cnn.conv(dims, 8, 16, 3, groups=8),
        cnn.conv_transpose(dims, 8, 12, 3, stride=2),
        cnn.conv_transpose(dims, 8, 12, 3, stride=2, groups=4),
        nn.Linear(20, 7),
        cnn.LocallyConnected(dims, 2, 3, 5, 3),
    ]
    with torch.no_grad():
        for layer in made:
            layer.weight.mul_(10.0)
    return made


def unit_norms(layer: nn.Module) -> list[float]:
    """The norm of each output unit, by a loop over what PyTorch's documentation says of the weights."""
    weight = layer.weight.detach().double()
    if isinstance(layer, cnn.LocallyConnected):
        place = weight.flatten(2 + layer.dims).flatten(2, 1 + layer.dims)  # (out, in, positions, kernel)
        return [float(place[o, :, p].norm()) for o in range(place.shape[0]) for p in range(place.shape[2])]
    if getattr(layer, "transposed", False):
        inputs, found = layer.in_channels // layer.groups, []
        for group in range(layer.groups):
            block = weight[group * inputs : (group + 1) * inputs]
            found += [float(block[:, unit].norm()) for unit in range(weight.shape[1])]
        return found
    return [float(unit.norm()) for unit in weight]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D7_norms_of_every_kind_of_kernel(dims: int) -> None:
    for layer in layers(dims):
        before = unit_norms(layer)
        bound = sorted(before)[len(before) // 2]  # half of the units are too long
        kept = layer.weight.detach().clone()
        cnn.constrain(layer, [cnn.MaxNorm(bound)])
        after = unit_norms(layer)
        assert max(after) <= bound, "not even by rounding"
        assert after == pytest.approx([min(norm, bound) for norm in before], rel=1e-6)
        assert not torch.equal(layer.weight, kept)
        again = layer.weight.detach().clone()
        cnn.constrain(layer, [cnn.MaxNorm(bound)])
        assert torch.equal(layer.weight, again), "a kernel that is allowed stays as it is"
        cnn.constrain(layer, [cnn.UnitNorm()])
        assert unit_norms(layer) == pytest.approx([1.0] * len(before), rel=1e-6)
        cnn.constrain(layer, [cnn.NonNegative()])
        assert float(layer.weight.detach().min()) == 0.0 < float(layer.weight.detach().max())


def test_a_wrong_axis_would_be_seen() -> None:
    """The loop above tells the axes of a transposed kernel apart from those of a plain one."""
    layer = layers(2)[4]
    wrong = [float(unit.norm()) for unit in layer.weight.detach().double()]
    assert sorted(wrong) != pytest.approx(sorted(unit_norms(layer))[: len(wrong)])


def test_units_of_zeros_stay_zeros() -> None:
    layer = nn.Conv2d(1, 2, 3)
    with torch.no_grad():
        layer.weight[0] = 0.0
    cnn.constrain(layer, [cnn.UnitNorm(), cnn.MaxNorm(0.5)])
    assert not layer.weight[0].any() and bool(torch.isfinite(layer.weight).all())


def test_channels_last_weights_are_constrained_in_place() -> None:
    layer = layers(2)[4].to(memory_format=torch.channels_last)
    address = layer.weight.data_ptr()
    cnn.constrain(layer, [cnn.MaxNorm(0.5)])
    assert max(unit_norms(layer)) <= 0.5 and layer.weight.data_ptr() == address
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_bias_and_norms_are_left_alone_and_kinds_choose() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 2))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    cnn.constrain(net, [cnn.MaxNorm(1e-3)], kinds=["linear"])
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, state[name])]
    assert changed == ["3.weight"]
    assert [kernel.kind for kernel in kernels(net)] == ["conv", "linear"]


def test_optimiser_steps_are_followed_until_removed() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 2, 3))
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    handle = cnn.constrain(net, [cnn.NonNegative(), cnn.MaxNorm(0.5)], optimiser=optimiser)
    for _ in range(4):
        optimiser.zero_grad()
        net(torch.randn(1, 2, 6, 6)).square().sum().backward()
        optimiser.step()
        for layer in net:
            assert max(unit_norms(layer)) <= 0.5 and float(layer.weight.detach().min()) >= 0.0
    handle.remove()
    optimiser.zero_grad()
    (-1e3 * net(torch.ones(1, 2, 6, 6)).sum()).backward()
    optimiser.step()
    assert max(unit_norms(net[0])) > 0.5


def test_D7_soft_penalty_is_chosen_for_each_kind() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 2, 2), nn.Flatten(), nn.Linear(8, 2)
    )
    squares = {place: float(net[place].weight.detach().double().square().sum()) for place in (0, 2, 4)}
    assert cnn.l2_penalty(net).item() == pytest.approx(sum(squares.values()))
    penalty = cnn.l2_penalty(net, {"conv": 0.5, "linear": 2.0})
    assert penalty.item() == pytest.approx(0.5 * squares[0] + 2.0 * squares[4])
    penalty.backward()
    assert torch.allclose(net[0].weight.grad, net[0].weight) and net[2].weight.grad is None
    assert net[0].bias.grad is None and net[1].weight.grad is None
    assert cnn.l2_penalty(nn.ReLU()).item() == 0.0


def test_decay_reaches_kernels_only() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.ConvTranspose3d(2, 1, 2), nn.Linear(4, 4))
    net[3].weight.requires_grad_(False)
    groups = cnn.decay_groups(net, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {id(p) for p in groups[0]["params"]} == {id(net[0].weight), id(net[2].weight)}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in net.parameters())
    tied = nn.Sequential(net[0], net[0])
    assert len(cnn.decay_groups(tied, 0.1)[0]["params"]) == 1
    assert torch.optim.SGD(groups, lr=0.1).param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("call, match", [
    (lambda: cnn.MaxNorm(0), "max_norm is 0, but it must be a number above 0, such as 3.0"),
    (lambda: cnn.MaxNorm(float("nan")), "max_norm is nan"),
    (lambda: cnn.constrain(nn.Linear(1, 1), [cnn.UnitNorm()], kinds=["dense"]),
     "kinds has 'dense', but layers with kernels are 'conv', 'conv_transpose', 'linear', 'local'"),
    (lambda: cnn.l2_penalty(nn.Linear(1, 1), {"linear": -1.0}), "kinds has -1.0 for 'linear', but .* at least 0"),
    (lambda: cnn.decay_groups(nn.Linear(1, 1), {"con": 1.0}), "kinds has 'con'"),
])  # fmt: skip
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        call()


# ---- in a training run -----------------------------------------------------------------------------------


def configure(folder: Path, **entries: Any) -> TrainConfig:
    given: dict[str, Any] = {"task": "classify", "data": "digits", "output": str(folder), "model": "course_vgg",
                             "width": 0.125, "epochs": 1, "steps_per_epoch": 3, "batch_size": 8, "tensorboard": False,
                             "learning_rate": 0.1, "optimiser": "sgd", "warmup": 0.0}  # fmt: skip
    return TrainConfig.build(**{**given, **entries})


def test_D7_norms_never_exceed_the_bound_during_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import loop, optimisation

    largest: list[float] = []

    def watched(config: TrainConfig, model: nn.Module) -> None:
        optimisation.hold_constraints(config, model)
        largest.append(max(norm for kernel in kernels(model) for norm in unit_norms(kernel.layer)))

    monkeypatch.setattr(loop, "hold_constraints", watched)
    config = configure(tmp_path / "run").override(["constraints.max_norm=0.4", "constraints.l2.linear=0.01"])
    fit(config)
    assert len(largest) == 3 and max(largest) <= 0.4 < 1.01 * max(largest), "the bound is met, and reached"
    run = load_model(tmp_path / "run", "last")
    assert run.config.constraints.max_norm == 0.4
    assert max(norm for kernel in kernels(run.network) for norm in unit_norms(kernel.layer)) <= 0.4


def test_configuration_of_constraints() -> None:
    config = configure(Path("run"))
    assert config.constraints.max_norm is None and "constraints" not in config.stated()
    held = config.override(["constraints.max_norm=3.0", "constraints.non_negative=true", "constraints.kinds=[conv]"])
    assert TrainConfig.build(**held.to_dict()) == held
    assert held.difference(config) and not config.difference(held)
    assert TrainConfig.build(**{**config.to_dict(), "constraints": None}).constraints == config.constraints


@pytest.mark.parametrize("assignment, words", [
    ("constraints.max_nrm=3", "there is no entry 'constraints.max_nrm'; did you mean 'constraints.max_norm'?"),
    ("constraints.max_norm=-1", "constraints.max_norm=-1: input should be greater than 0"),
    ("constraints.kinds=[convv]", "'conv', 'conv_transpose', 'linear' or 'local'; did you mean 'conv'?"),
    ("constraints.l2.conv=-1", "constraints.l2.conv=-1: input should be greater than or equal to 0"),
    ("constraints=3", "give its entries, such as constraints.max_norm=3.0"),
])  # fmt: skip
def test_configuration_names_mistakes(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(Path("run")).override([assignment])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_norms_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="give max_norm or unit_norm, not both"):
        configure(Path("run")).override(["constraints.max_norm=1", "constraints.unit_norm=true"])
