"""A rehearsal: a report on a series of nobody, so that the first patient does not wait for libraries to wake up."""

import datetime

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage

from dicom_node.core import codes
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.finding import Finding
from dicom_node.core.uid import derived_uid
from workers.measurement import measure
from workers.reporting.evidence import Evidence
from workers.reporting.passage import check_objects
from workers.reporting.report import build_report
from workers.volume import Region, Volume

_SLICES, _SIDE = 3, 16


def rehearse() -> None:
    """Write a report with one finding, and check it; nothing is kept."""
    volume = _volume()
    labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
    labels[1, 4:9, 4:9] = 1
    algorithm = AlgorithmIdentification(
        name="rehearsal", version="0", manufacturer="none", device_uid=derived_uid("rehearsal"), checksum="0" * 64
    )
    evidence = Evidence(
        volume=volume,
        algorithm=algorithm,
        evidence="0" * 64,
        completed_at=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
    )
    check_objects(build_report(evidence, (_finding(volume, labels),), labels), evidence)


def _volume() -> Volume:
    study, series, frame = (derived_uid("rehearsal", part) for part in ("study", "series", "frame of reference"))
    headers = []
    for k in range(_SLICES):
        ds = pydicom.Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, derived_uid("rehearsal", str(k))
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.PatientID, ds.PatientName = "CT", "", ""
        ds.Rows = ds.Columns = _SIDE
        ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 1.0
        ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        ds.ImagePositionPatient = [0.0, 0.0, float(k)]
        headers.append(ds)
    voxels = np.zeros((_SLICES, _SIDE, _SIDE), dtype=np.float32)
    return Volume(voxels=voxels, affine=np.eye(4), spacing_mm=(1.0, 1.0, 1.0), headers=tuple(headers))


def _finding(volume: Volume, labels: NDArray[np.uint8]) -> Finding:
    whole = tuple(slice(0, size) for size in labels.shape)
    return Finding(
        number=1,
        concept=codes.NODULE,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=codes.LUNG,
        laterality=None,
        score=1.0,
        **vars(measure(Region(box=(whole[0], whole[1], whole[2]), mask=labels > 0), volume)),
    )
