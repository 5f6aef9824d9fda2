"""Networks in bundles of MONAI, as runs: a run that predicts as the bundle's own pipeline does.

Files are read as data (``monai_bundle``): weights as tensors, the configuration as plain values. MONAI is needed where
the network is made a module: to import it, and for the first prediction, which compiles and keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from convoxel.data.geometry import Geometry
from convoxel.data.regions import Regions
from convoxel.errors import ConfigError
from convoxel.files.content import hash_file
from convoxel.files.fault import fault
from convoxel.files.folder import whole_folder
from convoxel.models.monai_network import PREFIX, build_monai
from convoxel.models.weights import match_tensors, read_tensors
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.prediction_rule import PredictionRule
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import TrainConfig
from convoxel.train.imported_run import ImportedRun, count_weights, write_run
from convoxel.train.monai_bundle import Bundle, read_bundle

# Outputs that decide one by one: a label value for each combination must fit into a byte.
_MOST_REGIONS = 7


def import_monai(folder: str | Path, output: str | Path, *, without: Sequence[str] = ()) -> ImportedRun:
    """Make a run of the network in a bundle of MONAI, and return it.

    It predicts as the bundle's pipeline does: with its orientation, spacing, intensities, sliding window, and softmax
    or sigmoid. Outputs of a sigmoid that may overlap are written as one label map: value 1 for the first, 2 for the
    second, 4 for the third …, added up where several are found.

    Args:
        folder: folder of the bundle, with ``configs`` and ``models``.
        output: new folder for the run.
        without: names of transforms to leave out, such as a "Lambdad" that renumbers labels (default none).

    Raises:
        DataError: a file is missing or wrong, or asks for what a run does not do; the message names it.
        ConfigError: the output exists; there is no transform of a name in ``without``.
        CheckpointError: weights do not fit the network.
        UnsupportedError: MONAI is not installed.
    """
    source, target = Path(folder), Path(output)
    bundle = read_bundle(source, without)
    facts = _facts(bundle)
    config = _configure(bundle, target)
    shape = {"dims": bundle.dims, "in_channels": bundle.channels, "num_classes": bundle.outputs}
    try:
        with torch.device("meta"):
            network = build_monai(bundle.network, bundle.arguments, **shape)
    except ConfigError as error:
        came, expected = str(error).rstrip("."), "arguments of the network's class"
        raise fault(bundle.texts[0], came, expected, "Correct them") from None
    tensors = match_tensors(network, bundle.weights, read_tensors(bundle.weights))
    with whole_folder(target) as part:
        write_run(part, config, facts, tensors, {"monai": str(source), "network": bundle.network})
    return ImportedRun("", target, config, facts, count_weights(network), tuple(bundle.pipeline.notes))


def _facts(bundle: Bundle) -> DataFacts:
    pipeline, names = bundle.pipeline, bundle.classes
    regions = None
    if pipeline.several:
        if bundle.outputs > _MOST_REGIONS:
            came = f"{bundle.outputs} outputs decide one by one"
            raise fault(bundle.texts[0], came, f"at most {_MOST_REGIONS}, or softmax and argmax", "Predict with MONAI")
        codes = range(1, 1 << bundle.outputs)
        regions = Regions(tuple(tuple(c for c in codes if c >> bit & 1) for bit in range(bundle.outputs)))
        names = ("background", *(f"{name} 1" if name == "background" else name for name in names))
    digest = hashlib.sha256(b"".join(bytes.fromhex(hash_file(path)) for path in (*bundle.texts, bundle.weights)))
    geometry = Geometry(pipeline.orientation, pipeline.spacing, kept=pipeline.kept, sampling="first")
    rules = Normalisation("steps", steps=tuple(pipeline.steps), steps_before=pipeline.steps_before)
    return DataFacts(
        names, bundle.dims, bundle.channels, rules, pipeline.spacing, digest.hexdigest(), bundle.name,
        geometry=geometry, regions=regions,
    )  # fmt: skip


def _configure(bundle: Bundle, target: Path) -> TrainConfig:
    pipeline = bundle.pipeline
    rule = PredictionRule(
        mean="shares",
        tile="patch",
        blend=pipeline.blend,
        returned=pipeline.returned,
        within=pipeline.within,
        padding=pipeline.padding,
    )
    return TrainConfig.build(
        task="segment", data=bundle.name, output=str(target), model=PREFIX + bundle.network,
        model_options=bundle.arguments, patch=pipeline.roi, overlap=pipeline.overlap, spacing=pipeline.spacing,
        orientation=pipeline.orientation, prediction=rule,
    )  # fmt: skip
