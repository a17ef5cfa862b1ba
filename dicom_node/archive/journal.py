"""The journal: what is received is on the disk at once, and its file and its row when the disk has time for them.

A file that is new needs three waits for the disk: for its bytes, for its name, and for its row in the index. The
journal needs one, for a copy of the file in blocks that are on the disk already (see [journal_segment]), and threads
that come at once share it. What is on the disk when:

    1. the file is written and gets its names      nothing yet, for certain
    2. its record is in the journal                all that is needed to make file and row again
    3. its row is committed, not waited for        as before
       -> its sender is told success
    4. behind the answer, a segment at a time: each file is on the disk with its names, then the rows are
    5. the segment is free to be written anew

A process that is killed leaves files and rows in the kernel's hands, as whole as they were; after a power cut
`recovery` makes again what is missing of each record. The journal begins when instances have come for a while, and is
empty and gone after a stop in good order. Where it has no room, cannot be had, or fails, the disk is waited for thrice.

What that saves was measured with `deploy/bench_receive`, whose docstring has the figures. Files are put on the disk all
at once (syncfs), since to wait for each takes the interpreter from the threads that receive; segments of a quarter of
the size, and files that are begun to be written before the answer, made no difference.
"""

import logging
import mmap
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dicom_node.archive.directories import make_directory
from dicom_node.archive.journal_segment import Record, Segment, records_of
from dicom_node.core.errors import IndexUnavailable

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
_MOST_SEGMENTS = 16
#: The disk must have so many times room for all of it: a nearly full one is for instances.
_ROOM_FACTOR = 4

#: So much is written at once; a record that is longer is for the disk itself.
_GROUP_BYTES = 6 << 20

#: Who sends only a handful now and then needs no journal.
FIRST = 16

#: After a failure the disk, or the index, is tried again.
_AGAIN_SECONDS = 1.0


