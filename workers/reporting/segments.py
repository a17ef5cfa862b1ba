"""Segments: the voxels of a written segmentation, read back from its frames, and how large they are."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from workers.volume import Volume

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

#: Directions of half a sphere in which an extent is taken; no direction is farther than so many degrees from one.
_DIRECTIONS, _APART_DEGREES = 200, 9.0
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A segment's pixels on one slice, without the empty rows and columns around them."""

    mask: Mask
    #: Of its first pixel.
    top: int
    left: int

    def within(self, margin: int) -> Mask:
        """The mask with a margin around it."""
        return np.pad(self.mask, margin)

    def is_where(self, other: "Plane") -> bool:
        """Whether another has the same pixels."""
        return (self.top, self.left) == (other.top, other.left) and np.array_equal(self.mask, other.mask)

    @cached_property
    def ends(self) -> Points:
        """Row and column of the outer edge of each row's first and last pixel, whole numbers being pixel centres.

        Without those between neighbours that reach as far: nothing that it reaches is any nearer for that.
        """
        rows = np.flatnonzero(self.mask.any(axis=1))
        first = self.mask[rows].argmax(axis=1)
        last = self.mask.shape[1] - 1 - self.mask[rows, ::-1].argmax(axis=1)
        left, right = _bent(rows, first), _bent(rows, -last)
        down = np.concatenate([rows[left], rows[right]])
        places = np.column_stack([down, np.concatenate([first[left] - 0.5, last[right] + 0.5])])
        return places + np.array([self.top, self.left])

    def reach_mm(self, directions: Points, spacing_mm: tuple[float, float]) -> tuple[Points, Points]:
        """How far its pixels reach against and along directions, which are columns of mm down and across."""
        along = self.ends * spacing_mm @ directions
        half_a_row = np.abs(directions[0]) * spacing_mm[0] / 2
        return along.min(axis=0) - half_a_row, along.max(axis=0) + half_a_row


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment by its planes, by k, in a volume."""

    volume: Volume
    planes: dict[int, Plane] = field(default_factory=dict)

    @cached_property
    def areas(self) -> Mapping[int, int]:
        """Pixels by k."""
        return {k: int(np.count_nonzero(plane.mask)) for k, plane in self.planes.items()}

    @cached_property
    def voxels(self) -> int:
        """How many there are."""
        return sum(self.areas.values())

    def is_where(self, other: "Segment") -> bool:
        """Whether another has the same voxels."""
        planes, others = self.planes, other.planes
        return planes.keys() == others.keys() and all(planes[k].is_where(others[k]) for k in planes)

    @cached_property
    def middle_ones(self) -> tuple[int, ...]:
        """The k of the slices of largest area that are nearest to the middle of the whole: one, or two alike."""
        most, middle = max(self.areas.values()), sum(k * area for k, area in self.areas.items()) / self.voxels
        away = {k: abs(k - middle) for k, area in self.areas.items() if area == most}
        return tuple(k for k, distance in away.items() if distance <= min(away.values()) + 1e-6)

    @cached_property
    def border_voxels(self) -> int:
        """About how many lie at its border, as it is seen from the side where most do."""
        across = sum(_ends_in_rows(plane.mask) for plane in self.planes.values())
        down = sum(_ends_in_rows(plane.mask.T) for plane in self.planes.values())
        known = self.areas
        along = sum(abs(area - known.get(k + step, 0)) for k, area in known.items() for step in (-1, 1))
        return max(across, down, along)

    @cached_property
    def attenuation(self) -> tuple[float, float]:
        """Mean and standard deviation of the volume's HU within it."""
        total = squares = 0.0
        # One slice after the other: of a lung all of them are many times as large as its mask.
        for k in self.planes:
            values = self._values(k)
            total, squares = total + float(values.sum()), squares + float(values @ values)
        mean = total / self.voxels
        return mean, math.sqrt(max(0.0, squares / self.voxels - mean**2))

    def _values(self, k: int) -> Points:
        plane = self.planes[k]
        rows, columns = plane.mask.shape
        there = self.volume.voxels[k, plane.top : plane.top + rows, plane.left : plane.left + columns]
        return there[plane.mask].astype(np.float64)

    @cached_property
    def largest_extent_mm(self) -> float:
        """At least its largest diameter, from corner to corner of its voxels, and hardly more."""
        directions, (dz, dy, dx) = _directions(), self.volume.spacing_mm
        reaches = []
        for k, plane in self.planes.items():
            least, most = plane.reach_mm(directions[1:], (dy, dx))
            reaches.append((least + (k - 0.5) * dz * directions[0], most + (k + 0.5) * dz * directions[0]))
        least, most = (np.array(side) for side in zip(*reaches, strict=True))
        return float((most.max(axis=0) - least.min(axis=0)).max()) / math.cos(math.radians(_APART_DEGREES))

    def extent_mm(self, k: int) -> float:
        """Its largest diameter on a slice, from corner to corner of its pixels."""
        turns = np.arange(0, math.pi, math.pi / 180)
        least, most = self.planes[k].reach_mm(np.array([np.sin(turns), np.cos(turns)]), self.volume.spacing_mm[1:])
        return float((most - least).max()) / math.cos(math.pi / 360)


