"""A late image: the new report stands in the same series, names the one it replaces, and says so."""

import copy
import datetime
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.archive.files import Archive
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Axis, Finding, Point
from dicom_node.core.form import STRUCTURED_REPORTS, Earlier, Form, FormChoice, forms_of
from tests.factories import ct_series
from tests.unit.workers.reporting.conftest import CENTRES, Reading, algorithm, ball, evidence_of
from workers.measurement import measure
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.gate import check_report
from workers.reporting.report import Report, build_report
from workers.volume import Region, load_volume
from workers.writing import with_predecessors


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(as_file(dataset)))


def grown(reading: Reading, predecessor: Dataset, **changes: object) -> Evidence:
    """The evidence a day later, with more of it."""
    later = reading.evidence.completed_at + datetime.timedelta(days=1)
    fields = {"evidence": "ef" * 32, "completed_at": later, "predecessor": predecessor}
    return replace(reading.evidence, **(fields | changes))


def texts(structured_report: Dataset) -> str:
    """Everything that a report says in words."""
    return "\n".join(str(element.value) for element in structured_report.iterall() if element.keyword == "TextValue")


@pytest.fixture(scope="module")
def first(report: Report) -> Dataset:
    return read_back(report.structured_report)


@pytest.fixture(scope="module")
def second(reading: Reading, first: Dataset) -> Report:
    evidence = grown(reading, first)
    made = build_report(evidence, reading.findings, reading.labels)
    check_report(made, evidence)
    return made


def test_it_names_the_report_that_it_replaces(second: Report, first: Dataset) -> None:
    (study,) = read_back(second.structured_report).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert document.ReferencedSOPClassUID == first.SOPClassUID
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_both_stand_in_one_series_whose_attributes_are_the_same(second: Report, report: Report) -> None:
    for before, after in zip(report.datasets, second.datasets, strict=True):
        for keyword in (
            "SeriesInstanceUID",
            "SeriesDate",
            "SeriesTime",
            "SeriesNumber",
            "SeriesDescription",
            "Modality",
        ):
            assert before[keyword].value == after[keyword].value, keyword
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert (before.InstanceNumber, after.InstanceNumber) == (1, 2)
        assert after.ContentDate > before.ContentDate


def test_it_says_so_in_words(second: Report, first: Dataset) -> None:
    words = "This report replaces an earlier one of this study"
    assert words in texts(read_back(second.structured_report))
    assert words not in texts(first)


def test_a_first_report_replaces_none(first: Dataset) -> None:
    assert "PredecessorDocumentsSequence" not in first


def test_another_predecessor_makes_another_object_and_the_same_one_the_same(
    reading: Reading, first: Dataset, second: Report
) -> None:
    other = copy.deepcopy(first)
    other.SOPInstanceUID = "2.25.1234"
    again = build_report(grown(reading, first), reading.findings, reading.labels)
    another = build_report(grown(reading, other), reading.findings, reading.labels)
    assert [as_file(made) for made in again.datasets] == [as_file(made) for made in second.datasets]
    assert another.structured_report.SOPInstanceUID != second.structured_report.SOPInstanceUID


def test_a_new_version_of_the_algorithm_begins_a_series_of_its_own(reading: Reading, first: Dataset) -> None:
    evidence = grown(reading, first, algorithm=algorithm(version="9.9.9"))
    made = build_report(evidence, reading.findings, reading.labels)
    assert made.structured_report.SeriesInstanceUID != first.SeriesInstanceUID
    assert made.structured_report.InstanceNumber == 1
    assert "PredecessorDocumentsSequence" in made.structured_report
    check_report(made, evidence)


def test_a_report_that_names_no_predecessor_or_that_of_another_study_is_not_sent(
    reading: Reading, report: Report, first: Dataset
) -> None:
    with pytest.raises(EvidenceInvalid, match="predecessor"):
        check_report(report, replace(reading.evidence, predecessor=first))
    stranger = copy.deepcopy(first)
    stranger.StudyInstanceUID = "2.25.99"
    evidence = grown(reading, stranger)
    with pytest.raises(EvidenceInvalid, match="of another study"):
        check_report(build_report(evidence, reading.findings, reading.labels), evidence)


#: Of the nodules of the first report, and one that is none of them.
PLACES = {**dict(zip("ABC", CENTRES, strict=True)), "D": (7, 8, 9)}


