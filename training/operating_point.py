"""Set how a bundle weighs its second look, and from which score on it reports: on semi-synthetic validation data alone.

`python -m training.operating_point --bundle DIR [--write]`: volumes with shapes of patients, generated thoraces and
slabs of real lungs that are for validation go through the network as a worker runs it. Neither the test set nor a real
scan is looked at. With `--weighing` the weights of both opinions are fitted on other volumes than those that the
threshold is put on.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from training import validation
from training.bundle import seal
from training.dataset import load
from training.edition import edition
from training.evaluation import judged
from training.evaluation.drawn_scans import Case, DrawnScan, DrawnScans, cases
from training.experiment import CACHE, DATA
from training.metrics.detection import froc
from training.phantom_backgrounds import VALIDATION_SEEDS
from training.validation import Validation, kept, seen_before, validated
from workers.algorithms.lung_nodule import LungNodule
from workers.algorithms.nodule_bundle import SECOND_LOOK, second_look
from workers.bundles import CONFIGURATION, METADATA, SHIPPED_BUNDLES, WEIGHTS, Bundle, load_bundle
from workers.inference import chosen_device
from workers.precision import BFLOAT16, PRECISION, allows_bfloat16, has_bfloat16_units, is_lowered
from workers.second_look import Weights, logit

Array = NDArray[np.float64]

SEED = 11
#: What says which candidates are seen.
SEEING = (sys.modules[__name__], validation, judged)
#: A report threshold is no lower.
_LOWEST = 0.05
#: Weights are fitted with more of them than this alone.
_FEWEST = 10
#: False positives a scan of which the card says with which threshold they are had, and what is counted for them.
_RATES, _LARGE_MM = (0.125, 0.25, 0.5, 1.0, 2.0), 6.0
#: By what a report calls them: nodules from this diameter on, and below that one.
_SIZES_MM = (
    ("found of all nodules", 0.0, np.inf),
    ("found of those under 6 mm", 0.0, 6.0),
    ("found of those of 6 to 10 mm", 6.0, 10.0),
    ("found of those of 10 mm and more", 10.0, np.inf),
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


def validation_scans(data: Path) -> DrawnScans:
    """The volumes that are drawn for validation."""
    return DrawnScans(*load(data, CACHE), VALIDATION_SEEDS, CACHE, SEED, use="validation")


def chosen_cases(with_nodules: int, normals: int = 0) -> tuple[Case, ...]:
    """So many volumes with nodules and without; 0: a sixth as many without."""
    return cases(with_nodules, normals or -(-with_nodules // 6))


def weighing_cases(with_nodules: int, count: int) -> tuple[Case, ...]:
    """So many further volumes with nodules, that none of the chosen ones is among."""
    return cases(with_nodules + count, 0)[with_nodules:]


def seen_by(
    bundle: Bundle, scans: Callable[[Case], DrawnScan], chosen: Sequence[Case], folder: Path, threads: int = 0
) -> Validation:
    """What the bundle's searching network sees in the volumes; kept in a folder, and read from there again."""
    threshold = bundle.number("postprocessing", "candidate_threshold")
    weights = hashlib.sha256((bundle.folder / WEIGHTS).read_bytes()).hexdigest()[:12]
    computed = BFLOAT16 if is_lowered(chosen_device(), allows_bfloat16(bundle.metadata)) else "full"
    with_nodules = sum(case.with_nodules for case in chosen)
    what = f"{chosen[0].name}-{with_nodules}-{len(chosen) - with_nodules}"
    path = folder / f"candidates-{weights}-{edition(SEEING)}-{computed}-{threshold:g}-{what}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        volumes = (scans(case) for case in tqdm(chosen, desc="volumes"))
        kept(validated(bundle, volumes, threshold, threads), path)
    return seen_before(path)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What is done with both opinions, and how well that does on the very volumes it was set on."""

    #: None: the searching network's score is the score.
    weights: Weights | None
    report_threshold: float
    #: How many of which nodules are found, and the like, by words.
    counted: Mapping[str, str]


def set_on(
    seen: Validation, bundle: Bundle, false_positives: float, weighing: Validation | None = None
) -> OperatingPoint:
    """Weigh both opinions, and find the lowest threshold with no more false positives a scan than this.

    The weights are fitted on the volumes `weighing`, or for want of those on the same, which flatters.
    """
    lowest, look = bundle.number("postprocessing", "candidate_threshold"), second_look(bundle)
    ways, weights = {"the search alone": seen.first}, None
    if look is not None:
        second = look.opinions(seen.crops)
        # Of too few candidates to fit them, those that the bundle has are what is served.
        own = weighing or seen
        weights = weighed(own.first, look.opinions(own.crops), own.nodules >= 0) or _weights_of(bundle)
        ways["the second look alone"] = second
        ways["both"], lowest = weights(seen.first, second), _LOWEST
    scores = seen.first if weights is None else ways["both"]
    threshold = report_threshold(seen, scores, false_positives, lowest)
    counted = {name: said(seen, of) for name, of in ways.items()}
    counted |= at_threshold(seen, scores, threshold) | choices(seen, scores, lowest)
    return OperatingPoint(weights=weights, report_threshold=threshold, counted=counted)


def _weights_of(bundle: Bundle) -> Weights:
    return Weights(**bundle.configuration[SECOND_LOOK]["score"])


def at_threshold(seen: Validation, scores: Array, threshold: float) -> dict[str, str]:
    """What is found and what is wrong at a report threshold, and on how much that was counted."""
    rows = {}
    for name, least, below in _SIZES_MM:
        best = seen.best(scores, least, below)
        rows[name] = f"{(best >= threshold).sum()} of {len(best)}"
    volumes = seen.matched(scores)
    false = sum(score >= threshold for volume in volumes for score in volume.false_scores)
    normals = [volume for volume in volumes if not volume.nodule_scores]
    empty = sum(all(score < threshold for score in volume.false_scores) for volume in normals)
    rows["false positives a scan"] = f"{false / sum(seen.shares):.2f} ({false} in {sum(seen.shares):.1f} scans' lung)"
    rows["volumes without nodules that nothing is reported of"] = f"{empty} of {len(normals)}"
    return rows


def choices(seen: Validation, scores: Array, lowest: float) -> dict[str, str]:
    """For those who want more found, or fewer false positives: other thresholds, and what each finds."""
    rows = {}
    for rate in _RATES:
        threshold = report_threshold(seen, scores, rate, lowest)
        best = seen.best(scores, _LARGE_MM, np.inf)
        found = f"{(best >= threshold).sum()} of {len(best)} of {_LARGE_MM:g} mm and more"
        rows[f"with a report threshold of {threshold:.2f}, at most {rate:g} false positives a scan"] = found
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.operating_point", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLES / LungNodule.name)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cases", type=int, default=40, help="volumes with nodules")
    parser.add_argument("--normals", type=int, default=0, help="volumes without; 0: a sixth as many")
    parser.add_argument("--weighing", type=int, default=0, help="further volumes that the weights are fitted on")
    parser.add_argument("--false-positives", type=float, default=1.0, help="a scan, at most, on validation data")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write what was found into the bundle")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        allow_lower_precision(chosen.bundle)
    bundle, scans = load_bundle(chosen.bundle), validation_scans(chosen.data)
    seen = seen_by(bundle, scans, chosen_cases(chosen.cases, chosen.normals), scans.folder, chosen.threads)
    further = weighing_cases(chosen.cases, chosen.weighing)
    weighing = seen_by(bundle, scans, further, scans.folder, chosen.threads) if further else None
    found = set_on(seen, bundle, chosen.false_positives, weighing)
    print("\n".join(f"{name}: {words}" for name, words in found.counted.items()))
    nodules = sum(len(each) for each in seen.diameters)
    print(f"{len(seen.shares)} volumes, {nodules} nodules, {len(seen.first)} candidates; {found.weights}")
    limit = f"for at most {chosen.false_positives:g} false positives a scan"
    print(f"report threshold {found.report_threshold:.2f}, {limit}")
    if chosen.write:
        write(chosen.bundle, found.weights, found.report_threshold)
    return 0


def allow_lower_precision(bundle: Path) -> None:
    """Let a bundle be computed in bfloat16 where it is judged so, on a CPU with units for that, and nowhere else."""
    path = bundle / METADATA
    said = {key: value for key, value in json.loads(path.read_text()).items() if key != PRECISION}
    if chosen_device().type == "cpu" and has_bfloat16_units("cpu"):
        said[PRECISION] = BFLOAT16
    path.write_text(json.dumps(said, indent=2) + "\n")
    seal(bundle)


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
