"""Extent: rules on what the objects of a report say of a finding's size and shape, against its segment's own voxels.

Nothing of the algorithm's own measuring is used here. A surface between voxels may lie beside their edges, and one that
was smoothed has lost what is thin, so that sizes are bound from both sides and not computed again.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicom_node.core import codes
from dicom_node.core.codes import Code
from workers.morphology import filled
from workers.reporting.content_tree import is_named, text_of, walk
from workers.reporting.segments import Plane, Segment, segments_of
from workers.reporting.written_report import WrittenReport

Mask = NDArray[np.bool_]

TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
METHOD = Code("370129005", "SCT", "Measurement Method")
DERIVATION = Code("121401", "DCM", "Derivation")

#: How far beside its voxels' edges, in pixels, the end of an axis may lie; and an outline, which is the mask's own.
_AXIS_PIXELS, _OUTLINE_PIXELS = 2, 1
#: So much of its largest part's area the axes' line surrounds at least, and of its volume's round diameter a largest
#: diameter has, which smoothing may divide.
_SURROUNDED, _DIVISIBLE = 0.75, 0.4
#: What rounding may change of a number of tenths and of a whole one.
_TENTH, _ONE = 0.11, 0.75
#: Mean and deviation are those of the very voxels.
_HU = 1.0
#: Points of an axis; an outline is closed, and has more.
_ENDS = 2
_EIGHT = np.ones((3, 3), dtype=bool)
#: What says by which method it was measured.
_SIZES = (
    *(codes.LONG_AXIS, codes.SHORT_AXIS, codes.DIAMETER),
    *(codes.MAXIMUM_3D_DIAMETER, codes.SOLID_DIAMETER, codes.VOLUME),
)
_UNREADABLE = "the voxels of its segmentation cannot be read"
_ELSEWHERE = "it is drawn on a slice where its segment has no voxel"


def extent_faults(written: WrittenReport) -> Iterator[str]:
    """What the report draws and measures of each finding is its segment's."""
    if written.segments is None:
        yield _UNREADABLE
        return
    for group in (item for item in walk(written.structured_report) if is_named(item, MEASUREMENT_GROUP)):
        uid = text_of(group, TRACKING_UID)
        # That a group tracks no segment is said by another rule.
        if (segment := written.segments.get(uid)) is not None:
            numbers = {_key(item): item for item in group.ContentSequence if item.get("ValueType") == "NUM"}
            found = [*_drawn(group, segment), *_measured(numbers, segment), *_untold(numbers.values())]
            yield from (f"{uid}: {fault}" for fault in found)


def own_extent_faults(written: WrittenReport) -> Iterator[str]:
    """The same of an object that is judged by itself: outlines of a presentation state, voxels of a label map."""
    judged = written.structured_report
    if written.segments is None:
        yield _UNREADABLE
        return
    for annotation in judged.get("GraphicAnnotationSequence", []):
        for graphic in annotation.get("GraphicObjectSequence", []):
            segment = written.segments.get(str(graphic.get("TrackingUID")))
            if segment is not None:
                image = annotation.ReferencedImageSequence[0]
                found = _beside(_points(graphic), _plane_of(image, segment), _OUTLINE_PIXELS, "an outline")
                yield from (f"{graphic.TrackingUID}: {fault}" for fault in found)
    if "SegmentSequence" in judged:
        for uid, own in segments_of(judged, written.evidence.volume).items():
            if (segment := written.segments.get(uid)) is not None and not own.is_where(segment):
                yield f"{uid}: its {own.voxels} voxels are not those of the segmentation, which has {segment.voxels}"


def _key(item: Dataset) -> tuple[str, str]:
    """Name and derivation of a number."""
    name = item.ConceptNameCodeSequence[0].CodeValue
    return str(name), _said(item, DERIVATION)


def _said(item: Dataset, name: Code) -> str:
    """The code value of an item's child of some name; empty without one."""
    children = (child for child in item.get("ContentSequence", []) if is_named(child, name))
    return next((str(child.ConceptCodeSequence[0].CodeValue) for child in children), "")


def _value(item: Dataset | None) -> float | None:
    return None if item is None else float(item.MeasuredValueSequence[0].NumericValue)


# Of places.


