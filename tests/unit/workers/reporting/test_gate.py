"""Nothing leaves that breaks a rule: each rule is broken once, and the gate names it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.errors import EvidenceInvalid
from tests.unit.workers.reporting.conftest import Reading, algorithm, reading_of
from workers.reporting.encoding import as_file
from workers.reporting.gate import RULES, check_report
from workers.reporting.report import Report


def copy_of(files: tuple[bytes, ...]) -> Report:
    """The report of these files, free to be broken."""
    segmentation, structured_report = (dcmread(BytesIO(file)) for file in files)
    return Report(structured_report=structured_report, segmentation=segmentation)


def groups(structured_report: Dataset) -> list[Dataset]:
    """The measurement groups of a report with findings."""
    (measurements,) = (
        i for i in structured_report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    return list(measurements.ContentSequence)


def give_a_word_for_a_uid(sr: Dataset, _: Dataset) -> None:
    sr.ContributingEquipmentSequence[-1]["DeviceUID"]._value = "device"


def share_a_series(sr: Dataset, seg: Dataset) -> None:
    sr.SeriesInstanceUID = seg.SeriesInstanceUID


def name_another_patient(_: Dataset, seg: Dataset) -> None:
    seg.PatientID = "SOMEBODY-ELSE"


def forget_an_image(sr: Dataset, _: Dataset) -> None:
    del sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[3]


def refer_to_an_unread_image(sr: Dataset, _: Dataset) -> None:
    groups(sr)[-1].ContentSequence[-1].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.99"


def draw_on_an_unread_image(_: Dataset, seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "2.25.99"


def replace_what_it_does_not(sr: Dataset, _: Dataset) -> None:
    document = Dataset()
    document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID = sr.SOPClassUID, "2.25.99"
    sr.PredecessorDocumentsSequence = [document]


def refer_to_another_study(sr: Dataset, _: Dataset) -> None:
    document = Dataset()
    document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID = sr.SOPClassUID, "2.25.99"
    sr.PertinentOtherEvidenceSequence = [document]


def share_a_name(sr: Dataset, _: Dataset) -> None:
    for group in groups(sr):
        (name,) = (i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "112039")
        name.TextValue = "Nodule 1"


def track_otherwise(_: Dataset, seg: Dataset) -> None:
    seg.SegmentSequence[1].TrackingUID = "2.25.99"


def swap_two_segments(_: Dataset, seg: Dataset) -> None:
    first, second, _third = seg.SegmentSequence
    first.SegmentNumber, second.SegmentNumber = 2, 1


def leave_a_segment_unmeasured(_: Dataset, seg: Dataset) -> None:
    extra = copy.deepcopy(seg.SegmentSequence[0])
    extra.SegmentNumber = 4
    seg.SegmentSequence.append(extra)


def use_another_frame_of_reference(_: Dataset, seg: Dataset) -> None:
    seg.FrameOfReferenceUID = "2.25.99"


def move_a_frame(_: Dataset, seg: Dataset) -> None:
    position = seg.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    x, y, z = position.ImagePositionPatient
    position.ImagePositionPatient = [x, y, z + 1]


def turn_the_frames(_: Dataset, seg: Dataset) -> None:
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def stretch_the_pixels(_: Dataset, seg: Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [2, 2]


def lose_a_frames_source(_: Dataset, seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence = []


def name_a_frame_of_a_single_frame_image(sr: Dataset, _: Dataset) -> None:
    groups(sr)[-1].ContentSequence[-1].ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 1


def empty_a_frame(_: Dataset, seg: Dataset) -> None:
    size = seg.Rows * seg.Columns // 8
    seg.PixelData = bytes(size) + seg.PixelData[size:]


def cut_the_pixels_short(_: Dataset, seg: Dataset) -> None:
    # As many bytes as leave each frame with the same number.
    seg.PixelData = seg.PixelData[: -2 * int(seg.NumberOfFrames)]


def add_pixels(_: Dataset, seg: Dataset) -> None:
    seg.PixelData = seg.PixelData + b"\xff\xff"


def claim_a_byte_for_each_voxel(_: Dataset, seg: Dataset) -> None:
    seg.BitsAllocated, seg.BitsStored, seg.HighBit = 8, 8, 7


def draw_on_another_slice(sr: Dataset, _: Dataset) -> None:
    image = groups(sr)[-1].ContentSequence[-1].ContentSequence[0].ReferencedSOPSequence[0]
    other = groups(sr)[-3].ContentSequence[-1].ContentSequence[0].ReferencedSOPSequence[0]
    image.ReferencedSOPInstanceUID = other.ReferencedSOPInstanceUID


def verify(sr: Dataset, _: Dataset) -> None:
    sr.VerificationFlag = "VERIFIED"


def drop_the_warning(sr: Dataset, _: Dataset) -> None:
    sr.ContentSequence[-1].ContentSequence[-1].TextValue = "All is well"


def deny_the_findings(sr: Dataset, _: Dataset) -> None:
    sr.ContentSequence[-1].ContentSequence[0].ConceptCodeSequence[0].CodeValue = "111241"


def hide_the_algorithm(_: Dataset, seg: Dataset) -> None:
    del seg.ContributingEquipmentSequence[-1].DeviceUID


def name_another_version(sr: Dataset, _: Dataset) -> None:
    (version,) = (i for i in groups(sr)[0].ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111003")
    version.TextValue = "9.9"


def forget_how_an_item_belongs_to_its_parent(sr: Dataset, _: Dataset) -> None:
    del sr.ContentSequence[-1].ContentSequence[0].RelationshipType


BREAKS: dict[str, list[Callable[[Dataset, Dataset], None]]] = {
    "uid": [give_a_word_for_a_uid, share_a_series],
    "study": [name_another_patient],
    "evidence": [forget_an_image, refer_to_an_unread_image, draw_on_an_unread_image],
    "predecessor": [replace_what_it_does_not],
    "prior": [refer_to_another_study],
    "names": [share_a_name],
    "tracking": [track_otherwise, swap_two_segments, leave_a_segment_unmeasured],
    "geometry": [
        use_another_frame_of_reference,
        move_a_frame,
        turn_the_frames,
        stretch_the_pixels,
        lose_a_frames_source,
    ],
    "images": [name_a_frame_of_a_single_frame_image],
    "frames": [empty_a_frame, cut_the_pixels_short, add_pixels, claim_a_byte_for_each_voxel],
    "extent": [draw_on_another_slice],
    "status": [verify, drop_the_warning],
    "summary": [deny_the_findings],
    "equipment": [hide_the_algorithm, name_another_version],
    "library": [forget_how_an_item_belongs_to_its_parent],
}


#: What of a segmentation names an image, by where it stands.
NAMED_BY_SEGMENTATIONS: dict[str, Callable[[Dataset], Dataset]] = {
    "source images": lambda seg: seg.SourceImageSequence[1],
    "referenced series": lambda seg: seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[1],
    "frames": lambda seg: seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
}


def test_a_sound_report_passes_and_its_files_are_what_was_checked(any_reading: Reading, any_report: Report) -> None:
    files = tuple(as_file(dataset) for dataset in any_report.datasets)
    assert check_report(any_report, any_reading.evidence) == files


def test_every_rule_has_been_broken_once() -> None:
    assert BREAKS.keys() == RULES.keys()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # pydicom sees the broken UID as well
@pytest.mark.parametrize(("rule", "break_it"), [(rule, one) for rule, many in BREAKS.items() for one in many])
def test_a_broken_rule_is_named(
    reading: Reading, files: tuple[bytes, ...], rule: str, break_it: Callable[[Dataset, Dataset], None]
) -> None:
    broken = copy_of(files)
    break_it(*reversed(broken.datasets))
    with pytest.raises(EvidenceInvalid, match=f"the rule '{rule}'"):
        check_report(broken, reading.evidence)


@pytest.mark.parametrize("draw", list(NAMED_BY_SEGMENTATIONS.values()), ids=list(NAMED_BY_SEGMENTATIONS))
def test_wherever_a_segmentation_names_an_unread_image_it_is_noticed(
    reading: Reading, files: tuple[bytes, ...], draw: Callable[[Dataset], Dataset]
) -> None:
    broken = copy_of(files)
    assert broken.segmentation is not None
    draw(broken.segmentation).ReferencedSOPInstanceUID = "2.25.99"
    with pytest.raises(EvidenceInvalid, match=r"the segmentation refers to 2\.25\.99"):
        check_report(broken, reading.evidence)


@pytest.mark.parametrize("keyword", ["ReferencedStudySequence", "ReferencedPatientSequence"])
def test_what_the_source_refers_to_beside_images_is_no_fault_and_is_not_repeated(tmp_path: Path, keyword: str) -> None:
    """Scanners name the study and the patient so (PS3.3 Sections C.7.2.1 and C.7.1.1)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "2.25.66"
    reading = reading_of(tmp_path, **{keyword: [item]})
    report = reading.report()
    assert not any(keyword in dataset for dataset in report.datasets)
    check_report(report, reading.evidence)
    for dataset in report.datasets:
        setattr(dataset, keyword, [item])
    check_report(report, reading.evidence)


def test_a_message_names_no_patient(reading: Reading, files: tuple[bytes, ...]) -> None:
    broken = copy_of(files)
    broken.structured_report.PatientName = "Somebody^Else"
    with pytest.raises(EvidenceInvalid) as caught:
        check_report(broken, reading.evidence)
    assert "Somebody" not in str(caught.value)
    assert "Tess" not in str(caught.value)


def test_a_report_of_another_reading_does_not_pass(reading: Reading, report: Report) -> None:
    headers = reading.evidence.volume.headers[:-1]
    fewer = replace(reading.evidence, volume=replace(reading.evidence.volume, headers=headers), algorithm=algorithm())
    with pytest.raises(EvidenceInvalid, match="'evidence'"):
        check_report(report, fewer)
