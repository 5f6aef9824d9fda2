"""After training: run folders load, figures are measured, images are predicted with their affine."""

from __future__ import annotations

import csv
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from convoxel.data import Sample
from convoxel.data.image_file import map_image, read_image
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts
from convoxel.train import Progress, TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.run_folder import load_predictor


def write_volumes(folder: Path, count: int = 5, shift: float = 0.0) -> Path:
    """Volumes whose bright half is class 1; 1 × 1 × 2 mm, an affine worth keeping."""
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = (-3, 5, 7)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        label = np.zeros((9, 10, 7), np.uint8)
        label[:, : 3 + index % 4] = 1
        image = (label * 100 + rng.normal(shift, 3, label.shape)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"images/v{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labels/v{index}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def segmenter(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("segmenter") / "run"
    config = TrainConfig.build(
        task="segment", data=str(volumes), output=str(output), levels=1, width=4, patch=(8, 8, 8), epochs=3,
        steps_per_epoch=10, validation=2, threads=1, learning_rate=0.02, tensorboard=False,
    )  # fmt: skip
    result = fit(config)
    assert result.metrics["metric"] > 0.9
    return output


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark against bright pictures."""
    folder, rng = tmp_path_factory.mktemp("classifier"), np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(8):
            pixels = rng.normal(level, 10, (12, 12)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{name}{index}.png")
    config = TrainConfig.build(
        task="classify", data=str(folder / "data"), output=str(folder / "run"), width=0.1, epochs=8, threads=1,
        batch_size=4, validation=0.25, tensorboard=False,
    )  # fmt: skip
    assert fit(config).metrics["metric"] == 1.0
    return folder / "run"


def test_a_run_loads_with_its_configuration_and_data(segmenter: Path) -> None:
    run = load_model(segmenter)
    assert not run.network.training and run.config.levels == 1 and run.input_shape == (1, 1, 8, 8, 8)
    assert run.data.dims == 3 and len(run.data.classes) == 2 and run.data.spacing_mm == (1.0, 1.0, 2.0)
    assert run.metric is not None and run.metric > 0.9 and run.step % 10 == 0
    assert load_model(segmenter, "last").step == 30


def test_missing_facts_of_the_data_are_named(segmenter: Path) -> None:
    facts = load_model(segmenter).data
    stored = json.loads(json.dumps(dataclasses.asdict(facts)))
    assert DataFacts.from_dict(stored) == facts
    required = {"classes", "dims", "channels", "normalisation", "spacing_mm", "fingerprint", "data_name"}
    for name in stored:
        rest = {key: value for key, value in stored.items() if key != name}
        if name not in required:  # newer
            assert not getattr(DataFacts.from_dict(rest), name)
            continue
        with pytest.raises(CheckpointError, match=rf"\b{name}: field required"):
            DataFacts.from_dict(rest)
        with pytest.raises(CheckpointError, match=name):
            DataFacts.from_dict({**stored, name: {"a": 1}})


def test_loading_says_what_is_wrong(segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which: got 'worst'; expected 'best' or 'last'"):
        load_model(segmenter, "worst")
    with pytest.raises(CheckpointError, match=r"is not a training run .*Give the one that `convoxel train"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"^the run .*none does not exist; expected the folder of a training run"):
        load_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="engine: got 'gpu'; expected 'convoxel' or 'torch'"):
        load_predictor(segmenter, engine="gpu")
    with pytest.raises(ConfigError, match="split: got 'half'; expected one of validation"):
        evaluate(segmenter, split="half", engine="torch")


def test_a_damaged_best_checkpoint_is_replaced_with_a_warning(segmenter: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(segmenter, run)
    path = run / "checkpoints/best.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"best.safetensors is damaged.*the last one, of step 30"):
        assert load_model(run).step == 30


def test_evaluation_repeats_the_figures_of_training(segmenter: Path) -> None:
    before = sorted(path.name for path in segmenter.rglob("*"))
    figures = evaluate(segmenter, engine="torch")
    stored = json.loads((segmenter / "evaluation.json").read_text())
    assert figures["metric"] == pytest.approx(stored["metric"], abs=1e-12)
    assert figures["confusion"] == stored["confusion"] and np.sum(figures["confusion"]) == 2 * 9 * 10 * 7
    assert [case["name"] for case in figures["samples"]] == ["v3", "v4"]
    assert figures["count"] == 2 and figures["split"] == "validation" and figures["seconds"] > 0
    assert sorted(path.name for path in segmenter.rglob("*")) == before  # it writes nothing


def test_other_data_are_evaluated_whole(segmenter: Path, tmp_path: Path, volumes: Path) -> None:
    other = write_volumes(tmp_path / "other", count=3, shift=1.0)
    figures = evaluate(segmenter, other, engine="torch")
    assert figures["split"] == "all" and figures["count"] == 3
    assert evaluate(segmenter, volumes, engine="torch")["count"] == 2  # the same files: only what was held out
    assert evaluate(segmenter, split="train", engine="torch")["count"] == 3
    assert evaluate(segmenter, split="all", engine="torch")["count"] == 5
    with pytest.raises(DataError, match=r"split: volumes\d* has no test part; it has train, validation"):
        evaluate(segmenter, split="test", engine="torch")


def test_one_labelled_volume_is_enough_and_may_hold_nothing(segmenter: Path, tmp_path: Path) -> None:
    """Other data are judged by the run's classes: a label may lack some of them, and an empty one is no fault."""
    one = write_volumes(tmp_path / "one", count=1)
    figures = evaluate(segmenter, one, engine="torch", metrics=["dice", "hd95", "volume_error"])
    assert figures["count"] == 1 and figures["metric"] is not None and figures["metric"] > 0.8
    assert {name: figure["unit"] for name, figure in figures["figures"].items()} == {
        "dice": "", "hd95": "mm", "volume_error": "ml"
    }  # fmt: skip
    path = one / "labels/v0.nii.gz"
    label = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    figures = evaluate(segmenter, one, engine="torch", metrics=["dice", "specificity"])
    assert figures["metric"] == 0.0 and "class is neither labelled nor predicted" in figures["empty_rule"]
    (one / "classes.txt").write_text("background\nliver\n")
    assert evaluate(segmenter, one, engine="torch")["metric"] == 0.0  # the run's classes have no names of their own
    (one / "classes.txt").write_text("background\nliver\nspleen\n")
    with pytest.raises(DataError, match="one has 3 classes, the run was trained on 2: background, foreground"):
        evaluate(segmenter, one, engine="torch")
    (one / "classes.txt").unlink()
    nibabel.save(nibabel.Nifti1Image(np.full(label.shape, 2, np.uint8), label.affine), path)
    with pytest.raises(DataError, match=r"v0.nii.gz: unexpected label values 2; expected class numbers 0 to 1"):
        evaluate(segmenter, one, engine="torch")


def test_classes_may_be_absent_from_other_pictures(classifier: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    (folder / "light").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(np.full((12, 12), 190 + index, np.uint8)).save(folder / "light" / f"{index}.png")
    figures = evaluate(classifier, folder, engine="torch", metrics=["accuracy", "auc", "sensitivity"])
    assert figures["metric"] == 1.0 and figures["per_class"] == {"dark": None, "light": 1.0}
    assert figures["figures"]["auc"]["value"] is None  # nothing to tell it from
    (folder / "grey").mkdir()
    Image.fromarray(np.full((12, 12), 120, np.uint8)).save(folder / "grey" / "0.png")
    with pytest.raises(DataError, match=r"grey: a class that does not occur in training; expected dark, light"):
        evaluate(classifier, folder, engine="torch")
    np.savez(tmp_path / "set.npz", images=np.full((2, 12, 12), 190, np.uint8), labels=np.array([1, 1]))
    assert evaluate(classifier, tmp_path / "set.npz", engine="torch")["metric"] == 1.0
    np.savez(tmp_path / "set.npz", images=np.full((2, 12, 12), 190, np.uint8), labels=np.array([1, 2]))
    with pytest.raises(DataError, match="class 2, which the network does not know; expected 0 to 1"):
        evaluate(classifier, tmp_path / "set.npz", engine="torch")


@pytest.mark.filterwarnings("ignore:geometry. .*:RuntimeWarning")
def test_lengths_need_a_spacing(classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    """Without a spacing distances are in voxels, a tolerance in mm is refused, and units are never mixed."""
    for part, values in (("images", np.random.default_rng(0).normal(0, 1, (2, 9, 10, 7))), ("labels", None)):
        (tmp_path / part).mkdir()
        for index in range(2):
            array = np.zeros((9, 10, 7), np.uint8) if values is None else values[index].astype(np.float32)
            array[:, :4] += 1 if values is None else 100
            np.save(tmp_path / part / f"{index}.npy", array)
    figures = evaluate(segmenter, tmp_path, engine="torch", metrics=["hd95", "volume", "nsd@1voxels"])
    assert [figure["unit"] for figure in figures["figures"].values()] == ["voxels", "voxels", ""]
    with pytest.raises(DataError, match=r"0 of .* tells no spacing, so nsd@1mm has no unit; expected images with"):
        evaluate(segmenter, tmp_path, engine="torch", metrics=["dice", "nsd@1mm"])
    located = write_volumes(tmp_path / "more", count=1)
    for part in ("images", "labels"):
        (located / part / "v0.nii.gz").rename(tmp_path / part / "v0.nii.gz")
    with pytest.raises(DataError, match="tells no spacing, so hd95 has no unit in common"):
        evaluate(segmenter, tmp_path, engine="torch", metrics=["hd95"])
    with pytest.raises(ConfigError, match="metrics: got 'auc', which is one of the task 'classify'"):
        evaluate(segmenter, engine="torch", metrics=["auc"])
    with pytest.raises(ConfigError, match="bootstrap: got -1; expected a number of resamples"):
        evaluate(segmenter, engine="torch", replicates=-1)


def test_data_of_another_kind_are_refused(classifier: Path, segmenter: Path) -> None:
    with pytest.raises(DataError, match="digits has 10 classes, the run was trained on 2"):
        evaluate(classifier, "digits", engine="torch")


def test_label_maps_keep_affine_size_and_name(segmenter: Path, volumes: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    files = predict(segmenter, volumes / "images", tmp_path / "out", engine="torch", on_progress=seen.append)
    assert [path.name for path in files] == [f"v{index}.nii.gz" for index in range(5)]
    found = [(p.step, p.steps_total, p.phase) for p in seen]
    assert found == [(n, 5, phase) for phase in ("check", "predict") for n in range(1, 6)]
    for path in files:
        image, label = (nibabel.load(folder / path.name) for folder in (volumes / "images", volumes / "labels"))
        found = nibabel.load(path)
        assert found.shape == image.shape and np.allclose(found.affine, image.affine)
        assert found.header.get_zooms() == image.header.get_zooms() and found.get_data_dtype() == np.uint8
        assert (np.asarray(found.dataobj) == np.asarray(label.dataobj)).mean() > 0.8
    single = predict(segmenter, volumes / "images/v0.nii.gz", tmp_path / "deep" / "one.nii", engine="torch")
    assert single == [tmp_path / "deep" / "one.nii"]
    assert (np.asarray(nibabel.load(single[0]).dataobj) == np.asarray(nibabel.load(files[0]).dataobj)).all()
    named = predict(segmenter, volumes / "images/v0.nii.gz", tmp_path / "folder", engine="torch")
    assert named == [tmp_path / "folder" / "v0.nii.gz"]
    assert predict(segmenter, volumes, tmp_path / "whole", engine="torch")[0].parent == tmp_path / "whole"


def test_maps_and_logits_agree(segmenter: Path) -> None:
    predictor = load_predictor(segmenter, engine="torch")
    image = np.random.default_rng(0).normal(50, 40, (1, 21, 9, 8)).astype(np.float32)
    logits = predictor.logits(Sample("a", image))
    assert logits.shape == (2, 21, 9, 8) and (predictor.label_map(Sample("a", image)) == logits.argmax(axis=0)).all()


def test_exact_tiles_give_the_classes_of_the_whole_image(segmenter: Path, tmp_path: Path) -> None:
    """At borders between classes blended tiles decide otherwise here and there; exact ones never do."""
    image = np.random.default_rng(0).normal(50, 40, (1, 61, 23, 18)).astype(np.float32)
    predictor = load_predictor(segmenter, exact=True, tile=(40, 24, 20))
    exact = predictor.exact
    assert exact is not None
    statistics = predictor.run.data.normalisation.statistics(image)
    padded = np.empty(
        (1, 1, 62, 24, 18), np.float32
    )  # the next size that the network takes; the first pixel is padding
    padded[:] = statistics.floor
    padded[0, 0, 0:61, 0:23] = image[0]
    whole = [exact.direct(statistics.normalise(padded[0])[None]), exact.program(statistics.normalise(padded[0])[None])]
    found: list[object] = []
    blended = predictor.label_map(Sample("a", image), lambda *each: found.append(each))
    assert blended.shape == image.shape[1:] and len(found) > 1
    assert any((blended == each.argmax(axis=1)[0, :61, :23]).all() for each in whole)
    source, tilings = tmp_path / "image.npy", list[str]()
    np.save(source, image[0])
    with pytest.warns(RuntimeWarning, match=r"image\.npy states no orientation"):
        named = predict(
            segmenter,
            source,
            tmp_path / "out.npy",
            exact=True,
            tile=(40, 24, 20),
            on_case=lambda record: tilings.append(record.tiling),
        )
    assert (np.load(named[0]) == blended).all()
    assert "equal bit for bit" in tilings[0] and "tiles of at most" in tilings[0]


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_exact_tiles_read_parts_of_files(segmenter: Path, tmp_path: Path, dtype: str) -> None:
    """Volumes that are not compressed stay in their files; the classes are those of the volume read as a whole."""
    values = np.random.default_rng(0).normal(50, 40, (61, 23, 18)).astype(dtype)
    volume = nibabel.Nifti1Image(values, np.diag([1.0, -1.0, 2.0, 1.0]))  # one axis runs otherwise than in training
    volume.header.set_slope_inter(0.5, 3.0)
    for name in ("mapped.nii", "whole.nii.gz"):
        nibabel.save(volume, tmp_path / name)
    np.save(tmp_path / "array.npy", (values * 0.5 + 3.0).astype(np.float32))
    sample, read = map_image(tmp_path / "mapped.nii", 3, 1), read_image(tmp_path / "whole.nii.gz", 3, 1)
    assert isinstance(sample.image, MappedImage) and not isinstance(read.image, MappedImage)
    assert isinstance(map_image(tmp_path / "array.npy", 3, 1).image, MappedImage)
    part = (slice(None), slice(3, 40), slice(2, 9), slice(0, 18))
    assert np.array_equal(sample.image[part], read.image[part]) and (sample.affine == read.affine).all()
    statistics = Normalisation("sample").statistics
    assert all(map(np.array_equal, vars(statistics(sample.image)).values(), vars(statistics(read.image)).values()))
    maps = []
    for name in ("mapped.nii", "whole.nii.gz"):
        (path,) = predict(segmenter, tmp_path / name, tmp_path / f"out-{name}.npy", exact=True, tile=(40, 24, 20))
        maps.append(np.load(path))
    assert np.array_equal(*maps)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), tmp_path / "other.nii")
    with pytest.raises(DataError, match=r"other\.nii: the image has 1 × 1 × 3 mm, .*; expected 1 × 1 × 2 mm"):
        predict(segmenter, tmp_path / "other.nii", tmp_path / "o.npy", exact=True)
    values = values.astype(np.float32)
    values[5, 6, 7] = np.nan
    np.save(tmp_path / "array.npy", values)
    with pytest.raises(DataError, match=r"NaN or infinite \(the first at \(5, 6, 7\)\)"):
        map_image(tmp_path / "array.npy", 3, 1)


def test_exact_tiles_are_refused(segmenter: Path, classifier: Path) -> None:
    for run, options, words in (
        (segmenter, {"tile": 64}, "tile: got 64 without exact"),
        (segmenter, {"exact": True, "engine": "torch"}, "exact: PyTorch"),
        (classifier, {"exact": True}, "exact: the run classifies"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_predictor(run, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tile is 3 x 3 x 3"):
        load_predictor(segmenter, exact=True, tile=3).label_map(Sample("a", np.zeros((1, 61, 23, 18), np.float32)))


def test_both_engines_agree(segmenter: Path, classifier: Path) -> None:
    ours, torchs = (load_predictor(segmenter, engine=engine) for engine in ("convoxel", "torch"))
    image = np.random.default_rng(0).normal(50, 40, (1, 11, 9, 8)).astype(np.float32)
    found, wanted = (each.logits(Sample("a", image)) for each in (ours, torchs))
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= 1e-4 * np.sqrt(np.mean(wanted**2))
    assert evaluate(segmenter)["confusion"] == evaluate(segmenter, engine="torch")["confusion"]
    assert evaluate(classifier)["confusion"] == evaluate(classifier, engine="torch")["confusion"]


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        ("nowhere", "out", DataError, "nowhere does not exist. Give an image file or a folder"),
        ("empty", "out", DataError, "empty holds no image file"),
        ("images", "out.nii.gz", ConfigError, "names one file, but .*images is a folder. Give a folder"),
        ("images", "images", ConfigError, "v0.nii.gz is an input image. Give another --output"),
        ("images/v0.nii.gz", "images/v0.nii.gz", ConfigError, "is an input image"),
        ("images", "note.txt/out", ConfigError, "cannot make the folder .*note.txt/out"),
        ("plane.png", "out", DataError, "plane.png"),
    ],
)
def test_prediction_refuses(
    segmenter: Path, volumes: Path, tmp_path: Path, source: str, target: str, error: Any, words: str
) -> None:
    import shutil

    shutil.copytree(volumes / "images", tmp_path / "images")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "plane.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(error, match=words):
        predict(segmenter, tmp_path / source, tmp_path / target, engine="torch")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "names", [("scan.nii", "scan.nii.gz"), ("scan.nii.gz", "Scan.nii.gz"), ("é.nii", "e\u0301.nii")]
)
def test_two_images_never_share_a_label_map(
    segmenter: Path, volumes: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    import shutil

    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(volumes / "images" / "v0.nii.gz", tmp_path / "in" / name)
    with pytest.raises(
        ConfigError, match=r"would both be written as (?i:scan|e.|é)\.nii\.gz; expected names that differ"
    ):
        predict(segmenter, tmp_path / "in", tmp_path / "out", engine="torch")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_place_of_a_map_is_named(segmenter: Path, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "v0.nii.gz").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"v0.nii.gz is a folder, a file is needed there"):
        predict(segmenter, volumes / "images/v0.nii.gz", tmp_path / "out", engine="torch")


def test_classes_are_written_as_a_table(classifier: Path, tmp_path: Path) -> None:
    data = classifier.parent / "data"
    (table,) = predict(classifier, data / "dark", tmp_path / "out", engine="torch")
    assert table == tmp_path / "out" / "predictions.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"dark{index}.png" for index in range(8)]
    assert all(row["class"] == "dark" for row in rows)
    assert all(abs(float(row["p_dark"]) + float(row["p_light"]) - 1) < 1e-5 for row in rows)
    (listing,) = predict(classifier, data / "light/light0.png", tmp_path / "one.json", engine="torch")
    assert json.loads(listing.read_text())[0]["class"] == "light"


def test_a_label_beyond_the_runs_classes_is_named(segmenter: Path, tmp_path: Path) -> None:
    from convoxel.predict.evaluation import evaluate_samples

    predictor = load_predictor(segmenter, engine="torch")
    with warnings.catch_warnings():
        from convoxel.data import Sample

        image = np.zeros((1, 8, 8, 8), np.float32)
        wrong = Sample("odd", image, np.full((8, 8, 8), 7, np.uint8))
    with pytest.raises(DataError, match=r"the label of odd holds class 7, the run knows 0 … 1"):
        evaluate_samples(predictor, [wrong])
    with pytest.raises(DataError, match=r"odd has no label"):
        evaluate_samples(predictor, [Sample("odd", image)])


def test_prediction_needs_one_layer_of_tiles(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole logits of a long image never exist: what is alive while predicting does not grow with it."""
    import tracemalloc

    monkeypatch.setattr("convoxel.predict.tile_size._TILE_VOXELS", {3: 16**3})
    predictor = load_predictor(segmenter, engine="torch")
    peaks = []
    for length in (64, 512):
        image = np.zeros((1, length, 16, 16), np.float32)
        torch.manual_seed(0)
        tracemalloc.start()
        predictor.label_map(Sample("a", image))
        peaks.append(tracemalloc.get_traced_memory()[1] - length * 16 * 16)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.3 + 20_000


def test_a_wrong_image_is_refused_before_anything_is_written(segmenter: Path, volumes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes((volumes / "images/v0.nii.gz").read_bytes())
    np.save(folder / "b.npy", np.zeros((3, 9, 10, 7), np.float32))
    with pytest.raises(DataError, match=r"b.npy: the image has 3 channels; expected 1"):
        predict(segmenter, folder, tmp_path / "new/labels", engine="torch")
    assert not (tmp_path / "new").exists()


def test_a_broken_image_amid_a_folder_says_how_far_it_went(segmenter: Path, volumes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    whole = (volumes / "images/v0.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(whole[: len(whole) // 2])  # the header is whole, the voxels are not
    with pytest.raises(DataError, match=r"b.nii.gz: the gzip stream is damaged or truncated"):
        predict(segmenter, folder, tmp_path / "new/labels", engine="torch")
    (folder / "a.nii.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"b.nii.gz: .* 1 of 2 images is done; skip_existing .*goes on from there\.$"):
        predict(segmenter, folder, tmp_path / "new/labels", engine="torch")
    assert [path.name for path in (tmp_path / "new/labels").glob("*.nii.gz")] == ["a.nii.gz"]
