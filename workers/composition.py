"""Composition: whether a nodule is solid, part solid or ground glass, by the attenuation inside its outline.

The outermost millimetre is left out, where nodule and lung share their voxels. What is denser than -350 HU counts as
solid; a nodule is called solid or ground glass where nearly all of it or nearly nothing is. All thresholds were chosen
on semi-synthetic validation data; they are no guideline's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.lung_rads import Composition
from workers.measurement import measure
from workers.volume import Region, Volume

Mask = NDArray[np.bool_]

_EDGE_MM = 1.0
_SOLID_ABOVE_HU = -350.0
#: Share of the inner voxels that are solid.
_SOLID_FROM, _GLASS_UP_TO = 0.65, 0.10
#: Air inside, as in a ring or a cavity: no composition is said then.
_AIR_BELOW_HU, _MOST_AIR = -750.0, 0.10
#: Of fewer inner voxels, or of so little, nothing is said.
_FEWEST_VOXELS, _LEAST_MM3 = 12, 8.0


@dataclass(frozen=True, kw_only=True)
class Consistence:
    """What a nodule consists of; None where that cannot be told."""

    composition: Composition | None
    #: Mean of long and short axis of the largest solid part of a part-solid nodule.
    solid_diameter_mm: float | None = None


def consistence(region: Region, volume: Volume) -> Consistence:
    """What the voxels of a volume say of the nodule that a region outlines."""
    hu = volume.voxels[region.box]
    inner = _without_edge(region.mask, volume.spacing_mm)
    if inner.sum() < _FEWEST_VOXELS or inner.sum() * np.prod(volume.spacing_mm) < _LEAST_MM3:
        return Consistence(composition=None)
    if (hu[inner] < _AIR_BELOW_HU).mean() > _MOST_AIR:
        return Consistence(composition=None)
    share = float((hu[inner] > _SOLID_ABOVE_HU).mean())
    if share >= _SOLID_FROM:
        return Consistence(composition=Composition.SOLID)
    if share <= _GLASS_UP_TO:
        return Consistence(composition=Composition.NON_SOLID)
    return Consistence(
        composition=Composition.PART_SOLID, solid_diameter_mm=_diameter(region, hu > _SOLID_ABOVE_HU, inner, volume)
    )


def _without_edge(mask: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """What lies deeper than the edge. Within the slices: where those are thick, the depth across them says little."""
    padded = np.pad(mask, 1)
    planes = [ndimage.distance_transform_edt(plane, sampling=spacing_mm[1:]) for plane in padded]
    # The distance is to the next voxel's centre, half a voxel beyond the edge.
    depth = np.stack(planes) - 0.5 * min(spacing_mm[1:])
    return np.asarray((depth >= _EDGE_MM)[1:-1, 1:-1, 1:-1])


def _diameter(region: Region, dense: Mask, inner: Mask, volume: Volume) -> float:
    labels, count = ndimage.label(dense & region.mask)
    largest = 1 + int(np.argmax(ndimage.sum_labels(inner, labels, np.arange(1, count + 1))))
    measured = measure(Region(box=region.box, mask=labels == largest), volume)
    return (measured.long_axis.length_mm + measured.short_axis.length_mm) / 2
