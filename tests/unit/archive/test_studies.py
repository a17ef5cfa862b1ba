import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.archive.studies import Added
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import STUDY_TRANSITIONS, JobState, StudyState
from tests.populated_index import NOW, claim, complete, instance, queue, receive, report, study_uid
from tests.statements import told_statements

STUDY = study_uid("a")
STEPS = st.lists(st.sampled_from(StudyState), max_size=15)
#: Number of an instance, its content, its transfer syntax.
ARRIVALS = st.lists(
    st.tuples(st.integers(1, 2), st.sampled_from("ab"), st.sampled_from(["1.2.1", "1.2.4"])), max_size=8
)


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def state_of(index: Index, study: str = STUDY) -> StudyState:
    return index.studies.rows(study)[0].state


def test_no_illegal_step_is_taken_and_the_history_tells_every_legal_one(index: Index) -> None:
    names = map(str, itertools.count())

    @settings(max_examples=30)
    @given(steps=STEPS)
    def law(steps: list[StudyState]) -> None:
        name = next(names)
        study = study_uid(name)
        index.studies.add_instance(instance(name, 1, at=NOW))
        expected = [(StudyState.RECEIVING, StudyState.RECEIVING)]
        for number, after in enumerate(steps):
            before = expected[-1][1]
            cause = f"step {number}"
            if after in STUDY_TRANSITIONS[before]:
                index.studies.move(study, after, cause=cause, actor="test", at=NOW + number)
                expected.append((before, after))
                row = index.studies.rows(study)[0]
                assert (row.state, row.reason, row.state_since) == (after, cause, NOW + number)
            else:
                with pytest.raises(IllegalTransition):
                    index.studies.move(study, after, cause=cause, actor="test", at=NOW + number)
        assert [(line.before, line.after) for line in index.studies.history(study)] == expected
        assert state_of(index, study) is expected[-1][1]

    law()


def test_of_every_uid_the_first_content_is_the_evidence_whatever_comes_after(index: Index) -> None:
    names = map(str, itertools.count())

    @settings(max_examples=30)
    @given(arrivals=ARRIVALS)
    def law(arrivals: list[tuple[int, str, str]]) -> None:
        name = next(names)
        kept: dict[int, list[tuple[str, str]]] = {}
        for number, content, syntax in arrivals:
            contents = kept.setdefault(number, [])
            if (content, syntax) in contents:
                expected = Added.IDENTICAL
            else:
                expected = Added.CONFLICT if contents else Added.NEW
                contents.append((content, syntax))
            changes = {"sha256": content * 64, "transfer_syntax_uid": syntax, "path": f"{len(contents)}.dcm"}
            assert index.studies.add_instance(instance(name, number, at=NOW, **changes)) is expected
        series = index.studies.study(study_uid(name)).series
        evidence = {i.sop_instance_uid: i for one in series for i in one.instances}
        assert len(evidence) == len(kept)
        for number, contents in kept.items():
            first, *others = index.studies.find(instance(name, number, at=NOW).sop_instance_uid)
            assert evidence[first.sop_instance_uid] == first
            assert (first.sha256[0], first.transfer_syntax_uid) == contents[0]
            assert {(o.sha256[0], o.transfer_syntax_uid) for o in others} == set(contents[1:])

    law()


def test_an_identical_instance_does_not_make_the_study_younger_or_open_it_again(index: Index) -> None:
    complete(index, "a", at=NOW)
    before = index.studies.rows(), index.studies.history(STUDY)
    assert index.studies.add_instance(instance("a", 1, at=NOW + 50)) is Added.IDENTICAL
    assert (index.studies.rows(), index.studies.history(STUDY)) == before


def test_a_conflicting_copy_is_noted_counted_and_no_part_of_the_study(index: Index) -> None:
    complete(index, "a", at=NOW)
    study = index.studies.study(STUDY)
    other = instance("a", 1, at=NOW + 5, sha256="c" * 64)
    assert index.studies.add_instance(other) is Added.CONFLICT
    assert index.studies.study(STUDY) == study
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.conflicts, row.last_received_at) == (StudyState.COMPLETE, 1, NOW - 2)
    last = index.studies.history(STUDY)[-1]
    assert last.before == last.after == StudyState.COMPLETE
    assert f"instance {other.sop_instance_uid} came again with other content" in last.cause


def test_an_instance_that_arrives_under_two_studies_stays_with_the_first(index: Index) -> None:
    index.studies.add_instance(instance("a", 1, at=NOW))
    moved = replace(instance("a", 1, at=NOW + 1, sha256="d" * 64), study_instance_uid=study_uid("b"))
    assert index.studies.add_instance(moved) is Added.CONFLICT
    assert len(index.studies.study(STUDY).series[0].instances) == 1
    assert index.studies.study(study_uid("b")).series == ()


