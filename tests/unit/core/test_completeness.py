"""When a study has arrived, judged from facts and a clock."""

from dataclasses import dataclass, replace

import pytest

from dicom_node.core.completeness import (
    Deciding,
    StudyFacts,
    first_look_at,
    missing_slices,
    next_look_at,
    question_due_at,
    settling_seconds,
    verdict,
)
from dicom_node.core.expectation import Question, Told
from tests.strategies import slice_at, slices_at, study_of


@dataclass(frozen=True)
class Timers:
    quiet_seconds_when_whole: float = 2.0
    quiet_seconds_otherwise: float = 60.0
    question_after_seconds: float = 0.5
    question_first_wait_seconds: float = 2.0
    maximum_waiting_seconds: float = 3600.0


ARRIVED = StudyFacts(last_received_at=1000.0, open_associations=0)
GAP = (("1.2", "slices are missing between 33.0 mm and 38.0 mm along the normal"),)


def test_a_whole_study_is_complete_after_the_short_quiet_time():
    judged = verdict(ARRIVED, 1002.0, Timers())
    assert judged.complete
    assert judged.check_again_at is None
    assert judged.reason == "all associations ended and no slices are missing; nothing came for 2.0 s"


def test_a_whole_study_is_waited_for_until_then():
    judged = verdict(ARRIVED, 1001.5, Timers())
    assert not judged.complete
    assert judged.check_again_at == 1002.0
    assert "waiting for 2 s" in judged.reason


@pytest.mark.parametrize(
    ("doubt", "words"),
    [
        ({"open_associations": 1}, "1 association is still open"),
        ({"open_associations": 2}, "2 associations are still open"),
        ({"aborted_associations": 1}, "1 association is broken off"),
        ({"steps_in_progress": 1}, "1 performed procedure step is still in progress"),
        ({"missing": GAP}, "series 1.2: slices are missing between 33.0 mm and 38.0 mm along the normal"),
        ({"missing": (*GAP, ("1.3", "x"), ("1.4", "y"))}, "2 more series are incomplete"),
    ],
)
def test_a_doubt_makes_the_wait_the_long_one_and_is_named(doubt, words):
    facts = replace(ARRIVED, **doubt)
    waiting = verdict(facts, 1059.0, Timers())
    assert not waiting.complete
    assert waiting.check_again_at == 1060.0
    assert words in waiting.reason
    done = verdict(facts, 1060.0, Timers())
    assert done.complete
    assert words in done.reason


def test_a_clock_set_back_does_not_make_anyone_wait_longer_than_the_quiet_time():
    assert verdict(ARRIVED, 500.0, Timers()).check_again_at == 502.0


PACS = Question(peer="PACS1", asked_at=1000.5, attempts=1, next_try_at=1002.5)
VAIN = replace(PACS, vain_since=1000.5, reason="it does not hold the study")


def told(total: int | None, source: str = "peer PACS1", at: float = 1000.5, **series: int) -> tuple[Told, ...]:
    """What a source says; series s1, s2 have the UIDs 1.1, 1.2."""
    counts = {f"1.{name[1:]}": count for name, count in series.items()} | ({} if total is None else {"": total})
    final = source == "MPPS"
    return tuple(
        Told(source=source, series_instance_uid=uid, count=count, told_at=at, final=final)
        for uid, count in counts.items()
    )


def arrived(*facts: Told, question: Question | None = PACS, **held: int) -> StudyFacts:
    """A study of which so much is here, whose association was released at 1000."""
    here = {f"1.{name[1:]}": count for name, count in held.items()}
    questions = () if question is None else (question,)
    return replace(ARRIVED, told=facts, questions=questions, held=here)


def test_when_the_sender_counts_no_more_than_is_here_the_study_is_complete_at_once():
    judged = verdict(arrived(*told(120, s1=2, s2=118), s1=2, s2=118), 1000.6, Timers())
    assert (judged.complete, judged.decided_by) == (True, Deciding.COUNTS)
    assert judged.reason == "all 120 instances that peer PACS1 counts are here; nothing came for 0.6 s"


def test_a_performed_step_that_counts_what_is_here_needs_no_quiet_time_at_all():
    facts = arrived(*told(120, source="MPPS", at=900.0), question=None, s1=120)
    assert first_look_at(1000.0, Timers(), final=True) == 1000.0
    assert verdict(facts, 1000.0, Timers()).complete
    sending = replace(facts, open_associations=1)
    assert not verdict(sending, 1000.4, Timers()).complete
    assert verdict(sending, 1000.5, Timers()).complete


def test_a_performed_step_that_counts_less_than_is_here_does_not_let_each_late_instance_complete_the_study_anew():
    facts = arrived(*told(120, source="MPPS", at=900.0), question=None, s1=121)
    assert not verdict(facts, 1000.4, Timers()).complete
    assert verdict(facts, 1000.5, Timers()).complete


def test_while_a_step_is_in_progress_its_counts_so_far_complete_no_study():
    acquiring = replace(arrived(*told(120, s1=120), s1=120), steps_in_progress=1)
    assert not verdict(acquiring, 1059.0, Timers()).complete
    assert verdict(acquiring, 1060.0, Timers()).complete
    assert verdict(replace(acquiring, steps_in_progress=0), 1001.0, Timers()).complete


