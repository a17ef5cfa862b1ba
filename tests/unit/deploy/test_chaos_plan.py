"""The plan of a chaos run follows from its seed alone, and has everything in it."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.chaos_plan import Act, Kind, Plan, Target, plan_run

seeds = st.integers(0, 10**9)
counts = st.integers(0, 60)


def planned(seed: int, studies: int = 200, faults: int = 100) -> Plan:
    """A plan of the usual pace."""
    return plan_run(seed, studies=studies, faults=faults, seconds_per_study=4.5, templates=3)


@given(seeds, counts, counts)
def test_the_same_seed_gives_the_same_plan(seed: int, studies: int, faults: int) -> None:
    assert planned(seed, studies, faults) == planned(seed, studies, faults)


def test_another_seed_gives_another_plan() -> None:
    assert len({planned(seed) for seed in range(20)}) == 20


@given(seeds, counts, counts)
def test_the_faults_are_the_same_whatever_the_studies_are_made_of(seed: int, studies: int, faults: int) -> None:
    other = plan_run(seed, studies=studies, faults=faults, seconds_per_study=4.5, templates=1)
    assert other.faults == planned(seed, studies, faults).faults


@given(seeds, counts, counts)
def test_there_are_as_many_as_asked_for_and_all_in_its_time(seed: int, studies: int, faults: int) -> None:
    plan = planned(seed, studies, faults)
    assert (len(plan.studies), len(plan.faults)) == (studies, faults)
    for all_planned in (plan.studies, plan.faults):
        times = [each.at for each in all_planned]
        assert times == sorted(times)
        assert all(0 <= at <= plan.seconds for at in times)
        assert [each.number for each in all_planned] == list(range(1, len(times) + 1))


@given(seeds)
def test_each_kind_of_study_and_of_fault_comes_at_least_once(seed: int) -> None:
    plan = planned(seed, studies=20, faults=20)
    assert {study.kind for study in plan.studies} == set(Kind)
    assert {fault.target for fault in plan.faults} == set(Target)
    assert {fault.act for fault in plan.faults} == set(Act)


@given(seeds)
def test_no_two_studies_share_their_uids(seed: int) -> None:
    plan = planned(seed)
    assert len({study.uid_seed for study in plan.studies}) == len(plan.studies)


def test_what_comes_late_meets_the_reading_or_follows_the_report() -> None:
    by_kind: dict[Kind, set[bool]] = {}
    for study in planned(1, studies=400).studies:
        by_kind.setdefault(study.kind, set()).add(study.late_while_read)
    assert by_kind[Kind.LATE_READING] == {True}
    assert by_kind[Kind.SECOND_SERIES] == {True, False}
    assert all(by_kind[kind] == {False} for kind in set(Kind) - {Kind.LATE_READING, Kind.SECOND_SERIES})


def test_what_a_cut_or_a_disk_is_told_is_what_it_can_do() -> None:
    for fault in planned(1).faults:
        assert fault.after_bytes >= 1
        assert 0 <= fault.seconds <= 15
        assert (fault.target is Target.DISK) == (fault.act in (Act.LOW, Act.FULL))
        assert (fault.target in (Target.INCOMING, Target.OUTGOING)) == (fault.act in (Act.CUT, Act.STALL, Act.REFUSE))
