"""Pictures of a study: its key image with the outlined finding, and each slice, drawn from archive and segmentation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.archive.contents import Content
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.worklist import SegmentationRow, read_segmentations
from dicom_node.core.errors import UnknownStudy, UnreadableInstance
from dicom_node.core.geometry import dot, normal_of, position_of
from dicom_node.core.study import Series
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.refusal import Refusal
from dicom_node.web.dicomweb.shown_frame import ShownFrame, ShownFrames
from dicom_node.web.dicomweb.transcoding import CannotTranscode
from dicom_node.web.picture import WINDOWS, Crop, marked
from dicom_node.web.picture_cache import PictureCache
from dicom_node.web.segmentation import Segmentation, read_segmentation

#: Longest side of a preview in picture elements, and how many pixels of the image lie around the finding.
PREVIEW_SIZE, _AROUND = 320, 64


class StudyPictures:
    """Draws them, and keeps what was drawn."""

    def __init__(self, index: Index, archive: Archive, cache: PictureCache, readings: Readings) -> None:
        self._index = index
        self._archive = archive
        self._cache = cache
        self._shown = ShownFrames(readings)

    def preview(self, study: str) -> bytes:
        """Around the largest finding; UnreadableInstance where there is none to show."""
        rows = read_segmentations(self._index, study)
        if not rows:
            raise UnreadableInstance("no finding is outlined")
        row = rows[-1]
        made_of = ("preview", study, row.sop_instance_uid)
        return self._cache.picture(made_of, lambda: self._draw_preview(study, row))

    def slice(self, study: str, sop: str, window: str) -> bytes:
        """One slice at one picture element a pixel, with every outline on it."""
        content = self._index.contents.first(study, "", sop)
        if content is None:
            raise UnknownStudy(f"image {sop} is not in the index")
        rows = read_segmentations(self._index, study)
        made_of = ("slice", content.tag, window, *(row.sop_instance_uid for row in rows))
        return self._cache.picture(made_of, lambda: marked(self._frame(content, window), self._masks(rows, sop)))

    def slices(self, study: str, series: str) -> list[dict[str, Any]]:
        """The slices of a series in their order along the patient, and which findings each shows."""
        marked: dict[str, set[int]] = {}
        for row in read_segmentations(self._index, study):
            for uid, frames in self._segmentation(row).frames.items():
                marked.setdefault(uid, set()).update(frame.segment for frame in frames)
        for found in self._index.studies.study(study).series:
            if found.series_instance_uid == series:
                attributes = {one.sop_instance_uid: one.attributes for one in found.instances}
                return [
                    {
                        "image": uid,
                        "position_mm": position,
                        "findings": sorted(marked.get(uid, ())),
                        "sides": sides(attributes[uid].get("ImageOrientationPatient")),
                    }
                    for position, uid in in_order(found)
                ]
        raise UnknownStudy(f"series {series} is not in the index")

    def _draw_preview(self, study: str, row: SegmentationRow) -> bytes:
        segmentation = self._segmentation(row)
        segment = self._largest(study, row)
        sop = segmentation.key_image(segment)
        content = None if sop is None else self._index.contents.first(study, "", sop)
        if sop is None or content is None:
            raise UnreadableInstance("the image of the finding is not here")
        masks = segmentation.masks(sop)
        rows, columns = np.nonzero(masks[segment])
        half = max(_AROUND, round(0.75 * max(np.ptp(rows), np.ptp(columns))))
        crop = Crop(row=round(float(rows.mean())), column=round(float(columns.mean())), half=half)
        return marked(self._frame(content, "lung"), masks, size=PREVIEW_SIZE, crop=crop)

    def _frame(self, content: Content, window: str) -> ShownFrame:
        """Its first frame, through a preset, or through its own window."""
        try:
            return self._shown.draw(content, 1, WINDOWS.get(window))
        except (CannotTranscode, Refusal) as error:
            raise UnreadableInstance(str(error)) from error

    def _largest(self, study: str, row: SegmentationRow) -> int:
        """The number of the finding with the longest axis, by the job's summary."""
        summaries = (job.summary or {} for job in self._index.jobs.of_study(study) if job.job.job_uid == row.job_uid)
        findings = [finding for summary in summaries for finding in summary.get("rows", ())]
        return int(max(findings, key=lambda finding: finding["long_axis_mm"])["number"]) if findings else 1

    def _masks(self, rows: list[SegmentationRow], sop: str) -> dict[int, NDArray[np.bool_]]:
        return {number: mask for row in rows for number, mask in self._segmentation(row).masks(sop).items()}

    def _segmentation(self, row: SegmentationRow) -> Segmentation:
        try:
            return read_segmentation(self._archive.path_of(row.path))
        except OSError as error:
            raise UnreadableInstance("the segmentation's file is not here") from error


def in_order(series: Series) -> list[tuple[float | None, str]]:
    """Position along the normal in mm and SOP Instance UID of each image, from the feet up where it is axial.

    Images without a position stand in the order of their numbers.
    """
    found = []
    for instance in series.instances:
        position = _position(instance.attributes)
        number = instance.attributes.get("InstanceNumber")
        order = (position is None, position or 0.0, number if isinstance(number, int) else 0)
        found.append((order, position, instance.sop_instance_uid))
    found.sort(key=lambda one: (one[0], one[2]))
    return [(None if position is None else round(position, 2), uid) for _, position, uid in found]


def sides(orientation: Any) -> tuple[str, str]:
    """What lies right and at the bottom of an image, in letters (PS3.3 Section C.7.6.1.1.1); empty if unknown."""
    try:
        cosines = [float(value) for value in orientation or ()]
    except (TypeError, ValueError):
        return "", ""
    return (_towards(cosines[:3]), _towards(cosines[3:])) if len(cosines) == 6 else ("", "")


def _towards(direction: list[float]) -> str:
    axis = max(range(3), key=lambda number: abs(direction[number]))
    return ("RL", "AP", "FH")[axis][direction[axis] > 0]


def _position(attributes: Mapping[str, Any]) -> float | None:
    """Where the image's plane lies along its normal, in mm."""
    normal, origin = normal_of(attributes), position_of(attributes)
    return None if normal is None or origin is None else dot(origin, normal)
