"""Bundles of MONAI as runs: agreement with MONAI's own pipeline, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from convoxel.cli import main
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.train import import_monai, load_model, predict
from tests.support.refusal import refused, refused_command

Array = NDArray[Any]
UNET = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 16],
    "strides": [2, 2], "num_res_units": 1, "norm": "batch",
}  # fmt: skip
SEGRESNET = {
    "_target_": "monai.networks.nets.SegResNet", "init_filters": 8, "in_channels": 2, "out_channels": 3,
    "blocks_down": [1, 1], "blocks_up": [1],
}  # fmt: skip
DYNUNET = {
    "_target_": "DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "kernel_size": "@kernels",
    "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 6, 8], "deep_supervision": True,
    "norm_name": ["INSTANCE", {"affine": True}],
}  # fmt: skip
BASIC = {"_target_": "BasicUNet", "in_channels": 1, "out_channels": 2, "features": [4, 4, 8, 8, 8, 4]}
SPACED = [
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.5, 1.0, 2.0], "mode": "bilinear"},
]
RANGE = {"_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": -20, "a_max": 50, "b_min": 0.0,
         "b_max": 1.0, "clip": True}  # fmt: skip
STANDARD = {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True, "channel_wise": True}
WHOLE = {key: value for key, value in STANDARD.items() if key != "nonzero"}
CROP = {"_target_": "CropForegroundd", "keys": "@image_key", "source_key": "@image_key"}
INVERSE = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "@image_key",
           "nearest_interp": False, "to_tensor": True}  # fmt: skip
SOFTMAX: list[dict[str, Any]] = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True}, INVERSE,
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
]  # fmt: skip
SIGMOID: list[dict[str, Any]] = [
    {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}, INVERSE,
    {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
]  # fmt: skip


def configuration(network: dict[str, Any], before: list[Any], after: list[Any], **window: Any) -> dict[str, Any]:
    """A configuration as bundles of the Model Zoo have it."""
    return {
        "imports": ["$import glob", "$import os"], "bundle_root": ".", "image_key": "image", "kernels": [3, 3, 3],
        "output_dir": "$@bundle_root + '/eval'", "datalist": "$list(sorted(glob.glob(@bundle_root + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network, "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                *before,
                {"_target_": "EnsureTyped", "keys": "@image_key"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "sw_batch_size": 2, "overlap": 0.5,
                    **window},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [*after, {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "network": "@network", "inferer": "@inferer"},
        "initialize": ["$monai.utils.set_determinism(seed=123)"], "run": ["$@evaluator.run()"],
    }  # fmt: skip


def module(network: dict[str, Any]) -> torch.nn.Module:
    """The network, with random weights and an output in which no class wins everywhere."""
    from monai.networks import nets

    arguments = {key: value for key, value in network.items() if key != "_target_"}
    if "kernel_size" in arguments:
        arguments["kernel_size"] = [3, 3, 3]
    torch.manual_seed(0)
    net = getattr(nets, network["_target_"].rpartition(".")[2])(**arguments).eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.randn_like(value).abs()
        last = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
        if isinstance(net, nets.DynUNet):
            last = [net.output_block.conv.conv]
        x = torch.randn(2, network["in_channels"], 32, 32, 16)
        mean = net(x).mean(dim=[0, 2, 3, 4])
        bias = last[-1].bias
        assert bias is not None
        bias -= mean
    return net


def write(folder: Path, content: dict[str, Any], net: torch.nn.Module, *, ending: str = "json") -> Path:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    text = json.dumps(content) if ending == "json" else yaml.safe_dump(content)
    (folder / "configs" / f"inference.{ending}").write_text(text)
    outputs = content["network_def"].get("out_channels", 2)
    names = {str(i): ["background", "organ", "tumour"][i] for i in range(outputs)}
    (folder / "configs" / "metadata.json").write_text(
        json.dumps({"name": "Small bundle", "network_data_format": {"outputs": {"pred": {"channel_def": names}}}})
    )
    torch.save(net.state_dict(), folder / "models" / "model.pt")
    return folder


def write_image(path: Path, channels: int) -> Path:
    """An image of (23, 20, 15) voxels that are turned and of another spacing, with a margin of zeros."""
    rng = np.random.default_rng(0)
    values = np.zeros((23, 20, 15, channels), np.float32)
    for channel in range(channels):
        values[2:21, 3:18, 1:14, channel] = gaussian_filter(rng.normal(size=(19, 15, 13)), 1.5) * 120 + 15
    affine = np.diag([-1.2, 1.3, 2.6, 1.0])[[1, 0, 2, 3]]
    affine[:3, 3] = 5, -7, 9
    stored = values if channels > 1 else values[..., 0]
    nibabel.save(nibabel.Nifti1Image(stored, affine), path)  # type: ignore[attr-defined]
    return path


def monai_prediction(content: dict[str, Any], net: torch.nn.Module, image: Path) -> Array:
    """The outputs (channels, *spatial) of MONAI's own pipeline, which runs the configuration."""
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate

    names = ("image_key", "kernels", "preprocessing", "inferer")
    parser = ConfigParser({name: content[name] for name in names})
    parser["postprocessing"] = {"_target_": "Compose", "transforms": content["postprocessing"]["transforms"][:-1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own
        batch = list_data_collate([parser.get_parsed_content("preprocessing")({"image": str(image)})])
        with torch.no_grad():
            batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], net)
        (item,) = decollate_batch(batch)
        return np.asarray(parser.get_parsed_content("postprocessing")(item)["pred"])


