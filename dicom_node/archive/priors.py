"""The index's priors: earlier studies of a job's patient that the same algorithm read and that stand.

Who the patient is, is looked up here and goes nowhere else: what is returned names studies and files.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import groupby, islice

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery, Row
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.form import STRUCTURED_REPORTS, Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.patient import Patient
from dicom_node.core.prior import Prior, PriorReport

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
_NOBODY = Patient(**dict.fromkeys(_OF_THE_PATIENT, ""))


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
            sa.select(*columns, jobs.c.summary, *identity)
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
        unread = sa.select(searched.c.study_instance_uid, *identity).where(*earlier, _is_unread(transactions, searched))
        self._unread = PreparedQuery(unread.limit(_MOST_ROWS))

    def of(self, job: Job, years: float) -> tuple[Prior, ...]:
        """The studies that are earlier than the job's by so many years at most, latest first, with findings or without.

        None where the patient or the date of the study is not known, or `years` is 0.
        """
        with self._transactions.read() as connection:
            own, asked = self._asked(connection, job, years)
            rows = self._earlier.rows(connection, **asked, algorithm=job.algorithm) if asked else []
        return tuple(islice(_priors(rows, own), MOST))

    def awaited(self, job: Job, years: float) -> tuple[str, ...]:
        """Such studies of which the algorithm's report is still to come: they are being received, or their job waits.

        Their UIDs. Of what is being received those count that have images of the job's modality.
        """
        with self._transactions.read() as connection:
            own, asked = self._asked(connection, job, years)
            own_series = {"algorithm": job.algorithm, "series": job.series_instance_uid}
            rows = self._unread.rows(connection, **asked, **own_series) if asked else []
        return tuple(str(row["study_instance_uid"]) for row in rows if _patient(row).is_same(own))

    def _asked(self, connection: sa.Connection, job: Job, years: float) -> tuple[Patient, dict[str, str]]:
        """Whose the job's study is, and by what earlier ones are found; empty where that is not known."""
        own = self._own.first(connection, uid=job.study_instance_uid)
        if own is None or not own["patient_id"] or not own["StudyDate"] or years <= 0:
            return _NOBODY, {}
        when = {"on": own["StudyDate"], "before": own["StudyTime"], "since": _since(own["StudyDate"], years)}
        return _patient(own), {"uid": job.study_instance_uid, "patient": own["patient_id"], **when}


def _is_unread(transactions: Transactions, searched: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a study will have another report of the algorithm than it has, or its first."""
    studies, jobs, series = (transactions.tables[name] for name in ("studies", "jobs", "searched_series"))
    uid = searched.c.study_instance_uid
    own = series.alias("own_series")
    is_own = (own.c.study_instance_uid == sa.bindparam("uid"), own.c.series_instance_uid == sa.bindparam("series"))
    modality = sa.select(own.c.Modality).where(*is_own)
    arrives = sa.exists().where(
        studies.c.study_instance_uid == uid,
        studies.c.state.in_([StudyState.RECEIVING.value, StudyState.COMPLETE.value]),
        series.c.study_instance_uid == uid,
        series.c.Modality == modality.scalar_subquery(),
    )
    waits = sa.exists().where(
        jobs.c.study_instance_uid == uid,
        jobs.c.algorithm == sa.bindparam("algorithm"),
        jobs.c.current.is_(True),
        jobs.c.state.in_([JobState.QUEUED.value, JobState.READING.value]),
    )
    return sa.or_(arrives, waits)


def _priors(rows: list[Row], patient: Patient) -> Iterator[Prior]:
    forms = [form.value for form in STRUCTURED_REPORTS]
    found = (row for row in rows if "findings" in (row["summary"] or {}) and _patient(row).is_same(patient))
    for study, reports in groupby(found, lambda row: str(row["study_instance_uid"])):
        first, *others = sorted(reports, key=lambda row: forms.index(row["form"]))
        yield Prior(
            study_instance_uid=study,
            report=_report(first),
            # Of another job other findings are told.
            others={Form(row["form"]): _report(row) for row in others if row["job_uid"] == first["job_uid"]},
            layout=first["summary"].get("layout") or {},
        )


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
