"""How the reader of chest radiographs is judged: the evaluation report and the figures of its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import REPLICATES, Estimate
from training.metrics.classification import (
    Counts,
    estimates,
    precision_recall,
    roc,
)
from training.metrics.reliability import calibration_error, reliability
from training.report import pictures, plots
from training.report.page import Picture, Plot, Report, write_page
from training.shifted_radiographs import Shifted

Array = NDArray[np.float64]

#: Accuracy on the same test images as the authors of MedMNIST v2 report it (doi 10.1038/s41597-022-01721-8).
PUBLISHED_ACCURACY: Mapping[str, float] = {"ResNet-18": 0.854, "Google AutoML Vision": 0.946}

NO_PATIENTS = "The data name no patients: an image stands for one, so intervals are too narrow where patients repeat."
LIMITS = (
    "Images of 28 x 28 pixels: most of what a radiologist looks at is not in them. Research only.",
    "Children of one to five years at one hospital; frontal views. Nothing is known of adults or of other hospitals.",
    NO_PATIENTS,
    "Pneumonia as its readers labelled it; it is not told from what looks alike, such as atelectasis or oedema.",
)
_WORST = 12
#: Of what is many times as many cases, and only compared.
_FEWER_REPLICATES = 200


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a network said of validation and test images, calibrated, and the threshold set on validation alone."""

    validation_truth: Array
    validation: Array
    test_truth: Array
    test: Array
    #: Validation images under shifts, on which threshold and calibration were set, and what was said of them.
    shifted: Shifted
    said_of_shifted: Array
    #: What the network said of test images before it was calibrated.
    raw: Array
    threshold: float
    #: Of the intervals.
    replicates: int = REPLICATES

    @property
    def figures(self) -> dict[str, Estimate]:
        """Every figure of the test images at the threshold."""
        who = [str(n) for n in range(len(self.test))]
        figures = estimates(self.test_truth, self.test, self.threshold, who, replicates=self.replicates)
        error = calibration_error(self.test_truth, self.test, who, replicates=self.replicates)
        return figures | {"calibration error": error}

    @property
    def validation_figures(self) -> dict[str, Estimate]:
        """The same of the validation images, as they are."""
        who = [str(n) for n in range(len(self.validation))]
        return estimates(self.validation_truth, self.validation, self.threshold, who, replicates=self.replicates)

    @property
    def shifted_figures(self) -> dict[str, Estimate]:
        """The same of the validation images under shifts."""
        given, replicates = self.shifted, min(_FEWER_REPLICATES, self.replicates)
        return estimates(given.truth, self.said_of_shifted, self.threshold, given.of, replicates=replicates)


def report(
    judged: Judgement, images: NDArray[np.float32], facts: Mapping[str, str], calibrated: bool, out: Path
) -> Path:
    """Write the page."""
    figures = judged.figures
    counts = Counts.at(judged.threshold, judged.test_truth, judged.test)
    cells = (
        f"{counts.true_positives} pneumonias found, {counts.false_negatives} missed; "
        f"{counts.true_negatives} others let pass, {counts.false_positives} called pneumonia"
    )
    published = ", ".join(f"{name} {value:.3f}" for name, value in PUBLISHED_ACCURACY.items())
    return write_page(
        Report(
            title="Pneumonia on chest radiographs of 28 x 28 pixels",
            warnings=("Research only, not for diagnostic use.",),
            summary=f"AUC {figures['AUC']}; accuracy {figures['accuracy']} at a threshold set on validation images.",
            facts={
                **facts,
                "threshold": f"{judged.threshold:.4f} of the {'' if calibrated else 'un'}calibrated probability",
                "counts": cells,
                "published accuracy": f"{published} (MedMNIST v2)",
            },
            figures={
                "Test images": figures,
                "Validation images under shifts, on which threshold and calibration were set": judged.shifted_figures,
                "Validation images as they are": judged.validation_figures,
            },
            plots=_plots(judged, counts),
            worst=tuple(_worst(judged, images)),
            limits=LIMITS,
        ),
        out,
    )


def _plots(judged: Judgement, counts: Counts) -> tuple[Plot, ...]:
    truth, said = judged.test_truth, judged.test
    curves = [("before", reliability(truth, judged.raw)), ("calibrated", reliability(truth, said))]
    return (
        Plot(
            title="ROC",
            svg=plots.roc(*roc(truth, said), (1 - counts.specificity, counts.sensitivity)),
            words="Test images. The ring is the operating point.",
        ),
        Plot(
            title="Precision and recall",
            svg=plots.precision_recall(
                *precision_recall(truth, said), float(truth.mean()), (counts.sensitivity, counts.precision)
            ),
            words=f"Dotted: the share of pneumonias among the test images, {truth.mean():.2f}.",
        ),
        Plot(
            title="Reliability",
            svg=plots.reliability(curves),
            words="On the dotted line, what is said is what is so. Larger points hold more images.",
        ),
    )


def _worst(judged: Judgement, images: NDArray[np.float32]) -> list[Picture]:
    """The images that were said most wrongly, by how far the score was off."""
    off = np.abs(judged.test - judged.test_truth)
    wrong = (judged.test >= judged.threshold) != (judged.test_truth > 0.5)
    order = [n for n in np.argsort(-off, kind="stable") if wrong[n]][:_WORST]
    return [
        Picture(
            url=pictures.png(images[n]),
            words=f"Test image {n}: {'pneumonia' if judged.test_truth[n] else 'normal'}, said {judged.test[n]:.3f}",
        )
        for n in order
    ]
