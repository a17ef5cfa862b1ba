"""A received instance: what a C-STORE request announces, and its data set as it came."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

#: Of what it was grown to, no more is kept for the next data set.
_KEPT_BYTES = 1 << 20

#: So much waits to be summed at once: each time other threads take the interpreter, and hand it back late. More would
#: have left the processor's cache by then.
_SUMMED_BYTES = 256 << 10


class EncodedDataSet(Protocol):
    """An encoded data set without file meta information, as a file that can be read from any place."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes from here on, or all."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to this place."""

    def tell(self) -> int:
        """Where this is."""


class CollectedDataSet:
    """A data set in memory while it comes in, and its checksum with it; its memory serves one after another.

    Fresh memory for each would have to be found and emptied by the kernel, page by page.
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray())
        self.clear()

    @property
    def sha256(self) -> str:
        """The checksum of what it holds so far, 64 hex digits."""
        self._sum()
        return self._digest.hexdigest()

    def clear(self) -> None:
        """It holds nothing; whoever has a view of what it held must have no use for it any more."""
        self.size_bytes = self._at = self._summed = 0
        self._digest = hashlib.sha256()
        if len(self._view) > _KEPT_BYTES:
            self._view = memoryview(bytearray())

    def write(self, data: bytes | memoryview, /) -> int:
        """Take what comes next."""
        self.room(len(data))[:] = data
        self.filled(len(data))
        return len(data)

    def room(self, size: int) -> memoryview:
        """Where so many bytes that come next can be put, for `filled`."""
        end = self.size_bytes + size
        if end > len(self._view):
            grown = memoryview(bytearray(max(end, 2 * len(self._view))))
            grown[: self.size_bytes] = self.held()
            self._view = grown
        return self._view[self.size_bytes : end]

    def filled(self, size: int) -> None:
        """So many bytes were put there."""
        self.size_bytes += size
        if self.size_bytes - self._summed >= _SUMMED_BYTES:
            self._sum()

    def held(self) -> memoryview:
        """What it holds, uncopied."""
        return self._view[: self.size_bytes]

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes from here on, or all."""
        end = self.size_bytes if size < 0 else min(self.size_bytes, self._at + size)
        data = bytes(self._view[self._at : end])
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to this place, from the beginning (0), from here (1) or from the end (2)."""
        self._at = max(0, offset + (0, self._at, self.size_bytes)[whence])
        return self._at

    def tell(self) -> int:
        """Where this is."""
        return self._at

    def _sum(self) -> None:
        self._digest.update(self._view[self._summed : self.size_bytes])
        self._summed = self.size_bytes


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
