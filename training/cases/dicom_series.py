"""The series of a folder of DICOM files, and a CT series as a volume in the axes of a `Case`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from dicom_node.core.errors import TriageError
from training.cases.case import Case, DatasetInvalid, oriented, patient_hash
from workers.volume import Volume, load_volume

_SERIES = ("Modality", "PatientID", "SeriesInstanceUID", "SOPInstanceUID")


def series_in(folder: Path) -> Mapping[str, list[tuple[Path, pydicom.Dataset]]]:
    """Files and short headers by Series Instance UID; what is no DICOM file is passed over."""
    found: dict[str, list[tuple[Path, pydicom.Dataset]]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in (".xml", ".json", ".csv", ".txt"):
            continue
        try:
            header = pydicom.dcmread(path, specific_tags=list(_SERIES))
        except (InvalidDicomError, OSError):
            continue
        if "SeriesInstanceUID" in header:
            found[str(header.SeriesInstanceUID)].append((path, header))
    return found


def read_series(paths: Sequence[Path], patient: str) -> tuple[Case, Volume]:
    """A CT series as a case without findings, and as the node reads it."""
    try:
        volume = load_volume(paths)
    except TriageError as error:
        raise DatasetInvalid(f"{paths[0].parent}: {error}") from error
    voxels, affine = oriented(volume.voxels, volume.affine, paths[0].parent)
    case = Case(
        name=volume.series_instance_uid,
        patient=patient_hash(patient or volume.study_instance_uid),
        voxels=voxels.astype(np.float32, copy=False),
        affine=affine,
        findings=(),
    )
    return case, volume
