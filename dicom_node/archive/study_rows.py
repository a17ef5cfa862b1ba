"""The rows of studies: what the index made of an instance, and what it tells of a study and its arrival."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from dicom_node.core.lifecycle import StudyState


class Added(StrEnum):
    """What the index made of an instance."""

    #: It is new, and now part of its study.
    NEW = "NEW"
    #: The same bytes were already there; nothing changed.
    IDENTICAL = "IDENTICAL"
    #: Other bytes hold this UID already; these are kept beside them, flagged, and are no evidence.
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What is known of a study's arrival; open associations are those that sent of this study and have not ended."""

    study_instance_uid: str
    first_received_at: float
    last_received_at: float
    open_associations: int
    last_association_ended_at: float | None
    aborted_associations: int


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study's line in the index."""

    study_instance_uid: str
    state: StudyState
    reason: str
    state_since: float
    first_received_at: float
    last_received_at: float
    priority: str
    instances: int
    conflicts: int


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One change of state of a study, job or delivery; before equals after where something was only noticed."""

    at: float
    #: States of the study, or of the subject.
    before: str
    after: str
    cause: str
    actor: str
    #: Empty: the study itself; else "job ALGORITHM" or "delivery PEER".
    subject: str


def receptions(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """The fields of each RECEIVING study's `Reception`, in their order."""
    studies, associations, sent = (tables[name] for name in ("studies", "associations", "association_studies"))
    is_open = sa.case((associations.c.ended_at.is_(None), 1), else_=0)
    was_aborted = sa.case((associations.c.ending.in_(("aborted", "lost")), 1), else_=0)
    joined = studies.outerjoin(sent, sent.c.study_instance_uid == studies.c.study_instance_uid).outerjoin(
        associations,
        sa.and_(associations.c.association_id == sent.c.association_id, associations.c.opened_at.is_not(None)),
    )
    return (
        sa.select(
            studies.c.study_instance_uid,
            studies.c.first_received_at,
            studies.c.last_received_at,
            sa.func.sum(sa.case((associations.c.association_id.is_(None), 0), else_=is_open)),
            sa.func.max(associations.c.ended_at),
            sa.func.sum(was_aborted),
        )
        .select_from(joined)
        .where(studies.c.state == StudyState.RECEIVING.value)
        .group_by(studies.c.study_instance_uid, studies.c.first_received_at, studies.c.last_received_at)
    )
