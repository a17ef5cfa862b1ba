"""The index's priors: earlier studies of a job's patient that the same algorithm read and that stand.

Who the patient is, is looked up here and goes nowhere else: what is returned names studies and files.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby, islice
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery, Row
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.form import STRUCTURED_REPORTS, Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.patient import Patient
from dicom_node.core.prior import EarlierStudies, Prior, PriorReport, Unread

#: So many earlier studies of one patient go with a job: the second is for where the first cannot be used.
MOST = 2
#: So many reports that have the patient's ID are looked at.
_MOST_ROWS = 200
_DAYS_OF_A_YEAR = 365.25

_OF_THE_PATIENT = {
    "patient_id": "PatientID",
    "issuer": "IssuerOfPatientID",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "name": "PatientName",
}
_ARRIVING = (StudyState.RECEIVING.value, StudyState.COMPLETE.value)
_WAITING = (JobState.QUEUED.value, JobState.READING.value)
#: Study Date and Time as headers write them.
Moment = tuple[str, str]


class Priors:
    """Which earlier studies a reading is compared with."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        reports, jobs, searched = (transactions.tables[name] for name in ("reports", "jobs", "searched_studies"))
        identity = [searched.c[keyword].label(name) for name, keyword in _OF_THE_PATIENT.items()]
        moment = (searched.c.StudyDate, searched.c.StudyTime)
        of_day = sa.and_(moment[0] == sa.bindparam("on"), moment[1] != "", moment[1] < sa.bindparam("before"))
        earlier = (
            searched.c.PatientID == sa.bindparam("patient"),
            searched.c.study_instance_uid != sa.bindparam("uid"),
            # Within one range of the index, where a patient has thousands of studies.
            moment[0].between(sa.bindparam("since"), sa.bindparam("on")),
            moment[0] != "",
            sa.or_(moment[0] < sa.bindparam("on"), of_day),
        )
        own = sa.select(*identity, *moment).where(searched.c.study_instance_uid == sa.bindparam("uid"))
        self._own = PreparedQuery(own)
        of_report = ("job_uid", "study_instance_uid", "sop_instance_uid", "path", "sha256", "form")
        columns = [reports.c[name] for name in of_report]
        query = (
            sa.select(*columns, jobs.c.summary, *identity, *moment)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .join(searched, searched.c.study_instance_uid == reports.c.study_instance_uid)
            .where(
                *earlier,
                jobs.c.algorithm == sa.bindparam("algorithm"),
                # What a person took back, what was replaced, and what failed its checks is followed by nobody.
                jobs.c.current.is_(True),
                jobs.c.state == JobState.REPORTED.value,
                stands(reports),
                reports.c.held == "",
                reports.c.form.in_([form.value for form in STRUCTURED_REPORTS]),
            )
            .order_by(moment[0].desc(), moment[1].desc(), reports.c.study_instance_uid, reports.c.written_at.desc())
            .limit(_MOST_ROWS)
        )
        self._earlier = PreparedQuery(query)
        self._unread = PreparedQuery(_unread(transactions, earlier, [*identity, *moment]).limit(_MOST_ROWS))

    def of(self, job: Job, years: float) -> tuple[Prior, ...]:
        """The studies that are earlier than the job's by so many years at most, latest first, with findings or without.

        None where the patient or the date of the study is not known, or `years` is 0.
        """
        return self.known(job, years).priors

    def known(self, job: Job, years: float) -> EarlierStudies:
        """Such studies, and those of which the algorithm's report is not there: it is to come, or its reading failed.

        Of what is being received those count that have images of the job's modality: no route has seen them yet.
        """
        with self._transactions.read() as connection:
            own = self._own.first(connection, uid=job.study_instance_uid)
            if own is None or not own["patient_id"] or not own["StudyDate"] or years <= 0:
                return EarlierStudies()
            asked = {"uid": job.study_instance_uid, "patient": own["patient_id"], "before": own["StudyTime"]}
            asked |= {"on": own["StudyDate"], "since": _since(own["StudyDate"], years)}
            asked |= {"algorithm": job.algorithm}
            # In this order: what is reported between them, where a database lets that be seen, is among both.
            others = self._unread.rows(connection, **asked, series=job.series_instance_uid)
            read = self._earlier.rows(connection, **asked)
        found = tuple(islice(_priors(read, _patient(own)), MOST))
        reported = {prior.study_instance_uid for _, prior in found}
        missing = _missing((row for row in others if _patient(row).is_same(_patient(own))), job.algorithm)
        unread = (
            Unread(has_failed=has_failed, behind=sum(_is_later(one, moment) for one, _ in found))
            for study, moment, has_failed in missing
            if study not in reported
        )
        return EarlierStudies(priors=tuple(prior for _, prior in found), unread=tuple(unread))


