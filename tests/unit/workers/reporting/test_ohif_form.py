"""The form of a structured report that OHIF draws, lists and lets its reader change."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.form import Form
from tests.factories import HEADFIRST_SUPINE, OBLIQUE
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from tests.unit.workers.reporting.test_structured_report import child, groups_of, name_of, value_of, walk
from workers.reporting.forms import Part
from workers.reporting.gate import check_report
from workers.reporting.measurement_group import pixel_of
from workers.reporting.report import Report, build_report


@pytest.fixture(scope="module")
def both(reading: Reading) -> Report:
    """A report in both forms."""
    return build_report(reading.evidence, reading.findings, reading.labels, forms={Form.SEG, Form.SR, Form.SR_OHIF})


@pytest.fixture(scope="module")
def ohif(both: Report, reading: Reading) -> Dataset:
    """The structured report for OHIF, read back from its file."""
    files = dict(zip(both.objects, check_report(both, reading.evidence), strict=True))
    return dcmread(BytesIO(files[Part(Form.SR_OHIF)]))


def test_both_forms_are_objects_of_their_own_on_the_same_segmentation(both: Report) -> None:
    assert list(both.objects) == [Part(Form.SEG), Part(Form.SR), Part(Form.SR_OHIF)]
    portable, ohif = both.objects[Part(Form.SR)], both.objects[Part(Form.SR_OHIF)]
    assert portable.SOPInstanceUID != ohif.SOPInstanceUID
    assert portable.SeriesInstanceUID != ohif.SeriesInstanceUID
    assert {
        uid
        for item in walk(ohif)
        for uid in [item.get("ReferencedSOPSequence", [{}])[0].get("ReferencedSOPInstanceUID")]
    } >= {both.objects[Part(Form.SEG)].SOPInstanceUID}


def test_of_each_finding_the_axes_come_first_and_then_everything_else(reading: Reading, ohif: Dataset) -> None:
    templates = [item.ContentTemplateSequence[0].TemplateIdentifier for item in walk(ohif) if name_of(item) == "125007"]
    assert templates == ["1501", "1411"] * len(reading.findings)
    for axes, numbers in zip(groups_of(ohif, "1501"), groups_of(ohif, "1411"), strict=True):
        assert value_of(child(axes, "112039")) == "Cornerstone3DTools@^0.1.0:Bidirectional"
        assert value_of(child(axes, "112040")) == value_of(child(numbers, "112040"))


def test_axes_are_spelt_as_ohif_spells_them_and_have_no_child_but_their_line(ohif: Dataset) -> None:
    for group in groups_of(ohif, "1501"):
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert [item.ConceptNameCodeSequence[0].CodeMeaning for item in numbers] == ["Long Axis", "Short Axis"]
        for item in numbers:
            (line,) = item.ContentSequence
            assert (line.ValueType, line.GraphicType, len(line.GraphicData)) == ("SCOORD", "POLYLINE", 4)
            assert line.ContentSequence[0].ValueType == "IMAGE"


def test_a_finding_is_called_by_name_and_as_the_work_of_an_algorithm(ohif: Dataset) -> None:
    labels = [value_of(child(group, "121106")) for group in groups_of(ohif, "1501")]
    assert labels == ["Nodule 1 (AI)", "Nodule 2 (AI)", "Nodule 3 (AI)"]


@pytest.mark.parametrize("oblique", [False, True])
def test_a_place_of_the_patient_is_found_in_its_image(tmp_path: Path, oblique: bool) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], directions=OBLIQUE if oblique else HEADFIRST_SUPINE)
    volume, (k, j, i) = reading.evidence.volume, CENTRES[0]
    column, row = pixel_of(volume.to_patient(i + 2.25, j - 1.5, k), volume.headers[k])
    np.testing.assert_allclose((column, row), (i + 2.25 + 0.5, j - 1.5 + 0.5), atol=1e-6)


def test_without_findings_there_is_nothing_to_draw_and_the_summary_says_so(reading: Reading) -> None:
    report = build_report(reading.evidence, (), reading.labels * 0, forms={Form.SR, Form.SR_OHIF})
    check_report(report, reading.evidence)
    for written in report.datasets:
        assert not [item for item in walk(written) if name_of(item) in ("125007", "126010")]
        assert value_of(next(item for item in walk(written) if name_of(item) == "111017")) == "111241"
