"""Places: rules on where the objects of a report say that they lie, and which slices their items refer to."""

from collections.abc import Iterable, Iterator

from pydicom import Dataset

from workers.reporting.written_report import WrittenReport
from workers.volume import Volume


def geometry_faults(written: WrittenReport) -> Iterator[str]:
    """Every frame of the segmentation lies exactly on the source image that it was drawn on."""
    if written.segmentation is not None:
        yield from _misplaced(written.segmentation, written.evidence.volume)


def own_geometry_faults(written: WrittenReport) -> Iterator[str]:
    """The same of an object that is judged by itself, where it is a segmentation: a label map, or one of the lungs."""
    if "SegmentSequence" in written.structured_report:
        yield from _misplaced(written.structured_report, written.evidence.volume)


def image_faults(written: WrittenReport) -> Iterator[str]:
    """An item that refers to the source names one slice that was read.

    Of a multi-frame image that is one frame: without a number all of its frames are meant (PS3.3 Table 10-3).
    """
    places, sources = _places(written.evidence.volume), set(written.evidence.volume.sop_instance_uids)
    items = (item for items in written.items.values() for item in items)
    for reference in (reference for item in items for reference in item.get("ReferencedSOPSequence", [])):
        uid, frames = str(reference.ReferencedSOPInstanceUID), _frames(reference)
        if uid in sources and (len(frames) != 1 or (uid, frames[0]) not in places):
            yield f"an item refers to the frames {list(frames)} of {uid}, which are not one slice that was read"


def _misplaced(segmentation: Dataset, volume: Volume) -> Iterator[str]:
    if segmentation.FrameOfReferenceUID != volume.frame_of_reference_uid:
        yield "the segmentation's Frame of Reference UID is not that of the source"
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    if shared.PlaneOrientationSequence[0].ImageOrientationPatient != volume.headers[0].ImageOrientationPatient:
        yield "the segmentation's Image Orientation (Patient) is not that of the source"
    if shared.PixelMeasuresSequence[0].PixelSpacing != volume.headers[0].PixelSpacing:
        yield "the segmentation's Pixel Spacing is not that of the source"
    places = _places(volume)
    for number, frame in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = places.get((str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")))
        if k is None or frame.PlanePositionSequence[0].ImagePositionPatient != volume.headers[k].ImagePositionPatient:
            yield f"frame {number} of the segmentation does not lie on its source image"


def _places(volume: Volume) -> dict[tuple[str, int | None], int]:
    """The k of every slice, by its instance and its number among that one's frames."""
    return {(str(header.SOPInstanceUID), volume.frame_number(k)): k for k, header in enumerate(volume.headers)}


def _frames(reference: Dataset) -> tuple[int | None, ...]:
    """The frames that a reference names, None where it names none."""
    element = reference.get("ReferencedFrameNumber")
    if element is None:
        return (None,)
    return tuple(int(number) for number in (element if isinstance(element, Iterable) else [element]))
