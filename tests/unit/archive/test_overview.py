import json
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.lines import DONE, IN_HAND, NEED_A_PERSON, duration_in_words, result_of, time_in_words
from dicom_node.archive.overview import read_overview, read_study, to_json
from dicom_node.core.errors import UnknownStudy
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import Priority
from tests.populated_index import (
    NOW,
    WORKERS,
    instance,
    open_populated,
    queue,
    report,
    study_uid,
    uid,
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A busy morning; no test changes it."""
    return open_populated(tmp_path_factory.mktemp("index"))


@pytest.fixture
def empty(tmp_path: Path) -> Index:
    """An index that holds nothing yet."""
    return Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")


def test_every_state_belongs_to_exactly_one_group() -> None:
    groups = [*NEED_A_PERSON, *IN_HAND, *DONE]
    assert sorted(groups) == sorted(StudyState)


def test_an_empty_index_gives_an_overview_of_nothing(empty: Index) -> None:
    overview = read_overview(empty, NOW)
    for lines in (overview.studies, overview.deliveries, overview.peers, overview.workers):
        assert lines == ()
    assert [(line.queue, line.waiting, line.reading) for line in overview.queues] == [
        ("stat", 0, 0),
        ("urgent", 0, 0),
        ("routine", 0, 0),
    ]
    assert all(overview.count(state) == 0 for state in StudyState)


def test_counts_by_state_and_priority_are_those_of_the_index(index: Index) -> None:
    overview = read_overview(index, NOW)
    assert {state: overview.count(state) for state in StudyState} == index.studies.counts()
    assert overview.studies_by_state[StudyState.QUEUED][Priority.HIGH] == 1
    assert overview.studies_by_state[StudyState.QUEUED][Priority.ROUTINE] == 3


def test_studies_that_need_a_person_come_first_and_those_in_hand_by_priority(index: Index) -> None:
    studies = read_overview(index, NOW).studies
    groups = [next(n for n, group in enumerate((NEED_A_PERSON, IN_HAND, DONE)) if s.state in group) for s in studies]
    assert groups == sorted(groups)
    ranks = [list(Priority).index(study.priority) for study in studies if study.state in IN_HAND]
    assert ranks == sorted(ranks)
    done = [study.last_received_at for study in studies if study.state in DONE]
    assert done == sorted(done, reverse=True)


def test_a_failed_study_is_never_pushed_out_by_newer_ones(index: Index) -> None:
    shortest = read_overview(index, NOW, limit=1)
    assert [study.state for study in shortest.studies] == [StudyState.FAILED, StudyState.READING, StudyState.NOT_ROUTED]
    assert len(shortest.deliveries) == 1


def test_a_line_tells_state_reason_instances_conflicts_sender_and_result(index: Index) -> None:
    lines = {line.study_instance_uid: line for line in read_overview(index, NOW).studies}
    receiving, delivered = lines[study_uid("receiving")], lines[study_uid("delivered 1")]
    assert (receiving.instances, receiving.conflicts, receiving.calling_ae_title) == (14, 1, "CT1")
    assert (receiving.algorithms, receiving.results) == ((), ())
    assert delivered.algorithms == ("lung_nodule",)
    (result,) = delivered.results
    assert (result.text, result.findings, result.inference_seconds) == ("3 nodules, the largest 11.4 mm", 3, 6.25)
    assert result.priority == "ACR Category 3 Actionable Finding"
    assert dict(result.steps) == {"load": 0.8, "infer": 6.25, "report": 0.7}
    assert "slices are missing" in lines[study_uid("failed")].reason


def test_queues_tell_what_waits_what_is_read_and_the_longest_wait(index: Index) -> None:
    stat, urgent, routine = read_overview(index, NOW).queues
    assert (stat.waiting, stat.reading, stat.oldest_waiting_seconds) == (0, 1, None)
    assert (urgent.waiting, urgent.reading, urgent.oldest_waiting_seconds) == (1, 0, 75)
    assert (routine.waiting, routine.reading, routine.oldest_waiting_seconds) == (3, 0, 4000)


def test_a_priority_below_routine_waits_in_the_routine_queue(empty: Index) -> None:
    queue(empty, "low", at=NOW - 10, priority=Priority.LOW)
    queue(empty, "routine", at=NOW - 5)
    line = read_overview(empty, NOW).queues[-1]
    assert (line.queue, line.waiting, line.oldest_waiting_seconds) == ("routine", 2, 10)


def test_workers_tell_their_heartbeats_age_what_they_read_and_whether_they_are_silent(index: Index) -> None:
    workers = {line.worker: line for line in read_overview(index, NOW).workers}
    assert [workers[name].heartbeat_age_seconds for name in WORKERS] == [3, 8, 7000]
    assert [workers[name].silent for name in WORKERS] == [False, False, True]
    assert workers[WORKERS[0]].study_instance_uid == study_uid("reading stat")
    assert workers[WORKERS[1]].study_instance_uid is None
    assert workers[WORKERS[0]].device == "NVIDIA H200"


def test_deliveries_that_wait_are_listed_and_all_are_counted_by_peer(index: Index) -> None:
    overview = read_overview(index, NOW)
    assert {line.study_instance_uid for line in overview.deliveries} == {study_uid("reported")}
    assert {(line.state, line.attempts, line.next_try_at) for line in overview.deliveries} == {
        (DeliveryState.WAITING, 3, NOW + 30)
    }
    (peer,) = overview.peers
    # Four delivered and one committed: two with a SEG twice, the others their SR alone.
    assert (peer.peer, peer.waiting, peer.accepted, peer.failed) == ("pacs", 2, 8, 0)


def test_a_studys_detail_tells_history_series_jobs_and_deliveries(index: Index) -> None:
    detail = read_study(index, study_uid("delivered 1"), NOW)
    assert [line.after for line in detail.history if not line.subject] == [
        StudyState.RECEIVING,
        StudyState.COMPLETE,
        StudyState.QUEUED,
        StudyState.READING,
        StudyState.REPORTED,
        StudyState.DELIVERED,
    ]
    assert [(line.number, line.description, line.instances, line.size_bytes) for line in detail.series] == [
        (1, "TOPOGRAM", 1, 525_312),
        (2, "CHEST 1.0 LUNG", 5, 5 * 525_312),
    ]
    (job,) = detail.jobs
    assert (job.state, job.current, job.attempts, job.worker) == (JobState.REPORTED, True, 1, WORKERS[0])
    assert job.started_at is not None
    assert job.ended_at == job.started_at + 8
    assert {line.sop_instance_uid for line in detail.deliveries} == {
        uid("seg", "delivered 1"),
        uid("sr", "delivered 1"),
    }
    assert all(line.accepted_at is not None and line.next_try_at is None for line in detail.deliveries)


def test_a_job_that_a_late_instance_made_history_is_told_as_no_longer_current(empty: Index) -> None:
    report(empty, "reopened", at=NOW - 100)
    empty.studies.add_instance(instance("reopened", 99, at=NOW - 50))
    detail = read_study(empty, study_uid("reopened"), NOW)
    assert [job.current for job in detail.jobs] == [False]
    assert detail.study.results == ()
    assert detail.study.state is StudyState.RECEIVING


def test_a_conflicting_copy_is_counted_in_its_series(index: Index) -> None:
    detail = read_study(index, study_uid("receiving"), NOW)
    assert [(line.instances, line.conflicts) for line in detail.series] == [(1, 0), (13, 1)]


def test_an_unknown_study_is_named(index: Index) -> None:
    with pytest.raises(UnknownStudy, match="1\\.2\\.3 is not in the index"):
        read_study(index, "1.2.3", NOW)


def test_as_json_names_are_the_fields_and_values_are_plain(index: Index) -> None:
    overview = json.loads(json.dumps(to_json(read_overview(index, NOW)), allow_nan=False))
    told = ["conditions", "dead_letters", "deliveries", "now", "peers", "queues"]
    assert sorted(overview) == [*told, "studies", "studies_by_state", "workers"]
    assert overview["studies_by_state"]["QUEUED"] == {"STAT": 0, "HIGH": 1, "ROUTINE": 3, "MEDIUM": 0, "LOW": 0}
    assert overview["studies"][0]["state"] == "FAILED"
    assert overview["queues"][0] == {"queue": "stat", "waiting": 0, "reading": 1, "oldest_waiting_seconds": None}
    detail = json.loads(json.dumps(to_json(read_study(index, study_uid("delivered 1"), NOW)), allow_nan=False))
    told = ["deliveries", "held", "history", "jobs", "now", "series", "study", "withdrawals"]
    assert sorted(detail) == told
    assert [line["subject"] for line in detail["history"][2:5]] == ["job lung_nodule", "", "job lung_nodule"]
    assert detail["jobs"][0]["result"]["steps"] == [["load", 0.8], ["infer", 6.25], ["report", 0.7]]


@pytest.mark.parametrize("summary", [{"result": "no nodule found"}, {"findings": None, "steps": None}, {"odd": 1}])
def test_a_summary_with_parts_missing_is_shown_as_far_as_it_goes(summary: dict[str, object]) -> None:
    result = result_of(summary)
    assert result is not None
    assert (result.findings, result.inference_seconds, result.steps) == (None, None, ())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (252, "4 min 12 s"),
        (3600, "1 h"),
        (3 * 3600 + 301, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_a_moment_is_told_in_utc() -> None:
    assert time_in_words(NOW) == "2024-02-29T10:15:00Z"
