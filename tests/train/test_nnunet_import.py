"""Networks of nnU-Net as runs: folders as nnU-Net writes them, its rules of prediction, and what is refused."""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from convoxel import models
from convoxel.cli import main
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.models.weights import read_checkpoint
from convoxel.predict.sliding_window import tile_starts
from convoxel.train import import_nnunet, load_model, predict
from convoxel.train.nnunet_plans import read_plan
from tests.support.refusal import refused, refused_command

Array = NDArray[Any]
STRIDES, KERNELS = [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]


def architecture(kind: str, dims: int) -> dict[str, Any]:
    """An entry of plans.json as nnU-Net's planner writes it."""
    blocks = {"n_conv_per_stage": [2, 2, 2]} if kind == "PlainConvUNet" else {"n_blocks_per_stage": [1, 2, 2]}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [4, 6, 8], "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [kernel[-dims:] for kernel in KERNELS], "strides": [step[-dims:] for step in STRIDES],
            **blocks, "n_conv_per_stage_decoder": [2, 1], "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip


def plans(kind: str = "PlainConvUNet", dims: int = 3, **other: Any) -> dict[str, Any]:
    patch, spacing = [4, 12, 16][-dims:], [2.0, 1.0, 1.5][-dims:]
    configuration = {
        "data_identifier": "nnUNetPlans", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": patch, "spacing": spacing, "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False], "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": architecture(kind, dims), **other,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset777_Small", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 2, 1], "transpose_backward": [0, 2, 1],
        "original_median_shape_after_transp": [9, 20, 26], "original_median_spacing_after_transp": [2.0, 1.0, 1.5],
        "configurations": {"base": configuration, "mine": {"inherits_from": "base"}},
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 3.0, "std": 2.0, "percentile_00_5": -1.0, "percentile_99_5": 6.0, "max": 9.0}
        },
    }  # fmt: skip


def network(kind: str = "PlainConvUNet", dims: int = 3, seed: int = 0, channels: int = 1) -> models.NnUNet:
    """The network of these plans, with weights that make no class win everywhere."""
    torch.manual_seed(seed)
    name = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet"}[kind]
    net = models.NnUNet(
        name, dims, channels, 3, levels=2, width=[4, 6, 8], blocks=[1, 2, 2] if "Res" in kind else 2,
        decoder_blocks=[1, 2],
        kernels=[kernel[-dims:] for kernel in KERNELS], strides=[step[-dims:] for step in STRIDES[1:]],
        deep_supervision=1,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        head = net.decoder.seg_layers["1"]
        head.weight.normal_()
        head.bias.copy_(-net.eval()(torch.randn(4, channels, *(4, 12, 16)[-dims:])).mean(dim=[0, *range(2, dims + 2)]))
    return net


def stored_names(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict under nnU-Net's names: those of blocks and of the encoder come twice."""
    found = {}
    for name, tensor in net.state_dict().items():
        found[name] = tensor
        place, _, rest = name.rpartition(".conv.")
        if place:
            found[f"{place}.all_modules.0.{rest}"] = tensor
        place, _, rest = name.rpartition(".norm.")
        if place:
            found[f"{place}.all_modules.1.{rest}"] = tensor
    twice = {f"decoder.{name}": tensor for name, tensor in found.items() if name.startswith("encoder.")}
    return {**found, **twice}


def checkpoint(net: torch.nn.Module, **other: Any) -> dict[str, Any]:
    """The content of a checkpoint as the trainer saves it, numbers of NumPy among it."""
    return {
        "network_weights": stored_names(net), "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        "grad_scaler_state": None, "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [0.01, np.float32(0.1)]},
        "_best_ema": np.float64(0.5), "current_epoch": 4, "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "mine", "fold": 0, "device": torch.device("cpu"), "plans": {"a": [1, None]}},
        "inference_allowed_mirroring_axes": (0, 2), **other,
    }  # fmt: skip


def write(
    folder: Path,
    content: dict[str, Any],
    *folds: dict[str, Any],
    labels: object = None,
    file: str = "checkpoint_final.pth",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(content))
    described = {"channel_names": {"0": "CT"}, "labels": labels or {"background": 0, "liver": 1, "lesion": 2},
                 "file_ending": ".nii.gz", "numTraining": 3}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(described))
    for number, each in enumerate(folds):
        (folder / f"fold_{number}").mkdir(exist_ok=True)
        torch.save(each, folder / f"fold_{number}" / file)
    return folder


