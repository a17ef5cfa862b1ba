from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow, LeaseLost
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import QUEUES, Priority
from dicom_node.core.queue_order import place
from tests.populated_index import NOW, claim, instance, objects, queue, report, study_uid, summary
from tests.statements import told_statements

ATTEMPTS = Attempts(maximum=3, first_wait_seconds=10, maximum_wait_seconds=15)


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def take(index: Index, at: float, worker: str = "gpu1:1", **options: object) -> tuple[Job, Lease] | None:
    asked: dict[str, object] = {"queues": QUEUES, "lease_seconds": 30, **options}
    return index.jobs.claim_next(worker=worker, at=at, **asked)  # type: ignore[arg-type]  # the test's own options


def taken(index: Index, at: float, **options: object) -> str | None:
    claimed = take(index, at, **options)
    return None if claimed is None else claimed[0].study_instance_uid


def row_of(index: Index, study: str = "a") -> JobRow:
    return index.jobs.of_study(study_uid(study))[0]


def of_job(index: Index, study: str = "a") -> list[tuple[str, str, str, str]]:
    lines = index.studies.history(study_uid(study))
    return [(line.before, line.after, line.cause, line.actor) for line in lines if line.subject == "job lung_nodule"]


def test_the_next_job_is_the_most_urgent_and_of_these_the_longest_waiting(index: Index) -> None:
    for number, priority in enumerate((Priority.LOW, Priority.ROUTINE, Priority.HIGH, Priority.STAT, Priority.HIGH)):
        queue(index, f"{priority} {number}", at=NOW + number, priority=priority)
    queue(index, "STAT 9", at=NOW - 1, priority=Priority.STAT)
    order = [taken(index, NOW + 10) for _ in range(7)]
    names = ("STAT 9", "STAT 3", "HIGH 2", "HIGH 4", "ROUTINE 1", "LOW 0")
    assert order == [*map(study_uid, names), None]


def test_what_is_claimed_is_leased_counted_fenced_and_read(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    claimed = take(index, NOW + 1, lease_seconds=45)
    assert claimed is not None
    assert claimed[0] == replace(job, state=JobState.READING, attempts=1)
    assert (claimed[1].worker, claimed[1].expires_at, claimed[1].fence) == ("gpu1:1", NOW + 46, 1)
    assert index.studies.rows(study_uid("a"))[0].state is StudyState.READING
    assert take(index, NOW + 1) is None


def test_a_worker_gets_jobs_of_its_queues_and_algorithms_alone(index: Index) -> None:
    queue(index, "a", at=NOW, priority=Priority.HIGH)
    assert take(index, NOW, queues=["stat", "routine"]) is None
    assert take(index, NOW, queues=[]) is None
    assert take(index, NOW, algorithms=["fracture"]) is None
    assert take(index, NOW, algorithms=[]) is None
    assert taken(index, NOW, queues=["urgent"], algorithms=["fracture", "lung_nodule"]) == study_uid("a")


def test_a_routine_job_that_waited_the_maximum_goes_before_a_high_one_and_after_stat(index: Index) -> None:
    queue(index, "old", at=NOW, priority=Priority.LOW)
    queue(index, "high", at=NOW + 99, priority=Priority.HIGH)
    queue(index, "stat", at=NOW + 100, priority=Priority.STAT)
    order = [taken(index, NOW + 100, maximum_waiting_seconds=100) for _ in range(3)]
    assert order == [study_uid("stat"), study_uid("old"), study_uid("high")]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 3000)), min_size=1, max_size=6))
def test_the_index_claims_in_the_very_order_of_the_rule(waiting: list[tuple[Priority, int]]) -> None:
    index = Index.open("sqlite://")
    now = NOW + 3000
    jobs = [
        (queue(index, f"study {number}", at=NOW + at, priority=priority), NOW + at)
        for number, (priority, at) in enumerate(waiting)
    ]
    expected = sorted(place(job.priority, at, now, 1800) for job, at in jobs)
    queued_at = {job.job_uid: at for job, at in jobs}
    claimed = [job for job, _ in filter(None, (take(index, now) for _ in jobs))]
    index.close()
    assert [place(job.priority, queued_at[job.job_uid], now, 1800) for job in claimed] == expected


def test_of_many_workers_no_two_get_the_same_job_and_all_get_the_urgent_ones_first(tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    priorities = [Priority.STAT, Priority.HIGH, Priority.ROUTINE] * 3
    for number, priority in enumerate(priorities):
        queue(index, str(number), at=NOW + number, priority=priority)
    start = Barrier(5)

    def work(worker: int) -> list[Priority]:
        start.wait(20)
        got = []
        while claimed := take(index, NOW + 60, worker=f"gpu1:{worker}"):
            got.append(claimed[0].priority)
        return got

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(work, range(5)))
    assert sorted(priority for got in found for priority in got) == sorted(priorities)
    assert {row_of(index, str(number)).job.attempts for number in range(9)} == {1}
    for got in found:
        assert got == sorted(got, key=list(Priority).index)
    index.close()