def moved(reading: Reading, finding: Finding, by_mm: tuple[float, float, float]) -> Finding:
    """A finding with all that is drawn of it, elsewhere on its slice."""
    across, down, _ = np.divide(by_mm, reading.evidence.volume.spacing_mm[::-1])

    def shifted(place: Point) -> Point:
        x, y, z = (float(value) for value in np.add(place, by_mm))
        return x, y, z

    def axis(of: Axis) -> Axis:
        return replace(of, start=shifted(of.start), end=shifted(of.end))

    points = tuple((column + float(across), row + float(down)) for column, row in finding.outline.points)
    return replace(
        finding,
        centre=shifted(finding.centre),
        long_axis=axis(finding.long_axis),
        short_axis=axis(finding.short_axis),
        outline=replace(finding.outline, points=points),
    )


def tracked(report: Report) -> dict[int, str]:
    """The Tracking UID of each segment, by its number."""
    assert report.segmentation is not None
    return {int(segment.SegmentNumber): str(segment.TrackingUID) for segment in report.segmentation.SegmentSequence}


@pytest.fixture(scope="module", params=[Form.SR, Form.SR_OHIF])
def earlier(request: pytest.FixtureRequest, reading: Reading) -> tuple[Report, Dataset]:
    """A report in every form, and it as it was read back."""
    made = build_report(reading.evidence.in_form(request.param), reading.findings, reading.labels)
    return made, read_back(made.structured_report)


def test_a_nodule_that_is_found_again_keeps_its_tracking_uid_whatever_its_number(
    reading: Reading, earlier: tuple[Report, Dataset]
) -> None:
    """A late image may change the scores, and with them the order."""
    turned = tuple(replace(finding, number=4 - finding.number) for finding in reversed(reading.findings))
    labels = np.where(reading.labels > 0, 4 - reading.labels, 0).astype(np.uint8)
    evidence = grown(reading, earlier[1])
    made = build_report(evidence, turned, labels)
    check_report(made, evidence)
    before = tracked(earlier[0])
    assert tracked(made) == {4 - number: uid for number, uid in before.items()}


def test_what_lies_elsewhere_is_another_nodule(reading: Reading, first: Dataset, report: Report) -> None:
    """Its centre is farther off than its radius."""
    away = (reading.findings[0].long_axis.length_mm / 2 + 0.5, 0.0, 0.0)
    found = (moved(reading, reading.findings[0], away), *reading.findings[1:])
    made = build_report(grown(reading, first), found, reading.labels)
    before, after = tracked(report), tracked(made)
    assert after[1] not in before.values()
    assert {number: after[number] for number in (2, 3)} == {number: before[number] for number in (2, 3)}


def test_one_earlier_nodule_becomes_one(reading: Reading, first: Dataset, report: Report) -> None:
    """Of two where one was, the nearer is it."""
    one, _, three = reading.findings
    near = moved(reading, replace(one, number=2), (1.0, 0.0, 0.0))
    made = build_report(grown(reading, first), (one, near, three), reading.labels)
    before, after = tracked(report), tracked(made)
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[2] not in before.values()


@pytest.mark.parametrize("evidence", ["cd" * 32, "ef" * 32], ids=["the same images", "a late image"])
@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (("D", "A"), (None, "A")),
        (("B", "D"), ("B", None)),
        (("D", "B", "C"), (None, "B", "C")),
        (("C", "D", "A", "B"), ("C", None, "A", "B")),
        (("D",), (None,)),
    ],
)
def test_no_nodule_gets_the_tracking_uid_of_another_one(
    reading: Reading,
    report: Report,
    first: Dataset,
    evidence: str,
    places: tuple[str, ...],
    expected: tuple[str | None, ...],
) -> None:
    """Law: what is found again keeps its UID whatever its number, and what is new has one that no earlier one has."""
    before = dict(zip("ABC", tracked(report).values(), strict=True))
    volume = replace(reading.evidence.volume, voxels=reading.evidence.volume.voxels.copy())
    labels, findings = np.zeros_like(reading.labels), []
    for number, place in enumerate(places, start=1):
        inside, finding = ball(volume, number, PLACES[place])
        assert not labels[inside].any(), "two nodules share no voxel"
        labels[inside] = number
        findings.append(finding)
    grown_evidence = grown(reading, first, evidence=evidence, volume=volume)
    made = build_report(grown_evidence, tuple(findings), labels)
    check_report(made, grown_evidence)
    after = tuple(tracked(made).values())
    names = {uid: place for place, uid in before.items()}
    assert tuple(names.get(uid) for uid in after) == expected
    assert len(set(after)) == len(after)