def _bent(rows: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of a side's points, the outer side being that of smaller columns, lie outside the line between the next."""
    is_bent = np.ones(len(rows), dtype=bool)
    down, across = np.diff(rows), np.diff(column)
    is_bent[1:-1] = across[:-1] * down[1:] < across[1:] * down[:-1]
    return is_bent


def _ends_in_rows(mask: Mask) -> int:
    """How often a mask begins or ends along its rows."""
    changes = mask[:, 1:] != mask[:, :-1]
    return int(np.count_nonzero(changes) + np.count_nonzero(mask[:, 0]) + np.count_nonzero(mask[:, -1]))


def _directions() -> Points:
    """Unit vectors over half a sphere, as columns: a spiral of equal areas."""
    number = np.arange(_DIRECTIONS) + 0.5
    height, angle = number / _DIRECTIONS, number * _GOLDEN_ANGLE
    radius = np.sqrt(1 - height**2)
    return np.array([height, radius * np.sin(angle), radius * np.cos(angle)])


def segments_of(segmentation: Dataset, volume: Volume) -> dict[str, Segment]:
    """The segments of a BINARY segmentation or a label map, by Tracking Unique Identifier.

    What lies on no slice of the volume is left out: a rule of its own tells of it.
    """
    uids = {int(s.SegmentNumber): str(s.TrackingUID) for s in segmentation.SegmentSequence if "TrackingUID" in s}
    found = {uid: Segment(volume=volume) for uid in uids.values()}
    places = {(uid, volume.frame_number(k)): k for k, uid in enumerate(volume.sop_instance_uids)}
    is_binary = segmentation.SegmentationType == "BINARY"
    for stored, groups in zip(_frames(segmentation), segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = _group(segmentation, groups, "DerivationImageSequence").SourceImageSequence[0]
        k = places.get((str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")))
        if k is None:
            continue
        marks = {_segment_number(segmentation, groups): stored} if is_binary else _by_value(stored)
        for number, mask in marks.items():
            if number in uids and (plane := _plane(mask, int(segmentation.Columns))) is not None:
                found[uids[number]].planes[k] = plane
    return {uid: segment for uid, segment in found.items() if segment.planes}


def _segment_number(segmentation: Dataset, groups: Dataset) -> int:
    return int(_group(segmentation, groups, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _group(segmentation: Dataset, groups: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame, which stands once for all frames where it is the same (PS3.3 C.7.6.16)."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    found: Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return found


def _by_value(frame: NDArray[np.uint8]) -> dict[int, Mask]:
    """The pixels of each value of a label map's frame."""
    return {number: frame == number for number in np.unique(frame).tolist()}


def _plane(mask: NDArray[Any], width: int) -> Plane | None:
    """The part of a frame that has any pixels: a mask, or one that is packed along its rows and unpacked here alone."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    own = mask[rows[0] : rows[-1] + 1]
    if own.shape[1] < width:
        own = np.unpackbits(own, axis=1, bitorder="little").view(bool)
    columns = np.flatnonzero(own.any(axis=0))
    return Plane(mask=own[:, columns[0] : columns[-1] + 1].copy(), top=int(rows[0]), left=int(columns[0]))


def _frames(segmentation: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Each frame [row, column]: labels or truth values, or as bytes of 8 where the pixels of a row fill whole ones."""
    shape = int(segmentation.Rows), int(segmentation.Columns)
    count, size, bits = int(segmentation.NumberOfFrames), shape[0] * shape[1], int(segmentation.BitsAllocated)
    stored: NDArray[Any] = np.frombuffer(segmentation.PixelData, dtype=np.uint16 if bits == 16 else np.uint8)
    if bits == 1 and shape[1] % 8 == 0:
        yield from stored[: count * size // 8].reshape(count, shape[0], -1)
        return
    if bits == 1:
        stored = np.unpackbits(stored.astype(np.uint8, copy=False), bitorder="little").view(bool)
    yield from stored[: count * size].reshape(count, *shape)
