"""Owed: what peers are to be told beside reports: why a study was not read, and that a result was withdrawn."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.job_rows import ReportRow
from dicom_node.archive.reports import HELD, MEND, PART_HELD
from dicom_node.archive.withdrawals import Withdrawal
from dicom_node.core.errors import ArchiveUnusable, IndexUnavailable, TriageError, UnreadableInstance
from dicom_node.core.form import BY_DEFAULT, ESSENTIAL, Form
from dicom_node.core.job import Job
from dicom_node.telemetry import log_context
from workers.pipe import Explain, ReceivedImage, Reject
from workers.readings import Readings, Stopped
from workers.series import instances_of, keep, series_to_read

log = logging.getLogger(__name__)

#: So many are looked at, and each is tried so often.
_AT_ONCE = 20
_TRIES = 3
#: A withdrawal that could not be written rests so long between rounds of tries: it is never given up for what may pass.
_REST_SECONDS = 300.0
#: The name among the index's conditions of withdrawals that nobody could be told of yet.
NOT_TOLD = "withdrawals"
#: Where one of these must not be sent, peers are not told.
_ANSWERS = (*ESSENTIAL, Form.REJECTION)


class Owed:
    """Writes what is owed, one thing at a time; what it is, the index knows, also after a restart."""

    def __init__(
        self,
        index: Index,
        archive: Archive,
        readings: Readings,
        *,
        worker: str,
        clock: Callable[[], float],
        stopped: Callable[[], bool],
        forms: frozenset[Form] = BY_DEFAULT,
    ) -> None:
        """`forms` are those that reports are written in."""
        self._index = index
        self._archive = archive
        self._readings = readings
        self._worker = worker
        self._clock = clock
        self._stopped = stopped
        self._forms = forms
        self._tries: Counter[str] = Counter()
        #: When what is never given up may be tried again.
        self._rests_until: dict[str, float] = {}

    def withdraw_next(self) -> bool:
        """Write the notes of the next withdrawal; whether there was one, and they were written or given up.

        Raises ArchiveUnusable where the archive is in the way: that is tried again without end, and so is whatever else
        may pass.
        """
        with self._waiting_for_index():
            for withdrawal in self._index.withdrawals.owed():
                name = f"withdrawal {withdrawal.number}"
                if not self._rests(name) and self._may_try(name):
                    with self._trying(name), log_context(study_instance_uid=withdrawal.study_instance_uid):
                        return self._withdraw(withdrawal)
        return False

    def explain_next(self) -> bool:
        """Say of the next study why it was not read; the rest as `withdraw_next`."""
        with self._waiting_for_index():
            for job, error in self._index.jobs.owed(_AT_ONCE):
                uids = {"job_uid": job.job_uid, "study_instance_uid": job.study_instance_uid}
                if self._may_try(job.job_uid):
                    with self._trying(job.job_uid), log_context(**uids):
                        return self._explain(job, error)
        return False

    @contextmanager
    def _waiting_for_index(self) -> Iterator[None]:
        try:
            yield
        except IndexUnavailable as unavailable:
            log.warning("what is owed to peers waits for the index", extra={"reason": str(unavailable)})

    @contextmanager
    def _trying(self, name: str) -> Iterator[None]:
        """Nothing is wrong with what only the index was in the way of: that is tried again without end."""
        try:
            yield
        except IndexUnavailable:
            self._tries[name] -= 1
            raise

    def _may_try(self, name: str) -> bool:
        self._tries[name] += 1
        return self._tries[name] <= _TRIES

    def _rests(self, name: str) -> bool:
        # More than the whole time ahead, the rest began before the clock was set back.
        return 0.0 < self._rests_until.get(name, 0.0) - self._clock() <= _REST_SECONDS

    def _explain(self, job: Job, error: str) -> bool:
        """Say why a job ended without a report, or that this cannot be said; False where it is to be tried later."""
        cause = "a report was written that says why there is none"
        rows, trouble = self._tried(job.job_uid, lambda: self._explained(job, error))
        if rows is None:
            return False
        if trouble:
            cause = f"nothing is sent that says why there is no report: {trouble}"
            log.error("a peer is not told why a study was not read", extra={"reason": trouble})
        elif beside := "; ".join(f"{row.form} is held: {row.held}" for row in rows if row.held):
            cause = f"{cause}; {beside}"
            log.error("a report that says why a study was not read is not sent in every form", extra={"reason": beside})
        if self._index.jobs.answered(job, rows, cause=cause, actor=self._worker, at=self._clock()):
            # Read again, it may come to another end, of which its peers are to be told as well.
            del self._tries[job.job_uid]
        return True

    def _withdraw(self, withdrawal: Withdrawal) -> bool:
        """Write the rejection notes of a withdrawal: one for all peers that hold the same objects."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for peer, uids in withdrawal.objects.items():
            groups.setdefault(uids, []).append(peer)
        name = f"withdrawal {withdrawal.number}"
        rows, trouble = self._tried(
            name, lambda: [row for uids in groups for row in self._rejected(withdrawal, uids)], gives_up=False
        )
        if rows is None:
            if self._tries[name] >= _TRIES:
                self._let_rest(name)
            return False
        notes = list(zip(rows, groups.values(), strict=True)) if rows else []
        names = ", ".join(sorted(withdrawal.objects))
        cause = f"rejection note written for {names}"
        if trouble:
            cause = f"no rejection note is sent to {names}, tell them yourself: {trouble}"
            log.error("a peer is not told that a result was withdrawn", extra={"reason": trouble})
        self._index.withdrawals.written(withdrawal, notes, cause=cause, actor=self._worker, at=self._clock())
        if not self._index.withdrawals.owed():
            self._index.conditions.ended(NOT_TOLD)
        return True

    def _let_rest(self, name: str) -> None:
        """People must see that peers still use what was taken back."""
        now = self._clock()
        self._tries[name], self._rests_until[name] = 0, now + _REST_SECONDS
        reason = "peers are not told yet that a result was withdrawn: its note cannot be written; see the worker's log"
        self._index.conditions.began(NOT_TOLD, reason=reason, at=now)
        log.error("a peer is not told yet that a result was withdrawn; it is tried again")

    def _tried(
        self, name: str, write: Callable[[], list[ReportRow]], *, gives_up: bool = True
    ) -> tuple[list[ReportRow] | None, str]:
        """What was written and what is wrong with it; None for the first where it is to be tried again."""
        try:
            rows = write()
        except Stopped:
            self._tries[name] -= 1
            return None, ""
        except ArchiveUnusable:
            self._tries[name] -= 1
            raise
        except OSError as error:
            self._tries[name] -= 1
            raise ArchiveUnusable.by_disk(error) from error
        except TriageError as error:
            if error.retryable and (self._tries[name] < _TRIES or not gives_up):
                return None, ""
            return [], str(error)
        if any(row.held for row in rows):
            self._index.conditions.began(HELD, reason=f"an object {MEND}", at=self._clock())
        held = next((row.held for row in rows if row.held and row.form in _ANSWERS), "")
        return rows, f"it failed its checks and is held: {held}" if held else ""

    def _explained(self, job: Job, error: str) -> list[ReportRow]:
        instances = instances_of(self._index, job.study_instance_uid, job.series_instance_uid)
        request = Explain(
            job_uid=job.job_uid,
            series=series_to_read(instances, job.algorithm, job.evidence),
            instances=tuple(
                ReceivedImage(sop_instance_uid=i.sop_instance_uid, sop_class_uid=i.sop_class_uid, path=i.path)
                for i in instances
            ),
            error=error,
            reason=job.reason,
            earlier=self._index.reports.earlier(job),
            forms=self._forms,
        )
        rows = self._asked(request)
        if any(row.held and row.form in ESSENTIAL for row in rows):
            return [replace(row, held=row.held or PART_HELD) for row in rows]
        return rows

    def _rejected(self, withdrawal: Withdrawal, uids: Sequence[str]) -> list[ReportRow]:
        files = self._index.withdrawals.files(withdrawal)
        if missing := [uid for uid in uids if uid not in files]:
            raise UnreadableInstance(f"{len(missing)} object(s) that were withdrawn are not in the index any more")
        study = withdrawal.study_instance_uid
        number = 1 + [one.number for one in self._index.withdrawals.of_study(study)].index(withdrawal.number)
        request = Reject(
            job_uid=f"withdrawal {withdrawal.number}",
            study_instance_uid=study,
            paths=tuple(files[uid] for uid in uids),
            safety=withdrawal.safety,
            reason=withdrawal.reason,
            asked_at=withdrawal.asked_at,
            number=number,
        )
        return self._asked(request)

    def _asked(self, request: Explain | Reject) -> list[ReportRow]:
        written = self._readings.read(request, stopped=self._stopped, unwanted=lambda: False).objects
        return [keep(self._archive, one) for one in written]