class Journal:
    """Answers for new files until they are on the disk; safe to share between threads, of one process."""

    def __init__(
        self,
        folder: Path,
        *,
        sync_files: Callable[[Sequence[str]], list[str]],
        restore: Callable[[Record], object],
        sync_rows: Callable[[], None],
        free_bytes: Callable[[], int],
        first: int = FIRST,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """`sync_files` lets files be on the disk with their names, and tells of which that failed; `sync_rows` every
        row that was committed. `restore` writes a file anew. Each may raise OSError, `sync_rows` IndexUnavailable.

        `first`: how many instances are none of the journal's.
        """
        self._folder, self._first, self._segment_bytes = folder, first, segment_bytes
        self._sync_files, self._restore, self._sync_rows = sync_files, restore, sync_rows
        self._free_bytes = free_bytes
        self._group = memoryview(mmap.mmap(-1, _GROUP_BYTES))
        self._waiting: list[_Deed] = []
        self._joining, self._leading = threading.Lock(), threading.Lock()
        self._changing = threading.Condition()
        self._active: _Turn | None = None
        self._free: list[Segment] = []
        #: Segments that are full, until their files and rows are on the disk.
        self._full: list[_Turn] = []
        self._made = 0
        self._is_wanted = self._is_closing = self._is_failing = False
        self._settler: threading.Thread | None = None

    def keep(self, record: Record) -> "Entry | None":
        """Answer for a file whose row is not committed yet: its record is on the disk at return.

        None where it must be on the disk itself.
        """
        if record.size_bytes > _GROUP_BYTES or not self._is_worth_it():
            return None
        deed = _Deed(record)
        with self._joining:
            self._waiting.append(deed)
        with self._leading:
            if not deed.is_done:
                self._lead(deed)
        return deed.entry

    def close(self) -> None:
        """Let all that was answered for be on the disk, and leave nothing but what fails to be; nobody keeps more."""
        with self._leading:
            self._put_aside()
            with self._changing:
                self._is_closing = True
                self._changing.notify_all()
        if self._settler is not None:
            self._settler.join()
        while self._free:
            self._free.pop().remove()
        for turn in self._full:
            turn.segment.close()

    def _is_worth_it(self) -> bool:
        if self._first > 0:
            self._first -= 1
            return False
        return True

    def _lead(self, deed: "_Deed") -> None:
        """Write the record, and those of others that wait and fit; done, also where there is no place for any."""
        turn = self._turn_with_room(deed.record.size_bytes)
        deeds, size = self._next(deed, 0 if turn is None else min(turn.segment.room, _GROUP_BYTES))
        if turn is not None:
            try:
                self._write(turn, deeds, size)
            except OSError as error:
                self._tell("the journal cannot be written; the disk is waited for", error)
                turn.is_broken = True
                self._put_aside()
        for each in deeds:
            each.is_done = True

    def _next(self, deed: "_Deed", room: int) -> "tuple[list[_Deed], int]":
        """The records to write now, this one among them, and their size."""
        chosen, size = [deed], deed.record.size_bytes
        with self._joining:
            self._waiting.remove(deed)
            for other in list(self._waiting):
                if size + other.record.size_bytes <= room:
                    chosen.append(other)
                    size += other.record.size_bytes
                    self._waiting.remove(other)
        return chosen, size

    def _write(self, turn: "_Turn", deeds: "list[_Deed]", size: int) -> None:
        at = 0
        for deed in deeds:
            end = at + deed.record.size_bytes
            deed.record.write_into(self._group[at:end], turn.segment.turn)
            at = end
        with self._changing:
            # From here on they may be in the segment, and whoever settles it waits for them.
            turn.paths += [deed.record.path for deed in deeds]
            turn.in_hand += len(deeds)
        try:
            turn.segment.write(self._group[:size])
        except OSError:
            with self._changing:
                turn.in_hand -= len(deeds)
            raise
        for deed in deeds:
            deed.entry = Entry(turn, self._changing)

    def _turn_with_room(self, size: int) -> "_Turn | None":
        if self._active is not None and self._active.segment.room >= size:
            return self._active
        self._put_aside()
        with self._changing:
            if self._is_closing:
                return None
            if not self._free:
                self._want_another()
                return None
            segment = self._free.pop()
            if not self._free:
                self._want_another()
        try:
            segment.begin()
        except OSError as error:
            self._tell("the journal cannot be written; the disk is waited for", error)
            segment.remove()
            return None
        self._active = _Turn(segment)
        return self._active if segment.room >= size else None

    def _put_aside(self) -> None:
        """Nothing more is written into the active segment."""
        with self._changing:
            if self._active is not None:
                self._active.is_full = True
                self._full.append(self._active)
                self._active = None
                self._changing.notify_all()

    def _want_another(self) -> None:
        self._is_wanted = True
        if self._settler is None:
            # What a process leaves that ends without `close`, the next start makes good.
            self._settler = threading.Thread(target=self._settle_all, name="journal", daemon=True)
            self._settler.start()
        self._changing.notify_all()

    def _settle_all(self) -> None:
        """Make segments, and let full ones be free again, until the journal is closed."""
        is_well = True
        while is_well or not self._rest():
            with self._changing:
                self._changing.wait_for(lambda: self._is_closing or self._is_wanted or self._settleable() is not None)
                turn, is_wanted = self._settleable(), self._is_wanted
                self._is_wanted = False
            if turn is not None:
                is_well = self._settle(turn)
            elif is_wanted and not self._is_closing:
                is_well = self._make()
            else:
                return

    def _settleable(self) -> "_Turn | None":
        return next((turn for turn in self._full if not turn.in_hand), None)

    def _rest(self) -> bool:
        """Wait before something is tried again; whether the journal is closed meanwhile, and nothing is to be tried."""
        with self._changing:
            return self._changing.wait_for(lambda: self._is_closing, _AGAIN_SECONDS)

    def _settle(self, turn: "_Turn") -> bool:
        """Let the files and rows of a segment be on the disk, and it be free; whether that is so."""
        try:
            # What failed once is written anew: the kernel says so of a file only the first time.
            turn.failed.update(self._sync_files(turn.paths))
            turn.paths = []
            if turn.failed:
                self._write_anew(turn)
            self._sync_rows()
        except (OSError, IndexUnavailable) as error:
            self._tell("what the journal holds could not be put on the disk; it is tried again", error)
            return False
        if turn.is_broken:
            turn.segment.remove()
        with self._changing:
            self._full.remove(turn)
            if not turn.is_broken:
                self._free.append(turn.segment)
                self._is_failing = False
        return True

    def _write_anew(self, turn: "_Turn") -> None:
        for record in records_of(turn.segment.path):
            if record.path in turn.failed:
                self._restore(record)
                turn.failed.discard(record.path)
        turn.failed.clear()

    def _make(self) -> bool:
        """Make a segment, where there may be another; whether nothing went wrong."""
        if self._made >= _MOST_SEGMENTS or self._free_bytes() < _ROOM_FACTOR * _MOST_SEGMENTS * self._segment_bytes:
            return True
        try:
            make_directory(self._folder)
            # Of any name: what an earlier process left may lie here still.
            segment = Segment(self._folder / f"{uuid.uuid4().hex}.segment", self._segment_bytes)
        except OSError as error:
            self._tell("the journal cannot be made; the disk is waited for", error)
            return False
        with self._changing:
            self._made += 1
            self._free.append(segment)
        return True

    def _tell(self, what: str, error: Exception) -> None:
        """Log it, once until all is well again."""
        level = logging.DEBUG if self._is_failing else logging.ERROR
        self._is_failing = True
        log.log(level, what, extra={"error": type(error).__name__})


class Entry:
    """That the journal answers for a file; held until its row is committed, or will not be."""

    def __init__(self, turn: "_Turn", changing: threading.Condition) -> None:
        self._turn, self._changing = turn, changing

    def __enter__(self) -> "Entry":
        """The row is about to be committed."""
        return self

    def __exit__(self, *_: object) -> None:
        """The row is committed, or the file withdrawn."""
        with self._changing:
            self._turn.in_hand -= 1
            if self._turn.is_full and not self._turn.in_hand:
                self._changing.notify_all()


class _Turn:
    """One filling of a segment."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        #: Whether nothing more is written into it.
        self.is_full = False
        #: Of the files that are not on the disk yet.
        self.paths: list[str] = []
        #: Of those that the disk did not take.
        self.failed: set[str] = set()
        #: Whether it could not be written to its end.
        self.is_broken = False
        #: How many of its records wait for their rows.
        self.in_hand = 0


class _Deed:
    """A record that a thread wants to be kept, and what came of it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.is_done = False
        self.entry: Entry | None = None


def journalled(folder: Path) -> Iterator[Record]:
    """The records that an earlier process left in the journal; OSError where the disk fails."""
    for path in _segments(folder):
        yield from records_of(path)


def forget(folder: Path) -> None:
    """Nothing in the journal is needed any more."""
    for path in _segments(folder):
        path.unlink(missing_ok=True)


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment")) if folder.is_dir() else []
