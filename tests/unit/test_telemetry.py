import ast
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from dicom_node import telemetry
from dicom_node.telemetry import Metrics, configure_logging, hashed, log_context

ROOT = Path(__file__).parents[2]
SECRET = "Doe^Jane"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def stream() -> io.StringIO:
    """Where JSON lines go in a test."""
    stream = io.StringIO()
    configure_logging("DEBUG", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_time_level_logger_event_and_keys(stream: io.StringIO) -> None:
    logging.getLogger("dicom_node.intake").info("instance stored", extra={"sop_instance_uid": "1.2.3", "count": 2})
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "dicom_node.intake",
        "event": "instance stored",
        "sop_instance_uid": "1.2.3",
        "count": 2,
    }


@given(key=st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), value=st.text(min_size=8, alphabet="XYZ^"))
def test_a_key_that_is_not_allowed_is_named_and_its_value_is_nowhere(key: str, value: str) -> None:
    record = logging.makeLogRecord({"name": "dicom_node.x", "msg": "an event"})
    plain = vars(record).keys()
    if key in plain or key in telemetry.ALLOWED_KEYS or telemetry._allowed(key):
        return
    vars(record)[key] = value
    line = telemetry.JsonLines().format(record)
    assert value not in line
    assert json.loads(line)["withheld"] == [key]


@pytest.mark.parametrize("key", ["patient_name", "PatientName", "patient_id", "description", "path", "url", "name"])
def test_keys_that_may_hold_patient_data_are_not_allowed(key: str) -> None:
    assert not telemetry._allowed(key)


def test_what_stands_where_a_uid_should_be_is_not_written(stream: io.StringIO) -> None:
    logging.getLogger("dicom_node").warning("instance refused", extra={"sop_instance_uid": SECRET})
    logging.getLogger("dicom_node").warning("instances refused", extra={"sop_instance_uids": ["1.2", SECRET]})
    assert SECRET not in stream.getvalue()
    assert [line.get("sop_instance_uid") for line in lines(stream)] == ["(not a UID)", None]
    assert lines(stream)[1]["sop_instance_uids"] == ["1.2", "(not a UID)"]


def test_an_exception_leaves_its_type_and_place_but_neither_its_text_nor_its_locals(stream: io.StringIO) -> None:
    def read(name: str) -> None:
        raise KeyError(f"no patient {name}")

    try:
        try:
            read(SECRET)
        except KeyError as error:
            raise RuntimeError(f"cannot read {SECRET}") from error
    except RuntimeError:
        logging.getLogger("dicom_node").exception("reading broke off")
    (line,) = lines(stream)
    assert SECRET not in stream.getvalue()
    assert line["exception"] == ["builtins.RuntimeError", "builtins.KeyError"]
    assert "test_telemetry.py" in line["traceback"][-1]


def test_a_library_that_sees_data_sets_says_where_it_spoke_and_not_what(stream: io.StringIO) -> None:
    logging.getLogger("pynetdicom.acse").critical("(0010,0010) PN [%s]", SECRET)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: %r", SECRET)
    logging.getLogger("celery.redirected").warning(SECRET)
    assert SECRET not in stream.getvalue()
    assert [line["event"] for line in lines(stream)] == ["a library spoke"] * 3
    assert all("test_telemetry:" in line["where"] for line in lines(stream))


@pytest.mark.parametrize("name", ["pynetdicom", "pynetdicom.events", "pydicom", "uvicorn.access", "celery", "kombu"])
def test_libraries_are_silent_below_warning_even_when_we_are_not(stream: io.StringIO, name: str) -> None:
    logging.getLogger(name).info("data set: %s", SECRET)
    logging.getLogger(name).debug("data set: %s", SECRET)
    assert stream.getvalue() == ""


def test_a_library_that_never_sees_data_sets_is_shown_unless_it_reports_an_exception(stream: io.StringIO) -> None:
    logging.getLogger("celery.worker").warning("connection lost, trying again in %s s", 2)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        logging.getLogger("celery.app.trace").error("task raised: %s", error, exc_info=True)
    shown, withheld = lines(stream)
    assert shown["event"] == "connection lost, trying again in 2 s"
    assert withheld["event"] == "a library spoke"
    assert withheld["exception"] == ["builtins.ValueError"]
    assert SECRET not in stream.getvalue()


