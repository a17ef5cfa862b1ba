"""The trace of a study: its steps in order, sent once it has ended to a real collector, and nothing of a patient."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dicom_node.archive.index import Index
from dicom_node.core.commitment import CommitmentReport
from dicom_node.core.errors import SettingsError
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.trace import Course, Line, spans_of
from dicom_node.settings_loading import load_settings
from dicom_node.tracing import Tracing
from tests.conftest import ROOT
from tests.populated_index import NOW, deliver, instance, populate, report, study_uid

STATES = ("RECEIVING", "COMPLETE", "QUEUED", "READING", "REPORTED", "WAITING", "ACCEPTED", "COMMITTED")


class Collector:
    """A collector of OTLP/HTTP that keeps what it is sent; it refuses while `away`."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.away = False
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                # 400: the SDK does not try it again by itself.
                self.send_response(400 if collector.away else 200)
                self.end_headers()
                if not collector.away:
                    assert self.path == "/v1/traces"
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


@pytest.fixture
def tracing(collector: Collector, index: Index) -> Iterator[Tracing]:
    tracing = Tracing(collector.address, index, name="TRIAGE")
    tracing.step()
    yield tracing
    tracing.close()


def told(span: Any) -> tuple[str, float, float]:
    """Name, and the seconds before NOW at which it begins and ends."""
    return span.name, round(span.start_time_unix_nano / 1e9 - NOW, 3), round(span.end_time_unix_nano / 1e9 - NOW, 3)


def attributes(span: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in span.attributes}


def test_a_study_is_one_trace_with_its_steps(collector: Collector, index: Index, tracing: Tracing) -> None:
    report(index, "a", at=NOW)
    tracing.step()
    assert collector.spans == [], "it has not ended yet"
    deliver(index, "a", at=NOW + 2)
    tracing.step()
    assert [told(span) for span in collector.spans] == [
        ("study", -16.0, 2.0),
        ("receive", -16.0, -11.0),
        ("assemble", -11.0, -9.0),
        ("queue wait", -9.0, -8.0),
        ("read", -8.0, 0.0),
        ("report", -0.7, 0.0),
        ("deliver", 0.0, 2.0),
    ]
    assert len({span.trace_id for span in collector.spans}) == 1
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    whole, read, written = collector.spans[0], collector.spans[4], collector.spans[5]
    assert whole.parent_span_id == b""
    assert written.parent_span_id == read.span_id
    assert {span.parent_span_id for span in collector.spans[1:5]} == {whole.span_id}
    assert attributes(whole) == {
        "dicom_node.study_instance_uid": study_uid("a"),
        "dicom_node.state": "DELIVERED",
    }
    assert attributes(read) == {"dicom_node.algorithm": "lung_nodule", "dicom_node.worker": "gpu1:4711"}
    assert attributes(collector.spans[6]) == {"dicom_node.peer": "pacs"}


def test_a_study_that_is_to_be_committed_ends_with_its_commitment(
    collector: Collector, index: Index, tracing: Tracing
) -> None:
    report(index, "a", at=NOW)
    for sop_instance_uid, *_ in index.deliveries.unplanned():
        index.deliveries.plan(sop_instance_uid, ["pacs"], NOW)
    for row in index.deliveries.of_study(study_uid("a")):
        index.deliveries.accepted(row, reason="0x0000", at=NOW + 1, commitment=True)
    tracing.step()
    assert collector.spans == [], "DELIVERED, and its commitment is still open"
    for due in index.commitments.due("pacs", NOW + 2, 10):
        assert index.commitments.begin(due, "2.25.77", next_try_at=NOW + 60, at=NOW + 2)
        answer = CommitmentReport(
            transaction_uid="2.25.77", committed=frozenset(r.sop_instance_uid for r in due.rows), failed={}
        )
        index.commitments.answer(answer, maximum_refusals=3, send_again_at=NOW + 60, at=NOW + 5)
    tracing.step()
    assert told(collector.spans[-1]) == ("commitment", 1.0, 5.0)
    assert attributes(collector.spans[0])["dicom_node.state"] == "COMMITTED"


def test_studies_in_every_state_are_told_once_each_that_ended(collector: Collector, index: Index) -> None:
    tracing = Tracing(collector.address, index, name="TRIAGE")
    tracing.step()
    populate(index)
    tracing.step()
    tracing.step()
    wholes = [span for span in collector.spans if span.name == "study"]
    states = sorted(attributes(span)["dicom_node.state"] for span in wholes)
    # The committed study was DELIVERED before, and asked for nothing.
    assert states == ["COMMITTED", *["DELIVERED"] * 5, "FAILED", "NOT_ROUTED"]
    failed = next(span for span in wholes if attributes(span)["dicom_node.state"] == "FAILED")
    assert failed.status.code == 2
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in collector.spans)
    tracing.close()


