import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.archive.index import Index
from dicom_node.core.lifecycle import StudyState
from dicom_node.telemetry import Metrics
from dicom_node.web.application import SECURITY_HEADERS, build_application
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, claim, deliver, instance, objects, open_populated, queue, study_uid, summary
from tests.visitors import Person, session

ALL_WELL = {"receiver": True, "broker": True, "worker": True}
LENGTHS = {"stat": 0, "urgent": 1, "routine": 3}


Visit = Callable[..., Person]


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    """Serves an application over an index, and gives a visitor of it; everything stops at the end."""
    with ExitStack() as servers:

        def start(
            index: Index,
            lengths: Mapping[str, int] | None = None,
            health: Mapping[str, bool] = ALL_WELL,
            metrics: Metrics | None = None,
        ) -> Person:
            application = build_application(
                index, lambda: lengths, lambda: health, lambda: NOW, metrics=metrics, free_bytes=lambda: 5_000_000
            )
            server = WebServer(application, "127.0.0.1", 0)
            server.start()
            servers.callback(server.stop)
            return Person(server.port, session(index))

        yield start


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A busy morning; no test changes it."""
    return open_populated(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def visitor(visit: Visit, index: Index) -> Person:
    """Of the busy morning, with everything well."""
    return visit(index, LENGTHS)


@pytest.fixture(scope="module")
def page(visitor: Person) -> str:
    """The first page."""
    return visitor.get("/overview").text


class Elements(HTMLParser):
    """Collects a page's elements, and finds those that are left open."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_tells_every_study_with_its_state_and_a_link(index: Index, page: str) -> None:
    links = {attributes.get("href") for tag, attributes in Elements(page).found if tag == "a"}
    rows = index.studies.rows()
    assert len(rows) == sum(index.studies.counts().values())
    for row in rows:
        assert f"/studies/{row.study_instance_uid}" in links
    for state in StudyState:
        assert str(state).replace("_", " ") in page


def test_the_page_tells_reasons_results_queues_workers_and_deliveries(page: str) -> None:
    for words in (
        "slices are missing between 33.0 mm and 38.0 mm along the normal",
        "Modality is &#34;MR&#34;, not &#34;CT&#34;",
        "3 nodules, the largest 11.4 mm",
        "1 conflicting copy",
        "silent for 1 h 56 min",
        "does not answer (connection refused)",
        "Every part runs: broker, receiver, worker",
    ):
        assert words in page


@pytest.mark.parametrize(
    "path", ["/", "/overview", f"/studies/{study_uid('delivered 1')}", f"/studies/{study_uid('receiving')}", "/x"]
)
def test_a_page_closes_every_element_and_has_no_script_of_its_own_and_needs_no_other_host(
    visitor: Person, path: str
) -> None:
    elements = Elements(visitor.get(path).text)
    assert elements.open == []
    assert not {"iframe", "style"} & {tag for tag, _ in elements.found}
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert all(str(attributes["src"]).startswith("/static/") for attributes in scripts)
    for tag, attributes in elements.found:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), tag


@pytest.mark.parametrize(
    "path", ["/", "/x", "/healthz", "/metrics", "/static/page.css", "/studies/not-a-uid", "/login"]
)
def test_every_answer_has_the_security_headers(visitor: Person, path: str) -> None:
    headers = visitor.get(path).headers
    assert {name: headers.get(name) for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)


def test_times_are_for_machines_and_people(page: str) -> None:
    assert '<time datetime="2024-02-29T10:15:00Z">2024-02-29 10:15:00 UTC</time>' in page


def test_a_description_cannot_become_markup(visit: Visit, tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    attributes = {"Modality": "CT", "SeriesDescription": "<script>alert(1)</script>"}
    index.studies.add_instance(instance("sly", 1, at=NOW, attributes=attributes, calling_ae_title="<b>CT</b>"))
    study = visit(index).get(f"/studies/{study_uid('sly')}").text
    assert "<script>" not in study
    assert "<b>" not in study
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in study


def test_a_study_page_tells_history_series_jobs_and_deliveries(visitor: Person) -> None:
    page = visitor.get(f"/studies/{study_uid('delivered 1')}").text
    for words in (
        "the first instance arrived",
        "CHEST 1.0 LUNG",
        "lung_nodule",
        "SEG",
        "infer 6.2 s",
        "0x0000 Success",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        (SecondaryCaptureImageStorage, "Secondary Capture"),
        (GrayscaleSoftcopyPresentationStateStorage, "GSPS"),
        (SegmentationStorage, "SEG"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "Label Map"),
        (Comprehensive3DSRStorage, "SR"),
        (KeyObjectSelectionDocumentStorage, "KOS"),
        (EncapsulatedPDFStorage, "PDF"),
    ],
)
def test_whatever_form_a_report_has_the_page_calls_it_by_its_name(
    visit: Visit, tmp_path: Path, sop_class: str, name: str
) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    job = queue(index, "one", at=NOW)
    report = replace(objects("one", with_segmentation=False)[0], sop_class_uid=sop_class)
    index.jobs.report(claim(index, job, at=NOW), [report], summary=summary(1), at=NOW)
    deliver(index, "one", at=NOW)
    page = visit(index).get(f"/studies/{study_uid('one')}").text
    assert f"<strong>{name}</strong> to <strong>pacs</strong>" in page


