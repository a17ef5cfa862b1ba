"""Jobs from queue to report: claimed once, in order, and ended with their study."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from tests.conftest import ROOT
from tests.job_of_a_study import STUDY, job_of, state_of
from tests.populated_index import (
    NOW,
    claim,
    objects,
    queue,
    study_uid,
    summary,
)


def test_a_queued_job_is_claimed_once_and_its_study_is_read(index: Index) -> None:
    job = queue(index, "a", at=NOW, priority=Priority.STAT)
    assert index.studies.rows(STUDY)[0].priority == "STAT"
    claimed = index.jobs.claim(job.job_uid, worker="gpu1:1", lease_seconds=30, at=NOW + 1)
    assert claimed is not None
    assert claimed[0] == replace(job, state=JobState.READING, attempts=1)
    assert (claimed[1].worker, claimed[1].expires_at) == ("gpu1:1", NOW + 31)
    assert state_of(index) is StudyState.READING
    assert index.jobs.claim(job.job_uid, worker="gpu1:2", lease_seconds=30, at=NOW + 1) is None
    assert index.jobs.claim("2.25.404", worker="gpu1:2", lease_seconds=30, at=NOW + 1) is None
    assert job_of(index).worker == "gpu1:1"


def test_of_many_threads_exactly_one_gets_each_job(tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    jobs = [queue(index, name, at=NOW) for name in ("a", "b", "c")]
    start = Barrier(6)

    def take(worker: int) -> list[str]:
        start.wait(20)
        claims = [index.jobs.claim(j.job_uid, worker=f"gpu1:{worker}", lease_seconds=30, at=NOW) for j in jobs]
        return [job.job_uid for job, _ in filter(None, claims)]

    with ThreadPoolExecutor(6) as pool:
        taken = [job_uid for uids in pool.map(take, range(6)) for job_uid in uids]
    assert sorted(taken) == sorted(job.job_uid for job in jobs)
    assert {row.job.attempts for name in "abc" for row in index.jobs.of_study(study_uid(name))} == {1}
    index.close()


_CLAIM_ALL = """
import sys
from dicom_node.archive.index import Index
url, worker, *jobs = sys.argv[1:]
index = Index.open(url)
print("ready", flush=True)
sys.stdin.readline()
for job in jobs:
    if index.jobs.claim(job, worker=worker, lease_seconds=30, at=0.0):
        print(job, flush=True)
"""


def test_of_two_processes_exactly_one_gets_each_job(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    index = Index.open(url)
    jobs = [queue(index, f"study {number}", at=NOW).job_uid for number in range(6)]
    index.close()
    command = [sys.executable, "-c", _CLAIM_ALL, url]
    processes = [
        subprocess.Popen([*command, name, *jobs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name in ("gpu1:1", "gpu2:1")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [job for process in processes for job in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(taken) == sorted(jobs)


def test_the_most_urgent_of_the_unsent_jobs_comes_first(index: Index) -> None:
    for number, priority in enumerate((Priority.LOW, Priority.STAT, Priority.ROUTINE, Priority.HIGH)):
        queue(index, priority.value, at=NOW + number, priority=priority)
    assert [job.priority.value for job in index.jobs.unsent(0.0)] == ["STAT", "HIGH", "ROUTINE", "LOW"]


def test_a_sent_message_is_sent_again_only_when_asked_for_older_ones(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    index.jobs.sent([job.job_uid], NOW + 1)
    assert index.jobs.unsent(NOW + 1) == []
    assert index.jobs.unsent(NOW + 1.1) == [job]


def test_a_report_its_job_and_its_study_are_one_change(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    lease = claim(index, job, at=NOW)
    twice = [*objects("a"), objects("a")[0]]
    with pytest.raises(Exception, match="UNIQUE"):  # SQLAlchemy's, which only the archive may name
        index.jobs.report(lease, twice, summary=summary(2), at=NOW + 1)
    assert (state_of(index), job_of(index).job.state) == (StudyState.READING, JobState.READING)
    assert index.jobs.report_rows(job.job_uid) == []
    index.jobs.report(lease, objects("a"), summary=summary(2), at=NOW + 1)
    assert (state_of(index), job_of(index).job.state) == (StudyState.REPORTED, JobState.REPORTED)
    assert index.jobs.report_rows(job.job_uid) == sorted(objects("a"), key=lambda row: row.sop_class_uid)
    assert index.studies.rows(STUDY)[0].reason == summary(2)["result"]
    assert (job_of(index).summary, job_of(index).ended_at) == (summary(2), NOW + 1)


@pytest.mark.parametrize(
    ("end", "after"),
    [
        (JobState.FAILED, StudyState.FAILED),
        (JobState.NOT_APPLICABLE, StudyState.NOT_ROUTED),
        (JobState.QUEUED, StudyState.QUEUED),
    ],
)
def test_an_end_without_a_report_moves_the_study_and_tells_why(index: Index, end: JobState, after: StudyState) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    index.jobs.end(lease, end, reason="the reason", at=NOW + 1)
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.reason, job_of(index).job.reason) == (after, "the reason", "the reason")
    assert index.studies.history(STUDY)[-1].actor == lease.worker


def test_a_job_does_not_end_in_a_state_that_is_no_end(index: Index) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    before = job_of(index)
    with pytest.raises(IllegalTransition):
        index.jobs.end(lease, JobState.READING, reason="", at=NOW)
    assert job_of(index) == before
