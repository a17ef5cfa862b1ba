"""Judge a searching network on validation data: what thresholds are set on, and what the test set never shows.

Shapes of LIDC patients kept for validation are drawn into the lower held-out slab of each background. Sensitivity
against false positives (FROC) is counted there; a scan is four litres of lung.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.unet import UNet
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn
from tqdm import tqdm

from training.augmentation import aerate, draw, insert, scan
from training.dataset import Background, site
from training.metrics.detection import MISSED, Matched
from training.networks import channels_last
from training.shapes import Shape
from workers.preprocessing import Candidate, candidates, normalise

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
#: From values 0..1 and the lungs to probabilities.
Detector = Callable[[Floats, Mask], Floats]

BUNDLE = Path(__file__).resolve().parents[1] / "workers" / "shipped_bundles" / "lung_nodule"
FALSE_POSITIVE_RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
SIZES_MM = {"under 6 mm": 6.0, "6 to 10 mm": 10.0, "over 10 mm": float("inf")}
_SCAN_ML = 4000.0
_THICKNESSES_MM = (1.5, 2.5, 3.0, 5.0)
_NODULES_A_SCAN = 7
_LEAST_SHARED = 0.3  #: of a candidate's voxels that lie in or next to the nodule it is counted for
_SEEN = 28  #: voxels shown to every side of what was wrong
_MARGIN = 20  #: slices that the network sees beyond a slab, on either side


@dataclass(frozen=True, kw_only=True)
class Truth:
    """An inserted nodule and the score of the best candidate that points at it (0 where none does)."""

    diameter_mm: float
    kind: str
    slice_thickness_mm: float
    score: float

    @property
    def groups(self) -> tuple[str, str, str]:
        """What it is counted under: its size, its kind, the thickness of its slices."""
        size = next(name for name, below in SIZES_MM.items() if self.diameter_mm < below)
        return f"size {size}", f"kind {self.kind}", f"slices of {self.slice_thickness_mm:g} mm"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A missed nodule or a false positive, and what it looked like."""

    words: str
    #: How wrong it is: the score of a false positive, or what a nodule lacks to 1.
    wrong: float
    values: Floats  #: [row, column] 0..1, a slice around it
    truth: Mask
    ours: Mask


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every inserted nodule, the scores of all false positives, and the lung that was judged."""

    truths: tuple[Truth, ...]
    false_scores: tuple[float, ...]
    lung_ml: float
    #: The same by rendering, each with the share of a scan's lung that it holds.
    scans: tuple[Matched, ...] = ()

    def false_positives(self, threshold: float) -> float:
        """False positives a scan at a threshold."""
        return sum(score >= threshold for score in self.false_scores) / self.lung_ml * _SCAN_ML

    def threshold(self, false_positives: float, lowest: float = 0.05) -> float:
        """The lowest threshold, in hundredths, with no more false positives a scan than this."""
        steps = np.round(np.arange(lowest, 1.0, 0.01), 2)
        return float(next((t for t in steps if self.false_positives(t) <= false_positives), 0.99))

    def sensitivity(self, threshold: float) -> tuple[int, int]:
        """How many nodules are found at a threshold, of how many."""
        return sum(truth.score >= threshold for truth in self.truths), len(self.truths)

    def groups(self, threshold: float) -> dict[str, tuple[int, int]]:
        """Found and inserted nodules by size, kind and slice thickness."""
        found: dict[str, tuple[int, int]] = {}
        for truth in self.truths:
            for name in truth.groups:
                n, of = found.get(name, (0, 0))
                found[name] = (n + (truth.score >= threshold), of + 1)
        return dict(sorted(found.items()))

    def summary(self, threshold: float) -> dict[str, Any]:
        """The figures of the model card."""
        return {
            "report_threshold": threshold,
            "nodules": len(self.truths),
            "judged_lung_litres": round(self.lung_ml / 1000, 1),
            "false_positives_a_scan": round(self.false_positives(threshold), 2),
            "found_at_report_threshold": self.sensitivity(threshold),
            "froc": {rate: self.sensitivity(self.threshold(rate)) for rate in FALSE_POSITIVE_RATES},
            "groups": self.groups(threshold),
        }


def evaluate(
    detect: Detector,
    backgrounds: Sequence[Background],
    shapes: Sequence[Shape],
    *,
    scans: int,
    seed: int,
    lowest: float,
    see: Callable[[Sight], None] = lambda _sight: None,
) -> Evaluation:
    """Run a detector over held-out slabs; lowest is the candidate threshold.

    `see` is shown every miss and every false positive.
    """
    held_out = [shape for shape in shapes if shape.use == "validation"]
    if not held_out:
        raise ValueError("no held-out shapes to judge with: give all shapes, not those that taught")
    truths: list[Truth] = []
    false_scores: list[float] = []
    lung_ml = 0.0
    counted: list[Matched] = []
    for number in tqdm(range(scans), desc="evaluate"):
        for which, source in enumerate(backgrounds):
            rng = np.random.default_rng((seed, number, which))
            thickness = _THICKNESSES_MM[number % len(_THICKNESSES_MM)]
            for slab in _slabs(source):
                made, wrong, judged = _judge(detect, slab, held_out, thickness, rng, lowest, see)
                truths += made
                false_scores += wrong
                lung_ml += judged
                counted.append(_matched(f"{source.name} {number}", made, wrong, judged))
    return Evaluation(truths=tuple(truths), false_scores=tuple(false_scores), lung_ml=lung_ml, scans=tuple(counted))


def _matched(rendering: str, truths: Sequence[Truth], false_scores: Sequence[float], lung_ml: float) -> Matched:
    return Matched(
        patient=rendering,
        nodule_scores=tuple(truth.score if truth.score > 0 else MISSED for truth in truths),
        false_scores=tuple(false_scores),
        share=lung_ml / _SCAN_ML,
    )


def _slabs(source: Background) -> Iterator[tuple[Floats, Mask, Mask]]:
    """HU, lung and judged voxels of the slab that is for validation, with a margin for the network to see."""
    labels, count = ndimage.label(source.judging.any(axis=(1, 2)))
    # The upper one is the test's.
    for number in range(1, min(count, 1) + 1):
        levels = np.flatnonzero(labels == number)
        reach = slice(max(int(levels[0]) - _MARGIN, 0), int(levels[-1]) + 1 + _MARGIN)
        inner = np.zeros(source.judging.shape[0], dtype=bool)
        inner[levels] = True
        occupied = ndimage.find_objects((source.lung[reach] & source.judging.any(axis=0)).astype(np.int8))
        if not occupied:
            continue
        box = (reach, *(slice(max(s.start - 12, 0), s.stop + 12) for s in occupied[0][1:]))
        yield source.hu[box].astype(np.float32), source.lung[box], source.judging[box] & inner[reach, None, None]


def _judge(
    detect: Detector,
    slab: tuple[Floats, Mask, Mask],
    shapes: Sequence[Shape],
    thickness: float,
    rng: Generator,
    lowest: float,
    see: Callable[[Sight], None],
) -> tuple[list[Truth], list[float], float]:
    """Truths, scores of false positives and judged lung in ml of one slab with newly drawn nodules."""
    background, lung, judged = slab
    hu = aerate(background, rng)
    inserted = _inserted(hu, lung, judged, shapes, rng)
    values = normalise(scan(hu, rng, thickness_mm=thickness))
    probability = detect(values, lung)
    drawn = np.any([mask for mask, _ in inserted], axis=0) if inserted else np.zeros_like(lung)
    best = np.zeros(len(inserted))
    wrong = []
    nearby = [ndimage.binary_dilation(mask, iterations=2) for mask, _ in inserted]
    for candidate in candidates(probability, lung, lowest):
        hit = next((n for n, mask in enumerate(nearby) if _points_at(candidate, mask)), None)
        if hit is not None:
            best[hit] = max(best[hit], candidate.score)
        elif judged[candidate.peak]:
            wrong.append(candidate.score)
            words = f"false positive, score {candidate.score:.2f}"
            see(sight(words, candidate.score, candidate.peak, values, drawn, probability > lowest))
    for (mask, kind), score in zip(inserted, best, strict=True):
        if score == 0:
            middle = tuple(int(m) for m in np.argwhere(mask).mean(axis=0))
            see(sight(f"missed: {kind}", 1.0, middle, values, drawn, probability > lowest))
    truths = [
        Truth(
            diameter_mm=float((6 / np.pi * mask.sum() * 1.5) ** (1 / 3)),
            kind=kind,
            slice_thickness_mm=thickness,
            score=float(score),
        )
        for (mask, kind), score in zip(inserted, best, strict=True)
    ]
    return truths, wrong, float((judged & lung).sum()) * 1.5 / 1000


def sight(words: str, wrong: float, centre: tuple[int, ...], values: Floats, truth: Mask, ours: Mask) -> Sight:
    """The slice around a voxel [k, j, i], with both masks."""
    k, j, i = (min(max(at, 0), n - 1) for at, n in zip(centre, values.shape, strict=True))
    box = (k, slice(max(j - _SEEN, 0), j + _SEEN), slice(max(i - _SEEN, 0), i + _SEEN))
    return Sight(words=words, wrong=wrong, values=values[box], truth=truth[box], ours=ours[box])


def _points_at(candidate: Candidate, nodule: Mask) -> bool:
    """Whether a reader shown this candidate would see the nodule: its peak and a good part of it lie there.

    Touching is not enough: a region that runs through half the lung touches every nodule and shows none.
    """
    return bool(nodule[candidate.peak]) and float(nodule[candidate.region][candidate.mask].mean()) >= _LEAST_SHARED


def _inserted(hu: Floats, lung: Mask, judged: Mask, shapes: Sequence[Shape], rng: Generator) -> list[tuple[Mask, str]]:
    """Nodules drawn into hu, in place, well apart: their masks and kinds."""
    made: list[tuple[Mask, str]] = []
    taken = np.zeros(hu.shape, dtype=bool)
    for _ in range(_NODULES_A_SCAN):
        centre = site(hu, lung & judged, rng)
        drawn = draw(shapes[int(rng.integers(len(shapes)))], rng)
        mask = None if centre is None else insert(hu, lung, drawn, centre, taken)
        if mask is not None:
            made.append((mask, drawn.kind))
            taken |= ndimage.binary_dilation(mask, iterations=5)
    return made


def bundle_network(bundle: Path) -> tuple[nn.Module, Mapping[str, Any]]:
    """The searching network of a bundle of ours, and its inference settings."""
    settings = json.loads((bundle / "configs" / "inference.json").read_text())
    network = UNet(**{key: value for key, value in settings["network_def"].items() if key != "_target_"})
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    return channels_last(network), settings
