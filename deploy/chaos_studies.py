"""The studies of a chaos run: a few small series, drawn once, written again for each study under UIDs of its own.

A chest of a few voxels: as large as the algorithm asks for and as small as its windows allow, so that hundreds of
studies are read in minutes. Drawn, from no patient; good for moving data about, not for judging findings.
"""

import random
import uuid
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from deploy.chaos_plan import Kind, PlannedStudy
from training.ct_series import Patient, Scan, uid_of, write_ct_series

#: 22 slices, 4.4 mm apart, of 64 x 64 pixels of 2.5 mm: one window high, two wide on the network's grid.
SHAPE = (22, 64, 64)
SPACING_MM = (4.4, 2.5, 2.5)
#: Two slices fewer still make a series that is read.
LATE_SLICES = 2
#: Slices of a second series: too few, and of a kind, that no route wants.
SECOND_SERIES_SLICES = 3
#: Half axes of a lung and its middle beside the midline, x and y in mm.
_LUNG_MM, _LUNG_MIDDLE_MM = (30.0, 38.0), 36.0
_NODULES = (2, 0, 1)
_NODULE_RADIUS_MM = 6.0

_CHEST = Scan(study_description="CHAOS CHEST", series_description="CHEST 4.4 LUNG", slice_thickness_mm=SPACING_MM[0])
_BRAIN = Scan(modality="MR", body_part="BRAIN", study_description="CHAOS BRAIN", series_description="BRAIN 4.4")


@dataclass(frozen=True, kw_only=True)
class Templates:
    """What studies are copied from: the slices of each series, in the order of their Instance Numbers."""

    chests: tuple[tuple[Dataset, ...], ...]
    brain: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenStudy:
    """A study's files, ready to be sent."""

    planned: PlannedStudy
    study_instance_uid: str
    #: In the order in which they are sent; a file may be in it more than once.
    files: tuple[Path, ...]
    #: What is sent only after the report, or while the study is read.
    late: tuple[Path, ...]
    #: Evidence: the SOP Instance UIDs that a report must be about.
    evidence: frozenset[str]


def draw_templates(folder: Path) -> Templates:
    """Draw every series, and keep its files in the folder."""
    chests = []
    for number, nodules in enumerate(_NODULES):
        paths = write_ct_series(
            small_chest(number, nodules),
            spacing_mm=SPACING_MM,
            folder=folder / f"chest-{nodules}-nodules",
            patient=Patient(patient_id="CHAOS", patient_name="CHAOS^CHEST"),
            scan=_CHEST,
            uid_seed=f"chest {number}",
        )
        chests.append(tuple(dcmread(path) for path in paths))
    voxels = np.random.default_rng(7).integers(0, 900, SHAPE, dtype=np.int16)
    brain = write_ct_series(voxels, spacing_mm=SPACING_MM, folder=folder / "brain", scan=_BRAIN, uid_seed="brain")
    return Templates(chests=tuple(chests), brain=tuple(dcmread(path) for path in brain))


def small_chest(seed: int, nodules: int) -> NDArray[np.int16]:
    """Soft tissue, two lungs and round nodules in them, in HU [k, j, i]."""
    rng = np.random.default_rng(seed)
    k, j, i = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True))
    z, y, x = k[:, None, None], j[None, :, None], i[None, None, :]
    hu = np.full(SHAPE, 40.0)
    for side in (-1, 1):
        lung = ((x - side * _LUNG_MIDDLE_MM) / _LUNG_MM[0]) ** 2 + (y / _LUNG_MM[1]) ** 2 < 1
        hu[np.broadcast_to(lung, SHAPE)] = -860.0
    for number in range(nodules):
        side = (-1) ** number
        centre = (float(rng.uniform(-25, 25)), float(rng.uniform(-15, 15)), side * _LUNG_MIDDLE_MM)
        away = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        hu[away < _NODULE_RADIUS_MM**2] = 30.0
    return np.rint(hu + rng.normal(0, 15, SHAPE)).astype(np.int16)


def write_study(planned: PlannedStudy, templates: Templates, folder: Path) -> WrittenStudy:
    """Write a planned study's files into a folder of its own; everything about them follows from the plan."""
    rng = random.Random(planned.seed)
    root = uuid.UUID(planned.uid_seed)
    source = templates.brain if planned.kind is Kind.MR else templates.chests[planned.template]
    slices = [_relabelled(ds, root, planned) for ds in source]
    if planned.kind is Kind.GAP:
        del slices[rng.randrange(5, len(slices) - 5)]
    folder.mkdir(parents=True)
    paths = [_written(ds, folder / f"{int(ds.InstanceNumber):05d}.dcm") for ds in slices]
    late = tuple(paths[-LATE_SLICES:]) if planned.kind in (Kind.LATE, Kind.LATE_READING) else ()
    files = paths[: len(paths) - len(late)]
    if planned.kind is Kind.SECOND_SERIES:
        overviews = (_overview(ds, root) for ds in slices[:SECOND_SERIES_SLICES])
        late = tuple(_written(ds, folder / f"overview-{int(ds.InstanceNumber):05d}.dcm") for ds in overviews)
    rng.shuffle(files)
    if planned.kind is Kind.DUPLICATES:
        files += rng.choices(files, k=6)
    if planned.kind is Kind.CONFLICT:
        files.append(_written(_altered(slices[rng.randrange(len(slices))]), folder / "conflict.dcm"))
    return WrittenStudy(
        planned=planned,
        study_instance_uid=str(slices[0].StudyInstanceUID),
        files=tuple(files),
        late=late,
        evidence=frozenset(str(ds.SOPInstanceUID) for ds in slices),
    )


def _relabelled(template: Dataset, root: uuid.UUID, planned: PlannedStudy) -> Dataset:
    """The slice under UIDs of this study."""
    # A Dataset of a Dataset shares its elements, and assigning to one would change the template.
    ds = deepcopy(template)
    ds.StudyInstanceUID = uid_of(root, "study")
    ds.SeriesInstanceUID = uid_of(root, "series")
    ds.FrameOfReferenceUID = uid_of(root, "frame of reference")
    ds.SOPInstanceUID = uid_of(root, f"instance {ds.InstanceNumber}")
    ds.AccessionNumber = f"CHAOS{planned.number:05d}"
    if planned.kind is Kind.STAT:
        ds.RequestedProcedurePriority = "STAT"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _overview(ds: Dataset, root: uuid.UUID) -> Dataset:
    """The same slice in a further series, which says that it is a localizer."""
    overview = deepcopy(ds)
    overview.SeriesInstanceUID = uid_of(root, "second series")
    overview.SeriesNumber, overview.SeriesDescription = 1, "CHAOS OVERVIEW"
    overview.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    overview.SOPInstanceUID = uid_of(root, f"second series {ds.InstanceNumber}")
    overview.file_meta.MediaStorageSOPInstanceUID = overview.SOPInstanceUID
    return overview


def _altered(ds: Dataset) -> Dataset:
    """Other pixels under the same UID."""
    altered = deepcopy(ds)
    altered.PixelData = bytes(reversed(ds.PixelData))
    return altered


def _written(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def template_count() -> int:
    """How many chests there are to copy from."""
    return len(_NODULES)
