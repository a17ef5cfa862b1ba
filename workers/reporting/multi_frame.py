"""Multi-frame: slices that are frames of one instance, as that instance again with no more than their places."""

from collections.abc import Sequence

from pydicom import Dataset

from workers.volume import Volume

#: What stands in functional groups there (PS3.3 Section C.7.6.16.2), and is the same for all slices of a volume.
_SHARED = (
    ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
    ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
)
_OF_A_FRAME = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def multi_frame_image(slices: Sequence[Dataset], volume: Volume) -> Dataset:
    """The instance whose frames a volume's slices by k are, frame by frame, without pixel data."""
    first = slices[0]
    image = Dataset()
    image.update({element.tag: element for element in first if element.keyword not in _OF_A_FRAME})
    image.NumberOfFrames = len(slices)
    shared = Dataset()
    for name, keywords in _SHARED:
        setattr(shared, name, [_group(first, keywords)])
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [_position(slices[k]) for k in by_frame(volume)]
    return image


def by_frame(volume: Volume) -> list[int]:
    """The slices' k in the order that the source instances have them: of their frames, or of the slices."""
    return sorted(range(len(volume.headers)), key=lambda k: volume.frame_number(k) or k)


def _position(header: Dataset) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [_group(header, ("ImagePositionPatient",))]
    return groups


def _group(header: Dataset, keywords: Sequence[str]) -> Dataset:
    group = Dataset()
    group.update({header[keyword].tag: header[keyword] for keyword in keywords if keyword in header})
    return group
