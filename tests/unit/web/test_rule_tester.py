"""The rule tester: the node's own routing over what is asked, and no expression gets out of the small language."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.settings import Settings
from dicom_node.web.rule_tester import EXAMPLE, described_study, judge
from tests.populated_index import NOW, receive, study_uid

ROUTES = Settings().routes


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    yield index
    index.close()


def test_the_example_is_taken_by_the_built_in_route(index: Index) -> None:
    tested = judge(index, ROUTES, {"attributes": EXAMPLE})
    assert tested.faults == []
    assert tested.decision is not None
    (choice,) = tested.decision.chosen
    assert choice.route.name == "lung nodules on chest CT"
    assert "300 slices" in choice.reason


def test_a_study_that_is_here_is_judged_as_it_is(index: Index) -> None:
    receive(index, "a", at=NOW)
    tested = judge(index, ROUTES, {"study": study_uid("a"), "attributes": EXAMPLE})
    assert tested.decision is not None
    assert tested.decision.chosen == ()
    assert {rejection.series_instance_uid for rejection in tested.decision.not_chosen} == {
        series.series_instance_uid for series in index.studies.study(study_uid("a")).series
    }


@pytest.mark.parametrize("study", ["1.2.3", "no uid", "../../etc"])
def test_a_study_that_is_not_here_is_named(index: Index, study: str) -> None:
    assert judge(index, ROUTES, {"study": study}).faults == ["This study is not in the index."]


def test_an_expression_can_be_tried_in_place_of_the_routes(index: Index) -> None:
    tested = judge(index, ROUTES, {"attributes": EXAMPLE, "when": 'Modality == "MR"'})
    assert tested.decision is not None
    assert tested.decision.chosen == ()
    assert 'not "MR"' in tested.decision.reason


@pytest.mark.parametrize(
    "when",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "Modality == open('/etc/passwd').read()",
        "Modality.__class__ == 1",
        "[x for x in (1,)]",
        "lambda: 1",
        "f'{1}' == Modality",
        "Modality == 'CT'; import os",
        "PatientName == 'Doe'",
        "(" * 5000 + "Modality" + ")" * 5000,
        "not " * 20000 + "derived",
        "Modality == '" + "x" * 60000,
        "\x00",
        "1" * 5000 + " == SliceThickness",
    ],
    ids=lambda text: text[:30],
)
def test_no_expression_gets_out_of_the_small_language(index: Index, when: str) -> None:
    tested = judge(index, ROUTES, {"attributes": EXAMPLE, "when": when})
    assert tested.decision is None
    assert len(tested.faults) == 1
    assert "cannot be used" in tested.faults[0]


def test_lines_that_say_nothing_are_named_by_their_number() -> None:
    faults: list[str] = []
    described_study("Modality CT\nPatientName = Doe\nSliceThickness = thin\n\nInstances = 99999999999", faults)
    assert [fault[:6] for fault in faults] == ["Line 1", "Line 2", "Line 3"]
    assert "Doe" not in " ".join(faults)


def test_a_described_series_has_no_more_slices_than_are_worth_judging() -> None:
    assert len(described_study("Modality = CT\nInstances = 90000000", []).series[0].instances) == 2000
