"""Laws of the verdict: whatever is told in whatever order, by sources that agree or not."""

from dataclasses import dataclass, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from dicom_node.core.completeness import Deciding, StudyFacts, first_look_at, question_due_at, settling_seconds, verdict
from dicom_node.core.expectation import Question, Told, shortfalls, sources_of

LAST = 1000.0
SERIES = ("1.1", "1.2", "1.3")


@dataclass(frozen=True)
class Timers:
    quiet_seconds_when_whole: float = 2.0
    quiet_seconds_otherwise: float = 60.0
    question_after_seconds: float = 0.5
    question_first_wait_seconds: float = 2.0
    maximum_waiting_seconds: float = 3600.0


TIMERS = Timers()
#: Around the moments at which something may be decided, and any.
NOWS = st.sampled_from([-9.0, 0.0, 0.3, 0.5, 1.0, 2.0, 30.0, 60.0, 101.0, 160.0, 3599.0, 3600.0, 7000.0]).map(
    lambda later: LAST + later
) | st.floats(LAST, LAST + 8000.0)
#: Before the last instance, at once after it, and settled.
TIMES = st.sampled_from([LAST - 5.0, LAST + 0.1, LAST + 0.5, LAST + 100.0])
#: Of each series, and of the study.
COUNTS = st.tuples(*[st.sampled_from([None, 0, 1, 2, 3])] * 3, st.sampled_from([None, 0, 2, 4, 6]))


def told_by(source: str) -> st.SearchStrategy[tuple[Told, ...]]:
    """What one source says, if anything."""
    return st.builds(
        lambda counts, at: tuple(
            Told(source=source, series_instance_uid=uid, count=count, told_at=at, final=source == "MPPS")
            for uid, count in zip((*SERIES, ""), counts, strict=True)
            if count is not None
        ),
        st.just((None,) * 4) | COUNTS,
        TIMES,
    )


HELD = st.tuples(*[st.sampled_from(range(5))] * 3)
GAPS = st.sampled_from([(), SERIES[:1], SERIES[1:], SERIES])
#: When it was asked the last time, and whether in vain.
ASKED = st.none() | st.tuples(st.none() | TIMES, st.booleans())


def study(held, gaps, told, asked, associations, pause) -> StudyFacts:
    """A study whose last instance came at LAST; its senders were never asked, have answered, or have not."""
    here = {uid: count for uid, count in zip(SERIES, held, strict=True) if count}
    return StudyFacts(
        last_received_at=LAST,
        open_associations=associations[0],
        aborted_associations=associations[1],
        steps_in_progress=associations[2],
        missing=tuple((uid, "a slice is missing") for uid in gaps if uid in here),
        told=tuple(one for some in told for one in some),
        questions=tuple(
            Question(peer=peer, asked_at=one[0], vain_since=one[0] if one[1] else None, next_try_at=LAST + 9.0)
            for peer, one in zip("ab", asked, strict=True)
            if one is not None
        ),
        held=here,
        pause_seconds=pause,
    )


ARRIVALS = st.builds(
    study,
    HELD,
    GAPS,
    st.tuples(told_by("MPPS"), told_by("peer b"), told_by("peer a")),
    st.tuples(ASKED, ASKED),
    st.sampled_from([(0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 1, 0), (0, 0, 1), (1, 0, 2)]),
    st.sampled_from([0.0, 0.9, 40.0]),
)


def lacks_what_a_sender_that_answers_counts(facts: StudyFacts) -> bool:
    answering = {question.source for question in facts.questions if question.answered}
    return any(one.source in answering for one in shortfalls(facts.told, facts.held))


@given(ARRIVALS, NOWS)
def test_a_verdict_is_one_of_three_and_who_must_wait_knows_until_when(facts, now):
    judged = verdict(facts, now, TIMERS)
    waiting = judged.check_again_at is not None
    assert [judged.complete, judged.failed, waiting].count(True) == 1
    assert judged.reason
    if judged.check_again_at is not None:
        assert now < judged.check_again_at <= max(now, LAST + 100.0) + TIMERS.maximum_waiting_seconds


@given(ARRIVALS, NOWS, st.sampled_from(SERIES), st.integers(1, 3), st.integers(1, 3), TIMES)
def test_no_study_is_complete_while_a_sender_that_answers_counts_more_of_a_series(facts, now, series, held, more, at):
    told = Told(source="peer c", series_instance_uid=series, count=held + more, told_at=at)
    lacking = replace(
        facts,
        held=facts.held | {series: held},
        told=(*facts.told, told),
        questions=(*facts.questions, Question(peer="c", asked_at=at)),
    )
    judged = verdict(lacking, now, TIMERS)
    assert not judged.complete
    assert judged.failed == (now - LAST >= TIMERS.maximum_waiting_seconds)


