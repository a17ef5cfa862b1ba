"""Lung nodules on chest CT: a probability of nodule at each voxel."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import networks
from training.calibration import fit
from training.dataset import Insertion, Patches
from training.evaluate import Evaluation, Sight, evaluate
from training.experiment import Experiment, ExperimentInvalid
from training.export import export_network
from training.inference import probabilities
from training.mining import mine
from training.phantom_backgrounds import load_teaching
from training.tasks.lung_nodule_report import WorstSights, report, scores
from training.tasks.task import REPORT, Batch, Trained
from workers.calibration import Calibration

#: Renderings of each background that judge.
_SCANS = 8
_FEWEST_RENDERINGS = 2
_MOST_HARD_NEGATIVES, _MOST_OF_A_ROUND = 600, 300
#: Of each lung, the slices that a round searches: rounds are many, and what is wrong today is learnt tomorrow.
_SLICES_MINED = 56


def insertion_of(experiment: Experiment) -> Insertion:
    """Where an experiment has its nodules drawn."""
    return Insertion(**{name: float(experiment.data[name]) for name in ("beside_vessels", "least_seen", "large")})


class LungNodule:
    """Patches with nodules drawn in, by number, and places where the network was wrong."""

    def __init__(self, experiment: Experiment, data: Path) -> None:
        self._experiment = experiment
        self._backgrounds, self._shapes = load_teaching(experiment, data)
        size, insertion = tuple(experiment.data["patch"]), insertion_of(experiment)
        self._patches = Patches(self._backgrounds, self._shapes, size, experiment.seed, insertion)

    def network(self) -> nn.Module:
        """The network of the experiment, which starts by expecting nothing."""
        return networks.built(self._experiment.network, first_bias=float(self._experiment.training["first_bias"]))

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Patches [b, 1, k, j, i]: values 0..1, nodules, and the voxels that count."""
        drawn = [self._patches[number] for number in numbers]
        values, target, counts = (
            torch.from_numpy(np.stack([getattr(patch, field) for patch in drawn])[:, None].astype(np.float32)).to(
                memory_format=torch.channels_last_3d
            )
            for field in ("values", "nodules", "counts")
        )
        return Batch(values=values, target=target, counts=counts)

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """Look for hard negatives, every now and then."""
        if step % self._experiment.training["mine_every"]:
            return {}
        mined = mine(network, self._backgrounds, self._experiment, step, _SLICES_MINED)
        worst = mined[np.argsort(-mined[:, 4])][:_MOST_OF_A_ROUND]
        self._patches.hard_negatives = np.concatenate([worst, self._patches.hard_negatives])[:_MOST_HARD_NEGATIVES]
        highest = np.round(np.sort(mined[:, 4])[::-1][:12], 2).tolist()
        return {"mined": len(mined), "highest": highest}

    def state(self) -> Mapping[str, Tensor]:
        """The places that were mined."""
        return {"hard_negatives": torch.from_numpy(self._patches.hard_negatives)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the places that were mined."""
        self._patches.hard_negatives = state["hard_negatives"].cpu().numpy()

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Write the report of nodules drawn into held-out lungs."""
        worst = WorstSights()
        result = self._evaluation(network, worst)
        settings = self._experiment.bundle
        threshold = result.threshold(settings["false_positives_wanted"], lowest=settings["candidate_threshold"])
        return report(result, worst, threshold, out / REPORT)

    def calibrate(self, network: nn.Module) -> Calibration:
        """What a candidate's score means among candidates of the held-out lungs; a rendering stands for a patient."""
        said, truth, renderings = scores(self._evaluation(network, lambda _sight: None))
        if len(set(renderings)) < _FEWEST_RENDERINGS or len(set(truth.tolist())) < 2:
            raise ExperimentInvalid(
                f"{len(said)} candidates in {len(set(renderings))} renderings are too few to calibrate by: train longer"
            )
        return fit(said, truth, renderings)

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Write the bundle; the report threshold is found on the held-out lungs."""
        export_network(
            self._experiment, network, run.step, bundle, self._backgrounds, self._shapes, _SCANS, calibration
        )

    def _evaluation(self, network: nn.Module, see: Callable[[Sight], None]) -> Evaluation:
        settings = self._experiment.bundle
        return evaluate(
            lambda values, lungs: probabilities(network, values, lungs, settings["roi_size"], settings["overlap"]),
            self._backgrounds,
            self._shapes,
            scans=_SCANS,
            seed=self._experiment.seed,
            lowest=settings["candidate_threshold"],
            see=see,
        )