def _drawn(group: Dataset, segment: Segment) -> Iterator[str]:
    """What is wrong with the outlines and axes of a group: one slice's, or in a segment's place those of all."""
    outlines: dict[int, list[NDArray[np.float64]]] = {}
    is_whole = _template_of(group) == "1411"
    for item in (item for item in walk(group) if "GraphicData" in item):
        k, points = _slice_of(item.ContentSequence[0].ReferencedSOPSequence[0], segment), _points(item)
        if k is None:
            yield _ELSEWHERE
        elif len(points) == _ENDS:
            yield from _beside(points, segment.planes[k], _AXIS_PIXELS, "an axis")
        else:
            yield from _beside(points, segment.planes[k], _OUTLINE_PIXELS, "an outline")
            outlines.setdefault(k, []).append(points)
        if k is not None and not is_whole and segment.areas[k] < max(segment.areas.values()):
            yield "it is drawn on a slice that is not that of its largest extent"
    if is_whole and outlines and outlines.keys() != segment.planes.keys():
        yield f"it is drawn on {len(outlines)} slices, and its segment lies on {len(segment.planes)}"
    for k, lines in outlines.items():
        yield from _left_out(lines, segment.planes[k], is_whole=is_whole)


def _template_of(group: Dataset) -> str:
    """The template that a group follows."""
    return str(group.ContentTemplateSequence[0].TemplateIdentifier) if "ContentTemplateSequence" in group else ""


def _points(item: Dataset) -> NDArray[np.float64]:
    """Column and row, (0.5, 0.5) the centre of the first pixel."""
    return np.reshape([float(value) for value in item.GraphicData], (-1, 2))


def _slice_of(image: Dataset, segment: Segment) -> int | None:
    """The k that an item refers to, where the segment has voxels there."""
    frame = image.get("ReferencedFrameNumber")
    place = str(image.ReferencedSOPInstanceUID), None if frame is None else int(frame)
    uids, volume = segment.volume.sop_instance_uids, segment.volume
    return next((k for k in segment.planes if (uids[k], volume.frame_number(k)) == place), None)


def _plane_of(image: Dataset, segment: Segment) -> Plane | None:
    k = _slice_of(image, segment)
    return None if k is None else segment.planes[k]


def _beside(points: NDArray[np.float64], plane: Plane | None, pixels: int, what: str) -> Iterator[str]:
    """Whether a point lies farther beside the segment's pixels than it may."""
    if plane is None:
        yield _ELSEWHERE
        return
    near = ndimage.binary_dilation(filled(plane.within(pixels)), _EIGHT, iterations=pixels)
    # On an edge a point belongs to both pixels.
    own = points[:, ::-1] - (plane.top - pixels, plane.left - pixels)
    pixel = np.clip(np.floor(own - 1e-6), 0, None).astype(int)
    is_inside = ((own >= 0) & (own <= near.shape)).all(axis=1)
    pixel = np.minimum(pixel, np.array(near.shape) - 1)
    if not (is_inside & near[tuple(pixel.T)]).all():
        yield f"{what} lies more than {pixels} pixel(s) beside its segment"


def _left_out(lines: Iterable[NDArray[np.float64]], plane: Plane, *, is_whole: bool) -> Iterator[str]:
    """Whether outlines leave out pixels of the parts that they surround, or where they are whole of any part."""
    padded = plane.within(1)
    inside = np.zeros(padded.shape, dtype=bool)
    for line in lines:
        inside |= surrounded(line[:, ::-1] - 0.5 - (plane.top - 1, plane.left - 1), padded.shape)
    parts, _ = ndimage.label(padded)
    own = padded if is_whole else np.isin(parts, np.unique(parts[inside & padded])) & padded
    inner = ndimage.binary_erosion(own, _EIGHT)
    if not (inside & padded).any() and plane.mask.sum() > 1:
        yield "an outline surrounds none of its segment"
    elif (inner & ~inside).any():
        yield "an outline leaves out a part of its segment"


