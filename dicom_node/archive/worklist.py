"""The worklist: which studies people may open next, in the order of `core.reading_order`, a page at a time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.lines import StudyLine
from dicom_node.archive.overview import read_lines
from dicom_node.archive.settlement import stands
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.reading_order import MOST_URGENT, Candidate, Urgency, place, urgency_of

#: States in which a job's result does not stand.
_SILENT = frozenset({StudyState.WITHDRAWN.value, StudyState.RECEIVING.value, StudyState.COMPLETE.value})

#: Studies of one query for their flags.
_A_LOOK = 500


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which part of the worklist is wanted."""

    #: Studies whose last image came since then.
    since: float
    urgency: Urgency | None = None
    state: StudyState | None = None
    #: The beginning of a Study Instance UID, or the hash of an Accession Number; either is looked for at all times.
    study: str = ""
    accession: str = ""
    page: int = 0


@dataclass(frozen=True, kw_only=True)
class WorklistLine:
    """One study to open."""

    urgency: Urgency
    study: StudyLine
    #: It waits for too long, which alone makes it actionable.
    waits_long: bool
    #: The study has a segmentation that a picture can be drawn of.
    has_picture: bool


@dataclass(frozen=True, kw_only=True)
class Worklist:
    """One page of the worklist."""

    now: float
    lines: tuple[WorklistLine, ...]
    #: Of the whole list.
    counts: dict[Urgency, int]
    page: int
    pages: int


