"""Weights from files: what fits is taken, what nearly fits is adapted by rules that can be checked, the rest named."""

from __future__ import annotations

import doctest
import importlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convoxel import models
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.models.weights import load_weights
from convoxel.train.checkpoint import Store


def tiny(dims: int = 2, in_channels: int = 3, num_classes: int = 4, **options: Any) -> models.Network:
    torch.manual_seed(dims * 100 + in_channels * 10 + num_classes)
    return models.build("resnet18", dims, in_channels, num_classes, width=0.125, **options)


def stored(tmp_path: Path, model: nn.Module, name: str = "weights.safetensors") -> Path:
    """Save a state dict in the form that ``name`` ends in."""
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# ---- files that fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_round_trip(tmp_path: Path, dims: int, name: str) -> None:
    source, target = tiny(dims), tiny(dims, num_classes=4)
    nn.init.normal_(source.conv1.weight)
    report = load_weights(target, stored(tmp_path, source, name))
    assert equal(source, target)
    assert (report.loaded, report.adapted, report.fresh, report.unused) == (len(source.state_dict()), (), (), ())
    assert str(report) == f"{report.loaded} tensors from {tmp_path / name}"
    assert json.loads(json.dumps(report.to_dict()))["loaded"] == report.loaded


@pytest.mark.parametrize("wrap", [
    lambda state: {"epoch": 3, "state_dict": state},
    lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 1}},
    lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    lambda state: {**{f"model.{name}": value for name, value in state.items()}, "optimiser.0.exp_avg": torch.zeros(2)},
    lambda state: {"network_weights": {f"net.{name}": value for name, value in state.items()}, "loss": np.float64(0.5)},
    lambda state: {"state_dict": {f"model.network.{name}": value for name, value in state.items()}},
    lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    lambda state: {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
])  # fmt: skip
def test_what_other_tools_write_around_a_state_dict(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    source, target = tiny(), tiny()
    nn.init.constant_(source.conv1.weight, 0.5)
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert target.conv1.weight.eq(0.5).all() and target.conv1.weight.dtype == torch.float32


def test_old_pickles_of_tensors(tmp_path: Path) -> None:
    """The format before PyTorch 1.6, in which the published networks still come."""
    source, target = tiny(), tiny(num_classes=4)
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_weights(target, tmp_path / "old.pth")
    assert equal(source, target)


def test_old_names_of_densenet(tmp_path: Path) -> None:
    source, target = (models.build("densenet121", 1, width=0.25, depth=0.2, num_classes=3) for _ in range(2))
    old = dict(source.state_dict())
    for name in list(old):
        for part in ("norm", "conv"):
            for number in "12":
                if f".{part}{number}." in name and "denselayer" in name:
                    old[name.replace(f".{part}{number}.", f".{part}.{number}.")] = old.pop(name)
    assert any(".norm.1." in name for name in old)
    torch.save(old, tmp_path / "densenet.pth")
    load_weights(target, tmp_path / "densenet.pth")
    assert equal(source, target)


def test_folder_of_a_run(tmp_path: Path) -> None:
    """Its manifest proves the file: one flipped bit of a weight is still a number, but another network."""
    source, target = tiny(), tiny()
    nn.init.zeros_(source.conv1.weight)
    tensors = {f"model.{name}": value for name, value in source.state_dict().items()}
    store = Store(tmp_path / "run")
    store.save(tensors, {"step": 1})
    report = load_weights(target, tmp_path / "run")
    assert equal(source, target) and report.file.endswith("last.safetensors")
    store.save_best(tensors, {"step": 1})
    best = store.folder / "best.safetensors"
    assert load_weights(target, tmp_path / "run").file == load_weights(target, best).file == str(best)
    content = bytearray(best.read_bytes())
    content[-3] ^= 1
    best.write_bytes(content)
    for given in (tmp_path / "run", best):
        with pytest.raises(CheckpointError, match=r"weights: .*best.* damaged"):
            load_weights(target, given)
    best.write_bytes(b"")
    best.with_suffix(".json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint \(best.json is damaged"):
        load_weights(target, tmp_path / "run")


# ---- heads, encoders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, options, head", [
    ("resnet18", {"width": 0.125}, ("fc.weight", "fc.bias")),
    ("unet", {"levels": 1, "width": 4}, ("head.weight", "head.bias")),
    ("mobilenet_v2", {"width": 0.125}, ("classifier.1.weight", "classifier.1.bias")),
])  # fmt: skip
def test_head_of_another_number_of_classes_stays_fresh(
    tmp_path: Path, name: str, options: dict[str, Any], head: tuple[str, ...]
) -> None:
    source, target = (models.build(name, 1, in_channels=2, num_classes=n, **options) for n in (7, 3))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    report = load_weights(target, stored(tmp_path, source))
    assert report.fresh == head and f"fresh: {', '.join(head)}" in str(report)
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key] if key in head else source.state_dict()[key]), key


