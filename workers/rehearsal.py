"""A rehearsal: a report on a series of nobody, so that the first patient does not wait for libraries to wake up."""

import datetime

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage

from dicom_node.core import codes
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.finding import Axis, Finding, Outline
from dicom_node.core.uid import derived_uid
from workers.reporting.evidence import Evidence
from workers.reporting.passage import check_objects
from workers.reporting.report import build_report
from workers.volume import Volume

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
    check_objects(build_report(evidence, (_finding(volume),), labels), evidence)


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


def _finding(volume: Volume) -> Finding:
    corners = ((3.5, 3.5), (8.5, 3.5), (8.5, 8.5), (3.5, 8.5), (3.5, 3.5))
    centre = volume.to_patient(6, 6, 1)
    axis = Axis(length_mm=5.0, start=volume.to_patient(4, 6, 1), end=volume.to_patient(8, 6, 1))
    return Finding(
        number=1,
        concept=codes.NODULE,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=codes.LUNG,
        laterality=None,
        centre=centre,
        long_axis=axis,
        short_axis=axis,
        maximum_3d_diameter_mm=5.0,
        volume_mm3=25.0,
        mean_hu=0.0,
        deviation_hu=0.0,
        score=1.0,
        outline=Outline(sop_instance_uid=volume.sop_instance_uids[1], points=corners),
    )
