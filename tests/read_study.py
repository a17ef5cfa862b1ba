"""A drawn chest in a real archive and index, read as if a nodule was at every centre, with its real SR and SEG."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.job_rows import ReportRow
from dicom_node.core.form import Form
from dicom_node.core.uid import derived_uid
from tests.received_study import queued, receive
from tests.unit.workers.reporting.conftest import Reading, reading_of
from workers.reporting.encoding import as_file

CENTRES = ((8, 60, 40), (14, 66, 92))
_FORMS = {"SEG": Form.SEG, "SR": Form.SR}


def chest(slices: int = 20, size: int = 128) -> NDArray[np.float32]:
    """Voxels [k, j, i] in HU: a body with two lungs, a spine, and a ball in each lung."""
    _, j, i = np.indices((slices, size, size)).astype(np.float32)
    voxels = np.full((slices, size, size), -1000.0, dtype=np.float32)
    voxels[((i - 64) / 58) ** 2 + ((j - 64) / 44) ** 2 < 1] = 40.0
    for middle in (40, 90):
        voxels[((i - middle) / 20) ** 2 + ((j - 60) / 32) ** 2 < 1] = -860.0
    voxels[((i - 64) / 9) ** 2 + ((j - 92) / 9) ** 2 < 1] = 400.0
    rough = np.random.default_rng(1).normal(0, 25, voxels.shape)
    k, j, i = np.indices(voxels.shape)
    for ck, cj, ci in CENTRES:
        voxels[((k - ck) * 2.5) ** 2 + ((j - cj) * 0.8) ** 2 + ((i - ci) * 0.7) ** 2 <= 16] = 30.0
    return voxels + rough.astype(np.float32)


def read_study(
    index: Index, archive: Archive, folder: Path, *, at: float, seed: str = "ct series", **series: Any
) -> str:
    """Receive the study, read it, keep its report, and return its Study Instance UID."""
    reading = reading_of(folder, CENTRES, voxels=chest(), seed=seed, **series)
    receive(index, archive, sorted(folder.glob("*.dcm")), at=at)
    study = str(reading.evidence.header.StudyInstanceUID)
    job = queued(index, at=at + 1, study=study, job_uid=derived_uid("job", seed))
    claimed = index.jobs.claim(job.job_uid, worker="gpu1:1", lease_seconds=30, at=at + 2)
    assert claimed is not None
    index.jobs.report(claimed[1], _rows(archive, reading), summary=_summary(reading), at=at + 9)
    return study


def _rows(archive: Archive, reading: Reading) -> list[ReportRow]:
    rows = []
    report = reading.report()
    for dataset in report.datasets:
        data = as_file(dataset)
        uids = {"study_uid": str(dataset.StudyInstanceUID), "series_uid": str(dataset.SeriesInstanceUID)}
        path = archive.store_result(**uids, sop_uid=str(dataset.SOPInstanceUID), data=data)
        rows.append(
            ReportRow(
                sop_instance_uid=str(dataset.SOPInstanceUID),
                series_instance_uid=str(dataset.SeriesInstanceUID),
                sop_class_uid=str(dataset.SOPClassUID),
                path=path,
                sha256="0" * 64,
                form=_FORMS[dataset.Modality].value,
            )
        )
    return rows


def _summary(reading: Reading) -> dict[str, Any]:
    # As a network's algorithm tells it of the first finding.
    told = {1: {"explanation": "Nodule 1: score 0.91; without what is outlined 0.12."}}
    rows: list[dict[str, Any]] = [
        {
            **told.get(finding.number, {}),
            "number": finding.number,
            "finding": finding.concept.meaning,
            "site": finding.site.meaning,
            "laterality": finding.laterality.meaning if finding.laterality else "",
            "centre_mm": [round(value, 1) for value in finding.centre],
            "long_axis_mm": round(finding.long_axis.length_mm, 1),
            "short_axis_mm": round(finding.short_axis.length_mm, 1),
            "volume_mm3": round(finding.volume_mm3),
            "mean_hu": round(finding.mean_hu),
            "score": round(finding.score, 3),
        }
        for finding in reading.findings
    ]
    return {
        "result": "2 nodules found, the largest 10.0 mm",
        "findings": len(rows),
        "priority": "ACR Category 3 Actionable Finding",
        "algorithm": "lung_nodule 0.1.0",
        "slices": 20,
        "inference_seconds": 6.2,
        "steps": {"load": 0.8, "network": 6.2, "report": 0.7},
        "rows": rows,
    }
