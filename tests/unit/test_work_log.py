"""What a page quotes of the log: the lines that name a study, bounded, from every process, and never of a patient."""

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import work_log
from dicom_node.telemetry import log_context
from dicom_node.work_log import FOLDER, WorkLog, excerpts

STUDY, OTHER = "1.2.3", "1.2.4"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger whose lines are kept below the test's folder."""
    handler, logger = WorkLog(tmp_path), logging.getLogger("workers.of_a_test")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_the_lines_that_name_a_study_are_quoted_the_latest_last(log: logging.Logger, tmp_path: Path) -> None:
    with log_context(study_instance_uid=STUDY, job_uid="1.5"):
        log.info("reading began", extra={"attempt": 2})
        try:
            raise ValueError("Doe^Jane")
        except ValueError:
            log.error("reading broke off", exc_info=True)
    log.warning("instance refused", extra={"study_instance_uid": OTHER})
    found = excerpts(tmp_path, {STUDY}, 10)
    assert list(found) == [STUDY]
    began, broke = found[STUDY]
    assert "INFO reading began: job_uid 1.5, attempt 2" in began
    assert "ERROR reading broke off" in broke
    assert "builtins.ValueError" in broke
    assert "test_work_log.py" in broke


def test_nothing_of_a_patient_is_kept(log: logging.Logger, tmp_path: Path) -> None:
    with log_context(study_instance_uid=STUDY, patient_name="Doe^Jane"):
        log.warning("a study could not be worked on", extra={"patient_id": "Doe^Jane", "sop_instance_uid": "Doe^Jane"})
    kept = "".join(path.read_text() for path in (tmp_path / FOLDER).iterdir())
    assert "a study could not be worked on" in kept
    assert "Doe" not in kept


def test_what_is_received_leaves_no_line_and_costs_no_room(log: logging.Logger, tmp_path: Path) -> None:
    log.info("instance stored", extra={"study_instance_uid": STUDY})
    assert not (tmp_path / FOLDER).exists()
    assert excerpts(tmp_path, {STUDY}, 10) == {}


def test_only_the_last_lines_are_quoted_and_each_is_bounded(log: logging.Logger, tmp_path: Path) -> None:
    for number in range(30):
        log.warning("again", extra={"study_instance_uid": STUDY, "attempt": number, "reason": "x" * 3000})
    lines = excerpts(tmp_path, {STUDY}, 5)[STUDY]
    assert [line.split("attempt ")[1].split(",")[0] for line in lines] == ["25", "26", "27", "28", "29"]
    assert max(map(len, lines)) <= 300


def _speak(folder: Path, worker: int) -> None:
    handler, logger = WorkLog(folder), logging.getLogger(f"workers.number{worker}")
    logger.addHandler(handler)
    for number in range(300):
        logger.warning("a line", extra={"study_instance_uid": STUDY, "worker": worker, "count": number})


def test_processes_that_fill_the_file_at_once_break_no_line_and_stay_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_log, "MOST_BYTES", 8000)
    some = multiprocessing.get_context("fork")
    speakers = [some.Process(target=_speak, args=(tmp_path, worker)) for worker in range(3)]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join(60)
    assert [speaker.exitcode for speaker in speakers] == [0, 0, 0]
    files = sorted((tmp_path / FOLDER).iterdir())
    assert [path.name for path in files] == ["work.1.jsonl", "work.jsonl"]
    assert all(path.stat().st_size < 10_000 for path in files)
    written = sum(len(path.read_text().splitlines()) for path in files)
    assert len(excerpts(tmp_path, {STUDY}, 10_000)[STUDY]) == written > 40


def test_a_folder_that_cannot_be_written_holds_up_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    handler = WorkLog(tmp_path)
    handler.handle(logging.makeLogRecord({"name": "workers", "levelno": logging.ERROR, "msg": "trouble"}))
    handler.close()
    assert excerpts(tmp_path, {STUDY}, 10) == {}


def test_a_line_that_was_cut_is_left_out(log: logging.Logger, tmp_path: Path) -> None:
    log.warning("whole", extra={"study_instance_uid": STUDY})
    (path,) = (tmp_path / FOLDER).iterdir()
    with path.open("a") as file:
        file.write('{"study_instance_uid": "1.2.3", "event": "cu')
    assert len(excerpts(tmp_path, {STUDY}, 10)[STUDY]) == 1


def test_threads_share_one_handler(log: logging.Logger, tmp_path: Path) -> None:
    def speak(number: int) -> None:
        for _ in range(50):
            log.warning("a line", extra={"study_instance_uid": STUDY, "count": number})

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(excerpts(tmp_path, {STUDY}, 1000)[STUDY]) == 200
