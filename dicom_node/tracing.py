"""Tracing: the trace of each study that came to an end, to a collector of OpenTelemetry over OTLP/HTTP.

An option: the extra `otel`, and `traces` of [watching]. Its libraries are imported only where that is set. What is
sent holds UIDs, states and the names of algorithms, peers and workers, and nothing of a patient.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from dicom_node.archive.courses import Courses
from dicom_node.archive.index import Index
from dicom_node.core.errors import SettingsError
from dicom_node.core.trace import Course, spans_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger(__name__)

#: Studies of one request.
_AT_ONCE = 50
#: How often ended studies are looked for.
TRACING_SECONDS = 5.0
#: How long a collector may take.
_TIMEOUT_SECONDS = 10.0


class Exporter(Protocol):
    """What takes spans: the SDK's exporter."""

    def export(self, spans: "Sequence[ReadableSpan]", /) -> object:
        """Send them; the SDK's result, by its name SUCCESS or FAILURE."""

    def shutdown(self) -> None:
        """Send no more."""


class Tracing:
    """Sends the trace of each study once it has ended; while the collector is away they wait in the index."""

    def __init__(self, endpoint: str, index: Index, *, name: str, exporter: Exporter | None = None) -> None:
        """`endpoint` is the whole address, such as http://collector:4318/v1/traces; `name` is our AE title.

        SettingsError where the extra is not installed.
        """
        self._courses = Courses(index)
        self._name = name
        self._exporter = exporter or _exporter(endpoint)
        self._position: int | None = None
        self._is_away = False

    def step(self) -> None:
        """Send what ended since the last time."""
        if self._position is None:
            self._position = self._courses.position()
            self._courses.note(self._position)
        while ended := self._courses.ended(self._position, _AT_ONCE):
            courses = [self._courses.course(uid, number) for number, uid in ended]
            spans = [span for course in courses if course is not None for span in self._spans(course)]
            if not self._sent(spans):
                return
            self._position = ended[-1][0]
            self._courses.note(self._position)

    def close(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def _sent(self, spans: "Sequence[ReadableSpan]") -> bool:
        result = self._exporter.export(spans)
        is_away = getattr(result, "name", "") != "SUCCESS"
        if is_away != self._is_away:
            self._is_away = is_away
            log.log(
                logging.WARNING if is_away else logging.INFO,
                "traces are not taken and will be sent again" if is_away else "traces are taken again",
                extra={"count": len(spans)},
            )
        return not is_away

    def _spans(self, course: Course) -> "Iterator[ReadableSpan]":
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        resource = Resource({"service.name": "dicom-node", "service.instance.id": self._name})
        spans = spans_of(course)
        trace = _identifier(course, "trace", 16)
        contexts = [
            SpanContext(trace, _identifier(course, f"{place} {span.name}", 8), False, TraceFlags(TraceFlags.SAMPLED))
            for place, span in enumerate(spans)
        ]
        for place, (span, context) in enumerate(zip(spans, contexts, strict=True)):
            yield ReadableSpan(
                name=span.name,
                context=context,
                parent=None if place == 0 else contexts[span.parent or 0],
                resource=resource,
                attributes={f"dicom_node.{name}": value for name, value in span.attributes.items()},
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR if span.failed else StatusCode.OK),
                start_time=_nanoseconds(span.begins_at),
                end_time=_nanoseconds(span.ends_at),
            )


def is_installed() -> bool:
    """Whether the extra `otel` is there."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _exporter(endpoint: str) -> Exporter:
    if not is_installed():
        raise SettingsError('traces of [watching] needs the extra: pip install "dicom-node[otel]"; or leave it empty')
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_SECONDS)


def _identifier(course: Course, what: str, size: int) -> int:
    """The same for the same part of the same course, so that what is sent twice is no second trace."""
    text = f"{course.study_instance_uid} {course.lines[-1].number} {what}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big")


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)
