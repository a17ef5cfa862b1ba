"""Images that come after the report: it is replaced by one that says so, in the same series of the PACS."""

import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PATIENCE_SECONDS, Site, by_modality, study_uid

LATE_SLICES = 3


def test_slices_that_come_after_the_report_lead_to_a_new_one_that_names_the_old(
    site: Site, part_of_phantom: Callable[..., Path], tmp_path: Path
) -> None:
    series = sorted(part_of_phantom().iterdir())
    early, late = tmp_path / "early", tmp_path / "late"
    for folder, files in ((early, series[:-LATE_SLICES]), (late, series[-LATE_SLICES:])):
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
    uid = site.send_with_dcmtk(early)
    assert site.end_of(uid).state is StudyState.DELIVERED
    (first,) = reports(site, uid)

    assert site.send_with_dcmtk(late) == study_uid(early)
    site.node.wait_for(uid, (StudyState.RECEIVING, StudyState.COMPLETE, StudyState.READING), PATIENCE_SECONDS)
    assert site.end_of(uid).state is StudyState.DELIVERED
    # Orthanc's order is its own.
    found = sorted(reports(site, uid), key=lambda report: int(report.InstanceNumber))
    assert [str(found[0].SOPInstanceUID)] == [str(first.SOPInstanceUID)]
    (second,) = found[1:]
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    (replaced,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert replaced.ReferencedSOPInstanceUID == first.SOPInstanceUID
    path = tmp_path / "second.dcm"
    second.save_as(path)
    shown = subprocess.run(["/usr/bin/dsrdump", "+Pl", str(path)], capture_output=True, text=True, check=True).stdout
    assert "replaces an earlier one" in shown
    history = [row.cause for row in site.node.index.studies.history(uid)]
    assert any("late instance" in cause for cause in history)


def reports(site: Site, uid: str) -> list[Dataset]:
    """The structured reports of a study that the PACS holds."""
    return by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)]).get("SR", [])
