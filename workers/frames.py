"""Frames: an Enhanced CT instance, frame by frame, each with the header that a CT slice of its own would have.

What a single-frame image says at its top level stands in functional groups here, once for all frames or once for each
(PS3.3 Section C.7.6.16).
"""

from collections.abc import Iterator

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from dicom_node.core.study import MULTI_FRAME_CT

#: Functional groups, and what of each a slice says of itself (PS3.3 Section C.7.6.16.2).
_GROUPS = (
    ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")),
    ("PlanePositionSequence", ("ImagePositionPatient",)),
    ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
    ("PixelValueTransformationSequence", ("RescaleIntercept", "RescaleSlope", "RescaleType")),
)
#: What speaks of many frames, or holds them.
_OF_MANY_FRAMES = frozenset(
    int(tag_for_keyword(keyword) or 0)
    for keyword in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "DimensionOrganizationSequence",
        "DimensionIndexSequence",
        "PixelData",
    )
)


def is_multi_frame(ds: Dataset) -> bool:
    """Whether the slices of an instance are frames of it, be it a single one."""
    return ds.get("SOPClassUID") in MULTI_FRAME_CT


def frame_headers(ds: Dataset) -> Iterator[Dataset]:
    """The header of each frame by frame number, without pixel data.

    A functional group that a frame lacks leaves its attributes out; whoever needs them says so.
    """
    elements = {tag: ds.get_item(tag) for tag in ds.keys() if tag not in _OF_MANY_FRAMES}  # noqa: SIM118 - a data set's own iteration converts every value
    shared = next(iter(ds.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    for groups in ds.get("PerFrameFunctionalGroupsSequence") or ():
        header = Dataset(dict(elements))
        implicit, little = ds.original_encoding
        header.set_original_encoding(implicit, little, ds.original_character_set)
        for name, keywords in _GROUPS:
            group = next(iter(groups.get(name) or shared.get(name) or ()), Dataset())
            header.update({group[keyword].tag: group[keyword] for keyword in keywords if keyword in group})
        yield header
