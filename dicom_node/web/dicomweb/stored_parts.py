"""The parts of a STOW-RS body on their way into the archive: from a part's first byte to what its sender is told."""

import logging
import struct
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicom_node.archive.header import BROKEN_BYTES, read_header
from dicom_node.core.errors import (
    CannotUnderstand,
    DatasetMismatch,
    IndexUnavailable,
    IntakeError,
    OutOfResources,
    SOPClassNotSupported,
)
from dicom_node.core.received_instance import EncodedDataSet, ReceivedInstance
from dicom_node.core.uid import is_uid
from dicom_node.web.dicomweb.reception import Spool, Storing

log = logging.getLogger(__name__)

#: A data set that is longer goes to the disk as it comes; shorter ones wait in memory.
LONGEST_IN_MEMORY = 4 << 20

#: Preamble, prefix and file meta information; real ones have some hundred bytes.
_LONGEST_META = 64 << 10

#: Parts that wait for the disk at the same time: their rows are committed together.
_AT_ONCE = 8

#: Of a long one, after so many bytes the room on the disk is looked at again.
_LOOK_AT_ROOM_BYTES = 64 << 20

#: Of refusals in one request.
_MOST_LINES = 1

#: Processing failure, for what nobody foresaw (PS3.18 Table 10.5.3-2, PS3.7 Annex C.5.10).
UNEXPECTED = 0x0110