def read_worklist(index: Index, wish: Wish, now: float, *, longest_wait_seconds: float, size: int = 50) -> Worklist:
    """The page of the worklist.

    Looked at one by one are the studies that may be urgent for another reason than their waiting: new ones, and those
    with the highest priority or flag. All others have waited too long, and stand in the order of their arrival.
    """
    waited = _Waited(index, wish, now - longest_wait_seconds)
    candidates = _candidates(index, wish, waited)
    of = {one.study_instance_uid: urgency_of(one, now, longest_wait_seconds) for one in candidates}
    candidates.sort(key=lambda one: place(one, now, longest_wait_seconds))
    groups = {
        urgency: [one.study_instance_uid for one in candidates if of[one.study_instance_uid] is urgency]
        for urgency in Urgency
    }
    rest = waited.count(frozenset(of))
    counts = {urgency: len(group) for urgency, group in groups.items()}
    counts[Urgency.ACTIONABLE] += rest
    wanted = sum(count for urgency, count in counts.items() if wish.urgency in (None, urgency))
    pages = max(1, -(-wanted // size))
    page = min(max(0, wish.page), pages - 1)
    uids = _page(groups, waited, rest, wish.urgency, page * size, size, frozenset(of))
    lines = {line.study_instance_uid: line for line in read_lines(index, uids)}
    drawn = _with_segmentation(index, uids)
    return Worklist(
        now=now,
        lines=tuple(
            WorklistLine(
                urgency=of.get(uid, Urgency.ACTIONABLE),
                study=lines[uid],
                waits_long=now - lines[uid].last_received_at >= longest_wait_seconds,
                has_picture=uid in drawn,
            )
            for uid in uids
            if uid in lines
        ),
        counts=counts,
        page=page,
        pages=pages,
    )


def _page(
    groups: Mapping[Urgency, Sequence[str]],
    waited: "_Waited",
    rest: int,
    urgency: Urgency | None,
    first: int,
    size: int,
    known: frozenset[str],
) -> list[str]:
    """The UIDs of a page: of each group in turn, those that only waited before the newer ones of theirs."""
    uids: list[str] = []
    for group in Urgency if urgency is None else (urgency,):
        if group is Urgency.ACTIONABLE:
            uids += waited.uids(known, first, size - len(uids)) if first < rest and len(uids) < size else []
            first = max(0, first - rest)
        uids += groups[group][first : first + size - len(uids)]
        first = max(0, first - len(groups[group]))
    return uids


def read_version(index: Index) -> str:
    """Changes whenever a study does: two looks at the ends of indexes."""
    tables = index.transactions.tables
    history, studies = tables["history"], tables["studies"]
    with index.transactions.read() as connection:
        last = connection.execute(sa.select(sa.func.max(history.c.number))).scalar()
        arrived = connection.execute(sa.select(sa.func.max(studies.c.last_received_at))).scalar()
    return f"{last or 0}-{arrived or 0}"


@dataclass(frozen=True, kw_only=True)
class SegmentationRow:
    """A segmentation of findings that stands."""

    sop_instance_uid: str
    #: Relative to the archive's root.
    path: str
    #: The job that wrote it.
    job_uid: str


def read_segmentations(index: Index, study_instance_uid: str) -> list[SegmentationRow]:
    """The standing segmentations of a study."""
    reports, jobs = (index.transactions.tables[name] for name in ("reports", "jobs"))
    query = (
        sa.select(reports.c.sop_instance_uid, reports.c.path, reports.c.job_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .where(reports.c.study_instance_uid == study_instance_uid, standing_segmentation(reports, jobs))
        .order_by(reports.c.written_at)
    )
    with index.transactions.read() as connection:
        return [SegmentationRow(**row) for row in connection.execute(query).mappings()]


class _Waited:
    """The studies that have waited too long and may be urgent for no other reason; none where one is looked for."""

    def __init__(self, index: Index, wish: Wish, since: float) -> None:
        self._index = index
        self._studies = studies = index.transactions.tables["studies"]
        #: Received later, a study has not waited so long.
        self.since = math.inf if wish.study or wish.accession else since
        self._is_any = since >= wish.since and not (wish.study or wish.accession)
        self._conditions = [studies.c.last_received_at >= wish.since, studies.c.last_received_at <= since]
        self._conditions += [] if wish.state is None else [studies.c.state == wish.state.value]

    def count(self, known: frozenset[str]) -> int:
        """How many there are beside those that are known."""
        if not self._is_any:
            return 0
        query = sa.select(sa.func.count()).where(*self._conditions)
        looked_at = sa.select(sa.func.count()).where(*self._conditions, self._is_one_of(known))
        with self._index.transactions.read() as connection:
            return int(connection.execute(query).scalar_one() - connection.execute(looked_at).scalar_one())

    def uids(self, known: frozenset[str], offset: int, limit: int) -> list[str]:
        """Those beside the known, in the order of the list."""
        studies = self._studies
        query = sa.select(studies.c.study_instance_uid).where(*self._conditions, ~self._is_one_of(known))
        query = query.order_by(studies.c.last_received_at, studies.c.study_instance_uid).offset(offset).limit(limit)
        with self._index.transactions.read() as connection:
            return list(connection.execute(query).scalars())

    def _is_one_of(self, known: frozenset[str]) -> sa.ColumnElement[bool]:
        # One parameter, however many there are.
        return self._studies.c.study_instance_uid.in_(_listed(self._index, known))


def _listed(index: Index, uids: frozenset[str]) -> sa.Select[Any]:
    """The UIDs as a table of one column."""
    text = json.dumps(sorted(uids))
    if index.transactions.is_sqlite:
        return sa.select(sa.func.json_each(text).table_valued("value").c.value)
    return sa.select(sa.func.json_array_elements_text(sa.cast(text, sa.JSON)))


def _candidates(index: Index, wish: Wish, waited: _Waited) -> list[Candidate]:
    """Studies to be looked at one by one."""
    tables = index.transactions.tables
    studies, jobs, keys = tables["studies"], tables["jobs"], tables["study_keys"]
    columns = (studies.c.study_instance_uid, studies.c.priority, studies.c.last_received_at, studies.c.state)
    conditions = [] if wish.state is None else [studies.c.state == wish.state.value]
    if wish.study:
        # As a range: the index of the primary key serves it, and no sign of a pattern means anything.
        conditions += [studies.c.study_instance_uid >= wish.study, studies.c.study_instance_uid < wish.study + "~"]
    if wish.accession:
        found = sa.select(keys.c.study_instance_uid).where(keys.c.accession == wish.accession)
        conditions.append(studies.c.study_instance_uid.in_(found))
    if wish.study or wish.accession:
        looks = [conditions]
    else:
        conditions.append(studies.c.last_received_at >= wish.since)
        flagged = sa.select(jobs.c.study_instance_uid).where(jobs.c.current.is_(True), _is_flagged(jobs, MOST_URGENT))
        looks = [
            [*conditions, studies.c.last_received_at > waited.since],
            [*conditions, studies.c.priority == Priority.STAT.value],
            [*conditions, studies.c.study_instance_uid.in_(flagged), studies.c.state.not_in(sorted(_SILENT))],
        ]
    with index.transactions.read() as connection:
        rows = {row[0]: row for look in looks for row in connection.execute(sa.select(*columns).where(*look))}
        flags = _flags(connection, jobs, [uid for uid, *_, state in rows.values() if state not in _SILENT])
    return [
        Candidate(
            study_instance_uid=uid,
            priority=Priority(priority),
            last_received_at=at,
            flags=() if state in _SILENT else tuple(flags.get(uid, ())),
        )
        for uid, priority, at, state in rows.values()
    ]


def _flags(connection: sa.Connection, jobs: sa.Table, uids: Sequence[str]) -> dict[str, list[str]]:
    """What the current jobs of these studies say of the priority."""
    query = sa.select(jobs.c.study_instance_uid, _flag(jobs)).where(jobs.c.current.is_(True), _is_flagged(jobs))
    flags: dict[str, list[str]] = {}
    for start in range(0, len(uids), _A_LOOK):
        some = jobs.c.study_instance_uid.in_(uids[start : start + _A_LOOK])
        for uid, text in connection.execute(query.where(some)):
            flags.setdefault(uid, []).append(text)
    return flags


def _flag(jobs: sa.Table) -> sa.ColumnElement[str]:
    return sa.func.coalesce(jobs.c.flag, jobs.c.summary["priority"].as_string())


def _is_flagged(jobs: sa.Table, beginning: str = "") -> sa.ColumnElement[bool]:
    """Whether a job's flag begins so; of a job of an earlier version its summary says it."""
    in_summary = jobs.c.summary["priority"].as_string()
    if not beginning:
        return sa.or_(jobs.c.flag != "", sa.and_(jobs.c.flag.is_(None), in_summary != ""))
    begins = sa.and_(jobs.c.flag >= beginning, jobs.c.flag < beginning + "~")
    return sa.or_(begins, sa.and_(jobs.c.flag.is_(None), in_summary.startswith(beginning)))


def _with_segmentation(index: Index, uids: Sequence[str]) -> frozenset[str]:
    reports, jobs = (index.transactions.tables[name] for name in ("reports", "jobs"))
    query = (
        sa.select(reports.c.study_instance_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .where(reports.c.study_instance_uid.in_(uids), standing_segmentation(reports, jobs))
    )
    with index.transactions.read() as connection:
        return frozenset(connection.execute(query).scalars())


def standing_segmentation(reports: sa.Table, jobs: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a row is of a segmentation of findings that stands."""
    return sa.and_(
        reports.c.form.in_([Form.SEG.value, ""]),
        reports.c.sop_class_uid == "1.2.840.10008.5.1.4.1.1.66.4",
        reports.c.held == "",
        stands(reports),
        jobs.c.current.is_(True),
    )