@pytest.mark.parametrize("reading", [False, True])
def test_a_late_instance_opens_the_study_again_and_supersedes_its_unfinished_job(index: Index, reading: bool) -> None:
    job = queue(index, "a", at=NOW)
    if reading:
        claim(index, job, at=NOW + 1)
    assert index.studies.add_instance(instance("a", 99, at=NOW + 2)) is Added.NEW
    assert state_of(index) is StudyState.RECEIVING
    (row,) = index.jobs.of_study(STUDY)
    assert (row.job.state, row.job.reason) == (JobState.SUPERSEDED, "a late instance arrived")
    assert index.jobs.unsent(NOW + 100) == []
    assert index.jobs.counts() == {}


def test_a_late_instance_leaves_a_finished_report_but_counts_its_job_no_longer(index: Index) -> None:
    report(index, "a", at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 2))
    (row,) = index.jobs.of_study(STUDY)
    assert row.job.state is JobState.REPORTED
    assert len(index.jobs.report_rows(row.job.job_uid)) == 2
    assert index.deliveries.unplanned() == []
    assert index.jobs.counts() == {}


def test_a_study_that_grew_since_it_was_judged_is_not_complete(index: Index) -> None:
    receive(index, "a", at=NOW)
    (judged,) = index.studies.receptions()
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    words = {"cause": "quiet", "actor": "assembly", "at": NOW + 2}
    assert not index.studies.arrived(STUDY, StudyState.COMPLETE, last_received_at=judged.last_received_at, **words)  # type: ignore[arg-type]  # text and a number
    assert state_of(index) is StudyState.RECEIVING
    (judged,) = index.studies.receptions()
    assert index.studies.arrived(STUDY, StudyState.COMPLETE, last_received_at=judged.last_received_at, **words)  # type: ignore[arg-type]  # as above
    assert state_of(index) is StudyState.COMPLETE
    assert index.studies.receptions() == []


def test_open_ended_and_broken_associations_are_counted_for_the_studies_they_sent_of(index: Index) -> None:
    endings = {"released": "released", "aborted": "aborted", "lost": "lost", "still open": None}
    for number, (name, ending) in enumerate(endings.items(), start=1):
        index.studies.association_opened(name, "CT1", NOW)
        index.studies.add_instance(instance("a", number, at=NOW + number), name)
        if ending is not None:
            index.studies.association_ended(name, ending, NOW + 10 + number)
    index.studies.association_opened("idle", "CT1", NOW)
    index.studies.add_instance(instance("b", 1, at=NOW))
    receptions = {r.study_instance_uid: r for r in index.studies.receptions()}
    a, b = receptions[STUDY], receptions[study_uid("b")]
    assert (a.open_associations, a.aborted_associations, a.last_association_ended_at) == (1, 2, NOW + 13)
    assert (a.first_received_at, a.last_received_at) == (NOW + 1, NOW + 4)
    assert (b.open_associations, b.aborted_associations, b.last_association_ended_at) == (0, 0, None)


def test_an_association_that_sends_again_what_is_there_is_still_waited_for(index: Index) -> None:
    receive(index, "a", at=NOW)
    index.studies.association_opened("again", "CT1", NOW)
    index.studies.add_instance(instance("a", 1, at=NOW + 1), "again")
    index.studies.add_instance(instance("a", 2, at=NOW + 1), "again")
    assert [r.open_associations for r in index.studies.receptions()] == [1]


def test_after_a_restart_no_association_of_before_is_open(index: Index) -> None:
    index.studies.association_opened("cut", "CT1", NOW)
    index.studies.add_instance(instance("a", 1, at=NOW), "cut")
    index.studies.end_open_associations(NOW + 5)
    (reception,) = index.studies.receptions()
    assert (reception.open_associations, reception.aborted_associations) == (0, 1)
    assert reception.last_association_ended_at == NOW + 5


def test_attributes_come_back_as_they_went_in(index: Index) -> None:
    attributes = {
        "ImagePositionPatient": (1.0, 2.5, -3.0),
        "Modality": "CT",
        "Rows": 512,
        "ImageType": ("ORIGINAL", "PRIMARY"),
    }
    arriving = instance("a", 1, at=NOW, attributes=attributes)
    index.studies.add_instance(arriving)
    assert index.studies.find(arriving.sop_instance_uid) == [arriving]


def test_studies_are_listed_newest_first_and_counted_by_state(index: Index) -> None:
    for number, name in enumerate(("oldest", "middle", "newest")):
        complete(index, name, at=NOW + number)
    assert [row.study_instance_uid for row in index.studies.rows(limit=2)] == [study_uid("newest"), study_uid("middle")]
    assert index.studies.in_state(StudyState.COMPLETE) == [study_uid(n) for n in ("oldest", "middle", "newest")]
    assert index.studies.counts() == {state: 3 * (state is StudyState.COMPLETE) for state in StudyState}


