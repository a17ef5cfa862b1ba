"""Set how a bundle weighs its second look, and from which score on it reports: on semi-synthetic validation data alone.

`python -m deploy.operating_point --bundle DIR [--write]`: volumes with shapes of patients, generated thoraces and slabs
of real lungs that are for validation go through the network as a worker runs it. Neither the test set nor a real scan
is looked at.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from training.bundle import seal
from training.dataset import load
from training.evaluation.drawn_scans import DrawnScan, DrawnScans, cases
from training.evaluation.judged import SCAN_ML, as_volume
from training.experiment import CACHE, DATA
from training.metrics.detection import MISSED, Matched, froc
from training.phantom_backgrounds import VALIDATION_SEEDS
from workers.algorithms.lung_nodule import LungNodule, second_look
from workers.bundles import CONFIGURATION, SHIPPED_BUNDLES, WEIGHTS, Bundle, load_bundle
from workers.inference import Inference
from workers.preprocessing import GRID_MM, Candidate, candidates
from workers.second_look import Weights, centre_of, crop, logit

Array = NDArray[np.float64]

SEED = 11
#: Voxels [k, j, i] of what a second look is shown.
SHOWN = (24, 32, 32)
#: A report threshold is no lower.
_LOWEST = 0.05
#: Voxels around a nodule in which a mark is neither right nor wrong, unless its middle lies in the nodule.
_NEAR = 3
#: Weights are fitted with more of them than this alone.
_FEWEST = 10


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
            best = [MISSED] * len(diameters)
            for n in own[self.nodules[own] >= 0]:
                best[self.nodules[n]] = max(best[self.nodules[n]], float(scores[n]))
            rows.append(
                Matched(
                    patient=str(volume),
                    nodule_scores=tuple(b for b, d in zip(best, diameters, strict=True) if d >= least_mm),
                    false_scores=tuple(float(score) for score in scores[own[self.nodules[own] < 0]]),
                    share=self.shares[volume],
                )
            )
        return rows


def validated(bundle: Bundle, volumes: Iterable[DrawnScan], threshold: float, threads: int) -> Validation:
    """Look at the volumes as a worker does, up to the candidates."""
    inference = Inference(bundle, threads=threads)
    algorithm = LungNodule(bundle, inference)
    rows: list[tuple[int, int, float]] = []
    crops, diameters, shares = [], [], []
    for number, drawn in enumerate(volumes):
        prepared = algorithm.prepare(as_volume(drawn.hu))
        probability = inference.probability(prepared.voxels, prepared.where)
        for candidate in candidates(probability, prepared.where, threshold):
            nodule = _nodule_at(drawn, candidate)
            if nodule is not None and drawn.judged[centre_of(candidate)]:
                rows.append((number, nodule, candidate.score))
                crops.append(crop(prepared.voxels, centre_of(candidate), SHOWN))
        diameters.append(tuple(nodule.diameter_mm for nodule in drawn.nodules))
        shares.append(float((prepared.where & drawn.judged).sum() * np.prod(GRID_MM) / 1000 / SCAN_ML))
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
            at = np.array(place) - start
            if ((at >= 0) & (at < mask.shape)).all():
                near = True
                if mask[tuple(at)]:
                    return number
    return None if near else -1


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


def weighed(first: Array, second: Array, truth: NDArray[np.bool_]) -> Weights | None:
    """How both opinions predict best what is a nodule; None where too little was seen to say."""
    if min(truth.sum(), (~truth).sum()) < _FEWEST:
        return None
    fitted = LogisticRegression(C=1.0).fit(np.stack([logit(first), logit(second)], axis=1), truth)
    return Weights(
        first=round(float(fitted.coef_[0, 0]), 4),
        second=round(float(fitted.coef_[0, 1]), 4),
        constant=round(float(fitted.intercept_[0]), 4),
    )


def report_threshold(seen: Validation, scores: Array, wanted: float, lowest: float) -> float:
    """The lowest threshold, in hundredths, with no more false positives a scan than wanted."""
    false = np.array([score for scan in seen.matched(scores) for score in scan.false_scores])
    for step in np.round(np.arange(lowest, 1.0, 0.01), 2):
        if (false >= step).sum() / sum(seen.shares) <= wanted:
            return float(step)
    return 0.99


def said(seen: Validation, scores: Array) -> str:
    """How well scores find the nodules, in words."""
    curve, large = (froc(seen.matched(scores, least)) for least in (0.0, 6.0))
    at = f"sensitivity at one false positive a scan {curve.sensitivity_at(1.0):.3f}"
    return f"CPM {curve.cpm:.3f}, {at}, of nodules of 6 mm and more {large.sensitivity_at(1.0):.3f}"


def _seen(bundle: Bundle, data: Path, with_nodules: int, threads: int) -> Validation:
    scans = DrawnScans(*load(data, CACHE), VALIDATION_SEEDS, CACHE, SEED, use="validation")
    threshold = bundle.number("postprocessing", "candidate_threshold")
    weights = hashlib.sha256((bundle.folder / WEIGHTS).read_bytes()).hexdigest()[:12]
    path = scans.folder / f"candidates-{weights}-{threshold:g}-{with_nodules}.npz"
    if not path.exists():
        chosen = cases(with_nodules, -(-with_nodules // 6))
        volumes = (scans(case) for case in tqdm(chosen, desc="volumes"))
        kept(validated(bundle, volumes, threshold, threads), path)
    return seen_before(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.operating_point", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLES / LungNodule.name)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cases", type=int, default=40, help="volumes with nodules; a sixth as many without")
    parser.add_argument("--false-positives", type=float, default=1.0, help="a scan, at most, on validation data")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write what was found into the bundle")
    chosen = parser.parse_args(arguments)
    bundle = load_bundle(chosen.bundle)
    seen = _seen(bundle, chosen.data, chosen.cases, chosen.threads)
    lowest, look = bundle.number("postprocessing", "candidate_threshold"), second_look(bundle)
    ways, weights = {"the search alone": seen.first}, None
    if look is not None:
        second = look.opinions(seen.crops)
        weights = weighed(seen.first, second, seen.nodules >= 0)
        ways["the second look alone"] = second
    if look is not None and weights is not None:
        ways["both"], lowest = weights(seen.first, second), _LOWEST
    for name, scores in ways.items():
        print(f"{name}: {said(seen, scores)}")
    threshold = report_threshold(seen, list(ways.values())[-1], chosen.false_positives, lowest)
    nodules = sum(len(each) for each in seen.diameters)
    print(f"{len(seen.shares)} volumes, {nodules} nodules, {len(seen.first)} candidates; {weights}")
    print(f"report threshold {threshold:.2f}, for at most {chosen.false_positives:g} false positives a scan")
    if chosen.write:
        write(chosen.bundle, weights, threshold)
    return 0


def write(bundle: Path, weights: Weights | None, threshold: float) -> None:
    """Put weights and threshold into a bundle, and seal it anew."""
    path = bundle / CONFIGURATION
    settings = json.loads(path.read_text())
    settings["postprocessing"]["report_threshold"] = threshold
    if weights is not None:
        settings["second_look"]["score"] = {
            "first": weights.first, "second": weights.second, "constant": weights.constant,
        }  # fmt: skip
    path.write_text(json.dumps(settings, indent=2) + "\n")
    seal(bundle)


if __name__ == "__main__":
    raise SystemExit(main())
