"""Frame places: where the frames of an Enhanced CT instance lie, by its functional groups (PS3.3 Section C.7.6.16).

They stand behind all that a header is otherwise asked for, and only of these classes does anybody ask.
"""

import io
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicom_node.core.study import FRAME_POSITIONS

_SHARED, _PER_FRAME, _PIXELS = 0x52009229, 0x52009230, 0x7FE00000

#: Thousands of frames need no more; what does is no CT.
MAXIMUM_BYTES = 16 << 20

#: Functional groups, and what all frames of a volume say alike, with the number of values.
_ALIKE = MappingProxyType(
    {
        "ImageOrientationPatient": ("PlaneOrientationSequence", 6),
        "PixelSpacing": ("PixelMeasuresSequence", 2),
        "SliceThickness": ("PixelMeasuresSequence", 1),
        "SpacingBetweenSlices": ("PixelMeasuresSequence", 1),
    }
)


def frame_places(data: bytes, *, is_implicit: bool, is_little_endian: bool) -> dict[str, Any]:
    """What a single-frame image would say of its plane, where all frames say it alike, and every frame's position.

    `data` begins with the data set, without its pixels or not. What is not there, or not whole, is left out; bytes that
    make no sense raise what pydicom raises.
    """

    def is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) >= _PIXELS

    dataset = read_dataset(
        io.BytesIO(data), is_implicit, is_little_endian, stop_when=is_past, specific_tags=[_SHARED, _PER_FRAME]
    )
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    frames = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    found: dict[str, Any] = {}
    for keyword, (group, count) in _ALIKE.items():
        said = {_numbers(frame.get(group) or shared.get(group), keyword, count) for frame in frames}
        if len(said) == 1 and (value := said.pop()) is not None:
            found[keyword] = value if count > 1 else value[0]
    positions = [_numbers(frame.get("PlanePositionSequence"), "ImagePositionPatient", 3) for frame in frames]
    if frames and None not in positions:
        found[FRAME_POSITIONS] = tuple(number for place in positions if place is not None for number in place)
    return found


def _numbers(group: Iterable[Dataset] | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of an attribute in the one item of a functional group; None where it has not so many."""
    value = next(iter(group or ()), Dataset()).get(keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(part) for part in (value if count > 1 else [value]))
    return numbers if len(numbers) == count else None
