"""Networks of nnU-Net v1 as runs: folders as it writes them, its rules of prediction, and what is refused."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, gaussian_filter

from convoxel import models
from convoxel.cli import main
from convoxel.data.geometry import Geometry
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.predict.prediction_rule import LargestComponent, PredictionRule
from convoxel.train import import_nnunet, load_model, predict
from tests.support.refusal import refused, refused_command
from tests.train.test_nnunet_import import image, resize, write_image

Array = NDArray[Any]
STRIDES, KERNELS = [[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
SPACING, PATCH = (1.5, 1.2, 2.5), (16, 8, 20)
V1 = "nnUNetTrainerV2__nnUNetPlansv2.1"


def plans(**other: Any) -> dict[str, Any]:
    """The plans as nnU-Net's planner pickles them."""
    stage = {
        "batch_size": 2, "num_pool_per_axis": [1, 2, 2], "patch_size": np.array(PATCH), "do_dummy_2D_data_aug": False,
        "current_spacing": np.array([1.0, 2.0, 1.5]), "pool_op_kernel_sizes": STRIDES, "conv_kernel_sizes": KERNELS,
    }  # fmt: skip
    intensities = {"mean": np.float32(3), "sd": np.float64(2), "percentile_00_5": -1.0, "percentile_99_5": 6.0}
    return {
        "num_stages": 1, "num_modalities": 1, "modalities": {0: "MRI"},
        "normalization_schemes": OrderedDict({0: "nonCT"}), "use_mask_for_norm": OrderedDict({0: True}),
        "dataset_properties": {"intensityproperties": OrderedDict({0: intensities}), "all_sizes": [(3, 4, 5)]},
        "num_classes": 2, "all_classes": [1, 2], "base_num_features": 4, "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2], "plans_per_stage": {0: stage}, "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": 2, **other,
    }  # fmt: skip


def network(seed: int = 0, channels: int = 1) -> models.NnUNet:
    """The network of these plans, with weights that make no class win everywhere: its heads have no bias."""
    torch.manual_seed(seed)
    net = models.NnUNet("generic_unet", 3, channels, 3, levels=2, width=[4, 8, 16], kernels=KERNELS, strides=STRIDES,
                        deep_supervision=1)  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        weight = net.decoder.seg_layers["1"].weight
        weight.normal_()
        weight -= weight.mean(1, keepdim=True)
    return net.eval()