def test_while_the_collector_is_away_traces_wait_and_are_told_later(
    collector: Collector, index: Index, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    collector.away = True
    report(index, "a", at=NOW)
    deliver(index, "a", at=NOW + 2)
    with caplog.at_level(logging.INFO, logger="dicom_node"):
        tracing.step()
        tracing.step()
        collector.away = False
        again = Tracing(collector.address, index, name="TRIAGE")
        again.step()
        tracing.step()
    assert [span.name for span in collector.spans].count("study") == 2, "both took it up where it was left"
    assert len({span.trace_id for span in collector.spans}) == 1, "and it is the same trace"
    said = [record.message for record in caplog.records if record.name == "dicom_node.tracing"]
    assert said == ["traces are not taken and will be sent again", "traces are taken again"]
    again.close()


def test_what_ended_before_traces_were_asked_for_is_not_told(collector: Collector, index: Index) -> None:
    populate(index)
    tracing = Tracing(collector.address, index, name="TRIAGE")
    tracing.step()
    assert collector.requests == []
    tracing.close()


def test_a_study_with_a_late_image_is_a_second_trace_of_what_came_since(
    collector: Collector, index: Index, tracing: Tracing
) -> None:
    report(index, "a", at=NOW)
    deliver(index, "a", at=NOW + 2)
    tracing.step()
    index.studies.add_instance(instance("a", 99, at=NOW + 100))
    index.studies.move(study_uid("a"), StudyState.COMPLETE, cause="quiet", actor="assembly", at=NOW + 102)
    index.studies.move(study_uid("a"), StudyState.NOT_ROUTED, cause="none", actor="assembly", at=NOW + 102)
    tracing.step()
    second = [told(span) for span in collector.spans][7:]
    assert second == [("study", 100.0, 102.0), ("receive", 100.0, 100.0), ("assemble", 100.0, 102.0)]
    assert len({span.trace_id for span in collector.spans}) == 2


def test_nothing_of_a_patient_is_sent(collector: Collector, index: Index, tracing: Tracing) -> None:
    header = {"Modality": "CT", "SeriesDescription": "DOE^JANE", "PatientName": "DOE^JANE", "PatientID": "4711-secret"}
    index.studies.add_instance(instance("a", 1, at=NOW - 3, attributes=header))
    index.studies.move(study_uid("a"), StudyState.COMPLETE, cause="of DOE^JANE", actor="assembly", at=NOW - 1)
    index.studies.move(study_uid("a"), StudyState.NOT_ROUTED, cause="DOE^JANE", actor="assembly", at=NOW)
    tracing.step()
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert sent
    assert b"DOE" not in sent
    assert b"secret" not in sent


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.sampled_from(STATES),
            st.sampled_from(STATES),
            st.sampled_from(["", "job a", "job b", "delivery p"]),
        ),
        min_size=1,
    ),
    st.floats(0, 1e6),
)
def test_whatever_the_history_no_span_ends_before_it_begins(
    rows: list[tuple[float, str, str, str]], received: float
) -> None:
    """Also where the clock was never set back: lines come in the order of their times."""
    times = sorted(row[0] for row in rows)
    lines = [
        Line(number=n, at=at, before=before, after=after, subject=subject, actor="x")
        for n, (at, (_, before, after, subject)) in enumerate(zip(times, rows, strict=True))
    ]
    course = Course(
        study_instance_uid="1.2", lines=lines, opened_at=None, last_received_at=received, report_seconds={"a": 5.0}
    )
    spans = spans_of(course)
    assert spans[0].name == "study"
    assert all(span.begins_at <= span.ends_at for span in spans)
    assert all(span.parent is None or spans[span.parent].name == "read" for span in spans)


def test_a_node_without_traces_imports_nothing_of_them() -> None:
    # What FastAPI imports for itself, with or without ours, is not asked for.
    ours = "('opentelemetry.sdk.trace', 'opentelemetry.exporter')"
    run = f"import sys, dicom_node.composition_root; sys.exit(any(name.startswith({ours}) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", run], cwd=ROOT).returncode == 0


def test_traces_without_the_extra_name_the_mend(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.tracing.is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"dicom-node\[otel\]"):
        Tracing("http://127.0.0.1:1/v1/traces", index, name="TRIAGE")


@pytest.mark.parametrize("address", ["collector:4318", "ftp://x/", "http://user:word@host/"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[watching]\ntraces = "{address}"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="it must begin with https:// or http://"):
        load_settings(file, {})