def test_a_file_that_was_damaged_and_written_again_beside_is_read_from_its_new_place(index: Index) -> None:
    complete(index, "a", at=NOW)
    again = instance("a", 1, at=NOW + 5, path="studies/a/2/1.0123456789ab.dcm")
    assert index.studies.add_instance(again) is Added.IDENTICAL
    assert [kept.path for kept in index.studies.find(again.sop_instance_uid)] == [again.path]
    assert state_of(index) is StudyState.COMPLETE


def fail_by(index: Index, uid: str) -> str:
    """The study's one job failed by this instance; its UID."""
    job = queue(index, "a", at=NOW)
    reason = f"studies/ab/{STUDY}/1.2/{uid}.dcm cannot be read: it is cut short; send the study again"
    index.jobs.end(claim(index, job, at=NOW + 1), JobState.FAILED, reason=reason, at=NOW + 2)
    assert state_of(index) is StudyState.FAILED
    return job.job_uid


@pytest.mark.parametrize("before", [True, False], ids=["came before", "comes now"])
def test_another_copy_of_the_instance_a_study_failed_by_takes_its_place(index: Index, before: bool) -> None:
    damaged, whole = instance("a", 1, at=NOW), instance("a", 1, at=NOW + 5, sha256="c" * 64, path="other.dcm")
    index.studies.add_instance(damaged)
    if before:
        assert index.studies.add_instance(whole) is Added.CONFLICT
    fail_by(index, damaged.sop_instance_uid)
    assert index.studies.add_instance(whole) is Added.NEW
    assert state_of(index) is StudyState.RECEIVING
    evidence = {i.sop_instance_uid: i.sha256 for s in index.studies.study(STUDY).series for i in s.instances}
    assert evidence[whole.sop_instance_uid] == whole.sha256
    assert [kept.sha256 for kept in index.studies.find(whole.sop_instance_uid)] == [whole.sha256, damaged.sha256]
    cause = index.studies.history(STUDY)[-1].cause
    assert whole.sha256 in cause
    assert damaged.sha256 in cause
    assert index.studies.rows(STUDY)[0].last_received_at == NOW + 5


def test_the_same_content_in_a_whole_file_opens_the_study_that_failed_by_the_damaged_one(index: Index) -> None:
    uid = instance("a", 1, at=NOW).sop_instance_uid
    job_uid = fail_by(index, uid)
    assert index.studies.add_instance(instance("a", 1, at=NOW + 4)) is Added.IDENTICAL
    assert state_of(index) is StudyState.FAILED
    assert index.studies.add_instance(instance("a", 1, at=NOW + 5, path="beside.dcm")) is Added.NEW
    assert state_of(index) is StudyState.RECEIVING
    (row,) = index.jobs.of_study(STUDY)
    assert (row.job.job_uid, row.job.state) == (job_uid, JobState.SUPERSEDED)


@pytest.mark.parametrize("named", ["2.25.1", "{uid}1", "{uid}.1", "1{uid}"])
def test_a_copy_of_an_instance_that_a_study_did_not_fail_by_stays_beside_it(index: Index, named: str) -> None:
    other = instance("a", 1, at=NOW + 5, sha256="c" * 64)
    fail_by(index, named.format(uid=other.sop_instance_uid))
    assert index.studies.add_instance(other) is Added.CONFLICT
    assert state_of(index) is StudyState.FAILED


def test_of_two_associations_that_begin_a_study_at_once_the_later_finds_it_begun(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.studies.add_instance(instance("a", 1, at=NOW))
    known = index.studies._evictions.end
    blind = [True]

    def end(*arguments: Any) -> bool:
        """What a transaction sees that began before the other's end, and what it sees after it."""
        return not (blind and blind.pop()) and known(*arguments)

    monkeypatch.setattr(index.studies._evictions, "end", end)
    assert index.studies.add_instance(instance("a", 2, at=NOW + 1)) is Added.NEW
    blind.append(True)
    assert index.studies.add_instance(instance("a", 1, at=NOW + 2)) is Added.IDENTICAL
    assert len(index.studies.study(STUDY).series[0].instances) == 2
    assert [line.cause for line in index.studies.history(STUDY)] == ["the first instance arrived"]


def test_an_instance_of_a_known_series_asks_twice_and_writes_twice(tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    try:
        statements = told_statements(index)
        # The connection of the first group stays.
        index.studies.association_opened("one", "SCANNER", NOW)
        index.studies.add_instance(instance("a", 1, at=NOW), "one")
        statements.clear()
        index.studies.add_instance(instance("a", 2, at=NOW + 1), "one")
        assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "UPDATE", "INSERT"]
        assert [(r.open_associations, r.last_received_at) for r in index.studies.receptions()] == [(1, NOW + 1)]
    finally:
        index.close()
