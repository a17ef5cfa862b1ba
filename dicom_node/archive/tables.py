"""The index's tables; times are seconds since 1970 UTC, UIDs are text."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

_UID = String(64)
_STATE = String(16)


def build_metadata() -> MetaData:
    """All tables of the index, by name in the returned metadata."""
    metadata = MetaData()
    _received(metadata)
    _worked(metadata)
    _sent(metadata)
    return metadata


def _received(metadata: MetaData) -> None:
    Table(
        "studies",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("state", _STATE, nullable=False, index=True),
        Column("reason", Text, nullable=False, default=""),
        Column("state_since", Float, nullable=False),
        Column("first_received_at", Float, nullable=False),
        Column("last_received_at", Float, nullable=False),
        Column("priority", String(8), nullable=False, default="ROUTINE"),
    )
    Table(
        "instances",
        metadata,
        Column("sop_instance_uid", _UID, primary_key=True),
        Column("sha256", String(64), primary_key=True),
        Column("study_instance_uid", _UID, ForeignKey("studies.study_instance_uid"), nullable=False, index=True),
        Column("series_instance_uid", _UID, nullable=False),
        Column("sop_class_uid", _UID, nullable=False),
        Column("transfer_syntax_uid", _UID, primary_key=True),
        Column("path", Text, nullable=False),
        Column("size_bytes", BigInteger, nullable=False),
        Column("received_at", Float, nullable=False),
        Column("calling_ae_title", String(16), nullable=False),
        Column("conflict", Boolean, nullable=False, default=False),
        Column("attributes", JSON, nullable=False),
    )
    Table(
        "associations",
        metadata,
        Column("association_id", String(36), primary_key=True),
        Column("calling_ae_title", String(16), nullable=False),
        Column("opened_at", Float, nullable=False),
        Column("ended_at", Float, index=True),
        Column("ending", String(16)),
    )
    Table(
        "association_studies",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("association_id", String(36), ForeignKey("associations.association_id"), primary_key=True),
    )
    Table(
        "history",
        metadata,
        Column("number", Integer, primary_key=True, autoincrement=True),
        Column("study_instance_uid", _UID, nullable=False, index=True),
        Column("at", Float, nullable=False),
        Column("before", _STATE, nullable=False),
        Column("after", _STATE, nullable=False),
        Column("cause", Text, nullable=False),
        Column("actor", String(64), nullable=False),
    )


def _worked(metadata: MetaData) -> None:
    Table(
        "jobs",
        metadata,
        Column("job_uid", _UID, primary_key=True),
        Column("study_instance_uid", _UID, ForeignKey("studies.study_instance_uid"), nullable=False, index=True),
        Column("series_instance_uid", _UID, nullable=False),
        Column("algorithm", String(64), nullable=False),
        Column("route", Text, nullable=False),
        Column("priority", String(8), nullable=False),
        Column("send_to", JSON, nullable=False),
        Column("evidence", String(64), nullable=False),
        Column("state", _STATE, nullable=False, index=True),
        Column("reason", Text, nullable=False, default=""),
        Column("current", Boolean, nullable=False, default=True),
        Column("attempts", Integer, nullable=False, default=0),
        Column("queued_at", Float, nullable=False),
        Column("sent_at", Float),
        Column("started_at", Float),
        Column("ended_at", Float),
        Column("lease_token", String(36)),
        Column("lease_expires_at", Float),
        Column("worker", String(64)),
        Column("summary", JSON),
    )
    Table(
        "workers",
        metadata,
        Column("worker", String(64), primary_key=True),
        Column("device", String(64), nullable=False),
        Column("bundles", JSON, nullable=False),
        Column("queues", JSON, nullable=False),
        Column("started_at", Float, nullable=False),
        Column("heartbeat_at", Float, nullable=False),
        Column("job_uid", _UID),
    )


def _sent(metadata: MetaData) -> None:
    Table(
        "reports",
        metadata,
        Column("sop_instance_uid", _UID, primary_key=True),
        Column("job_uid", _UID, ForeignKey("jobs.job_uid"), nullable=False, index=True),
        Column("study_instance_uid", _UID, nullable=False, index=True),
        Column("series_instance_uid", _UID, nullable=False),
        Column("sop_class_uid", _UID, nullable=False),
        Column("path", Text, nullable=False),
        Column("sha256", String(64), nullable=False),
        Column("written_at", Float, nullable=False),
    )
    deliveries = Table(
        "deliveries",
        metadata,
        Column("sop_instance_uid", _UID, ForeignKey("reports.sop_instance_uid"), primary_key=True),
        Column("peer", String(64), primary_key=True),
        Column("study_instance_uid", _UID, nullable=False, index=True),
        Column("state", _STATE, nullable=False),
        Column("attempts", Integer, nullable=False, default=0),
        Column("refusals", Integer, nullable=False, default=0),
        Column("next_try_at", Float, nullable=False),
        Column("reason", Text, nullable=False, default=""),
        Column("accepted_at", Float),
    )
    Index("deliveries_due", deliveries.c.state, deliveries.c.next_try_at)
