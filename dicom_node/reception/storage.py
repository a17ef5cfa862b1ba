"""Storage: an instance from its announcement to the status that answers it, alike for C-STORE and STOW-RS.

Here is the rim where every error ends: whatever goes wrong inside, the sender gets an answer and its association lives.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple, Protocol, cast

from dicom_node.core.errors import IndexUnavailable, IntakeError, OutOfResources
from dicom_node.core.received_instance import CollectedDataSet, EncodedDataSet, ReceivedInstance
from dicom_node.core.status import SUCCESS, UNEXPECTED, in_hex
from dicom_node.core.uid import is_uid
from dicom_node.reception.refusals import Refusals
from dicom_node.reception.watermark import DiskWatermark

log = logging.getLogger(__name__)

_MAXIMUM_COMMENT = 64

#: A data set that is longer goes to the disk as it comes; shorter ones wait in memory.
_LONGEST_IN_MEMORY = 4 << 20

#: Memory is given before bytes come: no more of it at once, whatever length a sender announces.
_LARGEST_ROOM = 256 << 10

#: Of a long one, after so many bytes the room on the disk is looked at again.
_LOOK_AT_ROOM_BYTES = 64 << 20


class Spool(EncodedDataSet, Protocol):
    """A data set in a file, while it comes in."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take what comes next; OSError where the disk refuses it."""

    def discard(self) -> None:
        """Leave nothing of it; nothing happens where it was kept."""


class Reception(Protocol):
    """What the wire hands on; a Protocol because the intake must not be known here."""

    def store(self, received: ReceivedInstance) -> object:
        """Keep the instance, durable at return, or raise IntakeError, IndexUnavailable or OSError."""

    def spool(self, announced: ReceivedInstance) -> Spool:
        """A file for the data set of an instance that comes in; OSError where the disk refuses it."""

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """An association is about to send its first instance."""

    def association_ended(self, association_id: str, ending: str) -> None:
        """It is over: released, aborted or lost."""

    def free_bytes(self) -> int:
        """Room left for instances."""


class Sender(NamedTuple):
    """An association that sends, or a request of STOW-RS, and what it said of itself."""

    association: Hashable
    calling_ae_title: str
    called_ae_title: str