_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_META_START = 132


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one part."""

    sop_class_uid: str = ""
    #: Empty where the part does not say it.
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    #: Failure Reason (0008,1197); 0: it is kept.
    failure: int = 0
    comment: str = ""


class StoredParts:
    """Takes the parts of one request; for one thread at a time."""

    def __init__(self, storing: Storing, association_id: str, sender: str, study: str) -> None:
        """`study`: instances of another one are refused; empty: of any."""
        self._storing, self._association_id, self._sender, self._study = storing, association_id, sender, study
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="stow")
        self._waiting: deque[Future[Outcome]] = deque()
        self._part: _Part | None = None
        self.outcomes: list[Outcome] = []
        self._told = 0

    def _is_told(self) -> bool:
        """Whether a refusal is worth a line of the log: the answer names them all, and one body has many thousands."""
        self._told += 1
        return self._told <= _MOST_LINES

    def begin(self, head: Mapping[str, str]) -> None:
        """A part begins."""
        self._part = _Part(self._storing, self._association_id, self._sender, self._study, head, self._is_told)

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
        self._waiting.append(self._pool.submit(part.keep))

    def finish(self) -> list[Outcome]:
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
        self._pool.shutdown()


class _Part:
    """One part: first its file meta information, then its data set, in memory while it is short."""

    def __init__(
        self,
        storing: Storing,
        association_id: str,
        sender: str,
        study: str,
        head: Mapping[str, str],
        is_told: Callable[[], bool],
    ) -> None:
        self._is_told = is_told
        self._storing, self._association_id, self._sender, self._study = storing, association_id, sender, study
        self._head = bytearray()
        self._announced: ReceivedInstance | None = None
        self._data: Spool | BytesIO = BytesIO()
        self._size = self._looked_at = 0
        self._refusal: Outcome | None = None
        kind = head.get("content-type", "application/dicom").lower()
        if not kind.replace(" ", "").startswith("application/dicom") or "+" in kind.split(";")[0]:
            self._refuse(CannotUnderstand("the part is no application/dicom"))
        if head.get("content-encoding", "identity") != "identity":
            self._refuse(CannotUnderstand("the part has a Content-Encoding"))

    def take(self, data: memoryview) -> None:
        """The next bytes; of a part that is refused they are dropped."""
        if self._refusal is not None:
            return
        try:
            if self._announced is None:
                data = self._take_head(data)
            if data:
                self._write(data)
        except (IntakeError, IndexUnavailable, OSError) as error:
            self._refuse(error)
        except Exception:
            # The other parts are not to blame.
            log.exception("a part could not be taken", extra={"association_id": self._association_id})
            self._refuse(None)

    def keep(self) -> Outcome:
        """File and index it; what its sender is told, never an exception."""
        try:
            if self._refusal is None and self._announced is None:
                raise CannotUnderstand("the part is no DICOM file: its file meta information is missing")
            return self._refusal or self._stored(self._announced)  # type: ignore[arg-type]  # it is there
        except (IntakeError, IndexUnavailable, OSError) as error:
            self._refuse(error)
        except Exception:  # the rim of one part: the others are not to blame
            log.exception("an instance could not be kept", extra={"association_id": self._association_id})
            self._refuse(None)
        finally:
            self.discard()
        return self._refusal or Outcome(failure=UNEXPECTED)

    def discard(self) -> None:
        """Leave nothing of what was not kept."""
        if not isinstance(self._data, BytesIO):
            self._data.discard()
        self._data = BytesIO()

    def _stored(self, announced: ReceivedInstance) -> Outcome:
        data_set: EncodedDataSet = self._data
        header = read_header(data_set, announced.transfer_syntax_uid)
        if self._study and header.study_instance_uid != self._study:
            raise DatasetMismatch("the instance is of another study than the address")
        self._storing.reception.store(announced.with_data_set(data_set))
        return Outcome(
            sop_class_uid=announced.sop_class_uid,
            sop_instance_uid=announced.sop_instance_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
        )

    def _take_head(self, data: memoryview) -> memoryview:
        """What is left behind the file meta information; nothing while that is not whole."""
        self._head += data
        end = _end_of_meta(self._head)
        if end is None:
            return data[:0]
        self._announced = self._announce(bytes(self._head[:end]))
        return memoryview(bytes(self._head[end:]))

    def _announce(self, head: bytes) -> ReceivedInstance:
        try:
            # Group 0002 is always in Explicit VR Little Endian (PS3.10 Section 7.1).
            meta = read_dataset(BytesIO(head[_META_START:]), False, True)
            uids = [_uid(meta.get_item(tag)) for tag in _META_UIDS]
        except (InvalidDicomError, *BROKEN_BYTES) as error:
            raise CannotUnderstand("the file meta information cannot be read") from error
        sop_class, sop_instance, syntax = uids
        if not all(map(is_uid, uids)):
            raise CannotUnderstand("a UID of the file meta information is missing or no UID")
        announced = ReceivedInstance(
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            transfer_syntax_uid=syntax,
            data_set=self._data,
            calling_ae_title=self._sender,
            called_ae_title=self._storing.ae_title,
            association_id=self._association_id,
        )
        # Known from here on: a refusal names it.
        self._announced = announced
        if not self._storing.stores(sop_class):
            raise SOPClassNotSupported("the SOP class is not stored here")
        if not UID(syntax).is_transfer_syntax:
            raise CannotUnderstand("the transfer syntax is not known")
        self._check_room()
        return announced

    def _write(self, data: memoryview) -> None:
        self._size += len(data)
        if self._size > LONGEST_IN_MEMORY and isinstance(self._data, BytesIO) and self._announced is not None:
            before = self._data
            self._data = self._storing.reception.spool(self._announced)
            self._data.write(before.getbuffer())
        self._data.write(data)
        if self._size - self._looked_at > _LOOK_AT_ROOM_BYTES:
            self._looked_at = self._size
            self._check_room()

    def _check_room(self) -> None:
        if self._storing.reception.free_bytes() < self._storing.minimum_free_bytes:
            raise OutOfResources("the disk has too little room; make some")

    def _refuse(self, error: Exception | None) -> None:
        status, comment = _told(error)
        announced = self._announced
        self._refusal = Outcome(
            sop_class_uid=announced.sop_class_uid if announced else "",
            sop_instance_uid=announced.sop_instance_uid if announced else "",
            failure=status,
            comment=comment,
        )
        facts = {"status": f"0x{status:04X}", "reason": comment, "association_id": self._association_id}
        self._storing.count_refusal("instance", _named(error))
        if self._is_told():
            log.warning("instance refused", extra=facts)
        self.discard()


#: Media Storage SOP Class UID, Media Storage SOP Instance UID, Transfer Syntax UID.
_META_UIDS = (0x00020002, 0x00020003, 0x00020010)


def _uid(element: object) -> str:
    """What stands there, whatever it is: pydicom would quote it in a warning."""
    value = element.value if isinstance(element, RawDataElement) else b""
    return (value or b"").rstrip(b"\x00 ").decode("ascii", "replace")


def _told(error: Exception | None) -> tuple[int, str]:
    """Status and comment; the comment quotes nothing of the instance."""
    if isinstance(error, IntakeError):
        return error.status, str(error)
    if isinstance(error, IndexUnavailable):
        return OutOfResources.status, str(error)
    if isinstance(error, OSError):
        return OutOfResources.status, f"the disk refuses the file: {error.strerror}; make room or mend it"
    return UNEXPECTED, "the node failed; see its log"


def _named(error: Exception | None) -> str:
    """The reason as metrics tell it: an error of ours."""
    if isinstance(error, IntakeError):
        return type(error).__name__
    return "unexpected" if error is None else OutOfResources.__name__


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
