"""Transcoding: an instance in another transfer syntax, whole in memory, a few at a time."""

import threading
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from dicom_node.archive.contents import Content
from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.codestream import pixels_of
from dicom_node.web.dicomweb.negotiation import COMPRESSIBLE, PLAIN_PIXELS
from dicom_node.web.dicomweb.pixel_place import PixelPlace
from dicom_node.web.dicomweb.reading import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    MOST_INFLATED_BYTES,
    Readings,
    inflated,
)

#: A large instance needs its size in memory several times.
_AT_ONCE = 2

#: Larger ones, by their file or by their pixels, are given as they are stored, or not at all.
MOST_BYTES = 256 << 20

#: A data set, what is made of it, and the file that is written stand in memory at once.
_TIMES = 3

#: Bytes of a word of these VRs (PS3.5 Section 7.3).
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}

_PIXEL_DATA = 0x7FE00010


class CannotTranscode(UnreadableInstance):
    """No decoder or encoder for it, or pixels that are damaged."""


class Transcoder:
    """Turns instances into another transfer syntax."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def transcoded(self, content: Content, transfer_syntax_uid: str) -> bytes:
        """A whole DICOM file; CannotTranscode where that cannot be done."""
        path = self._readings.path_of(content)
        place = self._readings.pixel_place(content)
        size = max(path.stat().st_size, place.frame_bits // 8 * place.frames)
        is_deflated = place.transfer_syntax_uid in DEFLATED
        if is_deflated:
            size = max(size, MOST_INFLATED_BYTES)
        if size > MOST_BYTES:
            raise CannotTranscode("the instance is too large to be transcoded")
        if place.length is None and place.start >= 0:
            self._check(path, place)
        with self._turns, self._readings.memory.taken(_TIMES * size):
            try:
                ds = self._inflated(content) if is_deflated else dcmread(path)
                if ds.file_meta.TransferSyntaxUID == BIG_ENDIAN:
                    ds = _little_endian(ds)
                _recode(ds, UID(transfer_syntax_uid))
                buffer = BytesIO()
                ds.save_as(buffer, enforce_file_format=True)
            except (InvalidDicomError, *BROKEN_BYTES, RuntimeError, MemoryError) as error:
                raise CannotTranscode("the instance cannot be had in this transfer syntax") from error
        return buffer.getvalue()

    def _check(self, path: Path, place: PixelPlace) -> None:
        """CannotTranscode where a frame is larger than the header says: a few bytes may decode to gigabytes."""
        try:
            with path.open("rb") as file:
                file.seek(place.start)
                sizes = [pixels_of(frame) for frame in generate_frames(file, number_of_frames=place.frames)]
        except (*BROKEN_BYTES, RuntimeError) as error:
            raise CannotTranscode("the frames of the instance cannot be told apart") from error
        if max(sizes, default=0) > place.rows * place.columns:
            raise CannotTranscode("a frame of the instance is larger than its header says")

    def _inflated(self, content: Content) -> Dataset:
        """Within its bound: pydicom by itself knows none."""
        path = self._readings.path_of(content)
        with open_data_set(path)[1] as data_set:
            body = inflated(data_set).read()
        ds = dcmread(BytesIO(body), force=True)
        ds.file_meta = FileMetaDataset(read_file_meta_info(path))
        ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        return ds


def _recode(ds: Dataset, wanted: UID) -> None:
    stored = ds.file_meta.TransferSyntaxUID
    if stored not in PLAIN_PIXELS and "PixelData" in ds:
        # Colours stay what the header says of them.
        ds.decompress(as_rgb=False)
    if wanted in COMPRESSIBLE:
        if "PixelData" in ds:
            ds.compress(wanted, generate_instance_uid=False)
        else:
            ds.file_meta.TransferSyntaxUID = wanted
        return
    ds.file_meta.TransferSyntaxUID = wanted


def _little_endian(ds: Dataset) -> Dataset:
    """The same data set, to be written in Little Endian: pydicom swaps numbers, and words of bytes only we do."""
    for element in ds.iterall():
        width = _WORDS.get(element.VR, 1)
        if element.tag == _PIXEL_DATA:
            width = max(2 if element.VR == "OW" else 1, int(ds.get("BitsAllocated", 8)) // 8)
        if width > 1 and isinstance(element.value, bytes):
            element.value = _swapped(element.value, width)
    turned = Dataset({element.tag: element for element in ds})
    turned.file_meta = ds.file_meta
    turned.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    return turned


def _swapped(data: bytes, width: int) -> bytes:
    whole = len(data) // width * width
    found = bytearray(whole)
    for place in range(width):
        found[place::width] = data[width - 1 - place : whole : width]
    return bytes(found)
