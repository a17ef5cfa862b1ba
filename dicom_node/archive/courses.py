"""The courses of studies: what the index knows of the way of each that came to an end, for its trace."""

import time

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.transactions import UNDERWAY_SECONDS
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.trace import ENDS, Course, Line

#: Among the index's marks: the last line whose trace was sent.
_MARK = "traces"


class Courses:
    """Which studies ended since the last that was told of."""

    def __init__(self, index: Index) -> None:
        self._transactions = index.transactions
        self._tables = index.transactions.tables

    def position(self) -> int:
        """The last line that was told of; at first the last there is, for what is long past is not told."""
        marks, history = self._tables["marks"], self._tables["history"]
        with self._transactions.read() as connection:
            last = connection.execute(sa.select(sa.func.max(history.c.number))).scalar() or 0
            kept = connection.execute(sa.select(marks.c.value).where(marks.c.name == _MARK)).scalar()
        # An index of an earlier day begins anew.
        return last if kept is None else min(int(kept), last)

    def note(self, number: int) -> None:
        """All up to this line was told of."""
        row = {"name": _MARK, "value": str(number)}
        with self._transactions.write(durable=False) as connection:
            self._transactions.upsert(connection, self._tables["marks"], row, {"value": row["value"]})

    def ended(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Lines with which a study came to an end, and its UID, the earliest first."""
        history, deliveries = self._tables["history"], self._tables["deliveries"]
        # A peer is asked to keep it: it ends with the answer.
        is_asked = sa.exists().where(
            deliveries.c.study_instance_uid == history.c.study_instance_uid,
            deliveries.c.commitment.is_(True),
        )
        query = (
            sa.select(history.c.number, history.c.study_instance_uid)
            .where(history.c.number > after, history.c.subject == "", history.c.before != history.c.after)
            .where(history.c.after.in_([state.value for state in ENDS]))
            .where(sa.or_(history.c.after != StudyState.DELIVERED.value, ~is_asked))
            .order_by(history.c.number)
            .limit(limit)
        )
        if not self._transactions.is_sqlite:
            # A server numbers lines before they are committed: one before these may yet come.
            now = time.time()
            query = query.where(sa.or_(history.c.at <= now - UNDERWAY_SECONDS, history.c.at > now))
        with self._transactions.read() as connection:
            return [(number, uid) for number, uid in connection.execute(query)]

    def course(self, study_instance_uid: str, number: int) -> Course | None:
        """The way of a study up to this line; None where the index knows it no more."""
        history, studies, jobs = (self._tables[name] for name in ("history", "studies", "jobs"))
        associations, sent = self._tables["associations"], self._tables["association_studies"]
        lines = sa.select(*(history.c[name] for name in Line.__dataclass_fields__)).where(
            history.c.study_instance_uid == study_instance_uid, history.c.number <= number
        )
        opened = sa.select(sa.func.min(associations.c.opened_at)).join(
            sent, sent.c.association_id == associations.c.association_id
        )
        arrived = sa.select(studies.c.last_received_at).where(studies.c.study_instance_uid == study_instance_uid)
        reported = sa.select(jobs.c.algorithm, jobs.c.summary).where(
            jobs.c.study_instance_uid == study_instance_uid, jobs.c.state == JobState.REPORTED.value
        )
        with self._transactions.read() as connection:
            last_received_at = connection.execute(arrived).scalar()
            found = [Line(**row) for row in connection.execute(lines.order_by(history.c.number)).mappings()]
            if last_received_at is None or not found:
                return None
            return Course(
                study_instance_uid=study_instance_uid,
                lines=found,
                opened_at=connection.execute(opened.where(sent.c.study_instance_uid == study_instance_uid)).scalar(),
                last_received_at=last_received_at,
                report_seconds={
                    algorithm: float(seconds)
                    for algorithm, summary in connection.execute(reported)
                    if isinstance(seconds := ((summary or {}).get("steps") or {}).get("report"), int | float)
                },
            )
