"""Tracked: the findings of the report that a new one replaces, and which of them the new ones are (PS3.16 TID 1411).

Both are of the same study and frame of reference. A finding is the earlier one that is nearest, where the middles of
what was drawn of both are no farther apart than the smaller one's radius; what is near to two is one of them, and the
other is new. Two shapes of a kind are compared: outlines, or, in the form that draws no outline, long axes.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from dicom_node.core.codes import LONG_AXIS, Code
from dicom_node.core.finding import Finding, Outline, Point
from workers.reporting.content_tree import is_named, text_of, walk
from workers.reporting.evidence import Evidence
from workers.volume import Volume

log = logging.getLogger(__name__)

TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")

#: Points of an axis; an outline is closed, and has more.
_ENDS = 2


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The middle of what was drawn of a finding on a slice."""

    middle: Point
    #: Whether that was its long axis, not its outline.
    is_axis: bool


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """An earlier finding."""

    uid: str
    drawn: Drawn
    radius_mm: float


def followed(evidence: Evidence, findings: tuple[Finding, ...]) -> Mapping[int, str]:
    """The Tracking UIDs of findings after a report that tracks some, by number; none after one that tracks nothing.

    What is found again has that of the earlier finding. What is not has one that follows from the report that is
    replaced: by its number alone it might bear that of another nodule.
    """
    if not _tracks(evidence.predecessor):
        return {}
    earlier = _earlier(evidence)
    pairs = sorted(
        (distance, finding.number, known.uid)
        for finding in findings
        for known in earlier
        if (distance := _distance_mm(finding, known.drawn, evidence.volume))
        <= min(known.radius_mm, finding.long_axis.length_mm / 2)
    )
    found: dict[int, str] = {}
    for _, number, uid in pairs:
        if number not in found and uid not in found.values():
            found[number] = uid
    return {finding.number: evidence.uid(f"finding {finding.number}") for finding in findings} | found


def _distance_mm(finding: Finding, earlier: Drawn, volume: Volume) -> float:
    """How far the middle of a finding is from that of an earlier one, of which the same was drawn."""
    if earlier.is_axis:
        middle = np.add(finding.long_axis.start, finding.long_axis.end) / 2
    else:
        middle = np.array(_middle(finding.outline, volume) or finding.centre)
    return float(np.linalg.norm(middle - earlier.middle))


def _tracks(report: Dataset | None) -> bool:
    """Whether a report has findings that software can follow."""
    return report is not None and any(is_named(item, TRACKING_UID) for item in walk(report))


def _earlier(evidence: Evidence) -> list[Tracked]:
    """The findings of the report that is replaced; none where that is not as our reports are: it only names them."""
    try:
        return [] if evidence.predecessor is None else list(_tracked(evidence.predecessor, evidence.volume))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        log.warning("findings of the report that this one replaces cannot be told")
        return []


def _tracked(report: Dataset, volume: Volume) -> Iterator[Tracked]:
    """What a structured report has measured and drawn, on slices that were read again."""
    radii: dict[str, float] = {}
    drawn: dict[str, Drawn] = {}
    for group in (item for item in walk(report) if is_named(item, MEASUREMENT_GROUP)):
        uid = text_of(group, TRACKING_UID)
        for item in walk(group):
            if is_named(item, LONG_AXIS) and "MeasuredValueSequence" in item:
                radii[uid] = float(item.MeasuredValueSequence[0].NumericValue) / 2
            if "GraphicData" in item and (shape := _drawn(item, volume)) is not None:
                drawn.setdefault(uid, shape)
    for uid, shape in drawn.items():
        if uid in radii:
            yield Tracked(uid=uid, drawn=shape, radius_mm=radii[uid])


def _drawn(region: Dataset, volume: Volume) -> Drawn | None:
    """What an item has drawn on a slice; None where that was not read again."""
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    frame = image.get("ReferencedFrameNumber")
    points = np.reshape([float(value) for value in region.GraphicData], (-1, 2))
    shape = Outline(
        sop_instance_uid=str(image.ReferencedSOPInstanceUID),
        points=tuple((float(column), float(row)) for column, row in points),
        frame_number=None if frame is None else int(frame),
    )
    middle = _middle(shape, volume)
    return None if middle is None else Drawn(middle=middle, is_axis=len(points) == _ENDS)


def _middle(shape: Outline, volume: Volume) -> Point | None:
    """The middle between the ends of a shape; None where its slice is none of the volume."""
    k = volume.slice_of(shape)
    if k is None:
        return None
    points = np.array(shape.points)
    column, row = (points.min(axis=0) + points.max(axis=0)) / 2
    return volume.to_patient(float(column) - 0.5, float(row) - 0.5, k)
