"""Telemetry: log lines that can carry no patient data, a keyed hash for what could, and the counts of this process.

A log line is a constant sentence (`event`), the context's UIDs, and extra keys. Only keys on the list below get
through; the names of others are listed under `withheld`, their values nowhere. Libraries that see data sets say where
they spoke, not what they said, and an exception leaves its type and its traceback, never its text.
"""

import hashlib
import hmac
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram

#: Extra keys that may be logged: names of things, of states and of places; never free text from a header.
ALLOWED_KEYS = frozenset(
    {
        *("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid"),
        *("frame_of_reference_uid", "job_uid", "transaction_uid", "device_uid", "association_id", "lease_token"),
        *("ae_title", "calling_ae_title", "called_ae_title", "peer", "peers", "host", "port", "address"),
        *("state", "before", "after", "outcome", "ending", "status", "reason", "result", "cause", "actor", "mend"),
        *("algorithm", "route", "routes", "bundle", "bundles", "version", "checksum", "sha256", "evidence", "device"),
        *("priority", "queue", "queues", "worker", "workers", "process", "pid", "signal", "exit_status", "part"),
        *("attempt", "attempts", "maximum_attempts", "refusals", "count", "instances", "series", "studies", "findings"),
        *(
            "objects",
            "jobs",
            "deliveries",
            "conflicts",
            "slices",
            "files",
            "warnings",
            "faults",
            "modality",
            "added",
            "step",
        ),
        *("next_try_at", "expires_at", "check_again_at", "error", "kind", "data_dir", "mode", "part", "files"),
    }
)

#: Endings of further keys that may be logged: identifiers, counts and measures.
_ALLOWED_ENDINGS = ("_uid", "_uids", "_seconds", "_bytes", "_megabytes", "_mm", "_ml", "_count", "_ae_title", "_status")

#: Ours: their sentences are constant.
_OURS = ("dicom_node", "workers", "training")

#: Libraries that never see a data set: shown, unless they report an exception, whose text may quote one.
_SHOWN = ("celery", "kombu", "redis", "uvicorn", "fastapi", "asyncio")

#: What a worker's libraries print arrives here, whatever it is.
_PRINTED = "celery.redirected"

#: Loggers that speak too much below WARNING; pynetdicom shows whole data sets at DEBUG.
_TAMED = (
    *("pynetdicom", "pydicom", "highdicom", "celery", "kombu", "alembic", "amqp", "redis", "uvicorn", "uvicorn.error"),
    *("uvicorn.access", "asyncio", "sqlalchemy", "monai", "PIL", "ignite", "torch", "py.warnings"),
)

_LONGEST_TEXT = 2000
_UID = re.compile(r"[0-9.]{1,64}")
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTEXT: ContextVar[Mapping[str, object]] = ContextVar("log_context", default={})  # noqa: B039 - never changed in place


@contextmanager
def log_context(**keys: object) -> Iterator[None]:
    """Add these keys to every log line written inside, in this thread or coroutine; inner ones win."""
    token = _CONTEXT.set({**_CONTEXT.get(), **keys})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def context_keys() -> Mapping[str, object]:
    """The keys that every line of this thread or coroutine gets now."""
    return _CONTEXT.get()


def hashed(text: str, key: bytes) -> str:
    """A keyed fingerprint (HMAC-SHA-256, 16 hex digits) of text that must not be written, such as a Patient ID.

    The same text and key give the same fingerprint; without the key nobody can try names against it.
    """
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]


def configure_logging(level: str | int = "INFO", stream: TextIO | None = None, *, as_json: bool = True) -> None:
    """Send every logger of this process through one handler: a JSON object a line, or text for a terminal.

    `stream` is standard error by default. Calling it again replaces the earlier handler.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in _TAMED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # Of a failed association our own lines say more, and in words.
        quiet = logging.CRITICAL if name == "pynetdicom" else logging.WARNING
        logger.setLevel(max(quiet, root.level))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the keys."""

    def __init__(self) -> None:
        super().__init__()
        self._encode = json.JSONEncoder(ensure_ascii=False).encode

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        return self._encode(facts_of(record))