def write_image(path: Path, values: Array, spacing: tuple[float, ...] = (1.5, 1.2, 2.5)) -> Path:
    affine = np.diag([*spacing, 1.0])
    affine[0, 0] *= -1  # nnU-Net does not look at directions
    nibabel.save(nibabel.Nifti1Image(values, affine), path)  # type: ignore[attr-defined]
    return path


def image(seed: int = 0) -> Array:
    """An image (26, 30, 11) with a margin of zeros."""
    values = np.zeros((26, 30, 11), np.float32)
    rng = np.random.default_rng(seed)
    values[3:24, 2:27, 1:10] = gaussian_filter(rng.normal(size=(21, 25, 9)), 1) * 20 + 5
    return values


def nnunet_prediction(
    nets: list[torch.nn.Module], stored: Array, spacing: tuple[float, ...], dims: int = 3, previous: Array | None = None
) -> Array:
    """The rule of nnU-Net in plain steps, on SciPy: what the imported run must give.

    ``previous`` is the label map of the stage before, in a cascade.
    """
    data = stored.transpose(2, 0, 1)[None]  # the reversed axes of the file, then transpose_forward (0, 2, 1)
    own = np.array(spacing)[[2, 0, 1]]
    place = np.nonzero(data[0])
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in place)
    cut = data[(slice(None), *box)]
    cut = (cut - cut.mean()) / cut.std()
    target = np.array([2.0, 1.0, 1.5]) if dims == 3 else np.array([own[0], 1.0, 1.5])
    size = [round(float(o / t * n)) for o, t, n in zip(own, target, cut.shape[1:], strict=True)]
    grid = resize(cut[0], size, 3)[None]
    if previous is not None:
        before = previous.transpose(2, 0, 1)[box]
        masks = [resize((before == value).astype(float), size, 1) >= 0.5 for value in (1, 2)]
        grid = np.stack([grid[0], *masks])
    patch = (4, 12, 16) if dims == 3 else (1, 12, 16)
    axes = (0, 2) if dims == 3 else (1, 2)
    weight = np.zeros(patch)
    weight[tuple(side // 2 for side in patch)] = 1
    weight = gaussian_filter(weight, [side / 8 for side in patch], mode="constant")
    weight = (weight * (10 / weight.max())).astype(np.float16)
    weight[weight == 0] = weight[weight > 0].min()
    starts = []
    for have, want in zip(size, patch, strict=True):
        count = int(np.ceil((have - want) / max(want * 0.5, 1))) + 1
        starts.append([round((have - want) / max(count - 1, 1) * number) for number in range(count)])
    mean: Any = np.float16(0)
    for net in nets:
        total: Array = np.zeros((3, *size), np.float16)
        weights: Array = np.zeros(size, np.float16)
        for corner in itertools.product(*starts):
            part = tuple(slice(start, start + side) for start, side in zip(corner, patch, strict=True))
            tile = torch.from_numpy(np.ascontiguousarray(grid[(slice(None), *part)]))[None].float()
            logits = torch.zeros(1, 3, *patch)
            for flips in itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(3)):
                turned = tile.flip([axis + 2 for axis in flips])
                with torch.no_grad():
                    copy = net(turned) if dims == 3 else net(turned[:, :, 0])[:, :, None]
                logits += copy.flip([axis + 2 for axis in flips])
            total[(slice(None), *part)] += (logits[0] / 4).numpy() * weight.astype(np.float32)
            weights[part] += weight
        mean = mean + (total.astype(np.float32) / weights.astype(np.float32)).astype(np.float16)
    mean = mean / np.float16(len(nets))
    logits = np.stack([resize(each, cut.shape[1:], 1).astype(np.float16) for each in mean])
    found = np.zeros(data.shape[1:], np.uint8)
    found[box] = logits.argmax(0)
    return found.transpose(1, 2, 0)


def resize(values: Array, size: Any, order: int) -> Array:
    """``skimage.transform.resize`` with mode "edge" in its own terms."""
    factors = [want / have for want, have in zip(size, values.shape, strict=True)]
    found = zoom(values.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(found, values.min(), values.max())


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_a_run_predicts_as_nnunet_does(tmp_path: Path, kind: str) -> None:
    nets = [network(kind, seed=seed) for seed in (0, 1)]
    source = write(tmp_path / "trained", plans(kind), *(checkpoint(net) for net in nets))
    runs = import_nnunet(source, tmp_path / "run")
    assert [run.path for run in runs] == [tmp_path / "run" / f"fold_{fold}" for fold in (0, 1)]
    write_image(tmp_path / "scan.nii.gz", image())
    with pytest.warns(RuntimeWarning, match="folds 0, 1 of 5"):
        (written,) = predict(tmp_path / "run", tmp_path / "scan.nii.gz", tmp_path / "map.nii.gz", engine="torch")
    found = np.asarray(nibabel.load(written).dataobj)  # type: ignore[attr-defined]
    expected = nnunet_prediction(list(nets), image(), (1.5, 1.2, 2.5))
    assert (np.bincount(expected.ravel(), minlength=3) > 50).all()  # a test that sees every class
    assert (found != expected).mean() < 3e-4
    assert (found[:3] == 0).all()


def test_the_second_stage_of_a_cascade_sees_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, high = [network()], [network(seed=seed, channels=3) for seed in (2, 3)]
    source = write(tmp_path / "T__P__mine", plans(previous_stage="low"), *(checkpoint(net) for net in high))
    refused(lambda: import_nnunet(source, tmp_path / "run"), tmp_path / "T__P__low", "low of the same")
    assert not (tmp_path / "run").exists()
    write(tmp_path / "T__P__low", plans(), *(checkpoint(net) for net in low))
    runs = import_nnunet(source, tmp_path / "run")
    assert [run.config.prediction.previous for run in runs] == ["previous", "../fold_0/previous"]
    assert (runs[0].data.channels, runs[0].data.inputs) == (1, 3)
    scan = write_image(tmp_path / "scan_0000.nii.gz", image())
    (stage,) = predict(tmp_path / "run" / "fold_0" / "previous", scan, tmp_path / "low.nii.gz", engine="torch")
    first = np.asarray(nibabel.load(stage).dataobj)  # type: ignore[attr-defined]
    assert (first != nnunet_prediction(list(low), image(), (1.5, 1.2, 2.5))).mean() < 1e-3
    expected = nnunet_prediction(list(high), image(), (1.5, 1.2, 2.5), previous=first)
    with pytest.warns(RuntimeWarning, match="folds 0, 1 of 5"):
        (written,) = predict(tmp_path / "run", scan, tmp_path / "map.nii.gz", engine="torch")
    found = np.asarray(nibabel.load(written).dataobj)  # type: ignore[attr-defined]
    assert (np.bincount(expected.ravel(), minlength=3) > 50).all()
    assert (found != expected).mean() < 2e-3  # a mask of exactly one half falls to either side
    alone = nnunet_prediction(list(high), image(), (1.5, 1.2, 2.5), previous=np.zeros_like(first))
    assert (expected != alone).mean() > 0.01  # the first stage matters
    assert main(["describe", str(tmp_path / "run" / "fold_0")]) == 0
    capsys.readouterr()
    words = ["explain", tmp_path / "run" / "fold_0", "--input", scan, "--output", tmp_path / "e"]
    assert "stage before" in refused_command(capsys, *words)
    write(tmp_path / "T__P__low", plans(previous_stage="low"), checkpoint(network(channels=3)))
    refused(lambda: import_nnunet(source, tmp_path / "again"), tmp_path / "T__P__low", "stage before")


def test_a_plane_network_sees_volumes_slice_by_slice(tmp_path: Path) -> None:
    net = network(dims=2)
    state = checkpoint(net, inference_allowed_mirroring_axes=(0, 1))
    source = write(tmp_path / "trained", plans(dims=2), state)
    (run,) = import_nnunet(source, tmp_path / "run")
    assert (run.data.dims, run.config.patch, run.config.prediction.mirror) == (3, (1, 12, 16), (1, 2))
    write_image(tmp_path / "scan.nii.gz", image())
    (written,) = predict(tmp_path / "run", tmp_path / "scan.nii.gz", tmp_path / "map.nii.gz")
    found = np.asarray(nibabel.load(written).dataobj)  # type: ignore[attr-defined]
    expected = nnunet_prediction([net], image(), (1.5, 1.2, 2.5), dims=2)
    assert len(np.unique(expected)) == 3 and (found != expected).mean() < 1e-3


def test_the_run_is_an_ordinary_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = network()
    source = write(tmp_path / "trained", plans(), checkpoint(net), file="checkpoint_best.pth")
    words = ["import", "nnunet", source, "--output", tmp_path / "run", "--checkpoint", "best", "--json"]
    assert main([str(word) for word in words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["classes"]) == ("plain_conv_unet", ["background", "liver", "lesion"])
    assert told["runs"] == [
        {"fold": "0", "path": str(tmp_path / "run"), "parameters": sum(p.numel() for p in net.parameters())}
    ]
    run = load_model(tmp_path / "run")
    rule = run.config.prediction
    assert (rule.mean, rule.mirror, rule.tile, rule.blend) == ("logits", (0, 2), "patch", "filter")
    assert (run.config.overlap, run.step, run.data.normalisation.channels[0].kind) == (0.5, 1000, "zscore")
    x = torch.randn(1, 1, 4, 12, 16)
    torch.testing.assert_close(run.network(x), net(x))
    assert main(["describe", str(tmp_path / "run")]) == 0
    assert "plain_conv_unet" in capsys.readouterr().out


def test_regions_decide_one_by_one(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    source = write(tmp_path / "trained", plans(), checkpoint(network()), labels=labels)
    described = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**described, "regions_class_order": [1, 2, 3]}))
    (run,) = import_nnunet(source, tmp_path / "run")
    assert run.data.classes == ("background", "whole", "core", "enhancing") and run.data.regions is not None
    write_image(tmp_path / "scan.nii.gz", image())
    (written,) = predict(tmp_path / "run", tmp_path / "scan.nii.gz", tmp_path / "map.nii.gz", engine="torch")
    found = np.asarray(nibabel.load(written).dataobj)  # type: ignore[attr-defined]
    assert (found[:3] == 0).all() and {0, 3} < set(np.unique(found))  # beyond the box there is no region


def test_old_plans_name_the_numbers_otherwise(tmp_path: Path) -> None:
    content = plans()
    base = content["configurations"]["base"]
    del base["architecture"]
    base.update(
        UNet_class_name="PlainConvUNet", UNet_base_num_features=4, unet_max_num_features=6,
        n_conv_per_stage_encoder=[2, 2, 2], n_conv_per_stage_decoder=[2, 2], conv_kernel_sizes=KERNELS,
        pool_op_kernel_sizes=STRIDES, num_pool_per_axis=[1, 2, 2],
    )  # fmt: skip
    net = models.NnUNet("plain_conv_unet", 3, 1, 3, levels=2, width=[4, 6, 6], kernels=KERNELS, strides=STRIDES[1:],
                        deep_supervision=1)  # fmt: skip
    source = write(tmp_path / "trained", content, checkpoint(net))
    (run,) = import_nnunet(source, tmp_path / "run")
    assert run.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_normalisation_by_channel(tmp_path: Path) -> None:
    schemes = [
        "CTNormalization",
        "ZScoreNormalization",
        "RescaleTo01Normalization",
        "NoNormalization",
        "RGBTo01Normalization",
    ]
    content = plans(normalization_schemes=schemes, use_mask_for_norm=[False, True, False, False, False])
    source = write(tmp_path / "trained", content)
    names = {str(channel): "x" for channel in range(5)}
    (source / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": {"background": 0, "liver": 1}}))
    plan = read_plan(source, "mine")
    rng = np.random.default_rng(0)
    values = rng.normal(2, 4, size=(5, 6, 7, 8)).astype(np.float32)
    values[:, :2] = 0  # outside the body
    ct, masked, unit, same, colour = plan.normalisation.apply_rules(values)
    np.testing.assert_allclose(ct, (values[0].clip(-1, 6) - 3) / 2, rtol=1e-6)
    np.testing.assert_allclose((masked[2:].mean(), masked[2:].std()), (0, 1), atol=1e-5)
    assert (masked[:2] == 0).all()
    np.testing.assert_allclose((unit.min(), unit.max()), (0, 1))
    assert (same == values[3]).all() and np.allclose(colour, values[4] / 255)


@pytest.mark.parametrize(
    "size, tile, starts", [(20, 5, [0, 2, 5, 8, 10, 12, 15]), (9, 5, [0, 2, 4]), (4, 1, [0, 1, 2, 3])]
)
def test_tiles_lie_where_nnunet_has_them(size: int, tile: int, starts: list[int]) -> None:
    assert tile_starts(size, tile, 0.5, "filter") == starts


# ---- refusals ----------------------------------------------------------------------------------------------


class Harmful:
    """An object whose pickle would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_hostile_checkpoints_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    source = write(tmp_path / "trained", plans(), checkpoint(network(), logging=Harmful(mark)))
    file = source / "fold_0" / "checkpoint_final.pth"
    refused(lambda: import_nnunet(source, tmp_path / "run"), f"weights: {file}", "Python objects")
    file.write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(DataError):
        import_nnunet(source, tmp_path / "run")
    file.write_bytes(file.read_bytes()[:7])
    with pytest.raises(DataError):
        import_nnunet(source, tmp_path / "run")
    assert not mark.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("change, words", [
    ({"architecture": {"network_class_name": "dynamic.Primus", "arch_kwargs": {}}}, ["Primus", "PlainConvUNet"]),
    ({"previous_stage": "3d_lowres"}, ["stage before", "3d_lowres"]),
    ({"previous_stage": "../low"}, ["previous_stage", "../low"]),
    ({"previous_stage": "3d_lowres", "resampling_fn_seg_kwargs": {"order": 0}}, ["seg", "'order': 0"]),
    ({"resampling_fn_data": "resample_torch_fornnunet"}, ["resample_torch_fornnunet"]),
    ({"resampling_fn_data_kwargs": {"order": 1}}, ["'order': 1"]),
    ({"preprocessor_name": "Mine"}, ["Mine"]),
    ({"normalization_schemes": ["Mine"]}, ["Mine", "ZScoreNormalization"]),
    ({"patch_size": [4, 12, -16]}, ["patch_size", "-16"]),
    ({"spacing": [1, 1, 0]}, ["spacing"]),
    ({"spacing": [1, 1]}, ["spacing"]),
    ({"use_mask_for_norm": [True, True]}, ["channel_names"]),
    ({"inherits_from": "mine"}, ["inherits from itself"]),
])  # fmt: skip
def test_plans_that_are_not_computed_alike_are_refused(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    source = write(tmp_path / "trained", plans(**change), checkpoint(network()))
    with pytest.raises(DataError) as caught:
        import_nnunet(source, tmp_path / "run")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("change, word", [
    ({"strides": [[2, 2, 2], [1, 2, 2], [2, 2, 2]]}, "first stride"),
    ({"nonlin_first": True}, "before normalisation"),
    ({"nonlin": "torch.nn.Tanh"}, "Tanh"),
    ({"nonlin_kwargs": {"negative_slope": 0.2}}, "negative_slope"),
    ({"norm_op_kwargs": {"eps": 1e-3}}, "eps"),
    ({"n_stages": 4}, "4 stages"),
    ({"n_stages": 10**6}, "n_stages"),
    ({"features_per_stage": [10**9, 4, 4]}, "features_per_stage"),
    ({"n_conv_per_stage": None}, "no convolutions"),
    ({"kernel_sizes": [[3, 3]] * 3}, "other axes"),
])  # fmt: skip
def test_networks_that_are_others_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    content = plans()
    content["configurations"]["base"]["architecture"]["arch_kwargs"].update(change)
    source = write(tmp_path / "trained", content, checkpoint(network()))
    with pytest.raises(DataError, match=word):
        import_nnunet(source, tmp_path / "run")


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "trained", plans(), checkpoint(network("ResidualEncoderUNet")))
    with pytest.raises(CheckpointError, match=r"not in the file \(encoder\.stages\.0\.0\.convs\.0"):
        import_nnunet(source, tmp_path / "run")
    content = plans()
    content["configurations"]["base"]["architecture"]["arch_kwargs"]["features_per_stage"] = [2**20] * 3
    write(tmp_path / "trained", content, checkpoint(network()))  # no memory is taken for what does not fit
    with pytest.raises(CheckpointError, match="shapes differ"):
        import_nnunet(source, tmp_path / "run")


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "trained"
    refused(lambda: import_nnunet(source, tmp_path / "run"), source, "plans.json")
    write(source / "nnUNetTrainer__nnUNetPlans__2d", plans())
    refused(lambda: import_nnunet(source, tmp_path / "run"), source, "nnUNetTrainer__nnUNetPlans__2d")
    inner = source / "nnUNetTrainer__nnUNetPlans__2d"
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner, "checkpoint_final.pth")
    write(inner, plans(), checkpoint(network()))
    assert "fold_3" in refused_command(capsys, "import", "nnunet", inner, "--folds", "3", "--output", tmp_path / "run")
    (inner / "dataset.json").unlink()
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner / "dataset.json", "missing")
    (inner / "plans.json").write_text("{")
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner / "plans.json", "JSON")
    write(inner, plans(), {"state_dict": {}})
    refused(
        lambda: import_nnunet(inner, tmp_path / "run"), inner / "fold_0" / "checkpoint_final.pth", "network_weights"
    )
    write(inner, plans(), checkpoint(network(), init_args={"configuration": "other"}))
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner / "plans.json", "other", "base, mine")
    write(inner, plans(), checkpoint(network()), labels={"background": 0, "whole": [1, 900]})
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner / "dataset.json", "900")
    write(inner, plans(), checkpoint(network(), inference_allowed_mirroring_axes=(0, 3)))
    refused(lambda: import_nnunet(inner, tmp_path / "run"), inner / "fold_0" / "checkpoint_final.pth", "mirroring")
    write(inner, plans(), checkpoint(network()))
    with pytest.raises(ConfigError, match="fold"):
        import_nnunet(inner, tmp_path / "run", folds=[0, 0])


def test_a_published_file_starts_a_network_by_weights(tmp_path: Path) -> None:
    net = network("ResidualEncoderUNet")
    torch.save(checkpoint(net), tmp_path / "checkpoint_final.pth")
    options = {"levels": 2, "width": [4, 6, 8], "blocks": [1, 2, 2], "decoder_blocks": [1, 2], "kernels": KERNELS,
               "strides": STRIDES[1:]}  # fmt: skip
    other = models.residual_encoder_unet(3, 1, 3, **options).eval()
    report = models.load_weights(other, tmp_path / "checkpoint_final.pth")
    x = torch.randn(1, 1, 4, 8, 8)
    torch.testing.assert_close(other(x), net(x))
    assert report.unused == ("decoder.seg_layers.0.bias", "decoder.seg_layers.0.weight") and not report.fresh


def test_numbers_of_numpy_do_not_bring_objects(tmp_path: Path) -> None:
    """The stand-ins for NumPy's numbers build nothing, whatever they are handed."""
    stream = io.BytesIO()
    torch.save({"network_weights": {"a": torch.zeros(1)}, "loss": np.float64(1.0)}, stream)
    (tmp_path / "x.pth").write_bytes(stream.getvalue())
    content: Any = read_checkpoint(tmp_path / "x.pth")
    assert list(content["network_weights"]) == ["a"] and not isinstance(content["loss"], np.generic)
