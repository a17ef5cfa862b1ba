"""Stocktaking: every file of the archive is read and compared with the index, and every row with the files.

In the background it goes at a low pace through all studies, notes in the index how far it is, goes on there after a
restart, and begins again after some days. What it finds it tells once: in the log, in the study's history, and as a
condition of the node. It changes no state: a study that is read later fails by its file, with the reason, and one that
was read stays read.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from itertools import islice, repeat

from dicom_node.archive.faults import ArchiveFault, FaultKind, tell_faults
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.inventory import HeldFile, Position
from dicom_node.archive.stock import AREAS, SPREADS, Stock
from dicom_node.core.errors import IndexUnavailable, UnreadableInstance
from dicom_node.settings import ArchiveSettings

log = logging.getLogger(__name__)

ACTOR = "stocktaking"

#: The name among the index's conditions of what is wrong with its own pages.
INDEX_DAMAGED = "index"

#: How often some files are looked at.
STEP_SECONDS = 1.0

_SECONDS_A_DAY = 86400.0

#: A file that nobody knows may have been received just now.
_YOUNG_SECONDS = 3600.0

#: A result of a study read here that no report names is of a report that was never written, or was made again since.
_OLD_RESULT_SECONDS = 86400.0

_STUDIES_AT_ONCE = 100

#: A longer file counts as several, so that the pace is one in bytes, too.
_FILE_BYTES = 4_000_000


class Stocktaking:
    """Looks at the archive, a few files a step."""

    def __init__(
        self,
        settings: ArchiveSettings,
        archive: Archive,
        index: Index,
        clock: Callable[[], float] = time.time,
        *,
        adopt: Callable[[float], object] = lambda _before: None,
    ) -> None:
        """`adopt` indexes whole files from before a time that the index does not know, as at the node's start."""
        self._settings = settings
        self._archive = archive
        self._stock = Stock(archive)
        self._index = index
        self._clock = clock
        self._adopt = adopt
        self._look: Iterator[None] | None = None
        #: Files that may be looked at, and were not yet.
        self._owed = 0.0

    def step(self) -> None:
        """Look at as many files as the pace allows; a look at all begins when its day has come."""
        if self._look is None:
            if not self._is_due():
                return
            self._look = self._look_at_all()
        self._owed += self._settings.check_files_per_second * STEP_SECONDS
        allowed, self._owed = int(self._owed), self._owed % 1
        try:
            done = sum(1 for _ in islice(self._look, allowed))
        except BaseException:
            # What raised goes on no more; the next step begins again at the last noted position.
            self._look = None
            raise
        if done < allowed:
            self._look = None

    def _is_due(self) -> bool:
        position = self._index.inventory.position()
        wait = self._settings.check_every_days * _SECONDS_A_DAY
        return position.ended_at is None or self._clock() >= position.began_at + wait

    def _look_at_all(self) -> Iterator[None]:
        """Every file of the archive, one a step of the iterator, a long one several."""
        position = self._index.inventory.position()
        if not position.began_at or position.ended_at is not None:
            position = Position(began_at=self._clock())
        self._look_at_index()
        self._adopt(self._clock() - _YOUNG_SECONDS)
        while studies := self._index.inventory.studies_after(position.study_instance_uid, _STUDIES_AT_ONCE):
            for uid in studies:
                files = yield from self._survive_study(uid)
                position = replace(position, study_instance_uid=uid, files=position.files + files)
                self._index.inventory.note(position)
        for spread in range(SPREADS):
            yield from self._look_for_unknown(spread)
        self._forget_unknown()
        self._index.inventory.note(replace(position, ended_at=self._clock()))
        self._tell()

    def _look_at_index(self) -> None:
        """Whether the database's own pages are whole."""
        if damage := self._index.damage():
            mend = "stop the node and make it again from the archive's files: `dicom-node reindex`"
            log.error("the index is damaged", extra={"mend": mend})
            self._index.conditions.began(INDEX_DAMAGED, reason=f"{damage}; {mend}", at=self._clock())
        else:
            self._index.conditions.ended(INDEX_DAMAGED)

    def _survive_study(self, uid: str) -> Generator[None, None, int]:
        """Look at a study; what goes wrong with one must not keep all others from being looked at."""
        try:
            return (yield from self._look_at_study(uid))
        except IndexUnavailable:
            raise
        except Exception as error:  # of its files, which may hold any bytes and lie on a failing disk
            facts = {"study_instance_uid": uid, "error": type(error).__name__}
            log.error("a study's files cannot be looked at", extra=facts, exc_info=True)
            return 0

    def _look_at_study(self, uid: str) -> Generator[None, None, int]:
        """Compare a study's files with their rows, both ways; returns how many were read."""
        expected = self._index.inventory.files_of(uid)
        there = set(self._stock.files_of(uid))
        faults: dict[str, FaultKind] = {path: FaultKind.MISSING for path in expected if path not in there}
        for path in sorted(there & set(expected)):
            if self._is_altered(expected[path]):
                faults[path] = FaultKind.ALTERED
            yield from repeat(None, 1 + self._stock.size_bytes(path) // _FILE_BYTES)
        # The study may have grown, been read or left the disk meanwhile.
        now_expected = self._index.inventory.files_of(uid)
        gone = set(self._stock.missing(faults))
        held = {
            path: kind
            for path, kind in faults.items()
            if path in now_expected and (kind is not FaultKind.MISSING or path in gone)
        }
        unknown = self._unknown(sorted(there - set(now_expected)), known_study=uid)
        self._enter(uid, held | dict.fromkeys(unknown, FaultKind.UNKNOWN), now_expected)
        return len(there)

    def _is_altered(self, file: HeldFile) -> bool:
        try:
            self._archive.verify(file.path, file.sha256)
        except UnreadableInstance:
            # Not where it went away just now: that is for the next look to find.
            return not self._stock.missing([file.path])
        except OSError as error:
            facts = {"study_instance_uid": file.study_instance_uid, "sop_instance_uid": file.sop_instance_uid}
            log.error("the archive's disk fails at a file", extra={**facts, "error": type(error).__name__})
        return False

    def _look_for_unknown(self, spread: int) -> Iterator[None]:
        """Studies that have files, and no row in the index."""
        uids = {uid for area in AREAS for uid in self._stock.study_uids(area, spread)}
        yield
        for uid in self._index.inventory.unknown_studies(sorted(uids)) if uids else ():
            files = self._unknown(self._stock.files_of(uid), known_study=None)
            self._enter(uid, dict.fromkeys(files, FaultKind.UNKNOWN), {})
            yield

    def _unknown(self, paths: list[str], *, known_study: str | None) -> list[str]:
        """Those that nobody knows and that are not just being filed.

        Results of a known study are none: they go when they are old, or stay where what was made of it before is not
        in the index.
        """
        now = self._clock()
        results = [path for path in paths if path.startswith("results/")] if known_study is not None else []
        old = self._stock.lain_since(results, now - _OLD_RESULT_SECONDS)
        if known_study is not None and old and self._index.inventory.knows_results(known_study):
            log.warning("results that no report names were removed", extra={"files": len(old)})
            self._stock.remove(old)
        return self._stock.lain_since([path for path in paths if path not in results], now - _YOUNG_SECONDS)

    def _enter(self, uid: str, faults: Mapping[str, FaultKind], files: Mapping[str, HeldFile]) -> None:
        """Tell what is new, and forget what is no more."""
        known = self._index.faults.of_study(uid)
        if mended := [fault.path for fault in known if fault.path not in faults]:
            self._index.faults.mended(mended)
        rows = [
            ArchiveFault(
                path=path,
                kind=kind,
                study_instance_uid=uid,
                sop_instance_uid=files[path].sop_instance_uid if path in files else "",
            )
            for path, kind in faults.items()
        ]
        new = self._index.faults.found(rows, actor=ACTOR, at=self._clock()) if rows else []
        for fault in new:
            facts = {"kind": fault.kind, "study_instance_uid": uid}
            named = {"sop_instance_uid": fault.sop_instance_uid} if fault.sop_instance_uid else {}
            log.error("a file of the archive is not as it should be", extra={**facts, **named})
        if new or mended:
            self._tell()

    def _forget_unknown(self) -> None:
        paths = self._index.faults.paths(FaultKind.UNKNOWN)
        if gone := self._stock.missing(paths):
            self._index.faults.mended(gone)

    def _tell(self) -> None:
        """Let people see what is wrong, or that nothing is any more."""
        tell_faults(self._index.faults, self._index.conditions, self._clock())
