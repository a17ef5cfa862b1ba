"""Findings from a mask: each connected part of each label is one."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cases.case import Affine, Annotation, point, region_of

#: Voxels that touch at a corner belong together.
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def annotations(labels: NDArray[np.integer], affine: Affine, names: Mapping[int, str]) -> tuple[Annotation, ...]:
    """One finding for each connected part of each label but 0, by label and then along k.

    Its centre is that of its voxels, its diameter that of a sphere of its volume.
    """
    found = []
    for value in np.unique(labels):
        if value == 0:
            continue
        parts, count = ndimage.label(labels == value, structure=_TOUCHING)
        for number in range(1, count + 1):
            found.append(annotation(parts == number, affine, label=names.get(int(value), f"label {int(value)}")))
    return tuple(found)


def annotation(mask: NDArray[np.bool_], affine: Affine, *, label: str, readers: int = 0) -> Annotation:
    """A mask [k, j, i] that holds something, as a finding."""
    centre = np.argwhere(mask).mean(axis=0)[::-1]
    volume = float(mask.sum()) * abs(float(np.linalg.det(affine[:3, :3])))
    return Annotation(
        centre_mm=point(affine @ (*centre, 1.0)),
        diameter_mm=float((6.0 / np.pi * volume) ** (1 / 3)),
        region=region_of(mask),
        label=label,
        readers=readers,
    )
