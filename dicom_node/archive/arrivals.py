"""The index's facts about arriving studies: what came, what sources say there is, and which senders can be asked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.studies import Studies
from dicom_node.archive.transactions import Transactions
from dicom_node.core.completeness import StudyFacts
from dicom_node.core.expectation import Question, Told, peer_source
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.performed_step import StepState

ACTOR = "inquiry"

#: Of so many of the newest instances the pauses in between count.
NEWEST = 8

#: A database takes only so many values in one question.
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Asked:
    """That a peer was asked about a study, and when it is asked again."""

    study_instance_uid: str
    peer: str
    asked_at: float
    attempts: int
    next_try_at: float


class Arrivals:
    """What is known of studies that are RECEIVING."""

    def __init__(self, transactions: Transactions, studies: Studies) -> None:
        self._transactions = transactions
        self._studies = studies
        self._tables = transactions.tables
        names = ("studies", "instances", "expected_instances")
        table, instances, expected = (self._tables[name] for name in names)
        uids: sa.BindParameter[list[str]] = sa.bindparam("uids", expanding=True)
        final = sa.exists().where(
            expected.c.study_instance_uid == table.c.study_instance_uid, expected.c.final.is_(True)
        )
        arriving = sa.select(table.c.study_instance_uid, table.c.last_received_at, final)
        self._arriving = PreparedQuery(arriving.where(table.c.state == StudyState.RECEIVING.value))
        self._evidence = sa.select(
            instances.c.study_instance_uid, instances.c.series_instance_uid, instances.c.received_at
        ).where(instances.c.conflict.is_(False), instances.c.study_instance_uid.in_(uids))
        self._expected = sa.select(expected).where(expected.c.study_instance_uid.in_(uids))
        steps, of_study = (self._tables[name] for name in ("performed_steps", "performed_step_studies"))
        self._steps = (
            sa.select(of_study.c.study_instance_uid, sa.func.count())
            .join(steps, steps.c.sop_instance_uid == of_study.c.sop_instance_uid)
            .where(steps.c.state == StepState.IN_PROGRESS.value, of_study.c.study_instance_uid.in_(uids))
            .group_by(of_study.c.study_instance_uid)
        )

    def tell(
        self, study_instance_uid: str, counts: Mapping[str, int], *, source: str, at: float, final: bool = False
    ) -> None:
        """Note how many instances a source says there are, in place of what it said before.

        Counts are by Series Instance UID, the one of the whole study under "". A performed procedure step that was
        COMPLETED is told as source "MPPS", final, with the sums over all steps of the study; the study may be unknown.
        """
        with self._transactions.write(durable=False) as connection:
            self._lock(connection, study_instance_uid)
            self._tell(connection, study_instance_uid, counts, source=source, at=at, final=final)

    def enter(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        counts: Mapping[str, int],
        *,
        source: str,
        at: float,
        final: bool,
        instead_of: Callable[[str], bool],
    ) -> None:
        """As `tell`, within a transaction, in place of what these sources said; the history tells what is new."""
        state = self._lock(connection, study_instance_uid)
        expected = self._tables["expected_instances"]
        of_study = expected.c.study_instance_uid == study_instance_uid
        query = sa.select(expected.c.series_instance_uid, expected.c["count"], expected.c.source).where(of_study)
        known = [tuple(row) for row in connection.execute(query) if instead_of(row[2])]
        replaced = expected.c.source.in_(sorted({row[2] for row in known}))
        connection.execute(sa.delete(expected).where(of_study, replaced))
        self._tell(connection, study_instance_uid, counts, source=source, at=at, final=final)
        if sorted(known) != sorted((series, count, source) for series, count in counts.items()):
            self._remark(connection, study_instance_uid, state, _counted(source, counts), at=at)

    def available(self, study_instance_uid: str, counts: Mapping[str, int], *, source: str, at: float) -> None:
        """Note that a source has so many instances of these series, durable at return.

        Each notification may be of a part of the study or of a series: the most that was told of each series counts,
        and nothing is said of the whole.
        """
        with self._transactions.write() as connection:
            self._lock(connection, study_instance_uid)
            known = self._counts(connection, study_instance_uid, source)
            most = {uid: max(count, known.get(uid, 0)) for uid, count in counts.items()}
            counts = known | most
            self.enter(
                connection, study_instance_uid, counts, source=source, at=at, final=False, instead_of=source.__eq__
            )

    def answered(self, asked: Asked, counts: Mapping[str, int], *, held: int) -> None:
        """Note what a peer counts, less the series that we made of the study ourselves; a new count enters the history.

        `held` is how many instances were here when it was asked.
        """
        uid, source = asked.study_instance_uid, peer_source(asked.peer)
        with self._transactions.write(durable=False) as connection:
            state = self._lock(connection, uid)
            counts = self._without_ours(connection, uid, counts)
            known = self._counts(connection, uid, source)
            self._tell(connection, uid, counts, source=source, at=asked.asked_at, final=False)
            self._note(connection, asked, vain_since=None, reason="")
            if known != counts:
                self._remark(connection, uid, state, f"{_counted(source, counts)}; {held} are here", at=asked.asked_at)

    def unanswered(self, asked: Asked, reason: str) -> None:
        """Note that a peer was asked in vain, and why; a new reason enters the history."""
        with self._transactions.write(durable=False) as connection:
            state = self._lock(connection, asked.study_instance_uid)
            before = self._inquiry(connection, asked)
            since = None if before is None else before["vain_since"]
            self._note(connection, asked, vain_since=asked.asked_at if since is None else since, reason=reason)
            if since is None or before is None or before["reason"] != reason:
                words = f"{peer_source(asked.peer)} was asked in vain: {reason}"
                self._remark(connection, asked.study_instance_uid, state, words, at=asked.asked_at)

    def arriving(self) -> dict[str, tuple[float, bool]]:
        """Of each study that is RECEIVING: when its last instance came, and whether a source counted what was made."""
        with self._transactions.read() as connection:
            rows = self._arriving.tuples(connection)
        return {uid: (at, bool(counted)) for uid, at, counted in rows}

    def facts(
        self, study_instance_uids: Sequence[str], askable: Mapping[str, tuple[str, ...]] | None = None
    ) -> dict[str, StudyFacts]:
        """The facts of those of these studies that are RECEIVING, without what is missing.

        `askable`: calling AE title to the peers that send under it and can be asked.
        """
        found: dict[str, StudyFacts] = {}
        for start in range(0, len(study_instance_uids), _AT_ONCE):
            found |= self._facts(study_instance_uids[start : start + _AT_ONCE], askable or {})
        return found

    def _facts(self, uids: Sequence[str], askable: Mapping[str, tuple[str, ...]]) -> dict[str, StudyFacts]:
        receptions = self._studies.receptions(uids)
        with self._transactions.read() as connection:
            told = self._told(connection, uids)
            questions = self._questions(connection, uids, askable) if askable else {}
            steps: dict[str, int] = {row[0]: row[1] for row in connection.execute(self._steps, {"uids": uids})}
        return {
            reception.study_instance_uid: StudyFacts(
                last_received_at=reception.last_received_at,
                open_associations=reception.open_associations,
                aborted_associations=reception.aborted_associations,
                steps_in_progress=steps.get(reception.study_instance_uid, 0),
                told=tuple(told.get(reception.study_instance_uid, ())),
                questions=tuple(questions.get(reception.study_instance_uid, ())),
            )
            for reception in receptions
        }

    def held(self, study_instance_uids: Iterable[str]) -> dict[str, tuple[dict[str, int], float]]:
        """Evidence instances by series, and the longest pause between the newest ones in seconds, of each study."""
        wanted = list(study_instance_uids)
        series: dict[str, dict[str, int]] = {uid: {} for uid in wanted}
        times: dict[str, list[float]] = {uid: [] for uid in wanted}
        with self._transactions.read() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                some = {"uids": wanted[start : start + _AT_ONCE]}
                for study_uid, series_uid, at in connection.execute(self._evidence, some):
                    series[study_uid][series_uid] = series[study_uid].get(series_uid, 0) + 1
                    times[study_uid].append(at)
        return {uid: (series[uid], _longest_pause(times[uid])) for uid in wanted}

    def _tell(
        self, connection: sa.Connection, uid: str, counts: Mapping[str, int], *, source: str, at: float, final: bool
    ) -> None:
        expected = self._tables["expected_instances"]
        same = (expected.c.study_instance_uid == uid, expected.c.source == source)
        connection.execute(sa.delete(expected).where(*same))
        shared = {"study_instance_uid": uid, "source": source, "told_at": at, "final": final}
        rows = [{"series_instance_uid": series, "count": count, **shared} for series, count in sorted(counts.items())]
        if rows:
            connection.execute(sa.insert(expected), rows)

    def _without_ours(self, connection: sa.Connection, uid: str, counts: Mapping[str, int]) -> dict[str, int]:
        """A peer that got our reports counts them too."""
        reports = self._tables["reports"]
        query = sa.select(reports.c.series_instance_uid).where(reports.c.study_instance_uid == uid)
        ours = set(connection.execute(query.distinct()).scalars())
        kept = {series: count for series, count in counts.items() if series not in ours}
        if "" in kept:
            kept[""] -= sum(count for series, count in counts.items() if series in ours)
        return kept

    def _counts(self, connection: sa.Connection, uid: str, source: str) -> dict[str, int]:
        expected = self._tables["expected_instances"]
        query = sa.select(expected.c.series_instance_uid, expected.c["count"])
        rows = connection.execute(query.where(expected.c.study_instance_uid == uid, expected.c.source == source))
        return {row[0]: row[1] for row in rows}

    def _inquiry(self, connection: sa.Connection, asked: Asked) -> sa.RowMapping | None:
        inquiries = self._tables["inquiries"]
        query = sa.select(inquiries).where(*self._same(asked))
        return connection.execute(query).mappings().first()

    def _same(self, asked: Asked) -> tuple[sa.ColumnElement[bool], ...]:
        inquiries = self._tables["inquiries"]
        return (inquiries.c.study_instance_uid == asked.study_instance_uid, inquiries.c.peer == asked.peer)

    def _note(self, connection: sa.Connection, asked: Asked, *, vain_since: float | None, reason: str) -> None:
        inquiries = self._tables["inquiries"]
        row = {**vars(asked), "vain_since": vain_since, "reason": reason}
        if connection.execute(sa.update(inquiries).where(*self._same(asked)).values(**row)).rowcount == 0:
            connection.execute(sa.insert(inquiries).values(**row))

    def _lock(self, connection: sa.Connection, uid: str) -> str | None:
        """The study's state, its row locked where the database can, so that two writers of its facts take turns."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.state).where(studies.c.study_instance_uid == uid).with_for_update()
        return connection.execute(query).scalar_one_or_none()

    def _remark(self, connection: sa.Connection, uid: str, state: str | None, words: str, *, at: float) -> None:
        """Let people see what the study waits for; one that has gone on meanwhile waits for nothing."""
        if state != StudyState.RECEIVING:
            return
        studies = self._tables["studies"]
        connection.execute(sa.update(studies).where(studies.c.study_instance_uid == uid).values(reason=words))
        self._transactions.remark(connection, uid, before=state, after=state, cause=words, actor=ACTOR, at=at)

    def _told(self, connection: sa.Connection, uids: Sequence[str]) -> dict[str, list[Told]]:
        found: dict[str, list[Told]] = {}
        for row in connection.execute(self._expected, {"uids": uids}).mappings():
            fields = {name: row[name] for name in Told.__dataclass_fields__}
            found.setdefault(row["study_instance_uid"], []).append(Told(**fields))
        return found

    def _questions(
        self, connection: sa.Connection, uids: Sequence[str], askable: Mapping[str, tuple[str, ...]]
    ) -> dict[str, list[Question]]:
        """The peers that sent of each study and can be asked, whether or not they were yet."""
        names = ("inquiries", "association_studies", "associations")
        inquiries, sent, associations = (self._tables[name] for name in names)
        query = sa.select(inquiries).where(inquiries.c.study_instance_uid.in_(uids))
        asked = {
            (row["study_instance_uid"], row["peer"]): Question(
                **{name: row[name] for name in Question.__dataclass_fields__}
            )
            for row in connection.execute(query).mappings()
        }
        senders = (
            sa.select(sent.c.study_instance_uid, associations.c.calling_ae_title)
            .join(associations, associations.c.association_id == sent.c.association_id)
            .where(sent.c.study_instance_uid.in_(uids), associations.c.calling_ae_title.in_(sorted(askable)))
            .distinct()
        )
        pairs = sorted({(uid, peer) for uid, title in connection.execute(senders) for peer in askable[title]})
        found: dict[str, list[Question]] = {}
        for uid, peer in pairs:
            found.setdefault(uid, []).append(asked.get((uid, peer), Question(peer=peer)))
        return found


def _counted(source: str, counts: Mapping[str, int]) -> str:
    series = [count for uid, count in counts.items() if uid]
    total = counts.get("", sum(series))
    return f"{source} counts {total} instances{f' in {len(series)} series' if series else ''}"


def _longest_pause(times: list[float]) -> float:
    newest = sorted(times)[-NEWEST:]
    return max((after - before for before, after in pairwise(newest)), default=0.0)
