"""The order of a report's page: what a reader looks for first stands first, and nothing of the report is left out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from dicom_node.core import codes
from dicom_node.core.lung_rads import Category, Composition
from dicom_node.web.report_order import arranged
from dicom_node.web.report_text import Item, ReportText, read_report_text
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from tests.unit.workers.reporting.test_comparison import beside
from workers.reporting.encoding import as_file
from workers.reporting.prior_report import measured_in


def all_of(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        yield replace(item, items=())
        yield from all_of(item.items)


def text_of(folder: Path, reading: Reading) -> ReportText:
    path = folder / "report.dcm"
    path.write_bytes(as_file(reading.report().structured_report))
    return read_report_text(path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ReportText:
    """Of a study with a prior: one of three findings grew."""
    folder = tmp_path_factory.mktemp("reports")
    earlier = reading_of(folder / "prior", CENTRES[:1], seed="prior", StudyDate="20240101")
    prior = dcmread(BytesIO(as_file(earlier.report().structured_report)))
    later = reading_of(folder / "later", CENTRES, seed="later")
    first, second, third = later.findings
    grown = replace(beside(third, prior, next(iter(measured_in(prior)))), number=3)
    solid = replace(grown, composition=Composition.SOLID, lung_rads=Category.SUSPICIOUS_A)
    others = (replace(first, tracking_identifier="Nodule 2"), replace(second, tracking_identifier="Nodule 3"))
    evidence = replace(later.evidence, prior=prior)
    return text_of(folder, replace(later, evidence=evidence, findings=(*others, solid)))


def test_a_finding_is_one_row_with_its_size_change_place_and_category(text: ReportText) -> None:
    found = arranged(text)
    grown = found.findings[2]
    assert grown.name == "Nodule 1"
    assert found.columns[:2] == ("Finding", "Size")
    assert "Change since the prior study" in found.columns
    cells = grown.cells
    assert cells["Finding"] == "Nodule, Solid"
    assert cells["Size"].count(" mm") == 2
    assert " × " in cells["Size"]
    assert cells["Volume"].endswith(" mm³")
    assert "60 days before" in cells["Change since the prior study"]
    assert cells["Place"].endswith("Lung")
    assert cells["Category"] == "Lung-RADS 4A"
    assert cells["Certainty"].endswith("%")
    assert len(found.findings) == len(CENTRES), "two groups tell of each"


def test_a_size_that_does_not_compare_stands_beside_the_words_that_say_so(tmp_path: Path) -> None:
    earlier = reading_of(tmp_path / "prior", CENTRES[:1], seed="prior", StudyDate="20240101")
    prior = dcmread(BytesIO(as_file(earlier.report().structured_report)))
    later = reading_of(tmp_path / "later", CENTRES[:1], seed="later")
    found = beside(later.findings[0], prior, next(iter(measured_in(prior))))
    assert found.change is not None
    unlike = replace(found.change, later=replace(found.change.later, kernel="another"))
    evidence = replace(later.evidence, prior=prior)
    text = text_of(tmp_path, replace(later, evidence=evidence, findings=(replace(found, number=1, change=unlike),)))
    (row,) = arranged(text).findings
    assert codes.MEASURED_OTHERWISE.meaning in row.cells["Change since the prior study"]


def test_what_is_urgent_and_what_to_do_stand_before_how_it_went(text: ReportText) -> None:
    names = [item.name for item in arranged(text).assessment]
    assert names.index(codes.RECOMMENDATION.meaning) < names.index(codes.PROCESSING_SUMMARY.meaning)
    assert names.index(codes.COMMENT.meaning) < names.index(codes.PRIOR_REPORT.meaning)


def test_size_stands_before_change_place_category_and_method(text: ReportText) -> None:
    items = [item.code for item in arranged(text).findings[2].items]
    order = (codes.LONG_AXIS, codes.CHANGE, codes.LUNG_RADS_ASSESSMENT, codes.CERTAINTY_OF_FINDING)
    places = [items.index(code.value) for code in order if code.value in items]
    assert places == sorted(places)
    # The algorithm's name and version, and where the finding is drawn.
    assert places[-1] < items.index("111001")


def test_nothing_of_a_real_report_is_left_out(text: ReportText) -> None:
    found = arranged(text)
    shown = [*found.assessment, *found.rest, *(item for one in found.findings for item in one.items)]
    containers = {"Measurement Group", "Imaging Measurements", "Qualitative Evaluations"}
    assert {item.name for item in set(all_of(text.items)) - set(all_of(shown))} == containers


def test_a_report_without_findings_has_its_assessment_and_no_row(tmp_path: Path) -> None:
    found = arranged(text_of(tmp_path, reading_of(tmp_path / "series", ())))
    assert (found.findings, found.columns) == ((), ())
    assert any(item.name == codes.COMMENT.meaning for item in found.assessment)


_CODES = st.sampled_from(
    ["125007", "112039", "112040", "126010", "C0034375", "121071", "103339001", "363698007", "121106", "x"]
)
_ITEMS = st.recursive(
    st.builds(Item, code=_CODES, name=st.just("n"), value=st.text("ab -", max_size=4)),
    lambda inner: st.builds(
        Item,
        code=_CODES,
        name=st.just("n"),
        value=st.just(""),
        items=st.lists(inner, max_size=4).map(tuple),
    ),
    max_leaves=20,
)


@given(items=st.lists(_ITEMS, max_size=6))
def test_whatever_a_report_holds_every_value_is_shown(items: list[Item]) -> None:
    """The tree may be anything: what has a value is on the page, and the page is made."""
    found = arranged(ReportText(title="", completion="", verification="", items=tuple(items)))
    shown = [*found.assessment, *found.rest, *(item for one in found.findings for item in one.items)]
    values = Counter(item.value for item in all_of(items) if item.value)
    assert set(values) == {item.value for item in all_of(shown) if item.value}
