"""A MONAI datalist: a JSON file of `training` and `validation` entries that name NIfTI or MetaImage files.

An entry has `image`, and `label` as a mask file, or `box` as world boxes [x, y, z, width, height, depth] in mm (cccwhd)
with `label` as their classes, as the Model Zoo's detectors are trained on. Boxes are LPS unless the list says
`"box_space": "RAS"`. `patient` names the patient; without it an image stands for its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.cases.case import Annotation, Case, DatasetInvalid, in_case, patient_hash
from training.cases.image_file import read_image, read_mask
from training.cases.json_file import read_json
from training.cases.label_map import annotations
from workers.volume import LOWEST_HU

_LISTS = ("training", "validation")
_TO_LPS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    return _list(folder) is not None


def read(folder: Path) -> Iterator[Case]:
    """The cases of both lists, in their order."""
    path = _list(folder)
    if path is None:
        raise DatasetInvalid(f"{folder} has no JSON file with a list `training`: write one")
    content = read_json(path)
    space = str(content.get("box_space", "LPS"))
    if space not in _TO_LPS:
        raise DatasetInvalid(f"{path}: box_space is {space!r}; it is LPS or RAS")
    for name in _LISTS:
        for number, entry in enumerate(content.get(name, [])):
            yield _case(folder, path, f"{name}[{number}]", entry, np.array(_TO_LPS[space]))


def _case(folder: Path, path: Path, where: str, entry: Any, to_lps: Any) -> Case:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DatasetInvalid(f"{path}: {where} has no image; name one file")
    image = folder / entry["image"]
    voxels, affine = read_image(image)
    case = Case(
        name=image.name.split(".nii")[0].removesuffix(".mhd"),
        patient=patient_hash(str(entry.get("patient", entry["image"]))),
        voxels=np.maximum(voxels.astype(np.float32), np.float32(LOWEST_HU)),
        affine=affine,
        findings=(),
    )
    if "box" in entry:
        return in_case(case, tuple(_boxes(path, where, entry, to_lps)), path)
    if not isinstance(entry.get("label"), str):
        raise DatasetInvalid(f"{path}: {where} has neither label nor box; for a scan without findings write box = []")
    labels = read_mask(folder / entry["label"], voxels.shape, affine)
    return in_case(case, annotations(labels, affine, {}), path)


def _boxes(path: Path, where: str, entry: Mapping[str, Any], to_lps: Any) -> Iterator[Annotation]:
    try:
        boxes = np.array(entry["box"], dtype=float).reshape(-1, 6)
    except (TypeError, ValueError):
        raise DatasetInvalid(f"{path}: box of {where} is no list of [x, y, z, width, height, depth]; mend it") from None
    labels = entry.get("label", [0] * len(boxes))
    if len(labels) != len(boxes):
        raise DatasetInvalid(f"{path}: {where} has {len(boxes)} boxes and {len(labels)} labels; give one each")
    for box, label in zip(boxes, labels, strict=True):
        x, y, z = (float(value) for value in box[:3] * to_lps)
        yield Annotation(centre_mm=(x, y, z), diameter_mm=float(box[3:].mean()), label=f"class {label}")


def _list(folder: Path) -> Path | None:
    """The first JSON file of the folder that holds a list of training entries."""
    for path in sorted(folder.glob("*.json")):
        try:
            content = read_json(path)
        except DatasetInvalid:
            continue
        if isinstance(content.get("training"), list) and "modality" not in content:
            return path
    return None