@pytest.mark.parametrize(("length_mm", "is_found_again"), [(9.0, True), (3.0, False)])
def test_the_smaller_radius_decides_also_where_that_is_the_new_ones(
    reading: Reading, report: Report, first: Dataset, length_mm: float, is_found_again: bool
) -> None:
    one, *others = reading.findings
    assert one.long_axis.length_mm > 2 * 2.0, "it lies within the earlier one's radius"
    near = moved(reading, replace(one, long_axis=replace(one.long_axis, length_mm=length_mm)), (2.0, 0.0, 0.0))
    made = build_report(grown(reading, first), (near, *others), reading.labels)
    assert (tracked(made)[1] == tracked(report)[1]) is is_found_again


@pytest.mark.parametrize("form", [Form.SR, Form.SR_OHIF])
def test_a_nodule_between_two_slices_is_found_again(tmp_path: Path, form: Form) -> None:
    """Its outline lies on one of them, farther from the middle of its voxels than its radius is long."""
    hu, (k, j, i) = np.full((8, 40, 40), -850.0), np.indices((8, 40, 40))
    mask = ((k - 3.5) * 5.0) ** 2 + ((j - 20) * 0.7) ** 2 + ((i - 20) * 0.7) ** 2 <= 2.6**2
    hu[mask] = 30
    volume = load_volume(ct_series(tmp_path, voxels=hu, spacing=(5.0, 0.7, 0.7)))
    measured = measure(Region(box=tuple(slice(0, n) for n in mask.shape), mask=mask), volume)
    shape = {name: getattr(measured, name) for name in ("centre", "long_axis", "short_axis", "outline")}
    finding = replace(ball(volume, 1, (3, 20, 20))[1], **shape)
    evidence = evidence_of(volume).in_form(form)
    before = build_report(evidence, (finding,), mask.astype(np.uint8))
    after = build_report(
        replace(evidence, evidence="ef" * 32, predecessor=read_back(before.structured_report)),
        (finding,),
        mask.astype(np.uint8),
    )
    assert finding.long_axis.length_mm / 2 < 2.5, "the middle of its voxels is half a slice off"
    assert tracked(after) == tracked(before)


def test_what_stands_on_a_slice_that_is_not_there_any_more_is_tracked_no_further(
    reading: Reading, first: Dataset, report: Report
) -> None:
    stranger = copy.deepcopy(first)
    for element in stranger.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            element.value = "2.25.99"
    made = build_report(grown(reading, stranger), reading.findings, reading.labels)
    assert set(tracked(made).values()).isdisjoint(tracked(report).values())


def test_an_earlier_report_that_cannot_be_understood_is_no_obstacle(reading: Reading, first: Dataset) -> None:
    broken = copy.deepcopy(first)
    for item in broken.iterall():
        if item.keyword == "NumericValue":
            item.value = None
    build_report(grown(reading, broken), reading.findings, reading.labels)


@pytest.mark.parametrize("choice", ["LABELMAP", "SEG"])
def test_after_a_peer_was_added_no_report_names_another_segmentation_under_its_old_uid(
    reading: Reading, tmp_path: Path, choice: FormChoice
) -> None:
    archive, earlier, known = Archive(tmp_path), [], {}  # type: ignore[var-annotated]  # filled below
    before, added = forms_of((choice, "SR"), "ohif"), forms_of(("SEG", "SR"), "portable")
    for asked in (before, before | added, before | added):
        evidence = with_predecessors(reading.evidence, asked, earlier, archive)
        report = build_report(evidence, reading.findings, reading.labels, forms=asked)
        check_report(report, evidence)
        for part, dataset in report.objects.items():
            file, uid = as_file(dataset), str(dataset.SOPInstanceUID)
            assert known.setdefault(uid, file) == file, f"{part.form} has two contents"
            uids = {"study_uid": str(dataset.StudyInstanceUID), "series_uid": str(dataset.SeriesInstanceUID)}
            path = archive.result_path(**uids, sop_uid=uid)
            archive.path_of(path).parent.mkdir(parents=True, exist_ok=True)
            archive.path_of(path).write_bytes(file)
            if part.form in STRUCTURED_REPORTS and part.form in asked:
                earlier.insert(0, Earlier(path=path, form=part.form, offered=True, own=True))
    assert {str(dataset.SOPInstanceUID) for dataset in report.datasets} <= known.keys()
    assert len(earlier) == 5
    assert earlier[0].path == earlier[2].path, "asked for once more, it is the same"