def test_a_series_that_the_sender_holds_more_of_is_waited_for_however_quiet_it_is():
    facts = arrived(*told(120, s1=120), s1=118)
    judged = verdict(facts, 1000.0 + 3599.0, Timers())
    assert not judged.complete
    assert not judged.failed
    assert judged.check_again_at == 1000.0 + 3600.0
    assert judged.reason.startswith("series 1.1 has 118 of the 120 instances that peer PACS1 counts; waiting")


def test_a_series_that_never_becomes_whole_fails_the_study_with_its_counts_and_the_mend():
    judged = verdict(arrived(*told(126, s1=120, s2=6), s1=118, s2=5), 1000.0 + 3600.0, Timers())
    assert (judged.complete, judged.failed, judged.check_again_at) == (False, True, None)
    assert judged.reason == (
        "series 1.1 has 118 of the 120 instances that peer PACS1 counts; 1 more series is incomplete; "
        "nothing came for 3600.0 s; send the series again"
    )


def test_a_count_from_before_the_last_instance_can_say_what_lacks_but_not_that_all_is_here():
    stale = told(120, at=999.9, s1=120)
    asked = replace(PACS, asked_at=999.9)
    waiting = verdict(arrived(*stale, question=asked, s1=120), 1059.0, Timers())
    assert not waiting.complete
    assert "peer PACS1 has not told yet what it holds" in waiting.reason
    assert "118 of the 120" in verdict(arrived(*stale, question=asked, s1=118), 1061.0, Timers()).reason


def test_series_that_were_never_sent_are_not_waited_for_but_told():
    judged = verdict(arrived(*told(620, s1=120, s2=500), s1=120), 1002.0, Timers())
    assert (judged.complete, judged.decided_by) == (True, Deciding.GEOMETRY)
    assert "peer PACS1 counts 500 more instances in series of which it sent nothing (1)" in judged.reason
    assert not verdict(arrived(*told(620, s1=120, s2=500), s1=120), 1001.9, Timers()).complete


def test_series_that_were_never_sent_are_waited_for_longer_while_their_sender_is_on_the_line():
    facts = replace(arrived(*told(620, s1=120, s2=500), s1=120), open_associations=1)
    assert not verdict(facts, 1059.0, Timers()).complete
    assert verdict(facts, 1060.0, Timers()).complete


def test_a_sender_that_counts_the_study_alone_and_more_than_is_here_makes_the_wait_the_long_one():
    facts = arrived(*told(120), s1=118)
    assert verdict(facts, 1059.0, Timers()).reason.startswith("peer PACS1 counts 120 instances, and 118 are here")
    assert verdict(facts, 1060.0, Timers()).complete


def test_a_gap_in_what_is_all_that_the_sender_holds_is_how_the_series_was_made():
    facts = replace(arrived(*told(120, s2=120), s2=120), missing=GAP)
    judged = verdict(facts, 1000.6, Timers())
    assert (judged.complete, judged.decided_by) == (True, Deciding.COUNTS)
    assert "series 1.2: slices are missing between 33.0 mm and 38.0 mm" in judged.reason
    assert "all 120 instances that peer PACS1 counts are here" in judged.reason


def test_a_count_of_the_whole_study_explains_no_gap_in_a_series():
    facts = replace(arrived(*told(120), s2=120), missing=GAP)
    assert not verdict(facts, 1059.0, Timers()).complete


def test_what_another_sender_sent_beside_is_not_covered_by_the_counts():
    facts = arrived(*told(120, s1=120), s1=120, s7=1)
    assert not verdict(facts, 1000.6, Timers()).complete
    assert verdict(facts, 1002.0, Timers()).complete


def test_instances_of_another_sender_do_not_make_up_for_a_series_that_lacks_some():
    facts = arrived(*told(120, s1=120), s1=118, s7=2)
    assert not verdict(facts, 1100.0, Timers()).complete


def test_a_sender_that_was_asked_in_vain_leaves_the_verdict_to_geometry_and_quiet_times_and_is_named():
    judged = verdict(arrived(question=VAIN, s1=120), 1002.0, Timers())
    assert (judged.complete, judged.decided_by) == (True, Deciding.GEOMETRY)
    assert "peer PACS1 was asked in vain: it does not hold the study" in judged.reason
    gapped = replace(arrived(question=VAIN, s2=120), missing=GAP)
    assert not verdict(gapped, 1059.0, Timers()).complete
    assert verdict(gapped, 1060.0, Timers()).decided_by is Deciding.QUIET


def test_a_sender_that_falls_silent_while_more_was_to_come_gets_the_long_quiet_time_from_then():
    silent = replace(VAIN, vain_since=1300.0, asked_at=1310.0)
    facts = arrived(*told(120, s1=120), question=silent, s1=118)
    assert not verdict(facts, 1359.0, Timers()).complete
    judged = verdict(facts, 1360.0, Timers())
    assert judged.complete
    assert "118 of the 120" in judged.reason
    assert "asked in vain" in judged.reason


