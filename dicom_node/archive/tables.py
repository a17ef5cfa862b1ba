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
)

from dicom_node.archive.search_tables import add_search_tables
from dicom_node.archive.sent_tables import STATE as _STATE
from dicom_node.archive.sent_tables import UID as _UID
from dicom_node.archive.sent_tables import add_sent


def build_metadata() -> MetaData:
    """All tables of the index, by name in the returned metadata."""
    metadata = MetaData()
    _received(metadata)
    _worked(metadata)
    add_sent(metadata)
    _promised(metadata)
    _kept(metadata)
    _admitted(metadata)
    add_search_tables(metadata)
    return metadata


def _received(metadata: MetaData) -> None:
    studies = Table(
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
    # The order of the worklist, and how many there are, without a look at the rows.
    arrival = (studies.c.last_received_at, studies.c.study_instance_uid, studies.c.priority, studies.c.state)
    Index("studies_in_order", *arrival)
    # How many there are of each, without a look at the rows.
    Index("studies_by_priority", studies.c.state, studies.c.priority)
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
        #: What the summary says of the priority, to be found by; empty: nothing, NULL: an earlier version wrote it.
        Column("flag", String(80), index=True),
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
    Index("jobs_by_priority", jobs.c.current, jobs.c.priority, jobs.c.state)
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
        #: Of its device, taken by whomever, and all there is.
        Column("memory_used_bytes", BigInteger),
        Column("memory_total_bytes", BigInteger),
    )
    Table(
        "conditions",
        metadata,
        Column("condition", String(80), primary_key=True),
        Column("reason", Text, nullable=False),
        Column("since", Float, nullable=False),
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


def _admitted(metadata: MetaData) -> None:
    """Who may see and do what, and what a study is found by; every secret is here as a hash alone."""
    Table(
        "users",
        metadata,
        Column("name", String(40), primary_key=True),
        Column("role", String(16), nullable=False),
        #: Of argon2, with its parameters and salt; empty: comes in by the identity provider or a link alone.
        Column("password", Text, nullable=False, default=""),
        Column("created_at", Float, nullable=False),
        Column("changed_at", Float, nullable=False),
        #: Comes in by nothing until somebody enables the user again.
        Column("disabled", Boolean, nullable=False, default=False, server_default=false()),
    )
    Table(
        "sessions",
        metadata,
        #: SHA-256 of the cookie's value.
        Column("token", String(64), primary_key=True),
        Column("user", String(40), ForeignKey("users.name"), nullable=False, index=True),
        Column("began_at", Float, nullable=False),
        Column("seen_at", Float, nullable=False, index=True),
    )
    #: Links that let a user in once.
    Table(
        "entries",
        metadata,
        Column("token", String(64), primary_key=True),
        Column("user", String(40), ForeignKey("users.name"), nullable=False, index=True),
        Column("expires_at", Float, nullable=False),
    )
    Table(
        "tokens",
        metadata,
        Column("token", String(64), primary_key=True),
        Column("name", String(40), nullable=False, unique=True),
        Column("scopes", JSON, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float),
    )
    #: Keyed hashes: a study can be found, and its patient be told in the audit trail, without being named here.
    Table(
        "study_keys",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("accession", String(16), nullable=False, index=True),
        Column("patient", String(16), nullable=False),
    )
