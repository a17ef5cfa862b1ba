"""Layout: what a scan leaves for later ones of the patient: how its lungs lie, what it covered, how it was made.

It is kept with the reading's summary, so that a later study can be compared when the images have left the disk. Nothing
of it tells who the patient is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.core.change import NOT_KNOWN
from dicom_node.core.finding import Finding, Point
from workers import composition, coverage, measurement, morphology, outline, preprocessing, surface
from workers import volume as volumes
from workers.alignment import LungShape
from workers.correspondence import BOTH, LEFT, RIGHT, Place
from workers.input_check import contrast, kernel_kind, share_at_ends, slice_thickness_mm
from workers.lungs import LEFT_LUNG, RIGHT_LUNG, lung_places
from workers.volume import Volume

#: Of the form that is kept; what has another is left alone.
_FORM = 2
#: What a size rests on beside the algorithm.
_MEASURING = (composition, coverage, measurement, morphology, outline, preprocessing, surface, volumes)
#: Of a digest so much is kept.
_DIGITS = 16
#: A lung that still has so much of its largest area in the first or last slice, row or column goes on beyond the scan.
MOST_AT_ENDS = 0.25
#: A place is well within a scan that goes on so far beyond it.
_WITHIN_MM = 5.0


@dataclass(frozen=True, kw_only=True)
class Named:
    """A finding as a report names it, and where it lies."""

    name: str
    place: Place


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What can be known of a scan without its images."""

    #: By what `workers.correspondence` calls them.
    lungs: Mapping[str, LungShape]
    #: Whether a lung goes on beyond the scan: then its shape is that of a part.
    is_cut: bool
    #: Least and largest x, y and z that were scanned, LPS mm.
    least: Point
    most: Point
    slice_thickness_mm: float
    slice_distance_mm: float
    #: soft or sharp, or what the scanner calls it; empty: not told.
    kernel: str
    #: Which build of the modules that measure did so.
    measured_by: str
    #: with or without contrast agent; empty: not told, or as `core.change` calls what nobody looked at.
    contrast: str = ""
    #: Whether marks were left out, or part of the series was not read: what is not marked may be so for that.
    is_partial: bool = False
    #: The settings that shaped what was marked.
    settings: str = ""
    #: By Tracking Unique Identifier.
    findings: Mapping[str, Named] = field(default_factory=dict)
    #: The highest number that any finding's name has had in the studies so far: none is given twice.
    highest: int = 0

    def covers(self, place: Point) -> bool:
        """Whether a place lies well within what was scanned."""
        sides = zip(place, self.least, self.most, strict=True)
        return all(least + _WITHIN_MM <= value <= most - _WITHIN_MM for value, least, most in sides)

    @property
    def thickness_mm(self) -> float:
        """What small things may be lost in: the thickness of the slices, or their distance."""
        return max(self.slice_thickness_mm, self.slice_distance_mm)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads: lungs to a millimetre, places of findings to a tenth of one."""
        return {
            "form": _FORM,
            "lungs": {name: np.round(shape.quantiles).astype(int).tolist() for name, shape in self.lungs.items()},
            "is_cut": self.is_cut,
            "box": [[round(value, 1) for value in corner] for corner in (self.least, self.most)],
            "slices": [round(self.slice_thickness_mm, 3), round(self.slice_distance_mm, 3)],
            "kernel": self.kernel,
            "contrast": self.contrast,
            "measured_by": self.measured_by,
            "is_partial": self.is_partial,
            "settings": self.settings,
            "findings": {
                uid: {
                    "name": named.name,
                    "centre": [round(value, 1) for value in named.place.centre],
                    "side": named.place.side,
                    "diameter": round(named.place.diameter_mm, 1),
                }
                for uid, named in self.findings.items()
            },
            "highest": self.highest,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Layout | None":
        """What was kept; None for what no version of this form wrote."""
        try:
            if kept["form"] != _FORM:
                return None
            least, most = (_point(corner) for corner in kept["box"])
            thickness, distance = (float(value) for value in kept["slices"])
            return cls(
                lungs={str(name): _shape(name, quantiles) for name, quantiles in kept["lungs"].items()},
                is_cut=bool(kept["is_cut"]),
                least=least,
                most=most,
                slice_thickness_mm=thickness,
                slice_distance_mm=distance,
                kernel=str(kept["kernel"]),
                # What an earlier version left tells nothing of it.
                contrast=str(kept.get("contrast", NOT_KNOWN)),
                measured_by=str(kept["measured_by"]),
                is_partial=bool(kept["is_partial"]),
                settings=str(kept["settings"]),
                findings={str(uid): _named(one) for uid, one in kept["findings"].items()},
                highest=int(kept["highest"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def layout_of(
    volume: Volume,
    searched: NDArray[np.bool_] | None,
    parameters: Sequence[tuple[str, str]] = (),
    *,
    is_partial: bool = False,
) -> Layout | None:
    """Of a scan whose lungs were searched: a mask [k, j, i] on the network's grid; None where there are none.

    `parameters` are the settings that the algorithm ran with, and `is_partial` tells that it left something out.
    """
    if searched is None or not searched.any() or not volume.is_placed:
        return None
    places = lung_places(searched, volume)
    if not places:
        # Of every so many voxels none is a lung's: of what was searched nothing can be told.
        return None
    lungs = {BOTH: LungShape.of(np.concatenate(list(places.values())), is_pair=True)}
    if {RIGHT_LUNG, LEFT_LUNG} == places.keys():
        lungs |= {RIGHT: LungShape.of(places[RIGHT_LUNG]), LEFT: LungShape.of(places[LEFT_LUNG])}
    corners = np.array([volume.to_patient(*corner) for corner in _corners(volume)])
    return Layout(
        lungs=lungs,
        is_cut=any(share_at_ends(np.moveaxis(searched, axis, 0)) > MOST_AT_ENDS for axis in range(searched.ndim)),
        least=_point(corners.min(axis=0)),
        most=_point(corners.max(axis=0)),
        slice_thickness_mm=slice_thickness_mm(volume),
        slice_distance_mm=volume.spacing_mm[0],
        kernel=kernel_of(volume),
        contrast=contrast(volume.headers[0]) or "",
        measured_by=measuring_digest(),
        is_partial=is_partial,
        settings=sha256(repr(tuple(parameters)).encode()).hexdigest()[:_DIGITS],
    )


@cache
def measuring_digest() -> str:
    """Of the modules that outline and measure: of the same algorithm another build may tell another size."""
    digest = sha256()
    for module in _MEASURING:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:_DIGITS]


def kernel_of(volume: Volume) -> str:
    """The kind of the Convolution Kernel (0018,1210), or its name where that tells no kind; empty without one."""
    header = volume.headers[0]
    values = header.get("ConvolutionKernel") or ""
    return kernel_kind(header) or str(values if isinstance(values, str) else values[0]).strip()


def place_of(finding: Finding) -> Place:
    """Where a finding lies, as it is compared with others."""
    side = "" if finding.laterality is None else finding.laterality.meaning
    return Place(centre=finding.centre, side=side, diameter_mm=finding.mean_diameter_mm)


def _corners(volume: Volume) -> list[tuple[float, float, float]]:
    slices, rows, columns = (n - 1 for n in volume.voxels.shape)
    return [(i, j, k) for i in (0, columns) for j in (0, rows) for k in (0, slices)]


def _shape(name: str, quantiles: Any) -> LungShape:
    found = np.array(quantiles, dtype=np.float64)
    if found.ndim != 2 or len(found) != 3 or not np.isfinite(found).all():
        raise ValueError("a lung has quantiles along three axes")
    return LungShape(quantiles=found, is_pair=name == BOTH)


def _point(values: Any) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _named(kept: Mapping[str, Any]) -> Named:
    place = Place(centre=_point(kept["centre"]), side=str(kept["side"]), diameter_mm=float(kept["diameter"]))
    return Named(name=str(kept["name"]), place=place)