def dice(found: Array, expected: Array) -> float:
    return float(2 * (found & expected).sum() / max(1, found.sum() + expected.sum()))


@pytest.mark.parametrize(
    ("network", "before", "after", "window"),
    [
        (UNET, [*SPACED, RANGE], SOFTMAX, {}),
        (
            SEGRESNET,
            [STANDARD],
            SIGMOID,
            {"mode": "gaussian", "overlap": 0.6, "roi_size": [16, 32, 16], "padding_mode": "replicate"},
        ),
        (DYNUNET, [*SPACED, WHOLE, CROP], SOFTMAX, {"mode": "gaussian", "overlap": 0.25}),
    ],
    ids=["UNet", "SegResNet", "DynUNet"],
)
def test_a_run_predicts_as_monai_does(
    tmp_path: Path, network: dict[str, Any], before: list[Any], after: list[Any], window: dict[str, Any]
) -> None:
    net, content = module(network), configuration(network, before, after, **window)
    bundle = write(tmp_path / "bundle", content, net, ending="yaml" if network is DYNUNET else "json")
    image = write_image(tmp_path / "scan.nii.gz", network["in_channels"])
    expected = monai_prediction(content, net, image)
    run = import_monai(bundle, tmp_path / "run")
    assert run.parameters == sum(value.numel() for value in net.parameters())
    engine = "convoxel" if network is UNET else "torch"  # to record and compile takes most of the time
    (path,) = predict(run.path, image, tmp_path / "map.nii.gz", engine=engine)
    found = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    if after is SIGMOID:  # the label map holds a bit for each output
        pairs = [(found >> bit & 1 == 1, mask == 1) for bit, mask in enumerate(expected)]
        assert load_model(run.path).data.classes == ("background", "background 1", "organ", "tumour")
    else:
        pairs = [(found == value, expected[0] == value) for value in range(network["out_channels"])]
    assert all(0.02 < mask.mean() < 0.98 for _, mask in pairs)
    assert min(dice(*pair) for pair in pairs) >= 0.9999


def bundle_of(folder: Path, content: dict[str, Any] | None = None) -> Path:
    return write(folder, content or configuration(UNET, [*SPACED, RANGE], SOFTMAX), module(UNET))


