"""A patient's studies over time: a drawn chest that breathes, moves and grows nodules, read one after the other.

Only what the network gives is played: an algorithm that marks whatever is dense within the drawn lungs. Archive, index,
job, worker, reports and gate are real.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from scipy import ndimage

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.core import codes
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.finding import Finding
from dicom_node.core.form import BY_DEFAULT, Form
from dicom_node.core.screening import Screening
from dicom_node.core.uid import derived_uid
from dicom_node.settings import QueueSettings
from tests.factories import enhanced_ct, uid_for
from tests.reading_here import ReadingsHere
from tests.received_study import queued, receive
from tests.triage_room import IDENTIFICATION, WORKER, LastRun
from workers.algorithms import Prepared, Reading
from workers.heartbeat import Heartbeat
from workers.measurement import measure
from workers.preprocessing import GRID_MM, grid_shape
from workers.reading import Reader
from workers.readings import Limits
from workers.triage import Triage
from workers.volume import Region, Volume

NOW = 1_709_201_700.0
SPACING = (2.5, 2.0, 2.0)
SHAPE = (50, 56, 80)
#: Middle of the lungs from the volume's own middle, and their half axes: x, y, z in mm.
MIDDLES = {"Right": -42.0, "Left": 42.0}
AXES = np.array([28.0, 44.0, 50.0])


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A drawn nodule: its side, its place in shares of the lung's half axes, and its radius."""

    side: str
    place: tuple[float, float, float]
    radius_mm: float

    def grown(self, times: float) -> "Ball":
        """The same with a radius that many times as large."""
        return replace(self, radius_mm=self.radius_mm * times)


#: Three that lie well apart, and one that comes later.
FIRST = Ball(side="Right", place=(0.1, 0.2, 0.4), radius_mm=5.0)
SECOND = Ball(side="Left", place=(-0.2, 0.3, -0.3), radius_mm=6.0)
THIRD = Ball(side="Left", place=(0.1, -0.4, 0.5), radius_mm=5.5)
NEW = Ball(side="Right", place=(-0.1, -0.2, -0.4), radius_mm=5.0)


