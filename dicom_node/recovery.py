"""Recovery: after a stop at any moment, a power cut too, archive and index agree again before anything is received.

It costs what was in hand when the node stopped, not what the archive holds: the second names in incoming/ (see
`intake`), the directories of studies that are still to be read, and a few rows. The whole archive is looked at by
`stocktaking`.
"""

import logging
import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.kept_instance import read_kept_instance
from dicom_node.archive.stock import Stock
from dicom_node.core.errors import NodeError, SettingsError, UnreadableInstance
from dicom_node.core.lifecycle import StudyState

log = logging.getLogger(__name__)

ACTOR = "recovery"


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was mended, in numbers."""

    #: Whole files that the index did not know, and now knows.
    instances_indexed: int = 0
    #: Files that were not whole; their senders had no success for them.
    unfinished_removed: int = 0
    #: Results that a worker had not finished.
    results_removed: int = 0
    #: Studies whose removal from the disk was finished.
    evictions_finished: int = 0
    #: Associations that the stop broke off.
    associations_ended: int = 0
    #: Workers of this machine that are gone; their jobs are read by another.
    workers_gone: int = 0
    #: Studies still to be read of which files are missing; they have FAILED.
    studies_failed: int = 0

    @property
    def anything(self) -> bool:
        """Whether there was something to mend."""
        return any(getattr(self, field.name) for field in fields(self))


class Recovery:
    """Mends what the end of an earlier process left behind; for the one node that owns the archive."""

    def __init__(
        self,
        archive: Archive,
        index: Index,
        clock: Callable[[], float],
        character_sets: Mapping[str, str] | None = None,
    ) -> None:
        """`character_sets`: calling AE title to that of the texts that came from there without one."""
        self._archive = archive
        self._stock = Stock(archive)
        self._index = index
        self._clock = clock
        self._character_sets = character_sets

    def run(self) -> Recovered:
        """Mend everything, before the first part of the node starts; SettingsError where the archive is not there."""
        self._check_that_the_archive_is_there()
        # Lost associations first: an instance that is indexed below must not look as if more of it were on the way.
        associations = self._end_associations()
        evictions = self.finish_evictions()
        indexed, removed = self.adopt()
        recovered = Recovered(
            instances_indexed=indexed,
            unfinished_removed=removed,
            results_removed=self._archive.sweep(),
            evictions_finished=evictions,
            associations_ended=associations,
            workers_gone=self._abandon_workers(),
            studies_failed=self._fail_studies(),
        )
        if recovered.anything:
            counts = {f"{field.name}_count": getattr(recovered, field.name) for field in fields(recovered)}
            log.warning("an earlier run ended in the middle of its work; this was mended", extra=counts)
        return recovered

    def adopt(self, before: float = math.inf) -> tuple[int, int]:
        """Index the whole files of incoming/ that the index does not know, remove the others.

        `before`: only names from before this time, while instances are being received. Returns how many of each.
        """
        indexed = removed = 0
        for path, is_whole in self._archive.leftovers(before):
            if is_whole is None:
                log.error("a file of an earlier run could not be read", extra={"error": "OSError"})
                continue
            try:
                indexed += is_whole and self._adopt(path)
            except NodeError as error:
                # One file that cannot be taken must not keep the node from starting; its name stays for the next start.
                log.error("a file of an earlier run could not be indexed", extra={"reason": str(error)})
                continue
            except Exception as error:  # a file of any bytes, or a disk that fails at it, is no end of the node either
                facts = {"error": type(error).__name__}
                log.error("a file of an earlier run could not be read", extra=facts, exc_info=True)
                continue
            if not is_whole:
                self._withdraw(path)
            path.unlink(missing_ok=True)
            removed += not is_whole
        return indexed, removed

    def _adopt(self, incoming: Path) -> bool:
        """Whether the file became part of its study, which it was not."""
        try:
            instance = read_kept_instance(incoming, character_sets=self._character_sets)
        except UnreadableInstance:
            # Linked by somebody else: nothing of ours has two names before it is whole.
            return False
        place = self._archive.place_of(incoming, instance)
        if place is None or self._index.inventory.knows(place):
            return False
        with self._archive.filing(instance.study_instance_uid):
            # A process that was killed may have left it to the disk's cache.
            self._archive.settle(place)
            # Its study grew now, whenever the file was written.
            found = replace(instance, path=place, received_at=self._clock())
            self._index.studies.add_instance(found, written=True)
        cause = f"instance {instance.sop_instance_uid} was stored but not yet indexed when the node stopped; it is now"
        self._index.inventory.remark(instance.study_instance_uid, cause, actor=ACTOR, at=self._clock())
        uids = {"study_instance_uid": instance.study_instance_uid, "sop_instance_uid": instance.sop_instance_uid}
        log.warning("a stored instance was not in the index; it is now", extra=uids)
        return True

    def _withdraw(self, incoming: Path) -> None:
        """Take its place from a file that did not become whole; nobody had success for it."""
        place = self._archive.torn_place(incoming)
        if place is not None and not self._index.inventory.knows(place):
            self._archive.path_of(place).unlink(missing_ok=True)

    def _check_that_the_archive_is_there(self) -> None:
        """An empty folder where the archive's disk should be must not be taken for the loss of every file."""
        if self._stock.is_empty() and not self._index.inventory.is_empty():
            raise SettingsError(
                f"the index knows studies, but the archive in {self._archive.path_of('')} is empty: mount its disk or "
                "correct data_dir of [node]; where the files are really gone, move the index away, too"
            )

    def _end_associations(self) -> int:
        studies = self._index.studies
        for reception in studies.receptions():
            if reception.open_associations:
                cause = f"{reception.open_associations} association(s) that sent of it broke off when the node stopped"
                self._index.inventory.remark(reception.study_instance_uid, cause, actor=ACTOR, at=self._clock())
        return studies.end_open_associations(self._clock())

    def finish_evictions(self) -> int:
        """Remove what is left of the files of studies that left the disk; of how many studies."""
        try:
            return self._index.evictions.finish(self._archive, actor=ACTOR, at=self._clock())
        except OSError as error:
            # Nobody counts on these files; `retention` tries again.
            log.error("files of a study that left the disk cannot be removed", extra={"error": type(error).__name__})
            return 0

    def _abandon_workers(self) -> int:
        """The leases of workers of this machine whose process is gone end now instead of in their time."""
        gone = [row.worker for row in self._index.workers.rows() if _is_gone(row.worker)]
        for worker in gone:
            self._index.jobs.abandon(worker, self._clock())
            self._index.workers.ended(worker)
        return len(gone)

    def _fail_studies(self) -> int:
        failed = 0
        for study_instance_uid, count in self._index.inventory.in_hand().items():
            # Counted first: with as many files as rows nothing is missing but what a reading finds by itself.
            if len(self._stock.files_of(study_instance_uid, areas=("studies",))) >= count:
                continue
            files = self._index.inventory.evidence_of(study_instance_uid)
            missing = set(self._stock.missing(file.path for file in files))
            if not missing:
                continue
            lost = [file for file in files if file.path in missing]
            self._index.inventory.lose(study_instance_uid, lost, of=len(files), actor=ACTOR, at=self._clock())
            facts = {"study_instance_uid": study_instance_uid, "files": len(lost), "state": StudyState.FAILED}
            log.error("files of a study that is still to be read are missing", extra=facts)
            failed += 1
        return failed


def _is_gone(worker: str) -> bool:
    """Whether a worker, called host:process, is of this machine and its process does not run."""
    host, _, number = worker.rpartition(":")
    # As a worker cuts its host's name.
    if host != socket.gethostname()[:50] or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