def test_an_older_lease_is_void_even_with_the_newer_ones_token(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    old = claim(index, job, at=NOW)
    index.jobs.expire(now=NOW + 31, attempts=ATTEMPTS, actor="dispatch")
    new = claim(index, job, at=NOW + 50)
    assert (old.fence, new.fence) == (1, 2)
    forged = replace(new, fence=old.fence)
    assert not index.jobs.renew(forged, NOW + 90)
    with pytest.raises(LeaseLost):
        index.jobs.report(forged, objects("a"), summary=summary(1), at=NOW + 51)
    with pytest.raises(LeaseLost):
        index.jobs.retry(forged, reason="broken", attempts=ATTEMPTS, at=NOW + 51)
    with pytest.raises(LeaseLost):
        index.jobs.end(forged, JobState.FAILED, reason="broken", at=NOW + 51)
    assert index.jobs.renew(new, NOW + 90)


def test_the_fence_grows_on_where_a_study_is_asked_for_again(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    index.jobs.end(claim(index, job, at=NOW), JobState.FAILED, reason="broken", at=NOW)
    index.jobs.ask_again(job.study_instance_uid, actor="page", at=NOW)
    index.jobs.queue(job.study_instance_uid, [job], cause="routed", actor="assembly", at=NOW)
    assert claim(index, job, at=NOW).fence == 2


def test_between_two_attempts_the_job_rests_longer_each_time_and_is_then_a_dead_letter(index: Index) -> None:
    queue(index, "a", at=NOW)
    now = NOW
    for attempt, rest in ((1, 10.0), (2, 15.0)):
        claimed = take(index, now)
        assert claimed is not None
        state = index.jobs.retry(claimed[1], reason=f"fault {attempt}", attempts=ATTEMPTS, at=now)
        assert (state, row_of(index).next_try_at) == (JobState.QUEUED, now + rest)
        assert index.studies.rows(study_uid("a"))[0].state is StudyState.QUEUED
        assert take(index, now + rest - 0.1) is None
        assert index.jobs.unsent(0.0, at=now + rest - 0.1) == [], "nobody is rung for what rests"
        now += rest
        assert len(index.jobs.unsent(0.0, at=now)) == 1
    claimed = take(index, now)
    assert claimed is not None
    assert row_of(index).next_try_at is None
    assert index.jobs.retry(claimed[1], reason="fault 3", attempts=ATTEMPTS, at=now) is JobState.FAILED
    row = row_of(index)
    assert (row.dead_letter, row.job.state, row.job.reason, row.ended_at) == (True, JobState.FAILED, "fault 3", now)
    assert index.studies.rows(study_uid("a"))[0].state is StudyState.FAILED
    assert take(index, now + 1e6) is None


def test_the_history_holds_every_change_of_a_job_with_its_cause_and_actor(index: Index) -> None:
    queue(index, "a", at=NOW, priority=Priority.HIGH)
    first = take(index, NOW, worker="gpu1:1")
    assert first is not None
    index.jobs.retry(first[1], reason="out of memory", attempts=ATTEMPTS, at=NOW)
    assert take(index, NOW + 10, worker="gpu1:2") is not None
    index.jobs.expire(now=NOW + 41, attempts=ATTEMPTS, actor="dispatch")
    third = take(index, NOW + 90, worker="gpu1:3")
    assert third is not None
    index.jobs.retry(third[1], reason="out of memory once more", attempts=ATTEMPTS, at=NOW + 91)
    index.jobs.ask_again(study_uid("a"), actor="page", at=NOW + 200)
    assert of_job(index) == [
        ("QUEUED", "QUEUED", "HIGH by route lung nodules on chest CT", "assembly"),
        ("QUEUED", "READING", "attempt 1 began", "gpu1:1"),
        ("READING", "QUEUED", "out of memory", "gpu1:1"),
        ("QUEUED", "READING", "attempt 2 began", "gpu1:2"),
        ("READING", "QUEUED", "the worker went silent during attempt 2 of 3", "dispatch"),
        ("QUEUED", "READING", "attempt 3 began", "gpu1:3"),
        ("READING", "FAILED", "out of memory once more", "gpu1:3"),
        ("FAILED", "SUPERSEDED", "asked for again", "page"),
    ]
    row = row_of(index)
    assert (row.dead_letter, row.job.attempts) == (False, 0)


def test_a_late_instance_takes_the_job_from_its_worker_and_the_history_says_so(index: Index) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    assert of_job(index)[-1] == ("READING", "SUPERSEDED", "a late instance arrived", "intake")
    assert not index.jobs.renew(lease, NOW + 60)
    assert (row_of(index).job.reason, row_of(index).ended_at) == ("a late instance arrived", NOW + 1)


def test_a_job_that_has_ended_cannot_end_otherwise(index: Index) -> None:
    report(index, "a", at=NOW)
    row = {"job_uid": row_of(index).job.job_uid, "study_instance_uid": study_uid("a"), "algorithm": "x"}
    with (
        pytest.raises(IllegalTransition, match="FAILED cannot follow REPORTED"),
        index.transactions.write() as connection,
    ):
        index.transactions.move_job(
            connection, {**row, "state": "REPORTED"}, JobState.FAILED, cause="", actor="", at=NOW
        )
    assert row_of(index).job.state is JobState.REPORTED


@pytest.mark.parametrize("look", ["claim_next", "unsent", "expire"])
def test_no_round_looks_at_the_jobs_that_have_ended(index: Index, look: str) -> None:
    queue(index, "a", at=NOW)
    statements = told_statements(index)
    {
        "claim_next": lambda: take(index, NOW),
        "unsent": lambda: index.jobs.unsent(NOW, at=NOW),
        "expire": lambda: index.jobs.expire(now=NOW, attempts=ATTEMPTS, actor="dispatch"),
    }[look]()
    selects = [text for text in statements if text.startswith("SELECT") and "jobs" in text]
    assert selects
    for text in selects:
        with index.transactions.read() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        of_jobs = [row[-1] for row in rows if "jobs" in row[-1]]
        assert of_jobs
        assert not [step for step in of_jobs if step.startswith("SCAN")], of_jobs