def surrounded(line: NDArray[np.float64], shape: tuple[int, ...]) -> Mask:
    """The pixels of a plane whose centres a line of (row, column) points surrounds.

    Along its row each has passed the line an odd number of times: that takes one look at each point and each pixel.
    """
    (y, x), (to_y, to_x) = line.T, np.roll(line, -1, axis=0).T
    first, end = (np.clip(np.ceil(at), 0, shape[0]).astype(int) for at in (np.minimum(y, to_y), np.maximum(y, to_y)))
    crossed = end - first
    edge = np.repeat(np.arange(len(line)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed - first, crossed)
    place = x[edge] + (row - y[edge]) / (to_y - y)[edge] * (to_x - x)[edge]
    passed = np.zeros((shape[0], shape[1] + 1), dtype=np.intp)
    np.add.at(passed, (row, np.clip(np.ceil(place), 0, shape[1]).astype(int)), 1)
    return np.asarray(np.cumsum(passed, axis=1)[:, :-1] % 2 == 1)


# Of sizes.


def _untold(numbers: Iterable[Dataset]) -> Iterator[str]:
    """Whether a size keeps back how it was measured; what is drawn beside it tells it, too."""
    for item in numbers:
        is_drawn = any("GraphicData" in child for child in item.get("ContentSequence", []))
        if any(is_named(item, name) for name in _SIZES) and not is_drawn and not _said(item, METHOD):
            yield f"it does not say by which method {item.ConceptNameCodeSequence[0].CodeMeaning.lower()} was measured"


def _measured(numbers: Mapping[tuple[str, str], Dataset], segment: Segment) -> Iterator[str]:
    """What is wrong with the numbers of a group."""
    long, short, largest = (
        _value(numbers.get((name.value, ""))) for name in (codes.LONG_AXIS, codes.SHORT_AXIS, codes.MAXIMUM_3D_DIAMETER)
    )
    mean, solid = (
        _value(numbers.get((name.value, codes.MEAN.value))) for name in (codes.DIAMETER, codes.SOLID_DIAMETER)
    )
    if long is not None and short is not None:
        yield from _axes(long, short, segment)
        if mean is not None and not abs(mean - (long + short) / 2) <= _TENTH:
            yield f"a mean diameter of {mean:g} mm is not the mean of {long:g} and {short:g} mm"
        if solid is not None and not 0 < solid <= long + _TENTH:
            yield f"a solid part of {solid:g} mm does not fit into {long:g} mm"
    if largest is not None:
        yield from _largest(largest, long or 0.0, segment)
    yield from _volume(numbers.get((codes.VOLUME.value, "")), segment)
    for derivation, expected in zip((codes.MEAN, codes.STANDARD_DEVIATION), segment.attenuation, strict=True):
        said = _value(numbers.get((codes.ATTENUATION_COEFFICIENT.value, derivation.value)))
        if said is not None and not abs(said - expected) <= _HU:
            what = f"{derivation.meaning.lower()} of attenuation of {said:g} HU"
            yield f"a {what} is not that of its voxels, {expected:.1f} HU"


def _axes(long: float, short: float, segment: Segment) -> Iterator[str]:
    """Long and short axis against the slice of largest area, of several alike the one in the middle."""
    _, dy, dx = segment.volume.spacing_mm
    slack = 2 * max(dy, dx)
    most = max(segment.extent_mm(k) for k in segment.middle_ones) + slack
    area = min(_largest_part(segment.planes[k]) for k in segment.middle_ones) * dy * dx
    # Of shapes of one area a disc has the least diameter.
    least = 2 * math.sqrt(_SURROUNDED * area / math.pi) - slack
    if not least <= long <= most:
        yield f"a long axis of {long:g} mm does not fit its segment, of {max(0.0, least):.1f} to {most:.1f} mm"
    if not 0 < short <= long + _TENTH:
        yield f"a short axis of {short:g} mm is not the shorter one beside {long:g} mm"
    # Each place along the long axis is at most as wide as the short one.
    if not (short + slack) * (long + slack) >= _SURROUNDED * area:
        yield f"axes of {long:g} and {short:g} mm do not span the {area:.0f} mm2 of its segment's largest part"


def _largest_part(plane: Plane) -> int:
    """Pixels of the largest part on a slice."""
    parts, _ = ndimage.label(plane.mask)
    return int(np.bincount(parts.ravel())[1:].max())


def _largest(largest: float, long: float, segment: Segment) -> Iterator[str]:
    dz, dy, dx = segment.volume.spacing_mm
    most = segment.largest_extent_mm + 2 * max(dy, dx)
    # Of bodies of one volume a ball has the least diameter.
    least = _DIVISIBLE * (6 * segment.voxels * dz * dy * dx / math.pi) ** (1 / 3) - 2 * max(dy, dx)
    if not max(least, long - _TENTH) <= largest <= most:
        found = f"a largest diameter of {largest:g} mm does not fit its segment"
        yield f"{found}, of {max(least, long, 0.0):.1f} to {most:.1f} mm"


def _volume(item: Dataset | None, segment: Segment) -> Iterator[str]:
    """That of the voxels or, where it is told by how much of each is filled, within half of those at the border."""
    if (said := _value(item)) is None or item is None:
        return
    voxel = float(np.prod(segment.volume.spacing_mm))
    is_counted = _said(item, METHOD) != codes.PARTIAL_VOLUME.value
    allowed = _ONE if is_counted else _ONE + segment.border_voxels * voxel / 2
    if not abs(said - segment.voxels * voxel) <= allowed:
        yield f"a volume of {said:g} mm3 is not that of its segment, {segment.voxels * voxel:.1f} mm3"
