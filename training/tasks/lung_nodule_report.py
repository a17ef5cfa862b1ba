"""How the detector of lung nodules is judged: the evaluation report of nodules drawn into held-out lungs."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluate import Evaluation, Sight
from training.metrics import detection
from training.report import pictures, plots
from training.report.page import Picture, Plot, Report, write_page

LIMITS = (
    "All nodules are semi-synthetic: real shapes drawn into real lungs by the program that drew those that taught.",
    "The lungs are other slabs of the two patients whose lungs taught. Intervals are by rendering, of which many show "
    "the same lung: they say how much chance is in the drawing, and nothing of other patients.",
    "A scan is counted as four litres of lung.",
)
_WORST = 16


class WorstSights:
    """The most wrong of what it is shown: half of them misses, half false positives."""

    def __init__(self) -> None:
        self._kept: dict[bool, list[Sight]] = {True: [], False: []}

    def __call__(self, sight: Sight) -> None:
        """Keep a sight, if it is among the worst of its kind."""
        kept = self._kept[sight.words.startswith("missed")]
        kept.append(sight)
        kept.sort(key=lambda each: -each.wrong)
        del kept[_WORST // 2 :]

    def pictures(self) -> tuple[Picture, ...]:
        """Both kinds, misses first."""
        return tuple(
            Picture(url=pictures.png(sight.values, sight.truth, sight.ours), words=sight.words)
            for missed in (True, False)
            for sight in self._kept[missed]
        )


def scores(result: Evaluation) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Of every candidate: its score, whether it is a nodule, and the rendering that it is in."""
    rows = [
        (score, truth, scan.patient)
        for scan in result.scans
        for found, truth in ((scan.nodule_scores, 1.0), (scan.false_scores, 0.0))
        for score in found
        if score > detection.MISSED
    ]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), [row[2] for row in rows]


def report(result: Evaluation, worst: WorstSights, threshold: float, out: Path) -> Path:
    """Write the page."""
    figures = detection.estimates(result.scans)
    curve = detection.froc(result.scans)
    found, inserted = result.sensitivity(threshold)
    rate = result.false_positives(threshold)
    groups = ", ".join(f"{name}: {n} of {of}" for name, (n, of) in result.groups(threshold).items())
    return write_page(
        Report(
            title="Lung nodules on chest CT",
            warnings=("Semi-synthetic data.", "Research only, not for diagnostic use."),
            summary=f"CPM {figures['CPM']}; at the report threshold {found} of {inserted} nodules are found, "
            f"with {rate:.1f} false positives a scan.",
            facts={
                "data": "LIDC-IDRI shapes of held-out patients, drawn into held-out slabs of two real CTs",
                "nodules": str(inserted),
                "lung": f"{result.lung_ml / 1000:.1f} litres in {len(result.scans)} renderings",
                "report threshold": f"{threshold:.2f}, set on these very nodules",
                "found by group": groups,
            },
            figures={"Free response": figures},
            plots=(froc_plot(curve, rate),),
            worst=worst.pictures(),
            limits=LIMITS,
        ),
        out,
    )


def froc_plot(curve: detection.Froc, rate: float | None = None) -> Plot:
    """The curve, with the operating point where one is given."""
    return Plot(
        title="FROC",
        svg=plots.froc(curve, rate),
        words="Points: the seven rates of CPM." + ("" if rate is None else " The ring is the report threshold."),
    )
