"""Marked slices: where the findings are seen, slice by slice, for whatever is drawn over an image or beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from workers.measurement import borders
from workers.reporting.evidence import Evidence
from workers.reporting.segmentation import check_shape, tracking_identifier

#: Closed lines of (column, row), where (0.5, 0.5) is the centre of the first pixel.
Lines = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One finding on one slice."""

    finding: Finding
    #: Around its voxels there, holes too.
    lines: Lines
    #: Whether this is the slice of its largest extent.
    is_key: bool

    @property
    def name(self) -> str:
        """What people call the finding."""
        return tracking_identifier(self.finding)

    @property
    def extent(self) -> str:
        """Its axes in words; in ASCII, which every character set has."""
        return f"{self.finding.long_axis.length_mm:.1f} x {self.finding.short_axis.length_mm:.1f} mm"

    @property
    def bulk(self) -> str:
        """Its volume and density in words."""
        return f"{self.finding.volume_mm3:.0f} mm3, {self.finding.mean_hu:.0f} HU"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The least and greatest column and row: left, top, right, bottom."""
        points = np.concatenate(self.lines)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True, kw_only=True)
class MarkedSlice:
    """One slice, and the findings on it by number."""

    k: int
    marks: tuple[Mark, ...]

    @property
    def keys(self) -> tuple[Mark, ...]:
        """The findings whose largest extent is here."""
        return tuple(mark for mark in self.marks if mark.is_key)


def marked_slices(
    evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]
) -> tuple[MarkedSlice, ...]:
    """Every slice that findings are on, by k; `labels` [k, j, i] hold a finding's number in its voxels.

    Raises EvidenceInvalid where findings and labels do not belong together.
    """
    check_shape(evidence, labels)
    return _marked(evidence, findings, labels, [int(k) for k in np.flatnonzero(labels.any(axis=(1, 2)))])


def key_slices(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> tuple[MarkedSlice, ...]:
    """The slices of largest extent alone, that of the first finding first."""
    check_shape(evidence, labels)
    return _marked(evidence, findings, labels, list(dict.fromkeys(key_of(evidence, finding) for finding in findings)))


def _marked(
    evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8], places: list[int]
) -> tuple[MarkedSlice, ...]:
    """Some slices with their marks; raises EvidenceInvalid for a mark of no finding, and a finding without its mark."""
    by_number = {finding.number: finding for finding in findings}
    keys = {finding.number: key_of(evidence, finding) for finding in findings}
    found = {k: {n: box for n, box in enumerate(ndimage.find_objects(labels[k]), start=1) if box} for k in places}
    if stray := {n for boxes in found.values() for n in boxes} - set(by_number):
        raise EvidenceInvalid(f"labels mark {sorted(stray)}, which are no findings")
    if missing := [n for n, k in keys.items() if n not in found.get(k, ())]:
        raise EvidenceInvalid(f"labels do not mark {missing} on the slices of their largest extent")
    return tuple(
        MarkedSlice(
            k=k,
            marks=tuple(
                Mark(finding=by_number[n], lines=_lines(labels[k], n, box), is_key=keys[n] == k)
                for n, box in boxes.items()
            ),
        )
        for k, boxes in found.items()
    )


def key_of(evidence: Evidence, finding: Finding) -> int:
    """The k of the slice of a finding's largest extent; raises EvidenceInvalid where its outline lies on none."""
    k = evidence.volume.slice_of(finding.outline)
    if k is None:
        raise EvidenceInvalid(f"an outline lies on {finding.outline.sop_instance_uid}, which is not among the evidence")
    return k


def _lines(plane: NDArray[np.uint8], number: int, box: tuple[slice, ...]) -> Lines:
    top, left = (part.start for part in box)
    return tuple(line[:, ::-1] + (left + 0.5, top + 0.5) for line in borders(plane[box] == number))
