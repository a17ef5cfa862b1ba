"""One scan with what is known to be in it, however it came."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.morphology import box_around
from workers.preprocessing import Mask, Spacing, Volume
from workers.volume import Region

Point = tuple[float, float, float]
Affine = NDArray[np.float64]

#: How far from square the axes of a volume may be, as a cosine: DICOM's cosines have as few as four digits.
_SQUARE = 1e-3


class DatasetInvalid(ValueError):
    """A data set that cannot be used: the message names the file and the mend."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Something that the truth says is there."""

    #: LPS mm.
    centre_mm: Point
    #: Diameter in mm; 0: not known.
    diameter_mm: float
    #: Its voxels in the case's volume, where they were outlined.
    region: Region | None = None
    label: str = "nodule"
    #: How many readers marked it; 0: not known.
    readers: int = 0
    #: Mean ratings by name, such as malignancy.
    ratings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A CT in HU with its findings, in patient coordinates.

    Axes are flipped and exchanged, never interpolated, so that i runs to the left, j to the back and k to the head,
    each as nearly as an oblique scan lets it.
    """

    name: str
    #: Stands for the patient in splits and intervals; a hash, since it may have been made from a name.
    patient: str
    #: HU [k, j, i].
    voxels: Volume
    #: 4x4: (i, j, k, 1) to the LPS mm of the voxel's centre.
    affine: Affine
    findings: tuple[Annotation, ...]
    #: Findings that are neither to be found nor false.
    irrelevant: tuple[Annotation, ...] = ()
    #: Places that a candidate detector proposed, and whether a nodule is there.
    candidates: tuple[tuple[Point, bool], ...] = ()

    @property
    def spacing_mm(self) -> Spacing:
        """dz, dy, dx."""
        i, j, k = (float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))
        return k, j, i

    def to_patient(self, i: float, j: float, k: float) -> Point:
        """LPS mm of a place in voxel indices; whole numbers are voxel centres."""
        return point(self.affine @ (i, j, k, 1.0))

    def to_voxel(self, place: Point) -> Point:
        """(i, j, k) of a place in LPS mm."""
        return point(np.linalg.inv(self.affine) @ (*place, 1.0))


def patient_hash(identifier: str) -> str:
    """What stands for a patient: the same for the same identifier, in every layout and run."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:16]


def oriented(voxels: NDArray[np.generic], affine: Affine, file: Path) -> tuple[NDArray[np.generic], Affine]:
    """An array [k, j, i] and its affine with the axes in the order and direction of a `Case`.

    Raises DatasetInvalid for axes that are not at right angles.
    """
    check_square(affine, file)
    # Of the patient's axes, the one that each voxel axis is nearest to; each is taken once, the clearest first.
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest: dict[int, int] = {}
    for flat in np.argsort(-np.abs(cosines), axis=None, kind="stable"):
        world, axis = divmod(int(flat), 3)
        if world not in nearest and axis not in nearest.values():
            nearest[world] = axis
    order = [nearest[world] for world in range(3)]
    turned = np.eye(4)
    turned[:3, :3] = affine[:3, order]
    turned[:3, 3] = affine[:3, 3]
    # [k, j, i] to [i, j, k], exchanged, and back.
    moved = voxels.transpose(2, 1, 0).transpose(order)
    for axis in range(3):
        if turned[axis, axis] < 0:
            moved = np.flip(moved, axis)
            turned[:3, 3] += turned[:3, axis] * (moved.shape[axis] - 1)
            turned[:3, axis] *= -1
    return np.ascontiguousarray(moved.transpose(2, 1, 0)), turned


def check_square(affine: Affine, file: Path) -> None:
    """Raise DatasetInvalid for an affine that is sheared or flat."""
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or (lengths < 1e-6).any():
        raise DatasetInvalid(f"{file}: its voxels have no size; write the file again with its spacing")
    cosines = (steps / lengths).T @ (steps / lengths) - np.eye(3)
    if np.abs(cosines).max() > _SQUARE:
        raise DatasetInvalid(f"{file}: its axes are not at right angles; resample the volume to a box first")


def in_case(case: Case, annotations: tuple[Annotation, ...], file: Path) -> Case:
    """The case with its findings, each of which must lie in the volume."""
    last = np.array(case.voxels.shape[::-1]) - 1
    for annotation in annotations:
        place = np.array(case.to_voxel(annotation.centre_mm))
        if (place < -1).any() or (place > last + 1).any():
            raise DatasetInvalid(
                f"{file}: the {annotation.label} at {_said(annotation.centre_mm)} lies outside {case.name};"
                " its coordinates may be RAS or voxels: give LPS mm"
            )
    return replace(case, findings=annotations)


def region_of(mask: Mask) -> Region:
    """A mask [k, j, i] as its box and what is in it."""
    k, j, i = box_around(mask) or ()
    return Region(box=(k, j, i), mask=mask[k, j, i].copy())


def point(values: NDArray[np.float64]) -> Point:
    """The first three numbers as a plain tuple."""
    x, y, z = (float(value) for value in values[:3])
    return x, y, z


def _said(place: Point) -> str:
    return "({:.1f}, {:.1f}, {:.1f}) mm".format(*place)
