"""The reception: what takes instances that arrive over HTTP, as far as this room knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request

from dicom_node.core.received_instance import EncodedDataSet, ReceivedInstance
from dicom_node.web.dicomweb.auditing import Auditing


class Spool(EncodedDataSet, Protocol):
    """A data set in a file, while it comes in."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take what comes next; OSError where the disk refuses it."""

    def discard(self) -> None:
        """Leave nothing of it; nothing happens where it was kept."""


class Reception(Protocol):
    """What instances are handed on to; a Protocol because the intake must not be known here."""

    def store(self, received: ReceivedInstance) -> object:
        """Keep the instance, durable at return, or raise IntakeError."""

    def spool(self, announced: ReceivedInstance) -> Spool:
        """A file for the data set of an instance that comes in; OSError where the disk refuses it."""

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """A sender is about to send its first instance."""

    def association_ended(self, association_id: str, ending: str) -> None:
        """It is over: released, aborted or lost."""

    def free_bytes(self) -> int:
        """Room left for instances."""


@dataclass(frozen=True, kw_only=True)
class Storing:
    """What takes instances."""

    reception: Reception
    #: Whether instances of this SOP class are taken.
    stores: Callable[[str], bool]
    #: With less room on the disk, instances are refused.
    minimum_free_bytes: int
    ae_title: str
    auditing: Auditing
    root: Callable[[Request], str]
    #: Hears what is refused, and why: "instance", and the name of an error.
    count_refusal: Callable[[str, str], None] = lambda _what, _reason: None