class Announcement(NamedTuple):
    """What is said of an instance before its data set comes; the data set may disagree."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    #: Why it is not kept, whatever comes, where whoever brings it knows that.
    fault: Exception | None = None


class Outcome(NamedTuple):
    """What the sender is told."""

    status: int
    #: For a failure, as an Error Comment.
    comment: str = ""


class Storage:
    """Takes instances that come in one way; safe to call from many associations' threads."""

    def __init__(
        self,
        reception: Reception,
        watermark: DiskWatermark,
        count_refusal: Callable[[str, str], None] = lambda _what, _reason: None,
        *,
        sop_classes: Collection[str] = (),
    ) -> None:
        """Of these SOP classes; `count_refusal` hears what is refused, and why."""
        self._reception = reception
        self._count_refusal = count_refusal
        self._watermark = watermark
        self._classes = frozenset(sop_classes)
        # Only associations that stored something: an echo leaves no trace in the index.
        self._sending: dict[Hashable, _Sending] = {}
        self._opening, self._counting = threading.Lock(), threading.Lock()
        #: How many instances were kept, by association: a log line for each would take longer than its row.
        self._stored: Counter[str] = Counter()
        self._refusals = Refusals()

    def stores(self, sop_class_uid: str) -> bool:
        """Whether instances of this SOP class are taken."""
        return sop_class_uid in self._classes

    def begin(self, sender: Sender, announced: Announcement, collected: CollectedDataSet | None = None) -> "Arrival":
        """An instance begins to come in; one that will not be kept is known from the first byte on.

        `collected` is where it is collected, and nobody else's until it is kept or discarded.
        """
        return Arrival(self, sender, announced, collected or CollectedDataSet())

    def keep(self, sender: Sender, announced: Announcement, data_set: EncodedDataSet) -> Outcome:
        """An instance came in whole."""
        return self.outcome(sender, announced, lambda: self.store(self.announce(sender, announced, data_set)))

    def announce(self, sender: Sender, announced: Announcement, data_set: EncodedDataSet) -> ReceivedInstance:
        """The instance to be; its fault, IntakeError or IndexUnavailable where it will not be kept, whatever comes."""
        self.check_room()
        if announced.fault is not None:
            raise announced.fault
        return ReceivedInstance(
            sop_class_uid=announced.sop_class_uid,
            sop_instance_uid=announced.sop_instance_uid,
            transfer_syntax_uid=announced.transfer_syntax_uid,
            data_set=data_set,
            calling_ae_title=sender.calling_ae_title,
            called_ae_title=sender.called_ae_title,
            association_id=self._association_id(sender),
        )

    def check_room(self) -> None:
        """OutOfResources where the disk has too little room."""
        self._watermark.check(self._reception.free_bytes())

    def store(self, received: ReceivedInstance) -> None:
        """Keep an instance, durable at return."""
        self._reception.store(received)
        with self._counting:
            # Of an association that is over nobody tells any more.
            if any(sending.association_id == received.association_id for sending in list(self._sending.values())):
                self._stored[received.association_id] += 1

    def spool(self, announced: ReceivedInstance) -> Spool:
        """A file for the data set of an instance that is long."""
        return self._reception.spool(announced)

    def outcome(self, sender: Sender, announced: Announcement, deed: "_Deed") -> Outcome:
        """What the sender is told of what was done for its instance; never an exception."""
        try:
            try:
                deed()
            # Of the association or of the instance: either way its sender may try again later.
            except IndexUnavailable as error:
                raise OutOfResources(str(error)) from error
            except OSError as error:
                why = error.strerror or type(error).__name__
                raise OutOfResources(f"the disk refuses the file: {why}; make room or mend it") from error
        except IntakeError as error:
            facts = {**_facts(sender, announced), "status": in_hex(error.status), "reason": str(error)}
            is_first = self._refusals.is_first(sender.association, error.status)
            log.log(logging.WARNING if is_first else logging.DEBUG, "instance refused", extra=facts)
            self._count_refusal("instance", type(error).__name__)
            return Outcome(error.status, _comment(str(error)))
        except Exception:  # the rim: whatever goes wrong inside, the sender gets an answer and its association lives
            level = logging.ERROR if self._refusals.is_first(sender.association, UNEXPECTED) else logging.DEBUG
            log.log(level, "instance could not be kept", extra=_facts(sender, announced), exc_info=True)
            self._count_refusal("instance", "unexpected")
            return Outcome(UNEXPECTED, "the node failed; see its log")
        return Outcome(SUCCESS)

    def association_ended(self, association: Hashable, ending: str) -> None:
        """An association is over; what it is told a second time is nothing new."""
        sending = self._sending.get(association)
        if sending is not None:
            # Forgotten only once it is noted: where the index is away, the end of its thread tells it again.
            self._reception.association_ended(sending.association_id, ending)
            self._forget(association, ending)

    def association_is_over(self, sender: Sender, ending: str = "lost") -> None:
        """The last word on an association: `ending` where nobody said yet how it ended, or could not."""
        association = sender.association
        try:
            self.association_ended(association, ending)
        except IndexUnavailable as error:
            # Its studies wait longer, as for a sender that hangs, and the next start ends it.
            log.warning("the end of an association could not be noted", extra={"reason": str(error)})
            self._forget(association, ending)
        self._refusals.ended(association, sender.calling_ae_title)

    def _forget(self, association: Hashable, ending: str) -> None:
        """Tell once how many instances an association brought."""
        with self._counting:
            sending = self._sending.pop(association, None)
            count = 0 if sending is None else self._stored.pop(sending.association_id, 0)
        if sending is not None and count:
            log.info("instances stored", extra={**sending._asdict(), "ending": ending, "instances": count})

    def _association_id(self, sender: Sender) -> str:
        known = self._sending.get(sender.association)
        if known is not None:
            return known.association_id
        # The threads of an association may both be at it, where its peer does not wait for answers.
        with self._opening:
            known = self._sending.get(sender.association)
            if known is None:
                known = _Sending(str(uuid.uuid4()), sender.calling_ae_title)
                self._reception.association_opened(known.association_id, sender.calling_ae_title)
                self._sending[sender.association] = known
        return known.association_id


