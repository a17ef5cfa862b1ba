"""Composition: whether a nodule is solid, part solid or ground glass, by the attenuation inside its outline.

The outermost millimetre is left out, where nodule and lung share their voxels. What is denser than -350 HU counts as
solid; a nodule is called solid or ground glass where nearly all of it or nearly nothing is. All thresholds were chosen
on semi-synthetic validation data; they are no guideline's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.finding import Border
from dicom_node.core.lung_rads import Composition
from workers.measurement import Measurements, measure
from workers.volume import Region, Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_EDGE_MM = 1.0
_SOLID_ABOVE_HU = -350.0
#: Share of the inner voxels that are solid.
_SOLID_FROM, _GLASS_UP_TO = 0.85, 0.15
#: A solid part this deep is no vessel: what holds it is no ground glass, however large it is beside.
_LEAST_SOLID_DEPTH_MM = 2.0
#: Air inside, as in a ring or a cavity: no composition is said then. Thick slices blur it, but leave the middle darker.
_AIR_BELOW_HU, _MOST_AIR = -750.0, 0.10
_MIDDLE_FROM, _DARKER_HU, _FEWEST_IN_MIDDLE = 0.6, 120.0, 4
#: Of fewer inner voxels, or of so little, nothing is said.
_FEWEST_VOXELS, _LEAST_MM3 = 12, 8.0


@dataclass(frozen=True, kw_only=True)
class Consistence:
    """What a nodule consists of; None where that cannot be told."""

    composition: Composition | None
    #: Mean of long and short axis of the largest solid part of a part-solid nodule.
    solid_diameter_mm: float | None = None
    #: What told where that ends.
    solid_border: Border = Border.VOXELS


def consistence(region: Region, volume: Volume) -> Consistence:
    """What the voxels of a volume say of the nodule that a region outlines."""
    hu = volume.voxels[region.box]
    depth = _depth(region.mask, volume.spacing_mm)
    inner = depth >= _EDGE_MM
    if inner.sum() < _FEWEST_VOXELS or inner.sum() * np.prod(volume.spacing_mm) < _LEAST_MM3:
        return Consistence(composition=None)
    if _is_hollow(hu, inner, depth):
        return Consistence(composition=None)
    share = float((hu[inner] > _SOLID_ABOVE_HU).mean())
    if share >= _SOLID_FROM:
        return Consistence(composition=Composition.SOLID)
    solid = inner & (hu > _SOLID_ABOVE_HU)
    if share <= _GLASS_UP_TO and _depth(solid, volume.spacing_mm).max() < _LEAST_SOLID_DEPTH_MM:
        return Consistence(composition=Composition.NON_SOLID)
    part = _solid_part(region, hu > _SOLID_ABOVE_HU, inner, volume)
    return Consistence(
        composition=Composition.PART_SOLID,
        solid_diameter_mm=(part.long_axis.length_mm + part.short_axis.length_mm) / 2,
        solid_border=part.border,
    )


def in_words(told: Sequence[tuple[int, Consistence]]) -> str:
    """What a report adds of numbered nodules' composition: by which rule it was told, and how large solid parts are.

    Empty where none is told.
    """
    if all(consists.composition is None for _, consists in told):
        return ""
    parts = [
        f"the solid part of nodule {number} measures {consists.solid_diameter_mm:.1f} mm in mean diameter"
        for number, consists in told
        if consists.solid_diameter_mm is not None
    ]
    rule = "Composition is told by a rule over attenuation that was set on drawn nodules, not on real ones"
    return "; ".join([rule, *parts]) + "."


def _is_hollow(hu: Floats, inner: Mask, depth: Floats) -> bool:
    """Whether there is air inside, or the middle is much darker than what lies around it."""
    if (hu[inner] < _AIR_BELOW_HU).mean() > _MOST_AIR:
        return True
    middle = inner & (depth >= _MIDDLE_FROM * depth.max())
    around = inner & ~middle
    if min(middle.sum(), around.sum()) < _FEWEST_IN_MIDDLE:
        return False
    return bool(np.median(hu[around]) - np.median(hu[middle]) > _DARKER_HU)


def _depth(mask: Mask, spacing_mm: tuple[float, float, float]) -> Floats:
    """Depth below the edge in mm, within the slices: where those are thick, the depth across them says little."""
    padded = np.pad(mask, 1)
    planes = [ndimage.distance_transform_edt(plane, sampling=spacing_mm[1:]) for plane in padded]
    # The distance is to the next voxel's centre, half a voxel beyond the edge.
    depth = np.stack(planes) - 0.5 * min(spacing_mm[1:])
    return np.asarray(depth[1:-1, 1:-1, 1:-1], dtype=np.float32)


def _solid_part(region: Region, dense: Mask, inner: Mask, volume: Volume) -> Measurements:
    """The largest solid part; it was outlined by a fixed attenuation, which need not be half way to what is around."""
    labels, count = ndimage.label(dense & region.mask)
    largest = 1 + int(np.argmax(ndimage.sum_labels(inner, labels, np.arange(1, count + 1))))
    return measure(Region(box=region.box, mask=labels == largest), volume)
