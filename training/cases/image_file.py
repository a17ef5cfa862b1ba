"""A volume in a file of its own, MetaImage or NIfTI, read by SimpleITK, which places both in LPS mm."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # as its makers write it
from numpy.typing import NDArray

from training.cases.case import Affine, DatasetInvalid, oriented

#: Two affines of one grid differ by no more than this, in mm, at any corner.
_SAME_PLACE_MM = 0.05


def read_image(path: Path) -> tuple[NDArray[np.generic], Affine]:
    """Voxels [k, j, i] in the axes of a `Case`, and their affine to LPS mm."""
    if not path.is_file():
        raise DatasetInvalid(f"{path} is not there: fetch it, or take its line out of the list")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DatasetInvalid(f"{path} cannot be read ({_reason(error)}): fetch it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"{image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise DatasetInvalid(f"{path} has {found}: give one volume of 3 axes a file")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return oriented(sitk.GetArrayFromImage(image), affine, path)


def read_mask(path: Path, shape: tuple[int, ...], affine: Affine) -> NDArray[np.integer]:
    """Labels [k, j, i] on the grid of the volume that they belong to."""
    labels, place = read_image(path)
    corners = np.array([(i, j, k, 1.0) for i in (0, shape[2]) for j in (0, shape[1]) for k in (0, shape[0])]).T
    if labels.shape != shape or np.abs((place - affine) @ corners).max() > _SAME_PLACE_MM:
        raise DatasetInvalid(f"{path}: its voxels are not those of its volume; resample the mask onto the volume")
    return np.round(labels.astype(np.float64)).astype(np.int32)


def _reason(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no reason given"])[-1][:160]