class _Sending(NamedTuple):
    """An association that stored something, as the index knows it."""

    association_id: str
    calling_ae_title: str


class _Deed(Protocol):
    def __call__(self) -> object: ...


class Arrival:
    """An instance that comes in: in memory while it is short, in a file from then on, nowhere once it is refused."""

    def __init__(
        self, storage: Storage, sender: Sender, announcement: Announcement, collected: CollectedDataSet
    ) -> None:
        self._storage, self._sender, self._announcement = storage, sender, announcement
        collected.clear()
        self._data: Spool | CollectedDataSet = collected
        self._announced: ReceivedInstance | None = None
        self._size = self._looked_at = 0
        self._refusal: Outcome | None = None

        def announce() -> None:
            self._announced = storage.announce(sender, announcement, collected)

        self._try(announce)

    def write(self, piece: memoryview) -> None:
        """Take the next bytes of the data set; of one that is refused they are dropped."""
        if self._refusal is not None:
            return
        self._size += len(piece)
        if self._size <= _LONGEST_IN_MEMORY:
            self._data.write(piece)
        else:
            self._try(lambda: self._write_to_disk(piece))

    def room(self, size: int) -> memoryview | None:
        """Where so many bytes, or less, of the data set can be put for `filled`; None where `write` must have them."""
        data, size = self._data, min(size, _LARGEST_ROOM)
        if self._refusal is not None or self._size + size > _LONGEST_IN_MEMORY:
            return None
        return data.room(size) if isinstance(data, CollectedDataSet) else None

    def filled(self, size: int) -> None:
        """So many bytes were put there."""
        self._size += size
        cast(CollectedDataSet, self._data).filled(size)

    def finish(self, look: Callable[[ReceivedInstance], None] | None = None) -> Outcome:
        """The data set is whole: keep the instance; what its sender is told.

        `look` may look into it before, and raise IntakeError where it is not to be kept.
        """
        announced = self._announced

        def keep() -> None:
            if announced is not None:
                if look is not None:
                    look(announced)
                self._storage.store(announced)

        if self._refusal is None:
            self._try(keep)
        self.discard()
        return self._refusal or Outcome(SUCCESS)

    def discard(self) -> None:
        """Leave nothing of what was not kept."""
        if isinstance(self._data, CollectedDataSet):
            self._data.clear()
        else:
            self._data.discard()

    def _try(self, deed: _Deed) -> None:
        outcome = self._storage.outcome(self._sender, self._announcement, deed)
        if outcome.status != SUCCESS:
            self._refusal = outcome
            self.discard()

    def _write_to_disk(self, piece: memoryview) -> None:
        if isinstance(self._data, CollectedDataSet) and self._announced is not None:
            spool = self._storage.spool(self._announced)
            before, self._data = self._data, spool
            self._announced = self._announced.with_data_set(spool)
            spool.write(before.held())
            before.clear()
        self._data.write(piece)
        if self._size - self._looked_at > _LOOK_AT_ROOM_BYTES:
            self._looked_at = self._size
            self._storage.check_room()


def _comment(text: str) -> str:
    # LO: no backslash, no control characters (PS3.5 Table 6.2-1); other characters have no character set in a command.
    plain = text.encode("ascii", errors="replace").decode().replace("\\", "/")
    return "".join(c for c in plain if c.isprintable())[:_MAXIMUM_COMMENT].strip()


def _facts(sender: Sender, announced: Announcement) -> dict[str, object]:
    # What stands where a UID should be may be a name, and names stay out of the log.
    uid = announced.sop_instance_uid
    return {
        "sop_instance_uid": uid if is_uid(uid) else "not a UID",
        "calling_ae_title": sender.calling_ae_title,
    }
