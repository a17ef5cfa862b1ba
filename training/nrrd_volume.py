"""A volume read from an NRRD file, in patient coordinates."""

import math
from dataclasses import dataclass
from pathlib import Path

import nrrd
import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]

#: How far, in mm, a slice step may stray from the slice normal before the volume counts as sheared.
SHEAR_TOLERANCE_MM = 0.01
#: Signs that turn a vector of the named NRRD space into DICOM's LPS.
LPS_SIGNS = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "LPS": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "RAS": (-1.0, -1.0, 1.0),
}


class UnusableVolume(ValueError):
    """The file holds no three-dimensional box in a patient space."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels [k, j, i] whose slices advance along the cross product of their directions."""

    voxels: NDArray[np.int16]
    spacing_mm: Vector
    origin_mm: Vector
    directions: tuple[Vector, Vector]


def read_nrrd(path: Path) -> Volume:
    """A three-dimensional NRRD in a patient space; slices are turned over where their order runs against the normal."""
    data, header = nrrd.read(str(path))
    signs = LPS_SIGNS.get(str(header.get("space")))
    if signs is None or data.ndim != 3:
        raise UnusableVolume(
            f"{path.name}: space {header.get('space')!r}, {data.ndim} axes; need LPS or RAS and 3 axes"
        )
    steps = np.asarray(header["space directions"], dtype=float) * signs
    origin = np.asarray(header["space origin"], dtype=float) * signs
    lengths = [math.hypot(*step) for step in steps]
    row, column, along = (step / length for step, length in zip(steps, lengths, strict=True))
    normal = np.cross(row, column)
    voxels = np.transpose(data, (2, 1, 0))
    if along @ normal < 0:
        origin, voxels, along = origin + steps[2] * (len(voxels) - 1), voxels[::-1], -along
    if np.linalg.norm(along - normal) * lengths[2] > SHEAR_TOLERANCE_MM:
        raise UnusableVolume(f"{path.name}: its slices are sheared; resample the volume to a box first")
    return Volume(
        voxels=np.ascontiguousarray(voxels, dtype=np.int16),
        spacing_mm=(lengths[2], lengths[1], lengths[0]),
        origin_mm=vector(origin),
        directions=(vector(row), vector(column)),
    )


def vector(values: NDArray[np.float64]) -> Vector:
    """Three numbers as a plain tuple."""
    x, y, z = (float(value) for value in values)
    return x, y, z