def test_features_only_leaves_the_head_unused(tmp_path: Path) -> None:
    source, target = tiny(), tiny(features_only=True)
    report = load_weights(target, stored(tmp_path, source))
    assert report.unused == ("fc.bias", "fc.weight") and torch.equal(source.conv1.weight, target.conv1.weight)


def test_encoder_of_a_dense_network(tmp_path: Path) -> None:
    source = tiny(1, num_classes=10)
    target = models.build("unet_resnet18", 1, in_channels=1, num_classes=2, width=0.125)
    before = target.decoder[0].conv1.weight.clone()
    report = load_weights(target, stored(tmp_path, source))
    assert torch.equal(target.encoder.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(target.decoder[0].conv1.weight, before)
    assert report.unused == ("fc.bias", "fc.weight") and "head.bias" in report.fresh
    assert report.adapted == ("conv1.weight (3 → 1 channels)",)
    assert not [name for name in report.fresh if name.startswith("encoder.")]
    whole = models.build("unet_resnet18", 1, in_channels=1, num_classes=2, width=0.125)
    assert load_weights(whole, stored(tmp_path, target, "whole.safetensors")).fresh == () and equal(whole, target)


# ---- channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", ["average", "repeat"])
@pytest.mark.parametrize("inputs", [1, 2, 5, 6])
def test_grey_images_give_the_same_with_any_number_of_channels(tmp_path: Path, inputs: int, channels: str) -> None:
    source, target = tiny(2, 3).eval(), tiny(2, inputs).eval()
    report = load_weights(target, stored(tmp_path, source), channels=channels)
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(target(grey.expand(-1, inputs, -1, -1)), source(grey.expand(-1, 3, -1, -1)))
    assert report.adapted == (f"conv1.weight (3 → {inputs} channels)",)


def test_repeated_channels_take_turns(tmp_path: Path) -> None:
    source, target = tiny(1, 3), tiny(1, 5)
    load_weights(target, stored(tmp_path, source), channels="repeat")
    file, model = source.conv1.weight, target.conv1.weight
    for channel, share in enumerate((2, 2, 1, 2, 2)):
        torch.testing.assert_close(model[:, channel], file[:, channel % 3] / share)


def test_shortcut_of_a_residual_unet_follows(tmp_path: Path) -> None:
    source, target = (models.unet(1, n, 2, levels=1, width=4, block="residual") for n in (3, 1))
    report = load_weights(target, stored(tmp_path, source))
    assert [text.split(" ")[0] for text in report.adapted] == [
        "encoder.0.block1.conv1.weight",
        "encoder.0.block1.shortcut.0.weight",
    ]


# ---- axes ------------------------------------------------------------------------------------------------


def middle(values: Tensor) -> Tensor:
    """The slice in the middle of the first spatial axis, which no border reaches."""
    return values.select(2, values.shape[2] // 2)


@pytest.mark.parametrize("up", ["transposed", "linear", "nearest"])
@pytest.mark.parametrize("dims", [1, 2])
def test_inflated_network_on_a_constant_depth_is_the_flat_one(tmp_path: Path, dims: int, up: str) -> None:
    flat, deep = (models.unet(d, 1, 3, levels=1, width=4, up=up).eval() for d in (dims, dims + 1))
    report = load_weights(deep, stored(tmp_path, flat))
    assert report.adapted[0] == f"encoder.0.conv1.weight ({dims}-D → {dims + 1}-D)"
    x = torch.randn(1, 1, *(8, 12)[:dims])
    with torch.no_grad():
        volume = deep(x.unsqueeze(2).expand(-1, -1, 32, *x.shape[2:]))
        torch.testing.assert_close(middle(volume), flat(x), rtol=1e-4, atol=1e-5)


def test_centred_network_sees_each_slice_by_itself(tmp_path: Path) -> None:
    flat, deep = (models.unet(d, 1, 3, levels=0, width=4).eval() for d in (2, 3))
    load_weights(deep, stored(tmp_path, flat), inflate="centre")
    volume = torch.randn(1, 1, 5, 8, 8)
    with torch.no_grad():
        slices = torch.stack([flat(volume[:, :, depth]) for depth in range(5)], dim=2)
        torch.testing.assert_close(deep(volume), slices)
    assert deep.encoder[0].conv1.weight[:, :, [0, 2]].eq(0).all()


@pytest.mark.parametrize("inflate", ["average", "centre"])
@pytest.mark.parametrize("name, options", [("unet", {"levels": 1, "width": 4}), ("resnet18", {"width": 0.125})])
def test_deflating_undoes_inflating(tmp_path: Path, name: str, options: dict[str, Any], inflate: str) -> None:
    line, volume, back = (models.build(name, dims, 1, 3, **options) for dims in (1, 3, 1))
    load_weights(volume, stored(tmp_path, line, "line.safetensors"), inflate=inflate)
    load_weights(back, stored(tmp_path, volume, "volume.safetensors"), inflate=inflate)
    for (key, one), other in zip(line.state_dict().items(), back.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("dims", [1, 3])
def test_linear_layers_over_a_grid_are_inflated_too(tmp_path: Path, dims: int) -> None:
    flat, other = (models.build("vgg11", d, 1, 3, width=0.05) for d in (2, dims))
    report = load_weights(other, stored(tmp_path, flat))
    assert f"classifier.0.weight (2-D → {dims}-D over a grid of 7)" in report.adapted
    outputs = flat.classifier[0].weight.shape[0]
    grid = flat.classifier[0].weight.reshape(outputs, -1, 7, 7)
    found = other.classifier[0].weight.reshape(outputs, -1, *(7,) * dims)
    torch.testing.assert_close(found.sum(2) if dims == 3 else found, grid if dims == 3 else grid.sum(2))


def test_volume_from_colour_pictures_in_one_step(tmp_path: Path) -> None:
    source, target = tiny(2, 3, 10), tiny(3, 1, 2)
    report = load_weights(target, stored(tmp_path, source, "pictures.pth"))
    assert report.adapted[0] == "conv1.weight (2-D → 3-D, 3 → 1 channels)" and report.fresh == ("fc.weight", "fc.bias")
    torch.testing.assert_close(target.conv1.weight.sum((1, 2)), source.conv1.weight.sum(1))


# ---- refusals --------------------------------------------------------------------------------------------


def test_mismatch_lists_names_and_shapes_and_changes_nothing(tmp_path: Path) -> None:
    source = models.build("resnet34", 2, 3, 4, width=0.125)
    path = stored(tmp_path, source)
    target = tiny()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(target, path)
    message = str(caught.value)
    assert "tensors of the file are not in the model (layer1.2.bn1.bias, " in message
    assert "and " in message and "more" in message and len(message) < 900 and "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    with pytest.raises(CheckpointError, match=r"tensors of the model are not in the file \(layer1\.2\.conv1"):
        load_weights(source, stored(tmp_path, target, "small.safetensors"))
    wide = models.build("resnet18", 2, 3, 4, width=0.25)
    match = r"shapes differ \(conv1.weight: file \(8, 3, 7, 7\), model \(16, 3, 7, 7\), bn1\.weight: file \(8,\), model"
    with pytest.raises(CheckpointError, match=match):
        load_weights(wide, stored(tmp_path, target, "narrow.safetensors"))


def test_what_does_not_fit_is_named_without_what_stands_before_and_with_the_nearest(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in tiny().state_dict().items()}
    state["module.fc2.weight"] = state.pop("module.fc.weight")
    torch.save({**state, "criterion.weight": torch.ones(3)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError) as caught:
        load_weights(tiny(), tmp_path / "weights.pt")
    message = str(caught.value)
    assert "1 tensor of the model is not in the file (fc.weight)" in message
    assert "2 tensors of the file are not in the model (criterion.weight, fc2.weight)" in message
    assert "nearest to fc.weight: fc2.weight" in message


def test_mismatch_of_one_tensor_is_singular(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 3))
    for change, match in (
        ({"0.weight": torch.zeros(2, 1, 5)}, r"1 shape differs \(0.weight: file \(2, 1, 5\), model \(2, 1, 3\)\)"),
        ({"1.weight": torch.zeros(1)}, r"1 tensor of the file is not in the model \(1.weight\)"),
        ({"0.bias": torch.zeros(2, dtype=torch.int64)}, r"0.bias: file \(2,\) int64, model \(2,\) float32"),
    ):
        save_file({**net.state_dict(), **change}, tmp_path / "one.safetensors")
        with pytest.raises(CheckpointError, match=match):
            load_weights(net, tmp_path / "one.safetensors")
    save_file({"0.weight": torch.zeros(2, 1, 3)}, tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensor of the model is not in the file \(0.bias\)"):
        load_weights(net, tmp_path / "one.safetensors")


class Payload:
    """Would be rebuilt by running code, if the reader let it."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("payload-ran"),))


def broken_files(folder: Path) -> dict[str, tuple[Any, str]]:
    """Contents of each file, and words of its refusal."""
    state = tiny().state_dict()
    save_file(state, folder / "whole.safetensors")
    torch.save(state, folder / "whole.pth")
    whole, zipped = (folder / "whole.safetensors").read_bytes(), (folder / "whole.pth").read_bytes()
    damaged = dict(state)
    damaged["conv1.weight"] = state["conv1.weight"] / 0
    return {
        "cut.safetensors": (whole[:-100], "is not a whole safetensors file"),
        "header.safetensors": (struct.pack("<Q", 2**40) + b'{"a": 1}', "is not a whole safetensors file"),
        "cut.pth": (zipped[: len(zipped) // 2], "is not a whole PyTorch file"),
        "empty.pth": (b"", "is neither a safetensors nor a PyTorch file"),
        "text.pth": (b"<html>404 not found</html>", "is neither a safetensors nor a PyTorch file"),
        "module.pth": (tiny(), "holds Python objects, which only running its code could rebuild"),
        "payload.pth": ({"weight": Payload()}, "holds Python objects"),
        "list.pth": ([torch.zeros(2)], "holds a list; expected names with tensors"),
        "number.pth": ({**state, "epoch": 3}, "holds a int under 'epoch'; expected real tensors only"),
        "complex.pth": ({"a": torch.zeros(2, dtype=torch.complex64)}, "holds a quantised or complex tensor under 'a'"),
        "nothing.pth": ({}, "holds no tensor"),
        "nan.pth": (damaged, "conv1.weight in .* holds NaN or infinity"),
    }


@pytest.mark.parametrize("name", [
    "cut.safetensors", "header.safetensors", "cut.pth", "empty.pth", "text.pth", "module.pth", "payload.pth",
    "list.pth", "number.pth", "complex.pth", "nothing.pth", "nan.pth",
])  # fmt: skip
def test_broken_files(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, match = broken_files(tmp_path)[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=rf"^weights: .*{match}") as caught:
        load_weights(tiny(), path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "payload-ran").exists()


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"weights: .*none\.pth does not exist; expected a \.safetensors or PyTorch"):
        load_weights(tiny(), tmp_path / "none.pth")
    with pytest.raises(DataError, match="is a folder without checkpoints"):
        load_weights(tiny(), tmp_path)


def test_wrong_arguments(tmp_path: Path) -> None:
    path = stored(tmp_path, tiny())
    for arguments, match in (
        (("resnet18", path), "model is a str, but it must be a module"),
        ((tiny(), 3), "path is 3, but it must name a file"),
        ((tiny(), np.zeros(2)), "path is array"),
    ):
        with pytest.raises(ConfigError, match=match):
            load_weights(*arguments)
    with pytest.raises(ConfigError, match="channels is 'mean', but it can be 'average' or 'repeat'"):
        load_weights(tiny(), path, channels="mean")
    with pytest.raises(ConfigError, match="inflate is 'middle', but it can be 'average' or 'centre'"):
        load_weights(tiny(), path, inflate="middle")
    with torch.device("meta"):
        empty = tiny()
    with pytest.raises(ConfigError, match="meta device"):
        load_weights(empty, path)


def test_documented_examples() -> None:
    assert doctest.testmod(importlib.import_module("convoxel.models.weights")).failed == 0