def test_a_python_warning_is_told_by_its_kind_and_place(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("INFO", stream)
        warnings.warn(f"Invalid value for VR PN: {SECRET}", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines(stream)
    assert (line["event"], line["kind"]) == ("a library warned", "UserWarning")
    assert "test_telemetry.py" in line["where"]
    assert SECRET not in stream.getvalue()


def test_the_context_is_on_every_line_inside_and_on_none_outside(stream: io.StringIO) -> None:
    log = logging.getLogger("dicom_node")
    with log_context(study_instance_uid="1.2"):
        with log_context(series_instance_uid="1.2.3", study_instance_uid="1.9"):
            log.info("inner")
        log.info("outer", extra={"study_instance_uid": "1.7"})
    log.info("after")
    inner, outer, after = lines(stream)
    assert (inner["study_instance_uid"], inner["series_instance_uid"]) == ("1.9", "1.2.3")
    assert outer["study_instance_uid"] == "1.7"
    assert "series_instance_uid" not in outer
    assert "study_instance_uid" not in after


def test_a_context_is_its_threads_own(stream: io.StringIO) -> None:
    with log_context(study_instance_uid="1.2"):
        thread = threading.Thread(target=lambda: logging.getLogger("dicom_node").info("elsewhere"))
        thread.start()
        thread.join()
    assert "study_instance_uid" not in lines(stream)[0]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_value_cannot_forge_a_second_line(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("INFO", stream, as_json=as_json)
    forged = 'no\n{"event": "instance stored"}\r\x1b[2J\u2028'
    logging.getLogger("dicom_node").info("association rejected", extra={"calling_ae_title": forged})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_text_for_a_terminal_has_the_same_facts() -> None:
    stream = io.StringIO()
    configure_logging("INFO", stream, as_json=False)
    extra = {"reason": "no route wants it", "count": 3, "patient_name": SECRET}
    logging.getLogger("dicom_node").warning("study not routed", extra=extra)
    text = stream.getvalue()
    assert 'WARNING study not routed  reason="no route wants it"  count=3  withheld=patient_name' in text
    assert SECRET not in text


def test_configuring_twice_writes_each_line_once(stream: io.StringIO) -> None:
    configure_logging("INFO", stream)
    logging.getLogger("dicom_node").info("once")
    assert len(lines(stream)) == 1


def test_a_fingerprint_follows_from_text_and_key_and_from_nothing_less() -> None:
    assert hashed("12345", b"a") == hashed("12345", b"a")
    assert hashed("12345", b"a") != hashed("12345", b"b")
    assert hashed("12345", b"a") != hashed("12346", b"a")
    assert "12345" not in hashed("12345", b"a")


def written_keys(path: Path) -> Iterator[tuple[str, int]]:
    """Keys that a source file gives to the log in a literal, with their lines."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call):
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        for keyword in call.keywords:
            if called == "log_context" and keyword.arg is not None:
                yield keyword.arg, call.lineno
            for value in ast.walk(keyword.value) if keyword.arg == "extra" else ():
                keys = value.keys if isinstance(value, ast.Dict) else ()
                yield from ((str(key.value), call.lineno) for key in keys if isinstance(key, ast.Constant))


def test_every_key_that_our_code_logs_is_allowed() -> None:
    sources = [path for package in ("dicom_node", "workers") for path in (ROOT / package).rglob("*.py")]
    found = [(path.name, line, key) for path in sources for key, line in written_keys(path)]
    assert len(found) > 10
    assert [entry for entry in found if not telemetry._allowed(entry[2])] == []


class Refusing:
    """A reception that answers one instance and refuses the next."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def store(self, received: Any) -> object:
        if received == "bad":
            raise ValueError(SECRET)
        return "NEW"

    def association_opened(self, association_id: str, calling_ae_title: str) -> None: ...

    def association_ended(self, association_id: str, ending: str) -> None:
        self.ended.append((association_id, ending))

    def free_bytes(self) -> int:
        return 7


def test_a_counted_reception_counts_and_changes_nothing() -> None:
    metrics, reception = Metrics(), Refusing()
    counted = metrics.counted(reception)
    assert counted.store("good") == "NEW"
    with pytest.raises(ValueError, match=SECRET[:3]):
        counted.store("bad")
    counted.association_ended("a", "released")
    assert counted.free_bytes() == 7
    assert reception.ended == [("a", "released")]
    text = generate_latest(metrics.registry).decode()
    assert 'dicom_node_instances_received_total{outcome="new"} 1.0' in text
    assert 'dicom_node_instances_received_total{outcome="ValueError"} 1.0' in text
    assert 'dicom_node_associations_total{ending="released"} 1.0' in text
    assert "dicom_node_receive_seconds_count 2.0" in text


def test_metrics_of_two_nodes_in_one_process_are_apart() -> None:
    first, second = Metrics(), Metrics()
    first.associations.labels(ending="lost").inc()
    assert b'ending="lost"' in generate_latest(first.registry)
    assert b'ending="lost"' not in generate_latest(second.registry)


def test_logs_go_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("dicom_node").info("started")
    assert json.loads(capsys.readouterr().err)["event"] == "started"
    assert sys.stderr is not None