def test_a_sender_that_can_be_asked_is_waited_for_before_the_short_quiet_time_counts():
    facts = arrived(question=Question(peer="PACS1"), s1=120)
    assert not verdict(facts, 1002.0, Timers()).complete
    assert verdict(facts, 1060.0, Timers()).complete


def test_of_two_sources_the_one_that_counts_more_is_believed():
    both = (*told(120, s1=120), *told(122, source="MPPS", at=900.0))
    judged = verdict(arrived(*both, s1=120), 1002.0, Timers())
    assert not judged.complete
    assert judged.reason.startswith("MPPS counts 122 instances, and 120 are here")


def test_what_one_sender_lacks_by_another_ones_count_is_waited_for():
    both = (*told(120, s1=120), *told(122, source="peer PACS2", s1=122))
    facts = arrived(*both, s1=120)
    assert not verdict(facts, 1059.0, Timers()).complete
    assert verdict(facts, 1060.0, Timers()).complete, "the other one is not among those that can be asked"


def test_an_old_count_of_a_peer_that_is_asked_no_more_explains_no_gap():
    facts = replace(arrived(*told(240, at=999.9, s1=120, s2=120), question=None, s2=120), missing=GAP)
    assert not verdict(facts, 1059.0, Timers()).complete
    fresh = replace(arrived(*told(240, s1=120, s2=120), question=None, s2=120), missing=GAP)
    assert verdict(fresh, 1002.0, Timers()).complete


def test_a_sender_that_hands_on_what_itself_still_receives_is_given_twice_its_usual_pause():
    facts = replace(ARRIVED, pause_seconds=0.8)
    assert settling_seconds(facts, Timers()) == 1.6
    assert settling_seconds(replace(facts, pause_seconds=30.0), Timers()) == 2.0
    assert settling_seconds(replace(facts, pause_seconds=25.0, open_associations=1), Timers()) == 50.0
    slow = replace(arrived(*told(120, s1=120), s1=120), pause_seconds=0.8)
    assert not verdict(slow, 1001.9, Timers()).complete, "it was asked after 0.5 s"


def test_what_came_a_moment_ago_is_not_looked_at():
    assert first_look_at(1000.0, Timers(), final=False) == 1000.1
    assert first_look_at(1000.0, Timers(quiet_seconds_when_whole=0.02), final=False) == 1000.02


def test_the_longer_nothing_came_the_seldomer_it_is_looked_again():
    waits = [next_look_at(1000.0, now) - now for now in (999.0, 1000.0, 1005.0, 1060.0, 4000.0)]
    assert waits == pytest.approx([0.1, 0.1, 0.25, 3, 5])


def test_a_sender_is_asked_soon_after_the_last_instance():
    assert question_due_at(arrived(s1=1), Question(peer="PACS1"), Timers()) == 1000.5


def test_a_sender_that_has_told_is_asked_again_after_its_wait():
    assert question_due_at(arrived(*told(120, s1=120), s1=118), replace(PACS, next_try_at=1008.5), Timers()) == 1008.5


def test_once_so_many_are_here_as_it_counted_a_sender_is_asked_at_once():
    asked = replace(PACS, asked_at=999.9, next_try_at=1050.0)
    whole = arrived(*told(120, at=999.9, s1=120), question=asked, s1=120)
    assert question_due_at(whole, asked, Timers()) == 1000.5
    lacking = arrived(*told(120, at=999.9, s1=120), question=asked, s1=118)
    assert question_due_at(lacking, asked, Timers()) == 1001.9


def test_a_sender_that_does_not_answer_is_not_asked_at_each_instance():
    assert question_due_at(arrived(s1=1), replace(VAIN, next_try_at=1300.0), Timers()) == 1300.0


def test_a_whole_series_lacks_nothing():
    assert missing_slices(study_of(s1=slices_at(0, 1, 2))) == ()


def test_a_series_with_a_gap_is_named():
    study = study_of(s1=slices_at(0, 1, 2), s2=slices_at(0, 1, 2, 4))
    assert missing_slices(study) == (("1.2", "slices are missing between 2.0 mm and 4.0 mm along the normal"),)


def test_the_first_slice_of_a_volume_is_expected_to_be_followed():
    assert missing_slices(study_of(s1=slices_at(0))) == (("1.1", "one slice makes no volume"),)


@pytest.mark.parametrize(
    "header",
    [
        slice_at(0, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        slice_at(0, Modality="CR"),
        slice_at(0, ImagePositionPatient=None),
        {},
    ],
    ids=["a localizer", "a radiograph", "an image without position", "an empty header"],
)
def test_an_image_that_is_no_slice_of_a_volume_lacks_nothing(header):
    assert missing_slices(study_of(s1=[header])) == ()


def test_what_no_further_slice_can_mend_is_not_waited_for():
    repeated = study_of(s1=slices_at(0, 0, 1, 1))
    mixed = study_of(s1=[*slices_at(0, 1), slice_at(7, Rows=256)])
    assert missing_slices(repeated) == missing_slices(mixed) == ()