def chest(balls: Sequence[Ball], *, breath: float = 1.0, shift: tuple[float, float, float] = (0, 0, 0)) -> NDArray[Any]:
    """HU [k, j, i] of two lungs in a body that fills the field of view; `breath` stretches them along z."""
    k, j, i = np.indices(SHAPE).astype(np.float32)
    dz, dy, dx = SPACING
    own = [(place - (n - 1) / 2) * mm for place, n, mm in zip((i, j, k), SHAPE[::-1], (dx, dy, dz), strict=True)]
    x, y, z = (places - away for places, away in zip(own, shift, strict=True))
    axes = AXES * (1.0, 1.0, breath)
    hu = np.full(SHAPE, 40.0, dtype=np.float32)
    for middle in MIDDLES.values():
        hu[((x - middle) / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2 <= 1] = -850.0
    for ball in balls:
        px, py, pz = np.array(ball.place) * axes + (MIDDLES[ball.side], 0, 0)
        hu[(x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2 <= ball.radius_mm**2] = 30.0
    return hu


class Drawn:
    """Marks what is dense within the lungs, the largest first."""

    name = "lung_nodule"

    def reads(self, volume: Volume) -> None:
        """Reads everything."""

    def prepare(self, volume: Volume) -> Prepared:
        """The lungs on the network's grid, as the network's own preparation has them."""
        lungs = ndimage.binary_fill_holes(volume.voxels < -500)
        grid = grid_shape(volume.voxels.shape, volume.spacing_mm)
        nearest = [
            np.clip(np.round(np.arange(n) * mm / own).astype(int), 0, last - 1)
            for n, mm, own, last in zip(grid, GRID_MM, volume.spacing_mm, volume.voxels.shape, strict=True)
        ]
        return Prepared(voxels=volume.voxels, where=lungs[np.ix_(*nearest)])

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """One finding for each ball."""
        lungs = volume.voxels < -500
        parts, count = ndimage.label(ndimage.binary_fill_holes(lungs) & ~lungs)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        middle = volume.to_patient(*((n - 1) / 2 for n in volume.voxels.shape[::-1]))[0]
        findings = []
        for number, part in enumerate(np.argsort(-sizes, kind="stable") + 1, start=1):
            labels[parts == part] = number
            findings.append(self._finding(number, parts == part, volume, middle))
        return Reading(
            findings=tuple(findings), labels=labels, parameters=(), searched=(prepared or self.prepare(volume)).where
        )

    def _finding(self, number: int, inside: NDArray[np.bool_], volume: Volume, middle: float) -> Finding:
        whole = tuple(slice(0, n) for n in inside.shape)
        measured = measure(Region(box=whole, mask=inside), volume)  # type: ignore[arg-type]  # three axes
        return Finding(
            number=number,
            concept=codes.NODULE,
            category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
            site=codes.LUNG,
            laterality=codes.LEFT if measured.centre[0] > middle else codes.RIGHT,
            score=0.95 - 0.05 * number,
            **vars(measured),
        )


@dataclass
class Ward:
    """A worker over a real archive and index, to which studies come."""

    index: Index
    archive: Archive
    folder: Path
    algorithm: Drawn = field(default_factory=Drawn)
    identification: AlgorithmIdentification = IDENTIFICATION
    prior_years: float = 5.0
    #: What the route says of its examinations.
    screening: Screening = "no"
    forms: frozenset[Form] = BY_DEFAULT
    #: What writes a series: one multi-frame instance is received and read soonest.
    source: Callable[..., list[Path]] = enhanced_ct
    now: float = NOW

    def arrive(self, name: str, day: str, hu: NDArray[Any], **attributes: Any) -> str:
        """Receive a study of a day, and queue its job."""
        paths = self.source(self.folder / name, voxels=hu, spacing=SPACING, seed=name, StudyDate=day, **attributes)
        receive(self.index, self.archive, paths, at=self.now)
        study = str(uid_for(name, "study"))
        queued(self.index, at=self.now + 1, study=study, job_uid=derived_uid("job", name))
        self.now += 60
        return study

    def read(self) -> None:
        """Work off what waits."""
        reader = Reader(algorithm=self.algorithm, identification=self.identification, last_run=LastRun())
        readings = ReadingsHere(self.archive, {"lung_nodule": reader})
        limits = Limits(reading_seconds=600, silence_seconds=60)
        heartbeat = Heartbeat(
            self.index,
            WORKER,
            lease_seconds=30,
            limits=limits,
            pulse=lambda: readings.pulse,
            clock=lambda: self.now,
        )
        Triage(
            index=self.index,
            archive=self.archive,
            readings=readings,
            queue=QueueSettings(maximum_attempts=1),
            queues=("stat", "urgent", "routine"),
            heartbeat=heartbeat,
            worker=WORKER,
            forms=self.forms,
            prior_years=self.prior_years,
            screenings={"chest": self.screening},
            clock=lambda: self.now,
            rest=lambda _seconds: None,
        ).work_off()
        self.now += 60

    def study(self, name: str, day: str, balls: Sequence[Ball], *, breath: float = 1.0, **attributes: Any) -> str:
        """Receive and read a study; its Study Instance UID."""
        shift = attributes.pop("shift", (0.0, 0.0, 0.0))
        study = self.arrive(name, day, chest(balls, breath=breath, shift=shift), **attributes)
        self.read()
        return study

    def job(self, study: str) -> JobRow:
        """The study's job."""
        (row,) = self.index.jobs.of_study(study)
        return row

    def results(self, study: str) -> dict[str, Dataset]:
        """What was written of the study, by form."""
        rows = self.index.jobs.report_rows(self.job(study).job.job_uid)
        assert not any(row.held for row in rows), [row.held for row in rows]
        return {row.form: dcmread(BytesIO(self.archive.path_of(row.path).read_bytes())) for row in rows}

    def comment(self, study: str) -> str:
        """What its report says in words."""
        return next(
            str(item.TextValue)
            for item in _walk(self.results(study)["SR"])
            if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == codes.COMMENT.value
        )

    def tracked(self, study: str) -> dict[str, str]:
        """Name to Tracking Unique Identifier of the study's findings, as its segmentation has them."""
        return {str(s.TrackingID): str(s.TrackingUID) for s in self.results(study)["SEG"].SegmentSequence}


def _walk(item: Dataset) -> list[Dataset]:
    return [item, *(found for child in item.get("ContentSequence", []) for found in _walk(child))]
