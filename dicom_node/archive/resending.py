"""The index's resending: a person has a study's results sent once more, to every peer that they go to."""

import sqlalchemy as sa

from dicom_node.archive.settlement import Settlement, stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import DELIVERY_TRANSITIONS, DeliveryState, StudyState, check_transition

#: What the history says of it.
SENT_AGAIN = "its results are sent again"

#: States of a study whose results may be sent again.
_OPEN = (StudyState.REPORTED, StudyState.DELIVERED, StudyState.FAILED)


class Resending:
    """Lets deliveries wait again as if they had never been tried."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._settlement = Settlement(transactions)
        deliveries, reports, jobs = (transactions.tables[name] for name in ("deliveries", "reports", "jobs"))
        self._deliveries, self._reports = deliveries, reports
        self._standing = (
            sa.select(deliveries)
            .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .where(
                deliveries.c.study_instance_uid == sa.bindparam("uid"),
                deliveries.c.state != DeliveryState.WAITING.value,
                jobs.c.current.is_(True),
                stands(reports),
            )
            .with_for_update()
        )

    def send_again(self, study_instance_uid: str, *, actor: str, at: float) -> int:
        """How many objects go out again; IllegalTransition where nothing that stands was sent, or all is committed."""
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            if state not in _OPEN:
                raise IllegalTransition(
                    f"the study is {state}; only what is reported, delivered or failed is sent again"
                )
            rows = connection.execute(self._standing, {"uid": study_instance_uid}).mappings().all()
            if not rows:
                raise IllegalTransition("nothing of it that stands was sent, or it waits to be sent already")
            if state is not StudyState.REPORTED:
                self._transactions.move_study(
                    connection, study_instance_uid, StudyState.REPORTED, cause=SENT_AGAIN, actor=actor, at=at
                )
            for row in rows:
                self._wait_again(connection, row, actor, at)
        return len(rows)

    def _wait_again(self, connection: sa.Connection, row: sa.RowMapping, actor: str, at: float) -> None:
        check_transition(DELIVERY_TRANSITIONS, DeliveryState(row["state"]), DeliveryState.WAITING)
        same = (self._deliveries.c.sop_instance_uid == row["sop_instance_uid"], self._deliveries.c.peer == row["peer"])
        fresh = {"attempts": 0, "refusals": 0, "next_try_at": at, "waiting_since": at, "fence": row["fence"] + 1}
        gone = {"commitment": False, **dict.fromkeys(("accepted_at", "committed_at", "transaction_uid"))}
        # A withdrawal must tell this peer also while the object waits: that it has it is not to be forgotten.
        had = sa.func.coalesce(self._reports.c.offered_at, row["accepted_at"])
        same_object = self._reports.c.sop_instance_uid == row["sop_instance_uid"]
        connection.execute(sa.update(self._reports).where(same_object).values(offered_at=had))
        change = sa.update(self._deliveries).where(*same)
        values = {"state": DeliveryState.WAITING.value, "reason": "asked to be sent again", **fresh, **gone}
        connection.execute(change.values(**values))
        states = {"before": row["state"], "after": DeliveryState.WAITING.value}
        cause = f"object {row['sop_instance_uid']}: asked to be sent again"
        study = row["study_instance_uid"]
        self._settlement.note(connection, study, row["peer"], **states, cause=cause, actor=actor, at=at)
