"""The index's priorities: a person has a study that waits read sooner, or later."""

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import JobState
from dicom_node.core.priority import Priority


class Priorities:
    """Changes the priority of jobs that wait."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def change(self, study_instance_uid: str, priority: Priority, *, actor: str, at: float) -> None:
        """Give the study and its waiting jobs this priority; IllegalTransition where none of its jobs waits."""
        jobs = self._transactions.tables["jobs"]
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            waiting = sa.and_(
                jobs.c.study_instance_uid == study_instance_uid,
                jobs.c.state == JobState.QUEUED.value,
                jobs.c.current.is_(True),
            )
            # Not sent yet: the bell rings again, in the queue of the new priority.
            change = sa.update(jobs).where(waiting).values(priority=priority.value, sent_at=None)
            if connection.execute(change).rowcount == 0:
                raise IllegalTransition("no job of it waits; only what waits can be read sooner or later")
            self._transactions.change_study(connection, study_instance_uid, priority=priority.value)
            cause = f"priority changed to {priority}"
            self._transactions.remark(
                connection, study_instance_uid, before=state, after=state, cause=cause, actor=actor, at=at
            )