@pytest.mark.parametrize(
    "name", ["receiving", "complete", "not routed", "failed", "reading stat", "reported", "committed"]
)
def test_a_study_in_any_state_has_its_page(visitor: Person, name: str) -> None:
    answer = visitor.get(f"/studies/{study_uid(name)}")
    assert answer.status == 200
    assert study_uid(name) in answer.text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/studies/1.2.3", "Study 1.2.3 is not in the index"),
        ("/studies/Doe%5EJane", "That is no Study Instance UID"),
        ("/nowhere", "There is no such page"),
        ("/static/../server.py", "There is no such page"),
        ("/docs", "There is no such page"),
        ("/openapi.json", "There is no such page"),
    ],
)
def test_what_is_not_there_is_said_in_words(visitor: Person, path: str, words: str) -> None:
    answer = visitor.get(path)
    assert answer.status == 404
    assert words in answer.text
    assert "Doe" not in answer.text


def test_pages_can_only_be_read(visitor: Person) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert visitor.get("/", method).status == 405


def test_a_broker_that_does_not_answer_is_named_and_the_page_still_comes(visit: Visit, index: Index) -> None:
    answer = visit(index, None)
    assert "The broker does not answer" in answer.get("/overview").text
    assert "dicom_node_broker_messages{" not in answer.get("/metrics").text


def test_a_part_that_does_not_run_is_named_on_the_page(visit: Visit, index: Index) -> None:
    assert "Not running: worker" in visit(index, LENGTHS, {**ALL_WELL, "worker": False}).get("/overview").text


def test_health_is_200_while_every_part_runs_and_503_otherwise(visit: Visit, index: Index, visitor: Person) -> None:
    well = visitor.get("/healthz")
    assert (well.status, json.loads(well.text)) == (200, {"ok": True, "missed": [], "parts": ALL_WELL})
    parts = {**ALL_WELL, "worker": False}
    ill = visit(index, health=parts).get("/healthz")
    assert (ill.status, json.loads(ill.text)) == (503, {"ok": False, "missed": ["worker"], "parts": parts})


def test_what_the_node_can_do_without_is_named_and_does_not_make_it_ill(index: Index) -> None:
    parts = {**ALL_WELL, "broker": False}
    application = build_application(index, dict, lambda: parts, lambda: NOW, dispensable=frozenset({"broker"}))
    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    try:
        answer = Person(server.port).get("/healthz")
    finally:
        server.stop()
    assert (answer.status, json.loads(answer.text)) == (200, {"ok": True, "missed": ["broker"], "parts": parts})


def test_a_page_that_cannot_be_made_says_so_without_details(visit: Visit, tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    index.transactions.tables["studies"].drop(index._engine)
    answer = visit(index).get("/overview")
    assert answer.status == 500
    assert "The node failed to make this page" in answer.text
    assert "sqlite" not in answer.text.lower()
    assert answer.headers["Content-Security-Policy"] == SECURITY_HEADERS["Content-Security-Policy"]


def test_metrics_are_what_the_index_knows(visitor: Person) -> None:
    text = visitor.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["dicom_node_studies", "HIGH", "FAILED"] == 1
    assert samples["dicom_node_studies", "ROUTINE", "DELIVERED"] == 4
    assert samples["dicom_node_queue_jobs", "routine", "waiting"] == 3
    assert samples["dicom_node_queue_oldest_seconds", "urgent"] == 75
    assert samples["dicom_node_broker_messages", "routine"] == 3
    assert samples["dicom_node_deliveries", "pacs", "waiting"] == 2
    assert samples["dicom_node_worker_heartbeat_age_seconds", "NVIDIA H200", "gpu1:4711"] == 3
    assert samples[("dicom_node_workers",)] == 2
    assert samples[("dicom_node_free_disk_bytes",)] == 5_000_000
    counts = {name: sum(value for key, value in samples.items() if key[0] == name) for name, *_ in samples}
    assert counts["dicom_node_time_to_result_seconds_count"] == counts["dicom_node_service_seconds_count"] == 6
    assert counts["dicom_node_time_to_delivery_seconds_count"] == 5
    assert counts["dicom_node_inference_seconds_sum"] == 37.5
    assert samples["dicom_node_service_seconds_bucket", "5", "routine"] == 0
    assert samples["dicom_node_service_seconds_bucket", "10", "routine"] == 4
    assert samples["dicom_node_delivery_outcomes_total", "postponed", "pacs"] == 2
    assert samples["dicom_node_studies_entered_total", "FAILED"] == 1


def test_no_metric_carries_a_uid(visitor: Person) -> None:
    assert not re.search(r"\d\.\d+\.\d{6,}", visitor.get("/metrics").text)


def test_counts_of_this_process_are_served_beside_those_of_the_index(visit: Visit, index: Index) -> None:
    metrics = Metrics()
    visitor = visit(index, metrics=metrics)
    metrics.associations.labels(ending="released").inc()
    assert 'dicom_node_associations_total{ending="released"} 1.0' in visitor.get("/metrics").text


def test_a_node_that_cannot_tell_its_free_room_leaves_that_metric_out(index: Index) -> None:
    names = {family.name for family in IndexCollector(index, dict, lambda: NOW).collect()}
    assert "dicom_node_studies" in names
    assert "dicom_node_free_disk_bytes" not in names


def test_only_the_heads_of_pages_come_when_only_heads_are_asked_for(visitor: Person) -> None:
    answer = visitor.get("/", "HEAD")
    assert (answer.status, answer.text) == (200, "")
