"""Lung nodules on chest CT, learnt from scans with findings, as a hospital or LUNA16 has them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import networks
from training.bundle import write
from training.calibration import fit
from training.case_evaluation import CaseResult, judge, scores
from training.case_patches import CasePatches, load_cases, synthetic
from training.evaluate import Sight
from training.experiment import CACHE, Experiment, ExperimentInvalid
from training.export import documents
from training.inference import probabilities
from training.metrics import detection
from training.metrics.bootstrap import Estimate, bootstrap
from training.report.page import Report, write_page
from training.tasks.lung_nodule_report import WorstSights, froc_plot
from training.tasks.task import REPORT, Batch, Trained
from workers.calibration import Calibration

_FEWEST_PATIENTS = 2
_LIMITS = (
    "The judging scans come from where the teaching scans came from: other scanners and hospitals may do worse.",
    "The report threshold is set on the very scans that it is counted on.",
)


class LungNoduleCases:
    """Patches of scans by number; a fifth of the patients judges."""

    def __init__(self, experiment: Experiment, data: Path) -> None:
        self._experiment = experiment
        toy = experiment.data["source"] == "synthetic"
        self._cases = synthetic(experiment.seed) if toy else load_cases(data, str(experiment.data["layout"]), CACHE)
        self._patches = CasePatches(self._cases, tuple(experiment.data["patch"]), experiment.seed)

    def network(self) -> nn.Module:
        """The network of the experiment, which starts by expecting nothing."""
        return networks.built(self._experiment.network, first_bias=float(self._experiment.training["first_bias"]))

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Patches [b, 1, k, j, i]: values 0..1, nodules, and the voxels that count."""
        drawn = [self._patches[number] for number in numbers]
        values, target, counts = (
            torch.from_numpy(np.stack([getattr(patch, field) for patch in drawn])[:, None].astype(np.float32))
            for field in ("values", "nodules", "counts")
        )
        return Batch(values=values, target=target, counts=counts)

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: an example is known by its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Write the report of the held-out patients' scans."""
        worst = WorstSights()
        results = self._judged(network, worst)
        return write_page(self._report(results, worst), out / REPORT)

    def calibrate(self, network: nn.Module) -> Calibration:
        """What a candidate's score means among candidates of the held-out patients."""
        said, truth, patients = scores(self._judged(network, lambda _sight: None))
        if len(set(patients)) < _FEWEST_PATIENTS or len(set(truth.tolist())) < 2:
            raise ExperimentInvalid(
                f"{len(said)} candidates in {len(set(patients))} patients are too few to calibrate by: "
                "train longer, or on more scans"
            )
        return fit(said, truth, patients)

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Write the bundle, with the figures of the held-out patients in its card."""
        results = self._judged(network, lambda _sight: None)
        rows = [f"| {name} | {estimate} |" for name, estimate in _figures(results).items()]
        card = "\n".join(
            [
                f"# {self._experiment.name} {self._experiment.bundle['version']}",
                "",
                "**Research software. Not for diagnostic use.**",
                "",
                f"Trained for {run.step} steps on {len(self._cases)} scans, a fifth of the patients held out.",
                "",
                "| held-out patients | value (95 % interval by patient) |",
                "|---|---|",
                *rows,
                "",
                *(f"- {limit}" for limit in _LIMITS),
                "",
            ]
        )
        write(bundle, network, documents(self._experiment, _threshold(results, self._experiment), calibration, card))

    def _judged(self, network: nn.Module, see: Callable[[Sight], None]) -> tuple[CaseResult, ...]:
        settings = self._experiment.bundle
        return judge(
            lambda values, lungs: probabilities(network, values, lungs, settings["roi_size"], settings["overlap"]),
            self._cases,
            settings["candidate_threshold"],
            see,
        )

    def _report(self, results: Sequence[CaseResult], worst: WorstSights) -> Report:
        figures = _figures(results)
        threshold = _threshold(results, self._experiment)
        nodules = sum(len(result.scan.nodules) for result in results)
        return Report(
            title="Lung nodules on chest CT",
            warnings=("Research only, not for diagnostic use.",),
            summary=f"CPM {figures['CPM']} over {nodules} nodules in {len(results)} scans of held-out patients.",
            facts={
                "data": f"{len(self._cases)} scans, layout {self._experiment.data['layout']}",
                "judged": f"{len(results)} scans, {nodules} nodules",
                "report threshold": f"{threshold:.2f}",
            },
            figures={"Free response": figures},
            plots=(froc_plot(detection.froc([result.matched for result in results])),),
            worst=worst.pictures(),
            limits=_LIMITS,
        )


def _figures(results: Sequence[CaseResult]) -> dict[str, Estimate]:
    figures = detection.estimates([result.matched for result in results])
    overlaps = [(value, result.scan.patient) for result in results for value in result.dice]
    if overlaps:
        values = np.array([value for value, _ in overlaps])
        patients = [patient for _, patient in overlaps]
        figures["Dice of the nodules that were touched"] = bootstrap(
            lambda cases: float(values[cases].mean()), patients
        )
    return figures


def _threshold(results: Sequence[CaseResult], experiment: Experiment) -> float:
    """The lowest threshold, in hundredths, with no more false positives a scan than are wanted."""
    false = np.array([score for result in results for score in result.matched.false_scores])
    steps = np.round(np.arange(experiment.bundle["candidate_threshold"], 1.0, 0.01), 2)
    wanted = experiment.bundle["false_positives_wanted"] * len(results)
    return float(next((step for step in steps if (false >= step).sum() <= wanted), 0.99))
