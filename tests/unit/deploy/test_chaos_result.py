"""A chaos run is good only if everything that it set out to do was done, and nothing came to harm."""

from dataclasses import replace

import pytest

from deploy.chaos_faults import DoneFault, UnaskedEnd
from deploy.chaos_plan import Act, Kind, PlannedFault, Target
from deploy.chaos_result import Result, failed_by_faults_alone, least_hits, shortcomings
from deploy.chaos_verdict import Outcome
from dicom_node.archive.studies import HistoryRow

BEGAN = 1_000_000.0


def outcome(number: int = 1) -> Outcome:
    return Outcome(
        number=number,
        kind=Kind.CHEST,
        study_instance_uid=f"1.2.{number}",
        state="COMMITTED",
        reason="",
        accepted=22,
        finished=True,
        broken_sendings=0,
        reports=1,
        committed=True,
        dead_letters=0,
        lost=(),
        twice=(),
        stuck=False,
        never_accepted=(),
        reopened_from=(),
        untold=(),
        seconds=1.0,
    )


def done(
    target: Target = Target.WORKER, act: Act = Act.KILL, hit_at: float | None = 10.0, ended: float = 12.0
) -> DoneFault:
    fault = PlannedFault(number=1, target=target, act=act, at=9.0, seconds=1.0, after_bytes=1)
    return DoneFault(fault=fault, hit_at=hit_at, began=9.0, ended=ended)


GOOD = Result(
    outcomes=(outcome(1), outcome(2)),
    planned=2,
    faults=(done(),),
    least_hits=1,
    unasked_ends=(),
    left_over=(),
    asked_again=(),
    pacs="a PACS",
    committing=True,
    real_disk=True,
    seconds=1.0,
    healing_seconds=1.0,
)


def test_a_run_in_which_everything_was_done_and_nothing_came_to_harm_is_good() -> None:
    assert shortcomings(GOOD) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outcomes": ()}, "studies [1, 2] of the plan were never sent, and cannot be judged"),
        ({"outcomes": (outcome(1),)}, "studies [2] of the plan were never sent, and cannot be judged"),
        ({"outcomes": (outcome(1), outcome(2), outcome(2))}, "3 studies were judged, and 2 are in the plan"),
        ({"faults": ()}, "0 of 0 faults hit; at least 1 have to"),
        ({"faults": (done(hit_at=None),)}, "0 of 1 faults hit; at least 1 have to"),
        ({"left_over": ("process 1: redis",)}, "LEFT OVER from a node: process 1: redis"),
        (
            {"unasked_ends": (UnaskedEnd(program="node", at=11.0, log="Traceback"),)},
            "node ended at 11.0 s though nobody had asked it to",
        ),
    ],
)
def test_what_was_not_done_or_ended_by_itself_is_said(change: dict[str, object], said: str) -> None:
    assert shortcomings(replace(GOOD, **change)) == [said]  # type: ignore[arg-type]  # one field each


@pytest.mark.parametrize(
    "harm",
    [{"lost": ("x",)}, {"twice": ("x",)}, {"stuck": True}, {"untold": ("x",)}],
    ids=lambda harm: next(iter(harm)),
)
def test_one_study_that_came_to_harm_is_enough(harm: dict[str, object]) -> None:
    harmed = replace(outcome(2), **harm)  # type: ignore[arg-type]  # one field each
    assert shortcomings(replace(GOOD, outcomes=(outcome(1), harmed))) == ["1 studies came to harm"]


@pytest.mark.parametrize(
    ("target", "act", "at", "excused"),
    [
        (Target.DISK, Act.FULL, 11.0, True),
        (Target.DISK, Act.FULL, 16.0, True),
        (Target.DISK, Act.FULL, 18.0, False),
        (Target.DISK, Act.FULL, 9.5, False),
        (Target.DISK, Act.LOW, 11.0, False),
        (Target.REDIS, Act.KILL, 11.0, False),
    ],
)
def test_only_a_full_disk_accounts_for_a_program_that_ends_by_itself(
    target: Target, act: Act, at: float, excused: bool
) -> None:
    end = UnaskedEnd(program="node", at=at, log="")
    assert (shortcomings(replace(GOOD, faults=(done(target, act),), unasked_ends=(end,))) == []) is excused


@pytest.mark.parametrize(("planned", "least"), [(105, 100), (21, 20), (15, 14), (1, 0), (0, 0)])
def test_twenty_of_twenty_one_faults_must_hit(planned: int, least: int) -> None:
    assert least_hits(planned) == least


def line(at: float, before: str, after: str) -> HistoryRow:
    return HistoryRow(at=BEGAN + at, before=before, after=after, cause="", actor="", subject="job lung_nodule")


def attempt(began: float, ended: float, after: str = "QUEUED") -> list[HistoryRow]:
    return [line(began, "QUEUED", "READING"), line(ended, "READING", after)]


def test_a_dead_letter_of_which_a_fault_met_every_attempt_failed_by_faults_alone() -> None:
    history = [*attempt(5, 15), *attempt(30, 40, "FAILED")]
    faults = [done(), done(Target.CHILD, Act.STOP, hit_at=25.0, ended=32.0)]
    assert failed_by_faults_alone(history, faults, run_began_at=BEGAN)


def test_one_attempt_that_no_fault_met_is_the_node_s_own() -> None:
    history = [*attempt(5, 15), *attempt(30, 40, "FAILED")]
    assert not failed_by_faults_alone(history, [done()], run_began_at=BEGAN)


@pytest.mark.parametrize(
    "fault", [done(hit_at=None), done(Target.PACS), done(Target.REDIS), done(Target.OUTGOING, Act.CUT)]
)
def test_a_fault_that_did_not_hit_or_cannot_end_an_attempt_excuses_none(fault: DoneFault) -> None:
    assert not failed_by_faults_alone(attempt(5, 15, "FAILED"), [fault], run_began_at=BEGAN)


def test_a_study_without_a_dead_letter_is_not_excused() -> None:
    assert not failed_by_faults_alone([], [done()], run_began_at=BEGAN)
    assert not failed_by_faults_alone(attempt(5, 15, "REPORTED"), [done()], run_began_at=BEGAN)


def test_attempts_before_the_job_was_queued_anew_do_not_count() -> None:
    anew = [line(20, "QUEUED", "SUPERSEDED"), line(21, "SUPERSEDED", "QUEUED")]
    history = [*attempt(1, 2), *anew, *attempt(25, 35, "FAILED")]
    assert failed_by_faults_alone(history, [done(hit_at=30.0, ended=30.0)], run_began_at=BEGAN)
