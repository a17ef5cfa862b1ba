"""Medical Segmentation Decathlon: dataset.json, imagesTr/*.nii.gz and labelsTr/*.nii.gz.

Each connected part of each label is a finding; `labels` of dataset.json names them. The test images have no labels and
are not read. The layout names no patients: an image stands for its patient.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.cases.case import Case, DatasetInvalid, patient_hash
from training.cases.image_file import read_image, read_mask
from training.cases.json_file import read_json
from training.cases.label_map import annotations
from workers.volume import LOWEST_HU

DESCRIPTION = "dataset.json"


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    return (folder / DESCRIPTION).is_file() and (folder / "imagesTr").is_dir()


def read(folder: Path) -> Iterator[Case]:
    """Its training images in the order of dataset.json."""
    path = folder / DESCRIPTION
    description = read_json(path)
    if not any(str(name).upper().startswith("CT") for name in description.get("modality", {}).values()):
        raise DatasetInvalid(f"{path}: modality is {description.get('modality')}; only CT in HU is read")
    names = {int(value): str(name) for value, name in description.get("labels", {}).items()}
    for number, entry in enumerate(description.get("training", [])):
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise DatasetInvalid(f"{path}: training[{number}] has no image and label; add them")
        image = folder / entry["image"]
        voxels, affine = read_image(image)
        labels = read_mask(folder / entry["label"], voxels.shape, affine)
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        yield Case(
            name=name,
            patient=patient_hash(name),
            voxels=np.maximum(voxels.astype(np.float32), np.float32(LOWEST_HU)),
            affine=affine,
            findings=annotations(labels, affine, names),
        )
