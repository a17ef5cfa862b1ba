"""Which series a route reads, and why no other."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.core.expression import parse_expression
from dicom_node.core.priority import Priority
from dicom_node.core.routing import Route, route_study
from dicom_node.core.study import Study
from tests.strategies import CORONAL, headers, instances_of, series_headers, slices_at, study_of

LUNG = Route(
    name="lung nodules",
    algorithm="lung_nodule",
    when=parse_expression('Modality == "CT" and SliceThickness <= 5 and not derived'),
    minimum_instances=4,
)
BRAIN = Route(
    name="brain", algorithm="brain", when=parse_expression('Modality == "MR"'), orientation="any", minimum_instances=2
)


def chest(spacing: float = 2.5, count: int = 6, **attributes):
    return slices_at(*(k * spacing for k in range(count)), **({"SliceThickness": spacing} | attributes))


def reasons(decision):
    return {rejection.series_instance_uid: rejection.reason for rejection in decision.not_chosen}


def chosen(decision):
    return [choice.series.series_instance_uid for choice in decision.chosen]


def test_a_chest_ct_is_read_and_the_reason_said():
    decision = route_study(study_of(s1=chest()), [LUNG])
    (choice,) = decision.chosen
    assert choice.route == LUNG
    assert choice.series.series_instance_uid == "1.1"
    assert choice.reason == "the only series that fits: 6 slices of 2.5 mm"
    assert (decision.not_chosen, decision.reason) == ((), "")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (chest(Modality="MR"), 'Modality is "MR", not "CT"'),
        (chest(spacing=7.5), "SliceThickness is 7.5, not <= 5"),
        (chest(SliceThickness=None), "SliceThickness is absent"),
        (chest(ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")), "it is a localizer"),
        (chest(ImageType=("DERIVED", "SECONDARY", "MPR")), "it is derived"),
        (chest(ImageOrientationPatient=CORONAL), "its slices are coronal, not axial"),
        (chest(ImageOrientationPatient=None), "its slices are of unknown orientation, not axial"),
        (chest(count=3), "it has 3 slices, fewer than 4"),
    ],
)
def test_a_study_that_no_route_wants_says_why(headers, reason):
    decision = route_study(study_of(s1=headers), [LUNG])
    assert chosen(decision) == []
    assert reasons(decision) == {"1.1": reason}
    assert decision.reason == f"no route reads a series of it; lung nodules: {reason}"


def test_a_derived_series_is_not_read_even_when_the_route_does_not_say_so():
    any_ct = replace(LUNG, when=parse_expression('Modality == "CT"'))
    decision = route_study(study_of(s1=chest(ImageType=("DERIVED",))), [any_ct])
    assert reasons(decision) == {"1.1": "it is derived from other images"}


@pytest.mark.parametrize("image_type", [("ORIGINAL", "PRIMARY", "LOCALIZER"), ("DERIVED", "SECONDARY", "MPR")])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_one_overview_or_derived_image_among_the_slices_hides_them_from_no_route(image_type, place):
    """A study that is not routed is told of to nobody; one that cannot be read is. The least UID decides nothing."""
    headers = list(chest())
    headers.insert(place, {**headers[0], "ImageType": image_type})
    (choice,) = route_study(study_of(s1=headers), [LUNG]).chosen
    assert "though 1 of 7 slices lie where another one lies" in choice.reason


@pytest.mark.parametrize(
    ("better", "lesser", "reason"),
    [
        (chest(spacing=1.0), chest(spacing=5.0, count=30), "its slices are thicker: 5 mm against 1 mm"),
        (
            chest(spacing=2.5),
            chest(spacing=10.0, SliceThickness=1.0),
            "its slices are further apart: 1 mm every 10 mm against 2.5 mm",
        ),
        (chest(count=8), chest(count=6), "it has fewer slices: 6 against 8"),
        (chest(SeriesNumber=2), chest(SeriesNumber=3), "an equally good series comes before it"),
        (
            chest(spacing=5.0),
            [header for k, header in enumerate(chest(spacing=1.0, count=9)) if k != 4],
            "its slices make no regular volume: slices are missing between 3.0 mm and 5.0 mm along the normal",
        ),
    ],
    ids=["thinner", "closer", "more slices", "the scanner's order", "whole before thin"],
)
def test_the_better_series_is_read_and_the_other_told_why(better, lesser, reason):
    for study, best, other in (
        (study_of(s1=better, s2=lesser), "1.1", "1.2"),
        (study_of(s1=lesser, s2=better), "1.2", "1.1"),
    ):
        decision = route_study(study, [LUNG])
        assert chosen(decision) == [best]
        assert reasons(decision) == {other: reason}
        assert decision.chosen[0].reason.startswith("the best of 2 series that fit: ")


def test_a_flawed_series_is_read_only_when_there_is_no_whole_one():
    flawed = [header for k, header in enumerate(chest()) if k != 2]
    (choice,) = route_study(study_of(s1=flawed), [LUNG]).chosen
    assert "though slices are missing between 2.5 mm and 7.5 mm" in choice.reason


def test_each_route_reads_its_own_series():
    study = study_of(s1=chest(), s2=chest(Modality="MR"))
    decision = route_study(study, [LUNG, BRAIN])
    assert [(c.route.name, c.series.series_instance_uid) for c in decision.chosen] == [
        ("lung nodules", "1.1"),
        ("brain", "1.2"),
    ]
    assert [(r.route, r.series_instance_uid) for r in decision.not_chosen] == [
        ("lung nodules", "1.2"),
        ("brain", "1.1"),
    ]


def test_equal_reasons_are_counted_and_a_node_without_routes_says_so():
    study = study_of(s1=chest(Modality="MR"), s2=chest(Modality="MR"))
    assert route_study(study, [LUNG]).reason.endswith('lung nodules: Modality is "MR", not "CT" (2 series)')
    assert route_study(study, []).reason == "there are no routes; add one to the settings"


@pytest.mark.parametrize(
    ("of_route", "asked", "priority"),
    [
        (Priority.ROUTINE, "STAT", Priority.STAT),
        (Priority.HIGH, "LOW", Priority.HIGH),
        (Priority.LOW, "MEDIUM", Priority.MEDIUM),
        (Priority.LOW, None, Priority.LOW),
        (Priority.ROUTINE, "SOON", Priority.ROUTINE),
        (Priority.ROUTINE, ("STAT",), Priority.ROUTINE),
    ],
)
def test_the_more_urgent_of_route_and_request_counts(of_route, asked, priority):
    study = study_of(s1=chest(RequestedProcedurePriority=asked))
    (choice,) = route_study(study, [replace(LUNG, priority=of_route)]).chosen
    assert choice.priority is priority


@settings(max_examples=50)
@given(st.lists(series_headers(), max_size=4), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_decision(series, random):
    instances = [i for number, slices in enumerate(series) for i in instances_of(f"1.{number}", slices)]
    shuffled = list(instances)
    random.shuffle(shuffled)
    decisions = [route_study(Study.from_instances("1", order), [LUNG, BRAIN]) for order in (instances, shuffled)]
    assert decisions[0] == decisions[1]


@settings(max_examples=40)
@given(st.lists(st.lists(headers(), min_size=1, max_size=5), max_size=3))
def test_every_series_is_chosen_or_told_why_by_every_route(series):
    study = Study.from_instances("1", [i for n, slices in enumerate(series) for i in instances_of(f"1.{n}", slices)])
    decision = route_study(study, [LUNG, BRAIN])
    told = [(r.route, r.series_instance_uid) for r in decision.not_chosen if r.reason]
    told += [(c.route.name, c.series.series_instance_uid) for c in decision.chosen]
    assert sorted(told) == sorted((route.name, f"1.{n}") for route in (LUNG, BRAIN) for n in range(len(series)))
    assert bool(decision.reason) == (not decision.chosen)
