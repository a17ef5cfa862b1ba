"""What every object of a report shares: UIDs that follow from the evidence, patient, times, equipment."""

import copy
import datetime
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.form import Form
from tests.unit.workers.reporting.conftest import CENTRES, Reading, algorithm, evidence_of, reading_of
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.gate import check_report
from workers.reporting.report import Report, build_report
from workers.volume import load_volume

TIMES = {
    "ContentDate",
    "ContentTime",
    "SeriesDate",
    "SeriesTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContributionDateTime",
}


def read_back(dataset: Dataset) -> Dataset:
    """The object as a peer gets it."""
    return dcmread(BytesIO(as_file(dataset)))


def with_algorithm(evidence: Evidence, **changes: object) -> Evidence:
    """The same images, read by another algorithm."""
    return replace(evidence, algorithm=algorithm(**changes))


def test_the_same_reading_writes_the_same_bytes(any_reading: Reading, any_report: Report) -> None:
    second = any_reading.report()
    assert [as_file(dataset) for dataset in any_report.datasets] == [as_file(dataset) for dataset in second.datasets]


def test_no_time_in_a_report_is_the_clocks(any_reading: Reading, any_report: Report) -> None:
    """Else a second reading on another day would write other bytes under the same UIDs."""
    completed = any_reading.evidence.completed_locally
    header = any_reading.evidence.header
    known = {str(element.value) for element in header if element.VR in ("DA", "TM", "DT")}
    known |= {completed.strftime(form) for form in ("%Y%m%d", "%H%M%S", "%Y%m%d%H%M%S")}
    for dataset in map(read_back, any_report.datasets):
        times = {str(element.value) for element in dataset.iterall() if element.VR in ("DA", "TM", "DT")}
        assert times - {""} <= known


def test_evidence_that_arrived_later_makes_a_difference_in_times_only(reading: Reading, report: Report) -> None:
    later = replace(reading.evidence, completed_at=reading.evidence.completed_at + datetime.timedelta(days=2, hours=3))
    second = build_report(later, reading.findings, reading.labels)
    for before, after in zip(report.datasets, second.datasets, strict=True):
        pairs = zip(read_back(before).iterall(), read_back(after).iterall(), strict=True)
        changed = {old.keyword for old, new in pairs if old.VR != "SQ" and old != new}
        assert {"ContentDate", "ContentTime"} <= changed <= TIMES


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "0.1.1"},
        {"name": "other"},
        {"checksum": "00" * 32},
        {"parameters": (("report_threshold", "0.6"),)},
    ],
)
def test_another_algorithm_writes_other_objects_in_other_series(reading: Reading, changes: dict[str, object]) -> None:
    other = with_algorithm(reading.evidence, **changes)
    for role in ("SR", "SR series", "SEG", "SEG series", "finding 1"):
        assert other.uid(role) != reading.evidence.uid(role)


def test_other_evidence_writes_other_objects(reading: Reading) -> None:
    other = replace(reading.evidence, evidence="ef" * 32)
    assert other.uid("SR") != reading.evidence.uid("SR")


def test_objects_are_of_the_sources_study_and_in_series_of_their_own(reading: Reading, report: Report) -> None:
    volume = reading.evidence.volume
    series = {dataset.SeriesInstanceUID for dataset in report.datasets}
    assert {dataset.StudyInstanceUID for dataset in report.datasets} == {volume.study_instance_uid}
    assert len(series) == 2
    assert volume.series_instance_uid not in series
    assert [dataset.Modality for dataset in report.datasets] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Παπαδόπουλος^Γιώργος"),
        ("ISO_IR 126", "Παπαδόπουλος^Γιώργος"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Müller^Jürgen"),
    ],
)
def test_a_name_arrives_as_it_was_written(tmp_path: Path, character_set: str | list[str], name: str) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], SpecificCharacterSet=character_set, PatientName=name)
    for dataset in map(read_back, reading.report().datasets):
        assert dataset.PatientName == name
        assert dataset.SpecificCharacterSet == reading.evidence.header.SpecificCharacterSet


def test_an_algorithm_whose_name_needs_unicode_brings_unicode(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], SpecificCharacterSet="ISO_IR 126", PatientName="Παπάς^Γ")
    evidence = with_algorithm(reading.evidence, manufacturer="Universität Überall")
    for dataset in map(read_back, build_report(evidence, reading.findings, reading.labels).datasets):
        assert dataset.Manufacturer == "Universität Überall"
        assert dataset.PatientName == "Παπάς^Γ"


