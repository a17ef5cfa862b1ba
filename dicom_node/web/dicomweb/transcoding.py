"""Transcoding: an instance in another transfer syntax, whole in memory, a few at a time."""

import threading
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from dicom_node.archive.contents import Content
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.negotiation import COMPRESSIBLE, PLAIN_PIXELS
from dicom_node.web.dicomweb.reading import DEFLATED, Readings, inflated

#: A large instance needs its size in memory several times.
_AT_ONCE = 2

#: Larger ones are given as they are stored, or not at all.
MOST_BYTES = 1 << 30


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
        if path.stat().st_size > MOST_BYTES:
            raise CannotTranscode("the instance is too large to be transcoded; ask for transfer-syntax=*")
        with self._turns:
            try:
                ds = dcmread(path) if not self._is_deflated(content) else self._inflated(content)
                _recode(ds, UID(transfer_syntax_uid))
                buffer = BytesIO()
                ds.save_as(buffer, enforce_file_format=True)
            except (InvalidDicomError, *BROKEN_BYTES, RuntimeError) as error:
                raise CannotTranscode("the instance cannot be had in this transfer syntax") from error
        return buffer.getvalue()

    def _is_deflated(self, content: Content) -> bool:
        with self._readings.opened(content) as opened:
            return opened.transfer_syntax_uid in DEFLATED

    def _inflated(self, content: Content) -> Dataset:
        """Within its bound: pydicom by itself knows none."""
        path = self._readings.path_of(content)
        with path.open("rb") as file:
            from dicom_node.archive.file_meta import open_data_set

            _, data_set = open_data_set(path)
            with data_set:
                head = file.read(data_set.tell())
                body = inflated(data_set).read()
        # The head still says that it is deflated.
        meta = dcmread(BytesIO(head), stop_before_pixels=True).file_meta
        plain = dcmread(BytesIO(body), force=True)
        plain.file_meta = meta
        plain.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
        return plain


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
    if stored == "1.2.840.10008.1.2.2":
        _swap_pixels(ds)
    ds.file_meta.TransferSyntaxUID = wanted


def _swap_pixels(ds: Dataset) -> None:
    """Big Endian words to Little Endian ones; pydicom swaps every other element when it writes."""
    if "PixelData" in ds and int(ds.get("BitsAllocated", 8)) > 8:
        data = bytearray(ds.PixelData)
        width = int(ds.BitsAllocated) // 8
        swapped = bytearray(len(data))
        for place in range(width):
            swapped[place::width] = data[width - 1 - place :: width]
        ds.PixelData = bytes(swapped)
