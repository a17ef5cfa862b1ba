"""Reindexing: the index made again, or completed, from the archive's files; for a node that does not run.

The files hold everything of an instance but the time of its arrival, for which their own time stands. What the index
alone knew, the jobs, reports and deliveries, is made again by reading the studies again: the same evidence gives the
same report under the same UIDs, so that a peer that holds it already gets nothing new. Where a result was withdrawn,
its rejection note among the results says so.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.archive.holdings import INDEX_FILE, Holdings
from dicom_node.archive.inventory import REINDEXING
from dicom_node.archive.kept_instance import read_kept_instance
from dicom_node.archive.rejections import read_rejections
from dicom_node.archive.stock import SPREADS, Stock
from dicom_node.core.errors import IndexDamaged, UnreadableInstance
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.study import Instance
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

ACTOR = REINDEXING

_SECONDS_A_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """What was done."""

    #: Where the damaged index was put; None where it was whole.
    moved_to: Path | None
    #: Instances that the index did not know.
    instances: int
    #: Studies that it did not know, and those of them that are not read again for their age.
    studies: int
    old_studies: int
    #: Those that are not read again since a result of theirs was withdrawn.
    withdrawn_studies: int
    #: Files that are no instances of this node, relative to the archive.
    unreadable: tuple[str, ...]


def reindex(
    settings: Settings,
    clock: Callable[[], float],
    *,
    read_days: float | None = None,
    tell: Callable[[int], None] = lambda _files: None,
) -> Reindexed:
    """Take every file of the archive that the index does not know into it; a damaged SQLite index is put aside first.

    `read_days`: a study unknown so far whose last instance is older is not read again until somebody asks. `tell` is
    called with the number of files so far.
    """
    holdings, moved_to = _open(settings, clock())
    try:
        # What is left of a study whose removal broke off must not bring it back.
        holdings.index.evictions.finish(holdings.archive, actor=ACTOR, at=clock())
        run = _Run(holdings, clock, read_days, tell, settings.character_sets)
        for spread in range(SPREADS):
            for uid in run.stock.study_uids("studies", spread):
                run.study(uid)
    finally:
        holdings.index.close()
    return Reindexed(
        moved_to=moved_to,
        instances=run.instances,
        studies=run.studies,
        old_studies=run.old_studies,
        withdrawn_studies=run.withdrawn_studies,
        unreadable=tuple(run.unreadable),
    )


def _open(settings: Settings, now: float) -> tuple[Holdings, Path | None]:
    try:
        holdings = Holdings.open(settings)
    except IndexDamaged:
        moved_to = _put_aside(settings.node.data_dir / INDEX_FILE, now)
        return Holdings.open(settings), moved_to
    if settings.index.url or not holdings.index.damage():
        return holdings, None
    holdings.index.close()
    moved_to = _put_aside(settings.node.data_dir / INDEX_FILE, now)
    return Holdings.open(settings), moved_to


def _put_aside(index: Path, now: float) -> Path:
    """Rename the database with its journal; nothing is deleted."""
    moved_to = index.with_name(f"{index.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
    for ending in ("-wal", "-shm", ""):
        part = index.with_name(index.name + ending)
        if part.exists():
            part.rename(moved_to.with_name(moved_to.name + ending))
    return moved_to


class _Run:
    """One run over the archive, and what it found."""

    def __init__(
        self,
        holdings: Holdings,
        clock: Callable[[], float],
        read_days: float | None,
        tell: Callable[[int], None],
        character_sets: Mapping[str, str],
    ) -> None:
        self.stock = Stock(holdings.archive)
        self._archive, self._index = holdings.archive, holdings.index
        self._clock, self._read_days, self._tell = clock, read_days, tell
        self._character_sets = character_sets
        self.files = self.instances = self.studies = self.old_studies = self.withdrawn_studies = 0
        self.unreadable: list[str] = []

    def study(self, uid: str) -> None:
        """Take in the files of one study that the index does not know."""
        known = self._index.inventory.files_of(uid)
        unknown = [path for path in self.stock.files_of(uid) if path.startswith("studies/") and path not in known]
        instances = [instance for path in unknown if (instance := self._read(uid, path)) is not None]
        # As they came; what came under a UID that was taken has the longer name.
        for instance in sorted(instances, key=lambda instance: (instance.received_at, len(instance.path))):
            # A study that is known grew now.
            at = self._clock() if known else instance.received_at
            self._index.studies.add_instance(replace(instance, received_at=at))
        self.instances += len(instances)
        if instances:
            cause = f"{len(instances)} file(s) of the archive that the index did not know were taken in"
            self._index.inventory.remark(uid, cause, actor=ACTOR, at=self._clock())
        if instances and not known:
            self.studies += 1
            if not self._was_withdrawn(uid):
                self._settle(uid, max(instance.received_at for instance in instances))

    def _was_withdrawn(self, uid: str) -> bool:
        """Whether a result of the study was taken back; then it is not read again until somebody asks.

        Read by itself, it would give the same report under the UIDs that its peers were told to reject.
        """
        rejections, objects = read_rejections(self._archive, self.stock.files_of(uid, ("results",)))
        if rejections:
            self._index.withdrawals.found(uid, rejections, objects, ACTOR)
            self._leave_unread(uid, "its result was withdrawn; see its rejection note")
            self.withdrawn_studies += 1
        return bool(rejections)

    def _read(self, uid: str, path: str) -> Instance | None:
        self.files += 1
        self._tell(self.files)
        try:
            instance = read_kept_instance(self._archive.path_of(path), path, self._character_sets)
        except UnreadableInstance:
            self.unreadable.append(path)
            return None
        # A file in a place that is not its own would be no part of what its place says.
        if self._archive.place_of(self._archive.path_of(path), instance) != path or instance.study_instance_uid != uid:
            self.unreadable.append(path)
            return None
        return instance

    def _settle(self, uid: str, last_received_at: float) -> None:
        """Let a study that is too old not be read again."""
        if self._read_days is None or self._clock() - last_received_at <= self._read_days * _SECONDS_A_DAY:
            return
        self._leave_unread(uid, f"older than {self._read_days:g} days")
        self.old_studies += 1

    def _leave_unread(self, uid: str, why: str) -> None:
        cause = f"taken in from the archive, {why}; `dicom-node requeue` has it read again"
        for state in (StudyState.COMPLETE, StudyState.NOT_ROUTED):
            self._index.studies.move(uid, state, cause=cause, actor=ACTOR, at=self._clock())