@given(ARRIVALS, NOWS)
def test_only_a_series_that_a_sender_holds_more_of_fails_a_study(facts, now):
    assume(not lacks_what_a_sender_that_answers_counts(facts))
    assert not verdict(facts, now, TIMERS).failed


@given(ARRIVALS)
def test_nobody_waits_for_ever(facts):
    """Law: with no news, the study is complete or failed once every wait there is has passed."""
    judged = verdict(facts, LAST + 100.0 + TIMERS.maximum_waiting_seconds, TIMERS)
    assert judged.complete or judged.failed


@given(ARRIVALS, NOWS, st.floats(0.0, 5000.0))
def test_what_is_complete_stays_so_while_nothing_comes(facts, now, later):
    assume(now >= LAST)
    assume(verdict(facts, now, TIMERS).complete)
    assert verdict(facts, now + later, TIMERS).complete


@given(ARRIVALS, NOWS)
def test_who_looks_again_when_told_finds_the_study_complete_or_failed(facts, now):
    assume(now >= LAST)
    first = verdict(facts, now, TIMERS)
    if first.check_again_at is not None:
        # A microsecond for the rounding of seconds since 1970.
        then = verdict(facts, first.check_again_at + 1e-5, TIMERS)
        assert then.complete or then.failed


@given(ARRIVALS, NOWS, st.sampled_from(SERIES))
def test_another_instance_of_a_series_that_is_here_never_makes_a_complete_study_incomplete(facts, now, series):
    """Law: monotone in what is held, up to what was counted as made."""
    more = replace(facts, held=facts.held | {series: facts.held.get(series, 0) + 1})
    exceeded = any(source.final and source.met_by(facts.held) for source in sources_of(facts.told))
    if series in facts.held and not exceeded and verdict(facts, now, TIMERS).complete:
        assert verdict(more, now, TIMERS).complete


@given(ARRIVALS, NOWS, st.sampled_from(SERIES), st.sampled_from(["peer c", "MPPS 2"]), st.booleans())
def test_one_more_source_that_counts_more_of_a_series_never_makes_a_study_complete(facts, now, series, name, answers):
    facts = replace(facts, held={series: 1} | facts.held)
    more = Told(source=name, series_instance_uid=series, count=facts.held[series] + 1, told_at=LAST + 1.0)
    question = Question(peer="c", asked_at=LAST + 1.0)
    asked = (*facts.questions, question) if answers else facts.questions
    if verdict(replace(facts, told=(*facts.told, more), questions=asked), now, TIMERS).complete:
        assert verdict(facts, now, TIMERS).complete


@given(ARRIVALS, NOWS)
def test_a_gap_never_makes_a_study_complete_that_is_not_complete_without(facts, now):
    """Law: the headers need to be looked at only where a study would be complete without them."""
    if verdict(facts, now, TIMERS).complete:
        assert verdict(replace(facts, missing=()), now, TIMERS).complete


@given(ARRIVALS, st.floats(LAST - 10.0, LAST + 1.99))
def test_before_the_short_quiet_time_only_counts_that_are_met_complete_a_study(facts, now):
    judged = verdict(facts, now, TIMERS)
    if judged.complete:
        assert judged.decided_by is Deciding.COUNTS
        total = sum(facts.held.values())
        assert any(source.total is not None and source.total <= total for source in sources_of(facts.told))
        assert not shortfalls(facts.told, facts.held)


@given(ARRIVALS, NOWS)
def test_nothing_is_decided_about_a_study_that_is_not_first_look_at(facts, now):
    judged = verdict(facts, now, TIMERS)
    if judged.complete or judged.failed:
        final = any(told.final for told in facts.told)
        assert first_look_at(min(LAST, now), TIMERS, final=final) <= now


@given(ARRIVALS)
def test_a_sender_is_never_asked_before_it_settled(facts):
    settled = LAST + settling_seconds(facts, TIMERS)
    for question in facts.questions:
        due = question_due_at(facts, question, TIMERS)
        if question.asked_at is None or question.asked_at < settled:
            assert due >= settled
        assert due <= max(settled, question.next_try_at, (question.asked_at or 0.0) + 2.0)
