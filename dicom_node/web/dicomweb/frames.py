"""Frames: single frames of an instance's pixels, as they are stored or without compression."""

from pathlib import Path

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array

from dicom_node.archive.contents import Content
from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.codestream import pixels_of
from dicom_node.web.dicomweb.negotiation import NATIVE
from dicom_node.web.dicomweb.pixel_place import PixelPlace
from dicom_node.web.dicomweb.reading import BIG_ENDIAN, DEFLATED, Readings, inflated
from dicom_node.web.dicomweb.transcoding import CannotTranscode

#: The decoder's array, ours and the answer.
_TIMES = 3

#: Of a frame: a large mammogram has 30 million.
MOST_PIXELS = 1 << 25


class NoSuchFrame(Exception):
    """A frame number that the instance does not have."""


def parse_frames(text: str) -> list[int]:
    """The frame numbers of an address, from 1 on; NoSuchFrame where it names none."""
    parts = text.split(",")
    if len(parts) > 10_000 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise NoSuchFrame
    return [int(part) for part in parts]


class Frames:
    """Reads frames from the disk, one at a time."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def check(self, place: PixelPlace, numbers: list[int]) -> None:
        """NoSuchFrame unless the instance has all of these."""
        if place.start < 0 or not all(1 <= number <= place.frames for number in numbers):
            raise NoSuchFrame

    def extent(self, place: PixelPlace, number: int) -> tuple[int, int] | None:
        """Where in its file a frame lies as it is given, by its first byte and their number; None where it does not."""
        if place.length is None or place.transfer_syntax_uid not in NATIVE or place.frame_bits % 8:
            return None
        size = place.frame_bits // 8
        return (place.start + (number - 1) * size, size) if number * size <= place.length else None

    def stored(self, content: Content, place: PixelPlace, number: int) -> bytes:
        """A frame as it is stored, of plain pixels in Little Endian; UnreadableInstance where the file is damaged."""
        path = self._readings.path_of(content)
        try:
            if place.length is None:
                return self._encapsulated(path, place, number)
            return self._plain(content, path, place, number)
        except BROKEN_BYTES as error:
            raise UnreadableInstance("the frame cannot be read as it lies on the disk") from error

    def decoded(self, content: Content, place: PixelPlace, number: int) -> bytes:
        """A frame without compression; CannotTranscode where there is no decoder, or the frame is damaged."""
        if place.length is not None:
            return self.stored(content, place, number)
        path = self._readings.path_of(content)
        self.check_size(content, place, number)
        with self._readings.memory.taken(_TIMES * place.frame_bits // 8):
            try:
                frame = pixel_array(path, index=number - 1, raw=True)
            except (*BROKEN_BYTES, RuntimeError, MemoryError) as error:
                raise CannotTranscode("the frame cannot be decoded") from error
            return np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("<")).tobytes()

    def check_size(self, content: Content, place: PixelPlace, number: int) -> None:
        """CannotTranscode where a frame is too large to be decoded, or larger than its header says."""
        pixels = place.rows * place.columns
        if pixels > MOST_PIXELS:
            raise CannotTranscode(f"the frame has more than {MOST_PIXELS} pixels, too many to be decoded here")
        if place.length is None and place.start >= 0 and pixels_of(self.stored(content, place, number)) > pixels:
            raise CannotTranscode("the frame is larger than its header says")

    def _encapsulated(self, path: Path, place: PixelPlace, number: int) -> bytes:
        with path.open("rb") as file:
            file.seek(place.start)
            return get_frame(file, number - 1, number_of_frames=place.frames)

    def _plain(self, content: Content, path: Path, place: PixelPlace, number: int) -> bytes:
        first_bit = (number - 1) * place.frame_bits
        first, last = first_bit // 8, (first_bit + place.frame_bits + 7) // 8
        if place.length is not None and last > place.length:
            raise UnreadableInstance("the instance has fewer pixels than its header says")
        if place.transfer_syntax_uid == BIG_ENDIAN and place.vr == "OW" and place.bits_allocated <= 8:
            data = self._swapped(path, place, first, last)
        else:
            data = self._bytes(path, place, first, last - first)
        if len(data) < last - first:
            raise UnreadableInstance("the instance has fewer pixels than its header says")
        if place.bits_allocated == 1:
            return _aligned(data, first_bit % 8, place.frame_bits)
        if place.transfer_syntax_uid == BIG_ENDIAN and place.bits_allocated > 8:
            return np.frombuffer(data, dtype=f">u{place.bits_allocated // 8}").byteswap().tobytes()
        return data

    def _swapped(self, path: Path, place: PixelPlace, first: int, last: int) -> bytes:
        """Of words of two bytes, whatever a pixel has (PS3.5 Section 7.3)."""
        even = first // 2 * 2
        words = self._bytes(path, place, even, (last + 1) // 2 * 2 - even)
        whole = np.frombuffer(words[: len(words) // 2 * 2], ">u2").byteswap().tobytes()
        return whole[first - even : last - even]

    def _bytes(self, path: Path, place: PixelPlace, start: int, length: int) -> bytes:
        with path.open("rb") as file:
            if place.transfer_syntax_uid in DEFLATED:
                with open_data_set(path)[1] as deflated:
                    plain = inflated(deflated)
                plain.seek(place.start + start)
                return plain.read(length)
            file.seek(place.start + start)
            return file.read(length)


def _aligned(data: bytes, offset: int, bits: int) -> bytes:
    """A frame of single bits from the first byte on; frames follow each other without a gap (PS3.5 Section 8.1.1)."""
    if not offset and bits % 8 == 0:
        return data
    return np.packbits(
        np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[offset : offset + bits], bitorder="little"
    ).tobytes()