def stored_names(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict under the names of nnU-Net v1, which sets the last convolution of most stages apart."""
    found = {}
    for name, tensor in net.state_dict().items():
        side, part, stage, *rest = name.split(".")
        if part == "transpconvs":
            name = f"tu.{stage}.{rest[-1]}"
        elif part == "seg_layers":
            name = f"seg_outputs.{stage}.{rest[-1]}"
        else:
            number, layer, kind = rest[-3:]
            apart = side == "decoder" or stage == "2"
            place = f"{number}.blocks.0" if apart else f"blocks.{number}"
            block = "context" if side == "encoder" else "localization"
            name = f"conv_blocks_{block}.{stage}.{place}.{layer.replace('norm', 'instnorm')}.{kind}"
        found[name] = tensor
    return found


def record(content: dict[str, Any], name: str = "nnUNetTrainerV2", stage: int | None = 0, *more: Any) -> dict[str, Any]:
    init = ("/x/plans.pkl", 0, "/x", "/y", True, stage, True, True, *more)
    return OrderedDict(init=init, name=name, **{"class": f"<class '{name}'>"}, plans=content)


def write(folder: Path, described: dict[str, Any], *nets: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(described["plans"]))
    for number, net in enumerate(nets):
        place = folder / f"fold_{number}"
        place.mkdir(exist_ok=True)
        stuff = ([np.float64(0.5)], [0.1], [], [np.float32(0.25)])
        content = {"epoch": 3, "state_dict": stored_names(net), "plot_stuff": stuff, "best_stuff": (0.1, None, 0.2)}
        torch.save(content, place / "model_final_checkpoint.model")
        (place / "model_final_checkpoint.model.pkl").write_bytes(pickle.dumps(described))
    return folder


def labels(path: Path) -> Array:
    return np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def first_version(nets: list[models.NnUNet], stored: Array, previous: Array | None = None) -> Array:
    """The rule of nnU-Net v1 in plain steps, on SciPy: what the imported run must give.

    ``previous`` is the label map of the stage before, in a cascade.
    """
    data = stored.transpose(1, 2, 0)  # the reversed axes of the file, then transpose_forward (1, 0, 2)
    own, target = np.array(SPACING)[[1, 2, 0]], np.array([1.0, 2.0, 1.5])
    body = binary_fill_holes(data != 0)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(body))
    cut, body = data[box], body[box]
    size = [round(float(o / t * n)) for o, t, n in zip(own, target, cut.shape, strict=True)]
    grid, inside = resize(cut, size, 3), resize(body.astype(float), size, 1) >= 0.5
    grid = np.where(inside, (grid - grid[inside].mean()) / grid[inside].std(), 0)[None]
    if previous is not None:  # the whole map is squeezed into the box
        before = np.zeros(size)
        for value in (1, 2):
            before[resize((previous.transpose(1, 2, 0) == value).astype(float), size, 1) >= 0.5] = value
        grid = np.concatenate([grid, np.stack([before == value for value in (1, 2)])])
    weight = np.zeros(PATCH)
    weight[tuple(side // 2 for side in PATCH)] = 1
    weight = gaussian_filter(weight, [side / 8 for side in PATCH], mode="constant")
    weight = (weight / weight.max()).astype(np.float32)
    weight[weight == 0] = weight[weight > 0].min()
    starts = []
    for have, want in zip(size, PATCH, strict=True):
        count = int(np.ceil((have - want) / (want * 0.5))) + 1
        starts.append([round((have - want) / max(count - 1, 1) * number) for number in range(count)])
    mean = np.zeros((3, *size), np.float32)
    for net in nets:
        total, weights = np.zeros((3, *size), np.float32), np.zeros(size, np.float32)
        for corner in itertools.product(*starts):
            part = tuple(slice(start, start + side) for start, side in zip(corner, PATCH, strict=True))
            tile = torch.from_numpy(np.ascontiguousarray(grid[(slice(None), *part)], np.float32))[None]
            shares = torch.zeros(1, 3, *PATCH)
            for flips in itertools.chain.from_iterable(itertools.combinations((2, 3, 4), n) for n in range(4)):
                with torch.no_grad():
                    shares += net(tile.flip(flips)).softmax(1).flip(flips) / 8
            total[(slice(None), *part)] += shares[0].numpy() * weight
            weights[part] += weight
        mean += total / weights
    shares = np.stack([resize(each, cut.shape, 1) for each in mean / len(nets)])
    found = np.zeros(data.shape, np.uint8)
    found[box] = shares.argmax(0)
    return found.transpose(2, 0, 1)


def test_a_run_predicts_as_the_first_version_does(tmp_path: Path) -> None:
    nets = [network(0), network(1)]
    source = write(tmp_path / "3d_fullres" / "Task001_X" / V1, record(plans()), *nets)
    runs = import_nnunet(source, tmp_path / "run")
    assert [run.path for run in runs] == [tmp_path / "run" / f"fold_{fold}" for fold in (0, 1)]
    facts, rule = runs[0].data, runs[0].config.prediction
    assert (facts.classes, facts.data_name) == (("background", "class 1", "class 2"), "Task001_X")
    assert (rule.mean, rule.tile_mean, rule.mirror) == ("shares", "shares", (0, 1, 2))
    scan = write_image(tmp_path / "scan.nii.gz", image())
    expected = first_version(nets, image())
    assert (np.bincount(expected.ravel(), minlength=3) > 50).all()  # a test that sees every class
    with pytest.warns(RuntimeWarning, match="folds 0, 1 of 5"):
        written, beside = predict(
            tmp_path / "run", scan, tmp_path / "map.nii.gz", engine="torch", probabilities="float32"
        )
    found, shares = labels(written), labels(beside)
    assert (found != expected).mean() < 3e-4
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert (shares.argmax(-1) == found).all()
    (alone,) = predict(tmp_path / "run" / "fold_0", scan, tmp_path / "alone.nii.gz", engine="torch")
    assert (labels(alone) != expected).mean() > 0.005  # the second fold matters


def test_the_clean_up_of_the_folder_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = network()
    source = write(tmp_path / V1, record(plans()), net)
    expected = first_version([net], image())
    note = {"for_which_classes": [[1, 2], 1], "min_valid_object_sizes": "{(1, 2): 1e9, 1: 60.0}"}
    (source / "postprocessing.json").write_text(json.dumps(note))
    words = ["import", "nnunet", source, "--output", tmp_path / "run", "--json"]
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "generic_unet"
    scan = write_image(tmp_path / "scan.nii.gz", image())
    (written,) = predict(tmp_path / "run", scan, tmp_path / "map.nii.gz", engine="torch")
    found = labels(written)
    kept = faces_only(faces_only(expected, (1, 2), 1e9), (1,), 60.0)
    assert (found != kept).mean() < 3e-4 and (kept != expected).mean() > 1e-3
    (run,) = import_nnunet(source, tmp_path / "raw", postprocessing=False)
    assert run.config.prediction.largest == ()
    for content in (
        "{",
        "{}",
        '{"for_which_classes": [3]}',
        '{"for_which_classes": [1], "min_valid_object_sizes": "{"}',
    ):
        (source / "postprocessing.json").write_text(content)
        refused(lambda: import_nnunet(source, tmp_path / "x"), source / "postprocessing.json", "clean-up")


def faces_only(label: Array, values: tuple[int, ...], least_mm3: float) -> Array:
    """The label map without components that are smaller than the largest one and than a volume, by flooding."""
    found, waiting = label.copy(), {tuple(place) for place in np.argwhere(np.isin(label, values)).tolist()}
    parts = []
    while waiting:
        part, edge = set(), {waiting.pop()}
        while edge:
            place = edge.pop()
            part.add(place)
            near = [tuple(np.add(place, step)) for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])]
            edge |= waiting & set(near)
            waiting -= edge
        parts.append(part)
    most = max(map(len, parts), default=0)
    for part in parts:
        if len(part) < most and len(part) * np.prod(SPACING) < least_mm3:
            found[tuple(np.transpose(list(part)))] = 0
    return found


def test_the_second_stage_of_a_cascade_sees_the_first(tmp_path: Path) -> None:
    low, high = network(5), network(6, channels=3)
    stages = plans()["plans_per_stage"][0]
    content = plans(plans_per_stage={0: stages, 1: stages})
    cascade = record(content, "nnUNetTrainerV2CascadeFullRes", 1, "nnUNetTrainerV2", False)
    source = write(tmp_path / "3d_cascade_fullres" / "Task001_X" / "nnUNetTrainerV2CascadeFullRes__p", cascade, high)
    before = tmp_path / "3d_lowres" / "Task001_X" / "nnUNetTrainerV2__p"
    refused(lambda: import_nnunet(source, tmp_path / "run"), before, "stage before")
    write(before, record(content), low)
    (run,) = import_nnunet(source, tmp_path / "run")
    assert (run.data.channels, run.data.inputs, run.config.prediction.previous) == (1, 3, "previous")
    scan = write_image(tmp_path / "scan.nii.gz", image())
    (written,) = predict(tmp_path / "run", scan, tmp_path / "map.nii.gz", engine="torch")
    expected = first_version([high], image(), previous=first_version([low], image()))
    assert (np.bincount(expected.ravel(), minlength=3) > 50).all()
    assert (labels(written) != expected).mean() < 2e-3  # a mask of exactly one half falls to either side


def test_a_plane_network_is_one_of_slices(tmp_path: Path) -> None:
    stage = {**plans()["plans_per_stage"][0], "patch_size": [12, 16], "num_pool_per_axis": [2, 2]}
    del stage["pool_op_kernel_sizes"], stage["conv_kernel_sizes"]  # as in plans of early versions
    content = plans(plans_per_stage={0: stage}, preprocessor_name=None, transpose_forward=None)
    torch.manual_seed(0)
    net = models.NnUNet("generic_unet", 2, 1, 3, levels=2, width=[4, 8, 16], deep_supervision=1).eval()
    (run,) = import_nnunet(write(tmp_path / V1, record(content, stage=None), net), tmp_path / "run")
    assert (run.data.dims, run.config.patch, run.config.prediction.mirror) == (3, (1, 12, 16), (1, 2))
    assert run.data.rule == Geometry(spacing_mm=(1.0, 2.0, 1.5), axes=(2, 1, 0), kept=(0,), crop="nonzero",
                                     sampling="faces", thick_back="image")  # fmt: skip
    x = torch.randn(1, 1, 1, 16, 16)
    torch.testing.assert_close(load_model(tmp_path / "run").network(x)[:, :, 0], net(x[:, :, 0]))


def test_channels_are_normalised_on_the_network_grid(tmp_path: Path) -> None:
    known = plans()["dataset_properties"]["intensityproperties"][0]
    content = plans(
        num_modalities=3, normalization_schemes={0: "CT", 1: "CT", 2: "noNorm"},
        use_mask_for_norm={0: True, 1: False, 2: False},
        dataset_properties={"intensityproperties": {0: known, 1: known}},
    )  # fmt: skip
    (run,) = import_nnunet(write(tmp_path / V1, record(content), network(channels=3)), tmp_path / "run")
    values = np.random.default_rng(0).normal(2, 4, (3, 4, 5, 6)).astype(np.float32)
    body = values[0] > 0
    rules = run.data.normalisation
    assert rules.apply_rules(values) is values  # not before the image is resampled
    masked, whole, same = rules.apply_to(values, body)
    np.testing.assert_allclose(whole, (values[1].clip(-1, 6) - 3) / 2, rtol=1e-6)
    np.testing.assert_allclose(masked, np.where(body, (values[0].clip(-1, 6) - 3) / 2, 0), rtol=1e-6)
    assert (same == values[2]).all()


def test_thick_slices_of_the_image_decide_the_way_back() -> None:
    rule = Geometry(spacing_mm=(1.0, 6.0, 1.5), axes=(1, 2, 0), sampling="faces", thick_back="image")
    own = rule.place((9, 9, 9), np.diag([1.0, 5.0, 1.0, 1.0]), None)
    assert (own.coarse, own.coarse_back) == (0, 0)  # the image's own thick axis
    # None is thick in the image: the network's axis 1 is taken for axis 1 of the image's array, its axis 0 here.
    other = rule.place((9, 9, 9), np.eye(4), None)
    assert (other.coarse, other.coarse_back) == (1, 0)
    two = rule.place((9, 9, 9), np.diag([5.0, 5.0, 1.0, 1.0]), None)  # two thick axes: none is apart
    assert (two.coarse, two.coarse_back) == (None, None)


@pytest.mark.parametrize("change, words", [
    ({"preprocessor_name": "PreprocessorFor3D_NoResampling"}, ["NoResampling", "GenericPreprocessor"]),
    ({"segmentation_export_params": {"force_separate_z": None, "interpolation_order": 3}}, ["interpolation_order"]),
    ({"normalization_schemes": {0: "CT2"}}, ["CT2", "nonCT"]),
    ({"normalization_schemes": {}}, ["channel 0", "None"]),
    ({"normalization_schemes": {0: "CT"}, "dataset_properties": {}}, ["intensityproperties.0"]),
    ({"transpose_forward": [0, 0, 1]}, ["transpose_forward"]),
    ({"all_classes": [1, 5]}, ["all_classes"]),
    ({"num_classes": 10**9}, ["num_classes"]),
    ({"base_num_features": 2**40}, ["base_num_features"]),
    ({"plans_per_stage": {1: plans()["plans_per_stage"][0]}}, ["stage is 0"]),
    ({"plans_per_stage": {0: {**plans()["plans_per_stage"][0], "conv_kernel_sizes": [[3, 3, 5]] * 3}}}, ["kernels"]),
    ({"plans_per_stage": {0: {**plans()["plans_per_stage"][0], "conv_kernel_sizes": [[3, 3]] * 3}}}, ["axes"]),
    ({"plans_per_stage": {0: {**plans()["plans_per_stage"][0], "conv_kernel_sizes": [[3] * 3] * 2}}}, ["2 kernels"]),
    ({"plans_per_stage": {0: {**plans()["plans_per_stage"][0], "current_spacing": [1, 0, 1]}}}, ["current_spacing"]),
])  # fmt: skip
def test_plans_that_are_not_computed_alike_are_refused(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    source = write(tmp_path / V1, record(plans(**change)), network())
    with pytest.raises(DataError) as caught:
        import_nnunet(source, tmp_path / "run")
    assert all(word in str(caught.value) for word in ("model.pkl", *words)), caught.value


def test_trainers_are_known_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirrored = {"nnUNetTrainerV2_DA3_BN": (0, 1, 2), "nnUNetTrainerV2_noMirroring": (), "nnUNetTrainer": (0, 1, 2),
                "nnUNetTrainerV2_ep4000_nomirror": (), "nnUNetTrainerV2_Loss_CE": (0, 1, 2)}  # fmt: skip
    for number, (name, axes) in enumerate(mirrored.items()):
        source = write(tmp_path / str(number), record(plans(), name), network())
        assert import_nnunet(source, tmp_path / f"run{number}")[0].config.prediction.mirror == axes
    for name in ("nnUNetTrainerV2_ReLU", "nnUNetTrainerV2_ResencUNet", "nnUNetTrainerV2BraTSRegions", "Mine"):
        source = write(tmp_path / name, record(plans(), name), network())
        words = "import", "nnunet", source, "--output", tmp_path / "x"
        assert "--trainer" in refused_command(capsys, *words)
    (run,) = import_nnunet(source, tmp_path / "like", trainer="nnUNetTrainerV2_noMirroring")
    assert run.config.prediction.mirror == ()


class Harmful:
    """An object whose pickle would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_hostile_and_missing_files(tmp_path: Path) -> None:
    mark, source = tmp_path / "was-run", write(tmp_path / V1, record(plans()), network())
    file, described = (source / "fold_0" / f"model_final_checkpoint.model{end}" for end in ("", ".pkl"))
    described.write_bytes(pickle.dumps(record(plans(more=Harmful(mark)))))
    refused(lambda: import_nnunet(source, tmp_path / "run"), described, "touch")
    described.unlink()
    refused(lambda: import_nnunet(source, tmp_path / "run"), described, "opened")
    described.write_bytes(pickle.dumps({"name": 3}))
    refused(lambda: import_nnunet(source, tmp_path / "run"), described, "v1")
    described.write_bytes(pickle.dumps(record(plans())))
    torch.save({"network_weights": {}}, file)
    refused(lambda: import_nnunet(source, tmp_path / "run"), file, "state_dict")
    torch.save({"state_dict": stored_names(network(channels=2))}, file)
    with pytest.raises(CheckpointError, match="does not fit"):
        import_nnunet(source, tmp_path / "run")
    write(source, record(plans()), network())
    (source / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver"}}))
    refused(lambda: import_nnunet(source, tmp_path / "run"), source / "dataset.json", "2 classes")
    (source / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver", "2": "lesion"}}))
    (run,) = import_nnunet(source, tmp_path / "run")
    assert run.data.classes == ("background", "liver", "lesion")
    (source / "fold_0").rename(source / "all")
    (run,) = import_nnunet(source, tmp_path / "whole", folds=["all"])
    assert run.fold == "all" and not mark.exists()
    refused(lambda: import_nnunet(source, tmp_path / "x", folds=[1]), source, "model_final_checkpoint.model")
    refused(lambda: import_nnunet(tmp_path, tmp_path / "x"), tmp_path, V1)
    (source / "plans.json").write_text("{}")
    with pytest.raises(ConfigError, match="trainer"):
        import_nnunet(source, tmp_path / "x", trainer="nnUNetTrainerV2")


def test_rules_agree() -> None:
    assert PredictionRule(largest=({"values": [1, 2]},)).largest == (LargestComponent(values=(1, 2)),)  # type: ignore[arg-type]
    for wrong in ({"tile_mean": "shares", "mean": "logits"}, {"tile_mean": "shares", "returned": "labels"}):
        with pytest.raises(ValueError, match="tile_mean"):
            PredictionRule(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="values"):
        LargestComponent(values=())
