"""The index's tables of what is sent: reports and deliveries, storage commitments, withdrawals, and peers away."""

from sqlalchemy import (
    JSON,
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
    false,
    literal_column,
)

UID = String(64)
STATE = String(16)


def add_sent(metadata: MetaData) -> None:
    """Reports, their deliveries, what peers were asked to keep, and what was taken back; for after the jobs' table."""
    reports = Table(
        "reports",
        metadata,
        Column("sop_instance_uid", UID, primary_key=True),
        Column("job_uid", UID, ForeignKey("jobs.job_uid"), nullable=False, index=True),
        Column("study_instance_uid", UID, nullable=False, index=True),
        Column("series_instance_uid", UID, nullable=False),
        Column("sop_class_uid", UID, nullable=False),
        Column("path", Text, nullable=False),
        Column("sha256", String(64), nullable=False),
        Column("written_at", Float, nullable=False),
        Column("offered_at", Float),
        #: What it is, as in `core.form`; empty in a row of an earlier version.
        Column("form", String(16), nullable=False, default="", server_default=""),
        #: Why the gate let it not pass: it is kept, and sent to nobody.
        Column("held", Text, nullable=False, default="", server_default=""),
        #: When a person took back what peers may have of it.
        Column("withdrawn_at", Float),
        #: When a later report of its job took its place: it is not sent any more, but peers may have it.
        Column("replaced_at", Float),
        #: No peer that the results go to takes this form.
        Column("unwanted", Boolean, nullable=False, default=False, server_default=false()),
        #: Names of peers that may have it from before it was written again; empty: none.
        Column("known_to", JSON(none_as_null=True)),
        #: What it is searched by, as of an instance; empty: nobody looked into it yet.
        Column("attributes", JSON(none_as_null=True)),
    )
    not_read = reports.c.attributes.is_(None)
    Index("reports_not_searched", reports.c.written_at, sqlite_where=not_read, postgresql_where=not_read)
    Index("reports_of_form", reports.c.form, reports.c.written_at)
    held = reports.c.held != literal_column("''")
    Index("reports_held", reports.c.written_at, sqlite_where=held, postgresql_where=held)
    Table(
        "withdrawals",
        metadata,
        Column("number", Integer, primary_key=True, autoincrement=True),
        Column("study_instance_uid", UID, nullable=False, index=True),
        Column("asked_at", Float, nullable=False),
        #: Whether the patient's safety is the reason, or else the quality.
        Column("safety", Boolean, nullable=False),
        Column("reason", Text, nullable=False),
        Column("actor", String(64), nullable=False),
        #: SOP Instance UIDs that each peer may have, by its name.
        Column("objects", JSON, nullable=False),
        #: When the notes were written, or given up; empty: a worker owes them.
        Column("written_at", Float, index=True),
    )
    deliveries = Table(
        "deliveries",
        metadata,
        Column("sop_instance_uid", UID, ForeignKey("reports.sop_instance_uid"), primary_key=True),
        Column("peer", String(64), primary_key=True),
        Column("study_instance_uid", UID, nullable=False, index=True),
        Column("state", STATE, nullable=False),
        Column("attempts", Integer, nullable=False, default=0),
        Column("refusals", Integer, nullable=False, default=0),
        Column("next_try_at", Float, nullable=False),
        Column("reason", Text, nullable=False, default=""),
        Column("accepted_at", Float),
        # Since when the object waits for this peer.
        Column("waiting_since", Float),
        # Changes with every change of the row: who read an older one changes nothing.
        Column("fence", Integer, nullable=False, default=0),
        # Whether the peer is asked for storage commitment of what it accepted.
        Column("commitment", Boolean, nullable=False, default=False),
        Column("transaction_uid", UID),
        Column("committed_at", Float),
        # The peer that the object also goes to, since this one was away for too long.
        Column("instead", String(64), nullable=False, default=""),
        # Planned only because another peer was away.
        Column("alternative", Boolean, nullable=False, default=False),
    )
    Index("deliveries_due", deliveries.c.state, deliveries.c.next_try_at)
    Index(
        "deliveries_of_peer",
        deliveries.c.peer,
        deliveries.c.state,
        deliveries.c.commitment,
        deliveries.c.next_try_at,
    )
    commitments = Table(
        "commitments",
        metadata,
        Column("transaction_uid", UID, primary_key=True),
        Column("peer", String(64), nullable=False),
        Column("study_instance_uid", UID, nullable=False, index=True),
        Column("state", STATE, nullable=False),
        # SOP Instance UIDs that were asked for.
        Column("objects", JSON, nullable=False),
        # How often these objects were asked for, with this time.
        Column("attempts", Integer, nullable=False, default=1),
        Column("asked_at", Float, nullable=False),
        Column("next_try_at", Float, nullable=False),
        Column("answered_at", Float),
        Column("reason", Text, nullable=False, default=""),
    )
    Index("commitments_open", commitments.c.state, commitments.c.next_try_at)
    # What a peer answered last, and what it was asked since then, however many transactions there were.
    Index("commitments_of_peer", commitments.c.peer, commitments.c.answered_at, commitments.c.asked_at)
    Table(
        "peers_away",
        metadata,
        Column("peer", String(64), primary_key=True),
        Column("since", Float, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_try_at", Float, nullable=False),
        Column("reason", Text, nullable=False),
    )