def _unread(
    transactions: Transactions, earlier: Sequence[sa.ColumnElement[bool]], columns: Sequence[sa.ColumnElement[Any]]
) -> sa.Select[Any]:
    """Earlier studies of which the algorithm's report may not be there, each with its jobs, the latest first.

    The jobs are joined by their study alone: by their state SQLite would look through all that there are.
    """
    names = ("searched_studies", "studies", "jobs", "searched_series")
    searched, studies, jobs, series = (transactions.tables[name] for name in names)
    uid, own = searched.c.study_instance_uid, series.alias("own_series")
    is_own = (own.c.study_instance_uid == sa.bindparam("uid"), own.c.series_instance_uid == sa.bindparam("series"))
    modality = sa.select(own.c.Modality).where(*is_own).scalar_subquery()
    alike = sa.exists().where(series.c.study_instance_uid == uid, series.c.Modality == modality)
    may_lack_job = sa.and_(studies.c.state.in_((*_ARRIVING, StudyState.FAILED.value)), alike)
    has_job = (jobs.c.algorithm == sa.bindparam("algorithm"), jobs.c.state.in_((*_WAITING, JobState.FAILED.value)))
    states = (studies.c.state.label("study_state"), jobs.c.state.label("job_state"))
    return (
        sa.select(uid, *columns, *states, jobs.c.algorithm, jobs.c.current, alike.label("is_alike"))
        .join(studies, studies.c.study_instance_uid == uid)
        .outerjoin(jobs, jobs.c.study_instance_uid == uid)
        .where(*earlier, sa.or_(may_lack_job, sa.and_(jobs.c.current.is_(True), *has_job)))
        .order_by(searched.c.StudyDate.desc(), searched.c.StudyTime.desc(), uid)
    )


def _missing(rows: Iterable[Row], algorithm: str) -> Iterator[tuple[str, Moment, bool]]:
    """Studies of which the algorithm's report is not there: when they were made, and whether their reading failed."""
    for study, of_study in groupby(rows, lambda row: str(row["study_instance_uid"])):
        found = list(of_study)
        jobs = {row["job_state"] for row in found if row["current"] and row["algorithm"] == algorithm}
        arrives = bool(found[0]["is_alike"]) and found[0]["study_state"] in _ARRIVING
        is_to_come = arrives or not jobs.isdisjoint(_WAITING)
        # A study may have failed for another algorithm, or in a delivery: that tells nothing of this one's reading.
        has_failed = JobState.FAILED.value in jobs or not any(row["current"] for row in found)
        if is_to_come or (has_failed and JobState.REPORTED.value not in jobs):
            yield study, _moment(found[0]), not is_to_come


def _is_later(one: Moment, other: Moment) -> bool:
    """Whether a moment is surely later than another: of one day both times must be known."""
    return one[0] > other[0] or (one[0] == other[0] and bool(other[1]) and one[1] > other[1])


def _priors(rows: list[Row], patient: Patient) -> Iterator[tuple[Moment, Prior]]:
    forms = [form.value for form in STRUCTURED_REPORTS]
    found = (row for row in rows if "findings" in (row["summary"] or {}) and _patient(row).is_same(patient))
    for study, reports in groupby(found, lambda row: str(row["study_instance_uid"])):
        first, *others = sorted(reports, key=lambda row: forms.index(row["form"]))
        prior = Prior(
            study_instance_uid=study,
            report=_report(first),
            # Of another job other findings are told.
            others={Form(row["form"]): _report(row) for row in others if row["job_uid"] == first["job_uid"]},
            layout=first["summary"].get("layout") or {},
        )
        yield _moment(first), prior


def _moment(row: Row) -> Moment:
    return str(row["StudyDate"]), str(row["StudyTime"])


def _report(row: Row) -> PriorReport:
    return PriorReport(path=row["path"], sop_instance_uid=row["sop_instance_uid"], sha256=row["sha256"])


def _patient(row: Row) -> Patient:
    return Patient(**{name: str(row[name] or "").strip() for name in _OF_THE_PATIENT})


def _since(day: str, years: float) -> str:
    """The first day that counts, as headers write it; years before the calendar's first are all of them."""
    try:
        own = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        return (own - timedelta(days=years * _DAYS_OF_A_YEAR)).strftime("%Y%m%d").rjust(8, "0")
    except (OverflowError, ValueError):
        return ""