class TextLines(logging.Formatter):
    """Text for a terminal: time, level, event, then key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, a traceback below it."""
        facts = facts_of(record)
        traceback = facts.pop("traceback", [])
        head = f"{facts.pop('time')} {facts.pop('level'):<7} {facts.pop('event')}"
        facts.pop("logger")
        keys = "".join(f"  {name}={_word(value)}" for name, value in facts.items())
        return "\n    ".join([head + keys, *traceback])


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record may say, by key."""
    given = {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD}
    keys = {**_CONTEXT.get(), **given}
    facts: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        **_said(record),
    }
    withheld = []
    for key, value in keys.items():
        if _allowed(key):
            facts[key] = _safe(key, value)
        else:
            withheld.append(key)
    if withheld:
        facts["withheld"] = sorted(withheld)
    if record.exc_info and record.exc_info[0] is not None:
        facts |= _raised(record.exc_info[1], record.exc_info[2])
    return facts


def _said(record: logging.LogRecord) -> dict[str, str]:
    family = record.name.partition(".")[0]
    if family in _OURS or (family in _SHOWN and not record.exc_info and record.name != _PRINTED):
        return {"event": _one_line(record.getMessage())}
    if record.name == "py.warnings" and (place := re.match(r"(.+?:\d+): (\w+):", record.getMessage())):
        return {"event": "a library warned", "kind": place[2], "where": place[1]}
    return {"event": "a library spoke", "where": f"{record.module}:{record.lineno}"}


def _raised(error: BaseException | None, traceback: TracebackType | None) -> dict[str, Any]:
    """The exception's type, those it came from, and its frames as file:line function, the innermost last."""
    kinds = []
    cause = error
    while cause is not None:
        kinds.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return {"exception": kinds, "traceback": frames}


def _allowed(key: str) -> bool:
    return key in ALLOWED_KEYS or key.endswith(_ALLOWED_ENDINGS)


def _safe(key: str, value: object) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe(key.removesuffix("s"), part) for part in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = _one_line(str(value))
    if key.endswith("_uid") and not _UID.fullmatch(text):
        return "(not a UID)"
    return text


def _one_line(text: str) -> str:
    """Without control characters, so that no value can forge a second log line."""
    clean = text
    if not text.isprintable():
        clean = "".join(character if character.isprintable() else " " for character in text)
    return clean if len(clean) <= _LONGEST_TEXT else clean[:_LONGEST_TEXT] + "..."


def _word(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text else text


class Reception(Protocol):
    """What takes instances in; telemetry knows no more of it."""

    def store(self, received: Any) -> object:
        """Keep an instance; its answer is the outcome."""

    def spool(self, announced: Any) -> Any:
        """A file for the data set of an instance that comes in."""

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """An association begins."""

    def association_ended(self, association_id: str, ending: str) -> None:
        """An association is over."""

    def free_bytes(self) -> int:
        """Room left."""


class Metrics:
    """What this process counts itself; all that the index knows is read from there at each scrape."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.instances_received = Counter(
            "dicom_node_instances_received",
            "SOP instances that a peer sent, by what became of each",
            ["outcome"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "dicom_node_refusals",
            "Instances and associations that were refused, by what and why",
            ["what", "reason"],
            registry=self.registry,
        )
        self.associations = Counter(
            "dicom_node_associations",
            "Associations that sent instances and ended, by how: released, aborted or lost",
            ["ending"],
            registry=self.registry,
        )
        self.receive_seconds = Histogram(
            "dicom_node_receive_seconds",
            "From an instance's last byte to its row in the index",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
            registry=self.registry,
        )

    def may_refuse(self, what: str, reasons: Iterable[str]) -> None:
        """Show these reasons from the start: of what begins at one, no rate can be told."""
        for reason in reasons:
            self.refusals.labels(what=what, reason=reason)

    def refused(self, what: str, reason: str) -> None:
        """An "instance" or an "association" is refused: the name of an error of ours, or a reason of PS3.8."""
        self.refusals.labels(what=what, reason=reason).inc()

    def counted(self, reception: Reception) -> "CountedReception":
        """The reception, each instance and association of it counted on the way through."""
        return CountedReception(reception, self)


class CountedReception:
    """A reception that counts: outcomes are its answers in small letters, or the class of what it raised."""

    def __init__(self, reception: Reception, metrics: Metrics) -> None:
        self._reception = reception
        self._metrics = metrics

    def store(self, received: Any) -> object:
        """Keep an instance, timed and counted."""
        outcome = "error"
        try:
            with self._metrics.receive_seconds.time():
                answer = self._reception.store(received)
            outcome = str(answer).lower()
        except Exception as error:  # counted by its kind, whatever it is, and raised again
            outcome = type(error).__name__
            raise
        finally:
            self._metrics.instances_received.labels(outcome=outcome).inc()
        return answer

    def spool(self, announced: Any) -> Any:
        """A file for the data set of an instance that comes in."""
        return self._reception.spool(announced)

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """An association begins."""
        self._reception.association_opened(association_id, calling_ae_title)

    def association_ended(self, association_id: str, ending: str) -> None:
        """An association is over: counted."""
        self._reception.association_ended(association_id, ending)
        self._metrics.associations.labels(ending=ending).inc()

    def free_bytes(self) -> int:
        """Room left."""
        return self._reception.free_bytes()
