"""The worklist: which studies people may open next, in the order of `core.reading_order`, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.lines import StudyLine
from dicom_node.archive.overview import read_lines
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.reading_order import Candidate, Urgency, place, urgency_of

#: States in which a job's result does not stand.
_NO_RESULT = (StudyState.WITHDRAWN, StudyState.RECEIVING, StudyState.COMPLETE)

#: Studies of one query for their flags, and how many are so few that such queries are made.
_A_LOOK, _FEW = 500, 5000


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
    """The page of the worklist; two queries over the studies of the time that is asked for, the rest over one page."""
    candidates = _candidates(index, wish)
    of = {one.study_instance_uid: urgency_of(one, now, longest_wait_seconds) for one in candidates}
    counts = {urgency: sum(found is urgency for found in of.values()) for urgency in Urgency}
    wanted = [one for one in candidates if wish.urgency in (None, of[one.study_instance_uid])]
    wanted.sort(key=lambda one: place(one, now, longest_wait_seconds))
    pages = max(1, -(-len(wanted) // size))
    page = min(max(0, wish.page), pages - 1)
    uids = [one.study_instance_uid for one in wanted[page * size : (page + 1) * size]]
    lines = {line.study_instance_uid: line for line in read_lines(index, uids)}
    drawn = _with_segmentation(index, uids)
    return Worklist(
        now=now,
        lines=tuple(
            WorklistLine(urgency=of[uid], study=lines[uid], has_picture=uid in drawn) for uid in uids if uid in lines
        ),
        counts=counts,
        page=page,
        pages=pages,
    )


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


def find_path(index: Index, study_instance_uid: str, sop_instance_uid: str) -> tuple[str, str] | None:
    """Path and checksum of an instance of a study, not of a conflicting copy; None where there is none."""
    instances = index.transactions.tables["instances"]
    same = (instances.c.study_instance_uid == study_instance_uid, instances.c.sop_instance_uid == sop_instance_uid)
    query = sa.select(instances.c.path, instances.c.sha256).where(*same, instances.c.conflict.is_(False))
    with index.transactions.read() as connection:
        row = connection.execute(query).first()
    return None if row is None else (str(row[0]), str(row[1]))


def _candidates(index: Index, wish: Wish) -> list[Candidate]:
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
    if not (wish.study or wish.accession):
        conditions.append(studies.c.last_received_at >= wish.since)
    flag = jobs.c.summary["priority"].as_string()
    flagged = sa.select(jobs.c.study_instance_uid, flag.label("flag")).where(jobs.c.current.is_(True), flag != "")
    silent = {state.value for state in _NO_RESULT}
    with index.transactions.read() as connection:
        rows = connection.execute(sa.select(*columns).where(*conditions)).all()
        uids = [uid for uid, *_, state in rows if state not in silent]
        # Few are looked up one by one; of many, one look at all jobs is quicker.
        looks = (
            [jobs.c.study_instance_uid.in_(uids[start : start + _A_LOOK]) for start in range(0, len(uids), _A_LOOK)]
            if len(uids) <= _FEW
            else [sa.true()]
        )
        flags: dict[str, list[str]] = {}
        for look in looks:
            for uid, text in connection.execute(flagged.where(look)):
                flags.setdefault(uid, []).append(text)
    return [
        Candidate(
            study_instance_uid=uid,
            priority=Priority(priority),
            last_received_at=at,
            flags=() if state in silent else tuple(flags.get(uid, ())),
        )
        for uid, priority, at, state in rows
    ]


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
        reports.c.withdrawn_at.is_(None),
        reports.c.replaced_at.is_(None),
        jobs.c.current.is_(True),
    )
