"""The parts of a STOW-RS body on their way to the reception: from a part's first byte to what its sender is told."""

import struct
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset

from dicom_node.archive.header import BROKEN_BYTES, read_header
from dicom_node.core.errors import (
    CannotUnderstand,
    DatasetMismatch,
    SOPClassNotSupported,
    TransferSyntaxNotSupported,
)
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.core.status import PROCESSING_FAILURE, UNEXPECTED
from dicom_node.core.uid import is_uid
from dicom_node.reception.storage import Announcement, Arrival, Sender, Storage

#: Preamble, prefix and file meta information; real ones have some hundred bytes.
_LONGEST_META = 64 << 10

#: Parts of one request that wait for the disk at the same time: their rows are committed together.
_AT_ONCE = 8

#: Parts of all requests. Each holds some megabytes, and what is longer is on the disk already.
_OF_ALL = 16

_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_META_START = 132

#: Media Storage SOP Class UID, Media Storage SOP Instance UID, Transfer Syntax UID.
_META_UIDS = (0x00020002, 0x00020003, 0x00020010)

#: What the table of STOW-RS calls otherwise (PS3.18 Table 10.5.3-2).
_REASONS = {UNEXPECTED: PROCESSING_FAILURE}


@dataclass(frozen=True, kw_only=True)
class PartOutcome:
    """What became of one part."""

    sop_class_uid: str = ""
    #: Empty where the part does not say it.
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    #: Failure Reason (0008,1197); 0: it is kept.
    failure: int = 0
    comment: str = ""


class Keepers:
    """Threads that keep parts, shared by all requests; whoever finds none free waits, and so does his sender."""

    def __init__(self, count: int = _OF_ALL) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="stow")
        self._free = threading.Semaphore(count)

    def keep(self, deed: Callable[[], PartOutcome]) -> Future[PartOutcome]:
        """Do it in one of them; returns when one has begun, or is about to."""
        self._free.acquire()
        work = self._threads.submit(deed)
        work.add_done_callback(lambda _: self._free.release())
        return work


class StoredParts:
    """Takes the parts of one request; for one thread at a time."""

    def __init__(
        self, storage: Storage, transfer_syntaxes: Collection[str], sender: Sender, study: str, keepers: Keepers
    ) -> None:
        """`study`: instances of another one are refused; empty: of any."""
        self._storage, self._transfer_syntaxes, self._sender, self._study = storage, transfer_syntaxes, sender, study
        self._keepers = keepers
        self._waiting: deque[Future[PartOutcome]] = deque()
        self._part: _Part | None = None
        self.outcomes: list[PartOutcome] = []

    def begin(self, head: Mapping[str, str]) -> None:
        """A part begins."""
        self._part = _Part(self._storage, self._transfer_syntaxes, self._sender, self._study, head)

    def take(self, data: memoryview) -> None:
        """More of it."""
        if self._part is not None:
            self._part.take(data)

    def end(self) -> None:
        """It is whole: let it be kept."""
        part, self._part = self._part, None
        if part is None:
            return
        if len(self._waiting) >= _AT_ONCE:
            self.outcomes.append(self._waiting.popleft().result())
        self._waiting.append(self._keepers.keep(part.keep))

    def finish(self) -> list[PartOutcome]:
        """What became of every part, in their order."""
        while self._waiting:
            self.outcomes.append(self._waiting.popleft().result())
        return self.outcomes

    def break_off(self) -> None:
        """Leave nothing of a part that did not come whole; wait for the others."""
        if self._part is not None:
            self._part.discard()
            self._part = None
        self.finish()


