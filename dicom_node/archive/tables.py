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
    false,
    literal_column,
)

from dicom_node.archive.search_tables import add_search_tables

_UID = String(64)
_STATE = String(16)


def build_metadata() -> MetaData:
    """All tables of the index, by name in the returned metadata."""
    metadata = MetaData()
    _received(metadata)
    _worked(metadata)
    _sent(metadata)
    _promised(metadata)
    _kept(metadata)
    add_search_tables(metadata)
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
        #: When its files left the disk by the rules of [retention]; empty: they are there.
        Column("evicted_at", Float, index=True),
        #: Files of it still lie in the archive that are to be removed.
        Column("files_left", Boolean, nullable=False, default=False, server_default=false()),
    )
    instances = Table(
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
    # Of a series, and how many each series of a study has without a look at the rows.
    place = (instances.c.study_instance_uid, instances.c.series_instance_uid, instances.c.conflict)
    Index("instances_of_series", *place)
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
    # No foreign keys: a performed procedure step may be told of before the study's first instance.
    Table(
        "expected_instances",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        #: Empty: of the whole study.
        Column("series_instance_uid", _UID, primary_key=True),
        #: "MPPS" and what became of its steps, "peer NAME", or "availability by AE TITLE".
        Column("source", String(80), primary_key=True),
        Column("count", Integer, nullable=False),
        Column("told_at", Float, nullable=False),
        #: It counts what was made and can grow no more.
        Column("final", Boolean, nullable=False, default=False, server_default=false()),
    )
    # No foreign keys, for the same reason; and nothing of the patient.
    Table(
        "performed_steps",
        metadata,
        Column("sop_instance_uid", _UID, primary_key=True),
        Column("calling_ae_title", String(16), nullable=False),
        #: Performed Procedure Step Status.
        Column("state", _STATE, nullable=False),
        #: Series Instance UID to how many instances of it the step refers to.
        Column("series", JSON, nullable=False),
        #: Why it was discontinued.
        Column("reason", Text, nullable=False, default=""),
        Column("created_at", Float, nullable=False),
        Column("ended_at", Float),
    )
    Table(
        "performed_step_studies",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("sop_instance_uid", _UID, primary_key=True, index=True),
    )
    Table(
        "inquiries",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("peer", String(64), primary_key=True),
        Column("asked_at", Float, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_try_at", Float, nullable=False),
        #: Of the first question without an answer since the last answer.
        Column("vain_since", Float),
        Column("reason", Text, nullable=False, default=""),
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
        #: Whose states these are: "" the study's, "job ALGORITHM", "delivery PEER".
        Column("subject", String(96), nullable=False, default="", server_default=""),
    )


def _worked(metadata: MetaData) -> None:
    jobs = Table(
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
        #: Grows with each claim and never falls: of two leases the one with the lower number is void.
        Column("fence", Integer, nullable=False, default=0, server_default="0"),
        #: A QUEUED job waits until then before its next attempt; empty: it can be claimed at once.
        Column("next_try_at", Float),
        #: FAILED because every attempt it may have was used up.
        Column("dead_letter", Boolean, nullable=False, default=False, server_default=false()),
        #: It ended without a report, by the error of this name, and a report that says so is to be written yet.
        Column("error", String(32), nullable=False, default="", server_default=""),
        Column("answer_owed", Boolean, nullable=False, default=False, server_default=false()),
    )
    # The next job of a priority, and the jobs without a message, however many have ended.
    Index("jobs_waiting", jobs.c.state, jobs.c.priority, jobs.c.queued_at)
    Index("jobs_unsent", jobs.c.state, jobs.c.sent_at)
    Index("jobs_owed", jobs.c.answer_owed, jobs.c.ended_at)
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
        #: What its reading process does, and when that was last heard.
        Column("step", String(64), nullable=False, default="", server_default=""),
        Column("moved_at", Float),
    )
    Table(
        "conditions",
        metadata,
        Column("condition", String(80), primary_key=True),
        Column("reason", Text, nullable=False),
        Column("since", Float, nullable=False),
    )


def _sent(metadata: MetaData) -> None:
    reports = Table(
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
        Column("study_instance_uid", _UID, nullable=False, index=True),
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
        Column("sop_instance_uid", _UID, ForeignKey("reports.sop_instance_uid"), primary_key=True),
        Column("peer", String(64), primary_key=True),
        Column("study_instance_uid", _UID, nullable=False, index=True),
        Column("state", _STATE, nullable=False),
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
        Column("transaction_uid", _UID),
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
        Column("transaction_uid", _UID, primary_key=True),
        Column("peer", String(64), nullable=False),
        Column("study_instance_uid", _UID, nullable=False, index=True),
        Column("state", _STATE, nullable=False),
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


def _promised(metadata: MetaData) -> None:
    """What peers ask us to keep: storage commitment with us as its provider."""
    promises = Table(
        "promises",
        metadata,
        Column("transaction_uid", _UID, primary_key=True),
        Column("calling_ae_title", String(16), nullable=False, index=True),
        #: SOP Class UID and SOP Instance UID of each object.
        Column("objects", JSON, nullable=False),
        Column("asked_at", Float, nullable=False),
        #: SOP Instance UID to Failure Reason, once it was looked; from then on the answer is the same.
        Column("failed", JSON(none_as_null=True)),
        Column("attempts", Integer, nullable=False, default=0),
        Column("next_try_at", Float, nullable=False),
        #: When the peer acknowledged the answer; empty: it is owed.
        Column("told_at", Float),
        Column("reason", Text, nullable=False, default=""),
    )
    Index("promises_owed", promises.c.told_at, promises.c.next_try_at)
    #: Studies of which a peer was told that we keep something: it may have deleted its own.
    Table(
        "promised_studies",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("promised_at", Float, nullable=False),
    )


def _kept(metadata: MetaData) -> None:
    Table(
        "archive_faults",
        metadata,
        Column("path", Text, primary_key=True),
        #: missing, altered or unknown.
        Column("kind", _STATE, nullable=False, index=True),
        Column("study_instance_uid", _UID, nullable=False, default=""),
        Column("sop_instance_uid", _UID, nullable=False, default=""),
        Column("found_at", Float, nullable=False),
    )
    #: What the node remembers of itself: the fingerprint of these tables, how far the check of the archive is.
    Table(
        "marks",
        metadata,
        Column("name", String(32), primary_key=True),
        Column("value", Text, nullable=False),
    )
