"""A PACS that asks for a report in every form: all of it arrives, is kept, and is what it says."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from deploy.rig import RunningNode
from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import ENDS, PATIENCE_SECONDS, Site, by_modality, study_uid

FORMS = ("SEG", "SR", "LABELMAP", "LUNG", "KOS", "GSPS", "SC", "PDF")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def folder(site: Site, part_of_phantom: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Orthanc holds of a study beside its report's source, as files."""
    folder = tmp_path_factory.mktemp("forms")
    peer = replace(site.pacs.peer, forms=FORMS)
    node = RunningNode(folder / "node", peer, further_settings="[completeness]\nquiet_seconds_when_whole = 1.0\n")
    series = part_of_phantom()
    try:
        node.start()
        node.send(series)
        row = node.wait_for(study_uid(series), ENDS, PATIENCE_SECONDS)
    finally:
        node.stop()
    assert row.state is StudyState.DELIVERED, row.reason
    found = folder / "found"
    found.mkdir()
    for number, data in enumerate(site.pacs.files(study_uid(series))):
        (found / f"{number}.dcm").write_bytes(data)
    return found


def test_every_form_arrives_and_names_the_algorithm(folder: Path) -> None:
    objects = by_modality([dcmread(path) for path in sorted(folder.iterdir())])
    (report,) = objects["SR"]
    (measurements,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    assert len(measurements.ContentSequence) == 4, "two nodules are in this part, each by its volume and its outline"
    # Segmentation, label map and lungs.
    assert len(objects["SEG"]) == 3
    assert [len(objects[modality]) for modality in ("KO", "PR", "DOC")] == [1, 1, 1]
    assert "OT" in objects, "Secondary Capture"
    for ds in (ds for modality in objects.values() for ds in modality):
        assert "not for diagnosis" in ds.SeriesDescription
        assert any(item.get("DeviceUID") for item in ds.ContributingEquipmentSequence)


def test_the_pictures_are_colour_and_show_something(folder: Path) -> None:
    pictures = [ds for ds in map(dcmread, sorted(folder.iterdir())) if ds.SOPClassUID == SECONDARY_CAPTURE]
    assert len(pictures) >= 2, "a page of text, and a picture of each key slice"
    for ds in pictures:
        pixels = ds.pixel_array
        assert pixels.shape[-1] == 3
        assert np.unique(pixels.reshape(-1, 3), axis=0).shape[0] > 20


def test_the_document_is_a_pdf_whose_text_can_be_read(
    folder: Path, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    (ds,) = by_modality([dcmread(path) for path in folder.iterdir()])["DOC"]
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(ds.EncapsulatedDocument)
    command = [str(program("pdftotext")), str(pdf), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "not for diagnosis" in text
    assert "Nodule 1" in text


def test_dcmtk_reads_every_object(folder: Path) -> None:
    for path in folder.iterdir():
        dumped = subprocess.run(["/usr/bin/dcmdump", str(path)], capture_output=True, text=True, check=False)
        assert (dumped.returncode, dumped.stderr) == (0, ""), path.name
        assert dcmread(BytesIO(path.read_bytes())).SOPInstanceUID