class _Part:
    """One part: first its file meta information, then its data set, which arrives like any other."""

    def __init__(
        self,
        storage: Storage,
        transfer_syntaxes: Collection[str],
        sender: Sender,
        study: str,
        head: Mapping[str, str],
    ) -> None:
        self._storage, self._transfer_syntaxes, self._sender, self._study = storage, transfer_syntaxes, sender, study
        self._head = bytearray()
        self._announced = Announcement()
        self._arrival: Arrival | None = None
        #: Study and series, once they are known.
        self._place = ("", "")
        kind = head.get("content-type", "application/dicom").lower()
        if not kind.replace(" ", "").startswith("application/dicom") or "+" in kind.split(";")[0]:
            self._begin(Announcement(fault=CannotUnderstand("the part is no application/dicom")))
        elif head.get("content-encoding", "identity") != "identity":
            self._begin(Announcement(fault=CannotUnderstand("the part has a Content-Encoding")))

    def take(self, data: memoryview) -> None:
        """The next bytes; of a part that is refused they are dropped."""
        if self._arrival is not None:
            self._arrival.write(data)
            return
        self._head += data
        try:
            end = _end_of_meta(self._head)
            announced = self._announcement(bytes(self._head[:end])) if end else None
        except Exception as fault:  # the rim of one part: the others are not to blame
            announced, end = Announcement(fault=fault), 0
        if announced is not None:
            self._begin(announced).write(memoryview(bytes(self._head[end:])))

    def keep(self) -> PartOutcome:
        """File and index it; what its sender is told, never an exception."""
        missing = CannotUnderstand("the part is no DICOM file: its file meta information is missing")
        status, comment = (self._arrival or self._begin(Announcement(fault=missing))).finish(self._look)
        study, series = self._place
        return PartOutcome(
            sop_class_uid=self._announced.sop_class_uid,
            sop_instance_uid=self._announced.sop_instance_uid,
            study_instance_uid=study,
            series_instance_uid=series,
            failure=_REASONS.get(status, status),
            comment=comment,
        )

    def discard(self) -> None:
        """Leave nothing of what was not kept."""
        if self._arrival is not None:
            self._arrival.discard()

    def _begin(self, announced: Announcement) -> Arrival:
        self._announced = announced
        self._arrival = self._storage.begin(self._sender, announced)
        return self._arrival

    def _look(self, received: ReceivedInstance) -> None:
        """Where it belongs; DatasetMismatch where it was sent to another study's address."""
        header = read_header(received.data_set, received.transfer_syntax_uid)
        self._place = (header.study_instance_uid, header.series_instance_uid)
        if self._study and header.study_instance_uid != self._study:
            raise DatasetMismatch("the instance is of another study than the address")

    def _announcement(self, head: bytes) -> Announcement:
        try:
            # Group 0002 is always in Explicit VR Little Endian (PS3.10 Section 7.1).
            meta = read_dataset(BytesIO(head[_META_START:]), False, True)
            uids = [_uid(meta.get_item(tag)) for tag in _META_UIDS]
        except (InvalidDicomError, *BROKEN_BYTES) as error:
            raise CannotUnderstand("the file meta information cannot be read") from error
        if not all(map(is_uid, uids)):
            raise CannotUnderstand("a UID of the file meta information is missing or no UID")
        sop_class, sop_instance, syntax = uids
        return Announcement(sop_class, sop_instance, syntax, self._fault(sop_class, syntax))

    def _fault(self, sop_class_uid: str, transfer_syntax_uid: str) -> Exception | None:
        if not self._storage.stores(sop_class_uid):
            return SOPClassNotSupported("the SOP class is not stored here")
        if transfer_syntax_uid not in self._transfer_syntaxes:
            return TransferSyntaxNotSupported("the transfer syntax is not known")
        return None


def _uid(element: object) -> str:
    """What stands there, whatever it is: pydicom would quote it in a warning."""
    value = element.value if isinstance(element, RawDataElement) else b""
    return (value or b"").rstrip(b"\x00 ").decode("ascii", "replace")


def _end_of_meta(head: bytearray) -> int | None:
    """Where the data set begins; None while that is not known, CannotUnderstand where it never will be."""
    if len(head) >= _META_START and head[128:132] != b"DICM":
        raise CannotUnderstand("the part is no DICOM file: it has no prefix")
    if len(head) < _META_START + 12:
        return None
    if head[_META_START : _META_START + 8] != _GROUP_LENGTH:
        raise CannotUnderstand("the file meta information does not begin with its length")
    end = _META_START + 12 + int(struct.unpack_from("<L", head, _META_START + 8)[0])
    if end > _LONGEST_META:
        raise CannotUnderstand("the file meta information is too long")
    return end if len(head) >= end else None
