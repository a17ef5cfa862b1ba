"""Reading: an instance's file as far as an answer needs it; its pixels stay on the disk.

Deflated data sets are the exception: they are inflated in memory, up to a bound.
"""

import io
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicom_node.archive.contents import Content
from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.files import Archive
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.budget import Memory
from dicom_node.web.dicomweb.pixel_place import BITS, PIXELS, PixelPlace, scanned_place

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

#: Values that are longer are left on the disk while a header is read.
DEFERRED_BYTES = 64 << 10

#: VRs of values that may stay on the disk.
BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

#: Of a deflated data set.
MOST_INFLATED_BYTES = 256 << 20

#: Bytes that deflate makes one of, at most.
_MOST_DEFLATED = 1032

_UNDEFINED = 0xFFFFFFFF

#: Of a header; each frame of a large enhanced image has some ten items and some ten elements in them.
_MOST_READS = 500_000

#: Items within one value, and the tag that each begins with: a value of eight bytes an item takes minutes to read.
_MOST_ITEMS, _ITEM = 50_000, b"\xfe\xff\x00\xe0"

MISSING = "the file of the instance is missing; the node's administrator should see its log"
_TOO_MUCH = "the instance's header has too many items or elements to be looked into; it can be had as it is"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A file whose header was read."""

    ds: Dataset
    transfer_syntax_uid: str
    #: Behind the header: at its pixels, where it has any.
    file: BinaryIO
    #: Of the tag that the header stopped before; 0 where the data set ended.
    stopped_at: int
    vr: str
    length: int


class Readings:
    """Opens files of the archive, and remembers where the pixels of those last asked for lie."""

    #: Instances remembered: the slices of some series.
    MOST = 20_000

    def __init__(self, archive: Archive, memory: Memory | None = None) -> None:
        self._archive = archive
        self.memory = Memory() if memory is None else memory
        self._places: OrderedDict[str, PixelPlace] = OrderedDict()
        self._lock = threading.Lock()

    def path_of(self, content: Content) -> Path:
        """The file; UnreadableInstance where it is gone."""
        path = self.place_of(content)
        if not path.is_file():
            raise UnreadableInstance(MISSING)
        return path

    def place_of(self, content: Content) -> Path:
        """Where the file is, or was."""
        return self._archive.path_of(content.path)

    def name_of(self, content: Content) -> str:
        """Where the file is, or was, as text."""
        return self._archive.name_of(content.path)

    @contextmanager
    def opened(self, content: Content) -> Iterator[Opened]:
        """Read the header, and keep the file open behind it; UnreadableInstance where that cannot be done."""
        path = self.path_of(content)
        try:
            syntax, file = open_data_set(path)
            with file:
                if syntax not in DEFLATED:
                    yield _read(file, syntax)
                    return
                # The value and what is read of it.
                most = 2 * min(MOST_INFLATED_BYTES, path.stat().st_size * _MOST_DEFLATED)
                with self.memory.taken(most):
                    yield _read(inflated(file), syntax)
        except (InvalidDicomError, *BROKEN_BYTES) as error:
            if isinstance(error, FileNotFoundError) or not isinstance(error, OSError):
                raise UnreadableInstance("the instance cannot be read as it lies on the disk") from error
            raise

    def pixel_place(self, content: Content) -> PixelPlace:
        """Where its pixels lie; an instance never changes, so this is looked for once."""
        key = f"{content.sop_instance_uid} {content.tag}"
        with self._lock:
            if (known := self._places.get(key)) is not None:
                self._places.move_to_end(key)
                return known
        place = scanned_place(self.place_of(content))
        if place is None:
            with self.opened(content) as opened:
                place = _place(opened)
        with self._lock:
            self._places[key] = place
            while len(self._places) > self.MOST:
                self._places.popitem(last=False)
        return place


def inflated(file: BinaryIO) -> BinaryIO:
    """A deflated data set in memory; UnreadableInstance where it is too large for that."""
    # A raw deflate stream without a zlib header (PS3.5 Annex A.5).
    stream, found = zlib.decompressobj(wbits=-zlib.MAX_WBITS), io.BytesIO()
    while chunk := file.read(1 << 20):
        while chunk:
            found.write(stream.decompress(chunk, MOST_INFLATED_BYTES - found.tell() + 1))
            if found.tell() > MOST_INFLATED_BYTES:
                raise UnreadableInstance("the deflated instance is too large to be looked into; it can be had as it is")
            chunk = stream.unconsumed_tail
    found.seek(0)
    return found


def _read(file: BinaryIO, syntax: str) -> Opened:
    stopped: list[tuple[int, str, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if int(tag) not in PIXELS:
            return False
        stopped.append((int(tag), vr or "OW", length))
        return True

    implicit, little = syntax == IMPLICIT, syntax != BIG_ENDIAN
    ds = read_dataset(
        cast("BinaryIO", _FewReads(file)), implicit, little, stop_when=at_pixels, defer_size=DEFERRED_BYTES
    )
    _load_short(ds, file)
    tag, vr, length = stopped[0] if stopped else (0, "", 0)
    return Opened(ds=ds, transfer_syntax_uid=syntax, file=file, stopped_at=tag, vr=vr, length=length)


def _load_short(ds: Dataset, file: BinaryIO) -> None:
    """What was left on the disk and is no bulk value, such as the functional groups of many frames."""
    behind = file.tell()
    for tag in list(ds.keys()):
        raw = ds.get_item(tag, keep_deferred=True)
        if isinstance(raw, RawDataElement) and raw.value is None and 0 < raw.length < _UNDEFINED:
            vr = raw.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
            if vr.split(" or ")[0] not in BULK_VRS:
                file.seek(raw.value_tell)
                ds[tag] = raw._replace(value=file.read(raw.length))
    file.seek(behind)
    for tag in list(ds.keys()):
        raw = ds.get_item(tag, keep_deferred=True)
        value = raw.value if isinstance(raw, RawDataElement) else None
        if isinstance(value, bytes) and len(value) > _MOST_ITEMS and value.count(_ITEM) > _MOST_ITEMS:
            raise UnreadableInstance(_TOO_MUCH)


class _FewReads:
    """A file that is read only so often: each item and each element costs a reading or two."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MOST_READS
        self.seek, self.tell = file.seek, file.tell
        self.name = getattr(file, "name", "")

    def read(self, size: int = -1) -> bytes:
        """The next bytes; UnreadableInstance where that was done too often."""
        self._left -= 1
        if self._left < 0:
            raise UnreadableInstance(_TOO_MUCH)
        return self._file.read(size)


def _place(opened: Opened) -> PixelPlace:
    ds, is_long = opened.ds, opened.transfer_syntax_uid != IMPLICIT
    start = opened.file.tell() + (12 if is_long else 8) if opened.stopped_at else -1
    return PixelPlace(
        transfer_syntax_uid=opened.transfer_syntax_uid,
        start=start,
        length=None if opened.length == _UNDEFINED else opened.length,
        rows=_integer(ds, "Rows", 0),
        columns=_integer(ds, "Columns", 0),
        samples=_integer(ds, "SamplesPerPixel", 1),
        bits_allocated=_integer(ds, "BitsAllocated", BITS.get(opened.stopped_at, 0)),
        frames=max(1, _integer(ds, "NumberOfFrames", 1)),
        photometric=str(ds.get("PhotometricInterpretation", "")),
        tag=opened.stopped_at,
        vr=opened.vr,
    )


def _integer(ds: Dataset, keyword: str, default: int) -> int:
    value = ds.get(keyword)
    return default if value is None or value == "" else int(value)
