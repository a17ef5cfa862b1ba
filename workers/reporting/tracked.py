"""Tracked: the findings of the report that a new one replaces, and which of them the new ones are (PS3.16 TID 1411).

Both are of the same study and frame of reference. A finding is the earlier one that is nearest, where their centres are
no farther apart than the smaller one's radius; what is near to two is one of them, and the other is new.
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

log = logging.getLogger(__name__)

TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """An earlier finding."""

    uid: str
    centre: Point
    radius_mm: float


def followed(evidence: Evidence, findings: tuple[Finding, ...]) -> Mapping[int, str]:
    """The Tracking UIDs of earlier findings that are found again, by the new number."""
    earlier = _earlier(evidence)
    pairs = sorted(
        (distance, finding.number, known.uid)
        for finding in findings
        for known in earlier
        if (distance := float(np.linalg.norm(np.subtract(finding.centre, known.centre))))
        <= min(known.radius_mm, finding.long_axis.length_mm / 2)
    )
    found: dict[int, str] = {}
    for _, number, uid in pairs:
        if number not in found and uid not in found.values():
            found[number] = uid
    others = {evidence.tracking_uid(finding.number) for finding in findings if finding.number not in found}
    # Read from the same images, a new finding might bear the number that an earlier one had.
    return found if others.isdisjoint(found.values()) else {}


def _earlier(evidence: Evidence) -> list[Tracked]:
    """The findings of the report that is replaced; none where that is not as our reports are: it only names them."""
    try:
        return [] if evidence.predecessor is None else list(_tracked(evidence.predecessor, evidence))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        log.warning("findings of the report that this one replaces cannot be told")
        return []


def _tracked(report: Dataset, evidence: Evidence) -> Iterator[Tracked]:
    """What a structured report has measured and drawn, on slices that were read again."""
    radii: dict[str, float] = {}
    centres: dict[str, Point] = {}
    for group in (item for item in walk(report) if is_named(item, MEASUREMENT_GROUP)):
        uid = text_of(group, TRACKING_UID)
        for item in walk(group):
            if is_named(item, LONG_AXIS) and "MeasuredValueSequence" in item:
                radii[uid] = float(item.MeasuredValueSequence[0].NumericValue) / 2
            if "GraphicData" in item and (centre := _centre(item, evidence)) is not None:
                centres.setdefault(uid, centre)
    for uid, centre in centres.items():
        if uid in radii:
            yield Tracked(uid=uid, centre=centre, radius_mm=radii[uid])


def _centre(region: Dataset, evidence: Evidence) -> Point | None:
    """The middle of what is drawn on a slice; None where that was not read again."""
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    frame = image.get("ReferencedFrameNumber")
    where = Outline(
        sop_instance_uid=str(image.ReferencedSOPInstanceUID),
        points=(),
        frame_number=None if frame is None else int(frame),
    )
    k = evidence.volume.slice_of(where)
    if k is None:
        return None
    points = np.reshape([float(value) for value in region.GraphicData], (-1, 2))
    column, row = (points.min(axis=0) + points.max(axis=0)) / 2
    return evidence.volume.to_patient(float(column) - 0.5, float(row) - 0.5, k)
