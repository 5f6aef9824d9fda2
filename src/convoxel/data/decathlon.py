"""Data sets of the Medical Segmentation Decathlon: dataset.json lists the images and labels of the training part.

    {"training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}, …], "labels": {"0": …}, "test": […]}

Several channels are the fourth axis of an image. Test images have no labels and are not used, which a note says.
"""

from __future__ import annotations

from pathlib import Path

from convoxel.data.collection import Collection
from convoxel.data.dataset_json import NAME, LabelScheme, find_description, label_scheme, path_inside, read_description
from convoxel.data.image_format import split_ending
from convoxel.data.opening import Opening
from convoxel.data.segmentation import Pair, open_pairs, without_labels
from convoxel.files.fault import brief, fault, shown


def has_training_list(folder: Path) -> bool:
    """Return whether a folder's dataset.json lists a training part."""
    found = find_description(folder)
    return isinstance(found.get("training"), list) and bool(found["training"])


def open_decathlon(folder: Path, errors: Opening) -> Collection:
    """Return the samples that a folder's dataset.json lists."""
    found, where = read_description(folder) or {}, folder / NAME
    pairs: list[Pair] = []
    lines: dict[str, int] = {}
    for number, item in enumerate(found["training"]):
        place = f"{where}[training][{number}]"
        with errors.collect(f"training {number}"):
            if not isinstance(item, dict) or not {"image", "label"} <= item.keys():
                expected = '{"image": path, "label": path}'
                raise fault(place, f"the entry is {brief(item)}", expected, "Name both files of the case")
            image, label = (path_inside(place, folder, item[kind]) for kind in ("image", "label"))
            name = shown(split_ending(image)[0])
            if name in lines:
                came, mend = f"{name} is listed in entry {lines[name]} already", "List every case once"
                raise fault(place, came, "another image", mend)
            lines[name] = number
            pairs.append(Pair("", name, (image,), label))
    claimed = found.get("numTraining")
    if isinstance(claimed, int) and claimed != len(found["training"]):
        came = f"numTraining is {claimed}, but training lists {len(found['training'])} cases"
        errors.note(NAME, fault(where, came, "one number", "Correct it"))
    test = found.get("test")
    notes = [without_labels([shown(str(name)) for name in test])] if isinstance(test, list) and test else []
    pairs.sort(key=lambda pair: pair.name)
    scheme = label_scheme(where, found) if "labels" in found else LabelScheme()
    return open_pairs(folder, pairs, errors, scheme=scheme, notes=notes)
