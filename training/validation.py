"""What the searching network of a detector marks in validation volumes, each mark with what a second look is shown."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluation.drawn_scans import DrawnScan
from training.evaluation.judged import SCAN_ML, as_series, searched_of
from training.metrics.detection import MISSED, Matched
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import Bundle
from workers.inference import Inference
from workers.preprocessing import GRID_MM, Candidate, candidates
from workers.second_look import centre_of, crop

Array = NDArray[np.float64]

#: Voxels [k, j, i] of what a second look is shown.
SHOWN = (24, 32, 32)
#: Voxels around a nodule in which a mark is neither right nor wrong, unless its middle lies in the nodule.
_NEAR = 3


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Every candidate that was seen on validation data."""

    #: Of each candidate: its volume, which of the volume's nodules it is (-1: none), and the searching network's score.
    volumes: NDArray[np.int_]
    nodules: NDArray[np.int_]
    first: Array
    #: [n, k, j, i], 0..1: what a second look is shown.
    crops: NDArray[np.float32]
    #: By volume: the diameters of its nodules, and how much of a scan's lung it holds.
    diameters: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]

    def matched(self, scores: Array, least_mm: float = 0.0) -> list[Matched]:
        """The volumes counted, with a score for each candidate."""
        rows = []
        for volume, diameters in enumerate(self.diameters):
            own = np.flatnonzero(self.volumes == volume)
            best = self._best(volume, scores)
            rows.append(
                Matched(
                    patient=str(volume),
                    nodule_scores=tuple(b for b, d in zip(best, diameters, strict=True) if d >= least_mm),
                    false_scores=tuple(float(score) for score in scores[own[self.nodules[own] < 0]]),
                    share=self.shares[volume],
                )
            )
        return rows

    def best(self, scores: Array, least_mm: float, below_mm: float) -> Array:
        """The best score on each nodule of a size, MISSED where no candidate is on it."""
        of_size = [
            score
            for volume, diameters in enumerate(self.diameters)
            for score, diameter in zip(self._best(volume, scores), diameters, strict=True)
            if least_mm <= diameter < below_mm
        ]
        return np.array(of_size, dtype=float)

    def _best(self, volume: int, scores: Array) -> list[float]:
        best = [MISSED] * len(self.diameters[volume])
        for n in np.flatnonzero((self.volumes == volume) & (self.nodules >= 0)):
            best[self.nodules[n]] = max(best[self.nodules[n]], float(scores[n]))
        return best


def validated(bundle: Bundle, volumes: Iterable[DrawnScan], threshold: float, threads: int) -> Validation:
    """Look at the volumes as a worker does, up to the candidates."""
    inference = Inference(bundle, threads=threads)
    algorithm = LungNodule(bundle, inference)
    rows: list[tuple[int, int, float]] = []
    crops, diameters, shares = [], [], []
    for number, drawn in enumerate(volumes):
        prepared = algorithm.prepare(as_series(drawn.slices))
        probability = inference.probability(prepared.voxels, prepared.where)
        for candidate in candidates(probability, prepared.where, threshold):
            nodule = _nodule_at(drawn, candidate)
            if nodule is not None and (nodule >= 0 or drawn.judged[_place(drawn, centre_of(candidate))]):
                rows.append((number, nodule, candidate.score))
                crops.append(crop(prepared.voxels, centre_of(candidate), SHOWN))
        diameters.append(tuple(nodule.diameter_mm for nodule in drawn.nodules))
        shares.append(
            float((searched_of(drawn, prepared.where) & drawn.judged).sum() * np.prod(GRID_MM) / 1000 / SCAN_ML)
        )
    return Validation(
        volumes=np.array([row[0] for row in rows], dtype=int),
        nodules=np.array([row[1] for row in rows], dtype=int),
        first=np.array([row[2] for row in rows], dtype=float),
        crops=np.array(crops, dtype=np.float32).reshape(-1, *SHOWN),
        diameters=tuple(diameters),
        shares=tuple(shares),
    )


def _nodule_at(drawn: DrawnScan, candidate: Candidate) -> int | None:
    """The nodule that a candidate's middle or peak lies in, -1 where none is near, None where one is near."""
    near = False
    for number, nodule in enumerate(drawn.nodules):
        mask = np.pad(nodule.region.mask, _NEAR)
        start = np.array([part.start for part in nodule.region.box]) - _NEAR
        for place in (centre_of(candidate), candidate.peak):
            at = np.array(_place(drawn, place)) - start
            if ((at >= 0) & (at < mask.shape)).all():
                near = True
                if mask[tuple(at)]:
                    return number
    return None if near else -1


def _place(drawn: DrawnScan, voxel: tuple[int, int, int]) -> tuple[int, int, int]:
    """A voxel of the algorithm's own grid, which begins at the first slice, on the grid of the truth."""
    level = round(voxel[0] + drawn.slices.first)
    return min(max(level, 0), len(drawn.judged) - 1), voxel[1], voxel[2]


def kept(seen: Validation, path: Path) -> None:
    """Keep what was seen: the searching network takes minutes, and a second look is trained after it."""
    arrays = {name: getattr(seen, name) for name in ("volumes", "nodules", "first", "crops")}
    said = json.dumps({"diameters": seen.diameters, "shares": seen.shares})
    np.savez_compressed(path, said=np.array(said), **arrays)


def seen_before(path: Path) -> Validation:
    """What `kept` wrote."""
    with np.load(path) as arrays:
        said = json.loads(str(arrays["said"]))
        return Validation(
            volumes=arrays["volumes"],
            nodules=arrays["nodules"],
            first=arrays["first"],
            crops=arrays["crops"],
            diameters=tuple(tuple(each) for each in said["diameters"]),
            shares=tuple(said["shares"]),
        )