def test_a_source_that_says_little_of_its_patient_is_reported_all_the_same(tmp_path: Path) -> None:
    missing = (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyTime",
        "SliceThickness",
    )
    reading = reading_of(tmp_path, CENTRES[:1], **dict.fromkeys(missing, None), Manufacturer="")
    for dataset in map(read_back, reading.report().datasets):
        assert dataset.PatientID == "TEST-1"
        assert not dataset.PatientName
        assert dataset.StudyDate == "20240229"


def test_a_hidden_patient_has_an_answer_though_nobody_says_how_he_was_hidden(tmp_path: Path) -> None:
    """Objects that say that an identity was removed must say how (PS3.3 Table C.7-1); many senders leave it out."""
    for said, expected in ((None, "not stated by the source images"), ("by hand", "by hand")):
        changes = {"PatientIdentityRemoved": "YES", **({"DeidentificationMethod": said} if said else {})}
        found = reading_of(tmp_path / str(said), CENTRES[:1], **changes)
        report = build_report(found.evidence, found.findings, found.labels, forms=Form)
        for file in check_report(report, found.evidence):
            written = dcmread(BytesIO(file))
            assert (written.PatientIdentityRemoved, written.DeidentificationMethod) == ("YES", expected)


def test_what_the_source_says_of_its_patient_is_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sex that is no defined term and a name without components are copied, and stand in no log."""
    reading = reading_of(tmp_path, CENTRES[:1], PatientSex="X", PatientName="Nameless")
    for dataset in map(read_back, reading.report().datasets):
        assert (dataset.PatientSex, dataset.PatientName) == ("X", "Nameless")
    assert "Nameless" not in caplog.text


def test_a_source_image_without_what_a_reference_needs_is_refused_by_name(reading: Reading) -> None:
    headers = copy.deepcopy(reading.evidence.volume.headers)
    del headers[4].FrameOfReferenceUID
    evidence = replace(reading.evidence, volume=replace(reading.evidence.volume, headers=headers))
    with pytest.raises(EvidenceInvalid, match=f"{headers[4].SOPInstanceUID} has no FrameOfReferenceUID"):
        build_report(evidence, reading.findings, reading.labels)


def test_times_are_those_of_the_sources_time_zone(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], TimezoneOffsetFromUTC="+0530")
    for dataset in map(read_back, reading.report().datasets):
        assert (dataset.ContentDate, dataset.ContentTime) == ("20240301", "150015")
        assert dataset.TimezoneOffsetFromUTC == "+0530"


def test_the_algorithm_is_the_one_processing_equipment_beside_the_scanner(reading: Reading, report: Report) -> None:
    used = reading.evidence.algorithm
    for dataset in report.datasets:
        scanner, processor = dataset.ContributingEquipmentSequence
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert scanner.ManufacturerModelName == "Little scanner"
        assert processor.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        said = (
            processor.Manufacturer,
            processor.ManufacturerModelName,
            processor.SoftwareVersions,
            processor.DeviceUID,
        )
        assert said == (used.manufacturer, used.name, used.version, used.device_uid)


def test_a_long_name_leaves_room_to_say_that_it_is_no_diagnosis(reading: Reading) -> None:
    description = with_algorithm(reading.evidence, name="a_name_" * 9).series_description()
    assert len(description) <= 64
    assert description.endswith("not for diagnosis")


def test_the_headers_that_were_read_stay_as_they_are(tmp_path: Path) -> None:
    reading = reading_of(tmp_path)
    before = [header.to_json() for header in reading.evidence.volume.headers]
    reading.report()
    assert [header.to_json() for header in reading.evidence.volume.headers] == before


def test_evidence_needs_no_more_than_headers(tmp_path: Path) -> None:
    reading = reading_of(tmp_path)
    volume = load_volume(sorted(tmp_path.iterdir()))
    assert all("PixelData" not in header for header in volume.headers)
    assert evidence_of(volume).uid("SR") == reading.evidence.uid("SR")


@pytest.mark.parametrize("offset", ["local", "+9999", "+05:30", "0530", "Z"])
def test_a_time_zone_that_cannot_be_read_counts_as_none(tmp_path: Path, offset: str) -> None:
    reading, plain = reading_of(tmp_path / "a", CENTRES[:1]), reading_of(tmp_path / "b", CENTRES[:1])
    reading.evidence.header.TimezoneOffsetFromUTC = offset
    assert reading.evidence.completed_locally == plain.evidence.completed_locally
    for dataset in map(read_back, reading.report().datasets):
        assert "TimezoneOffsetFromUTC" not in dataset
