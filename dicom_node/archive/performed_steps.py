"""The index's performed procedure steps: each of them, and what they together tell of their studies."""

from typing import Any

import sqlalchemy as sa

from dicom_node.archive.arrivals import Arrivals
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import NotificationRefused
from dicom_node.core.performed_step import (
    PerformedStep,
    StepChange,
    StepState,
    changed,
    counts_of,
    is_mpps,
)
from dicom_node.core.status import DUPLICATE_INSTANCE, NO_SUCH_INSTANCE


class PerformedSteps:
    """The performed procedure steps of the index."""

    def __init__(self, transactions: Transactions, arrivals: Arrivals) -> None:
        self._transactions = transactions
        self._arrivals = arrivals
        self._steps = transactions.tables["performed_steps"]
        self._studies = transactions.tables["performed_step_studies"]

    def create(self, step: PerformedStep, *, calling_ae_title: str, at: float) -> None:
        """Take a new step, durable at return; NotificationRefused where there is one of its UID."""
        row = {"sop_instance_uid": step.sop_instance_uid, "calling_ae_title": calling_ae_title, "created_at": at}
        with self._transactions.write() as connection:
            if self._find(connection, step.sop_instance_uid) is not None:
                raise NotificationRefused("there is a step of this SOP Instance UID", status=DUPLICATE_INSTANCE)
            connection.execute(sa.insert(self._steps).values(**row, **_changing(step, at)))
            studies = sorted(set(step.study_instance_uids))
            rows = [{"study_instance_uid": uid, "sop_instance_uid": step.sop_instance_uid} for uid in studies]
            connection.execute(sa.insert(self._studies), rows)
            self._tell(connection, step, at)

    def change(self, sop_instance_uid: str, change: StepChange, *, at: float) -> PerformedStep:
        """Change a step and what its studies are told by it, durable at return; NotificationRefused where it may not.

        The step as it is now.
        """
        with self._transactions.write() as connection:
            before = self._find(connection, sop_instance_uid)
            if before is None:
                raise NotificationRefused("there is no step of this SOP Instance UID", status=NO_SUCH_INSTANCE)
            step = changed(before, change)
            same = self._steps.c.sop_instance_uid == sop_instance_uid
            connection.execute(sa.update(self._steps).where(same).values(**_changing(step, at)))
            self._tell(connection, step, at)
        return step

    def of_study(self, study_instance_uid: str) -> list[PerformedStep]:
        """The study's steps, the first created first."""
        with self._transactions.read() as connection:
            return self._of_study(connection, study_instance_uid)

    def _tell(self, connection: sa.Connection, step: PerformedStep, at: float) -> None:
        for study in sorted(set(step.study_instance_uids)):
            told = counts_of(self._of_study(connection, study))
            if told is None:
                continue
            self._arrivals.enter(
                connection, study, told.counts, source=told.source, at=at, final=told.final, instead_of=is_mpps
            )

    def _of_study(self, connection: sa.Connection, study_instance_uid: str) -> list[PerformedStep]:
        steps, studies = self._steps, self._studies
        of_study = studies.c.study_instance_uid == study_instance_uid
        query = sa.select(steps).join(studies, studies.c.sop_instance_uid == steps.c.sop_instance_uid).where(of_study)
        rows = connection.execute(query.order_by(steps.c.created_at, steps.c.sop_instance_uid)).mappings().all()
        return [self._step(connection, row) for row in rows]

    def _find(self, connection: sa.Connection, sop_instance_uid: str) -> PerformedStep | None:
        query = sa.select(self._steps).where(self._steps.c.sop_instance_uid == sop_instance_uid).with_for_update()
        row = connection.execute(query).mappings().first()
        return None if row is None else self._step(connection, row)

    def _step(self, connection: sa.Connection, row: sa.RowMapping) -> PerformedStep:
        studies = self._studies
        query = sa.select(studies.c.study_instance_uid).where(studies.c.sop_instance_uid == row["sop_instance_uid"])
        return PerformedStep(
            sop_instance_uid=row["sop_instance_uid"],
            state=StepState(row["state"]),
            study_instance_uids=tuple(connection.execute(query.order_by(studies.c.study_instance_uid)).scalars()),
            series=dict(row["series"]),
            reason=row["reason"],
        )


def _changing(step: PerformedStep, at: float) -> dict[str, Any]:
    ended_at = at if step.is_final else None
    return {"state": step.state.value, "series": dict(step.series), "reason": step.reason, "ended_at": ended_at}