def test_the_command_makes_an_ordinary_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = [SOFTMAX[0], SOFTMAX[2], {**INVERSE, "nearest_interp": True}]
    content = copy.deepcopy(configuration(UNET, [*SPACED, STANDARD], after))
    content["postprocessing"]["transforms"].insert(3, {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"})
    content["postprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x"})
    content["preprocessing"]["transforms"][3]["pixdim"] = "$[1.5, 1.0, 2.0] if @fine#yes else @none"
    content["fine"], content["sizes"] = {"yes": True}, [16, 16, 8]
    content["network_def"] = {**UNET, "spatial_dims": "$len(@sizes)", "strides": "$@steps"}
    content["steps"] = [2, 2]
    content["preprocessing"]["transforms"].append({"_target_": "NoSuch", "keys": "image", "_disabled_": True})
    bundle = bundle_of(tmp_path / "bundle", content)
    words = ["import", "monai", str(bundle), "--output", str(tmp_path / "run")]
    assert "Lambdad" in refused_command(capsys, *words)
    assert "Lambda2" in refused_command(capsys, *words, "--without", "Lambda2")
    assert main([*words, "--json", "--without", "Lambdad"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["classes"]) == ("monai.UNet", ["background", "organ", "tumour"])
    assert all(word in " ".join(told["notes"]) for word in ("--keep-largest", "nonzero", "Lambdad is left out"))
    run = load_model(tmp_path / "run")
    rule = run.config.prediction
    assert (run.config.patch, run.config.overlap, rule.blend, rule.returned) == ((16, 16, 8), 0.5, "constant", "labels")
    assert run.data.data_name == "Small bundle" and run.config.spacing == (1.5, 1.0, 2.0)
    image = write_image(tmp_path / "scan.nii.gz", 1)
    (path,) = predict(tmp_path / "run", image, tmp_path / "map.nii.gz", engine="torch")
    assert set(np.unique(nibabel.load(path).dataobj)) == {0, 1, 2}  # type: ignore[attr-defined]
    again = refused_command(capsys, *words, "--without", "Lambdad")
    assert "exists" in again
    assert main(["describe", str(tmp_path / "run")]) == 0


def changed(**entries: Any) -> dict[str, Any]:
    return {**configuration(UNET, [*SPACED, RANGE], SOFTMAX), **entries}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another network": (changed(network_def={**UNET, "_target_": "scripts.mine.Net"}), "scripts.mine.Net"),
    "a call of a network": (changed(network_def={"_target_": "monai.networks.nets.torchvision_fc.x"}), "torchvision"),
    "code in an argument": (changed(network_def={**UNET, "channels": "$[16] * 9**9"}), "[16] * 9**9"),
    "an unknown argument": (changed(network_def={**UNET, "colour": 3}), "colour"),
    "a huge number": (changed(network_def={**UNET, "channels": [4, 2**40, 16]}), "channels"),
    "a circle": (changed(kernels="@network_def", network_def={**UNET, "channels": "@kernels"}), "refers to itself"),
    "nowhere": (changed(network_def={**UNET, "channels": "@none::0"}), "none::0"),
    "another inferer": (changed(inferer={"_target_": "SimpleInferer"}), "SimpleInferer"),
    "an unknown transform": (configuration(UNET, [{"_target_": "Resized", "keys": "image"}], SOFTMAX), "Resized"),
    "an unknown option": (configuration(UNET, [{**RANGE, "gamma": 2}], SOFTMAX), "gamma"),
    "code in a choice": (configuration(UNET, [{**SPACED[1], "pixdim": "$[2, 2, 2] if 1 > 0 else 3"}], SOFTMAX), "if 1"),
    "code in a transform": (configuration(UNET, [{**RANGE, "a_min": "$-1000 * 2"}], SOFTMAX), "-1000 * 2"),
    "another orientation": (configuration(UNET, [{**SPACED[0], "axcodes": "LPS"}], SOFTMAX), "LPS"),
    "another threshold": (configuration(UNET, [], [SIGMOID[0], {**SIGMOID[2], "threshold": 0.3}]), "0.3"),
    "a plane": (changed(network_def={**UNET, "spatial_dims": 2}, inferer={
        "_target_": "SlidingWindowInferer", "roi_size": [16, 16]}), "2-D"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_run_cannot_follow_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    content, word = REFUSED[kind]
    folder = tmp_path / "bundle"
    write(folder, {**content, "network_def": UNET}, torch.nn.Linear(1, 1))
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(content))
    refused(lambda: import_monai(folder, tmp_path / "run"), path, word)
    assert not (tmp_path / "run").exists()


class Harmful:
    """An object whose pickle would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    folder, run = bundle_of(tmp_path / "bundle"), tmp_path / "run"
    weights, mark = folder / "models" / "model.pt", tmp_path / "was-run"
    torch.save({"x": Harmful(mark)}, weights)
    with pytest.raises(DataError, match=r"model\.pt"):
        import_monai(folder, run)
    weights.write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(DataError, match=r"model\.pt"):
        import_monai(folder, run)
    torch.save(module(BASIC).state_dict(), weights)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        import_monai(folder, run)
    weights.rename(weights.with_suffix(".ts"))
    refused(lambda: import_monai(folder, run), weights.with_suffix(".ts"), "TorchScript")
    assert not mark.exists() and not run.exists()
    config = folder / "configs" / "inference.json"
    for text in ("[" * 100_000, "{", "[1]", '{"a": 1' + " " * 2**20 + "}"):
        config.write_text(text)
        refused(lambda: import_monai(folder, run), config)
    config.unlink()
    refused(lambda: import_monai(folder, run), folder, "configs/inference.json")
    letters = "abcdefghijklmnopqrstu"
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise(letters))
    (folder / "configs" / "inference.yaml").write_text(bomb)
    refused(lambda: import_monai(folder, run), folder / "configs" / "inference.yaml", "aliases")
    with pytest.raises(ConfigError, match="exists"):
        import_monai(bundle_of(tmp_path / "other"), folder)
