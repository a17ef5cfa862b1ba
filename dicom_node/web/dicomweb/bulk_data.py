"""Bulk data: one long value of an instance, from where it lies in its file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from dicom_node.archive.contents import Content
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.web.dicomweb.multipart import read_file
from dicom_node.web.dicomweb.pixel_place import PIXELS
from dicom_node.web.dicomweb.reading import BULK_VRS, DEFLATED, Readings

#: Steps of a path; two for each level of nesting.
_LONGEST = 40


class NoSuchValue(Exception):
    """The instance has no value there."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value: in memory, or in a file."""

    transfer_syntax_uid: str
    data: bytes = b""
    path: Path | None = None
    start: int = 0
    length: int = 0

    def read(self) -> Iterator[bytes]:
        """Its bytes, a piece at a time."""
        if self.path is None:
            yield self.data
        else:
            yield from read_file(self.path, self.start, self.length)


class BulkData:
    """Finds values by their paths: eight hex digits, then item number and eight hex digits for each level below."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def find(self, content: Content, path: str) -> Value:
        """The value; NoSuchValue where there is none, UnreadableInstance where the file is damaged."""
        steps = path.split("/")
        if len(steps) > _LONGEST or not all(map(_is_step, steps)):
            raise NoSuchValue
        if len(steps) == 1 and int(steps[0], 16) in PIXELS:
            return self._pixels(content, int(steps[0], 16))
        with self._readings.opened(content) as opened:
            try:
                raw = _walk(opened.ds, steps)
            except BROKEN_BYTES:
                raise NoSuchValue from None
            syntax, value = opened.transfer_syntax_uid, raw.value
            is_on_disk = isinstance(raw, RawDataElement) and value is None and raw.length > 0
            if is_on_disk and syntax in DEFLATED:
                opened.file.seek(raw.value_tell)
                value, is_on_disk = opened.file.read(raw.length), False
        if is_on_disk and _vr(steps[-1], raw) in BULK_VRS:
            file = self._readings.path_of(content)
            return Value(transfer_syntax_uid=syntax, path=file, start=raw.value_tell, length=raw.length)
        if not isinstance(value, bytes) or not value or _vr(steps[-1], raw) not in BULK_VRS:
            raise NoSuchValue
        return Value(transfer_syntax_uid=syntax, data=value)

    def _pixels(self, content: Content, tag: int) -> Value:
        place = self._readings.pixel_place(content)
        if place.tag != tag or place.start < 0:
            raise NoSuchValue
        path, syntax = self._readings.path_of(content), place.transfer_syntax_uid
        if place.length is not None and syntax not in DEFLATED:
            return Value(transfer_syntax_uid=syntax, path=path, start=place.start, length=place.length)
        if place.length is None:
            # The frames behind each other: the items of the encapsulation are no part of the value.
            with path.open("rb") as file:
                file.seek(place.start)
                data = b"".join(generate_frames(file, number_of_frames=place.frames))
            return Value(transfer_syntax_uid=syntax, data=data)
        with self._readings.opened(content) as opened:
            opened.file.seek(place.start)
            return Value(transfer_syntax_uid=syntax, data=opened.file.read(place.length))


def _is_step(step: str) -> bool:
    return 0 < len(step) <= 8 and all(sign in "0123456789ABCDEFabcdef" for sign in step)


def _vr(step: str, raw: RawDataElement) -> str:
    tag = int(step, 16)
    vr = raw.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
    return vr.split(" or ")[0]


def _walk(ds: Dataset, steps: list[str]) -> RawDataElement:
    for tag, number in zip(steps[:-1:2], steps[1:-1:2], strict=True):
        if not number.isdigit() or int(number) < 1:
            raise NoSuchValue
        ds = ds[int(tag, 16)].value[int(number) - 1]
    if int(steps[-1], 16) not in ds:
        raise NoSuchValue
    found = ds.get_item(int(steps[-1], 16), keep_deferred=True)
    if found is None:
        raise NoSuchValue
    return found  # type: ignore[return-value]  # an element that was converted has a value, too
