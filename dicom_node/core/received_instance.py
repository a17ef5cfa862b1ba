"""A received instance: what a C-STORE request announces, and its data set as it came."""

from dataclasses import dataclass, replace
from typing import Protocol


class EncodedDataSet(Protocol):
    """An encoded data set without file meta information, as a file that can be read from any place."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes from here on, or all."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to this place."""

    def tell(self) -> int:
        """Where this is."""


@dataclass(frozen=True, kw_only=True)
class ReceivedInstance:
    """One C-STORE request (PS3.7 Section 9.1.1) on its way from the wire to the archive."""

    #: As the command says; the data set may disagree.
    sop_class_uid: str
    sop_instance_uid: str
    #: As negotiated for the presentation context.
    transfer_syntax_uid: str
    data_set: EncodedDataSet
    calling_ae_title: str
    called_ae_title: str
    association_id: str

    def with_data_set(self, data_set: EncodedDataSet) -> "ReceivedInstance":
        """The same, with its data set elsewhere."""
        return replace(self, data_set=data_set)
