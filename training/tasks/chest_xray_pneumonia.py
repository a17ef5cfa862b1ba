"""Pneumonia or not, on a chest radiograph of 28 x 28 pixels: the second question, to prove that the frame holds two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from training import networks, pneumonia_mnist
from training.calibration import Calibration, fit, negative_log_likelihood
from training.experiment import Experiment
from training.pneumonia_mnist import Split
from training.tasks.chest_xray_bundle import export
from training.tasks.chest_xray_report import Judgement, report, threshold
from training.tasks.task import REPORT, Batch, Trained
from training.transforms import Augmentation

Array = NDArray[np.float64]

#: Share of the examples that are mixed with another, where an experiment mixes at all.
_MIXED = 0.5


class ChestXrayPneumonia:
    """Examples drawn from PneumoniaMNIST by number, and how its network is judged."""

    def __init__(self, experiment: Experiment, data: Path) -> None:
        self._experiment = experiment
        toy = experiment.data["source"] == "synthetic"
        self._splits = pneumonia_mnist.synthetic(experiment.seed) if toy else pneumonia_mnist.load(data)
        self._augmentation = Augmentation(experiment.augmentation, experiment.seed)
        teaching = self._splits["train"].pneumonia
        self._by_class = (np.flatnonzero(~teaching), np.flatnonzero(teaching))

    def network(self) -> nn.Module:
        """The network of the experiment."""
        return networks.built(self._experiment.network, first_bias=float(self._experiment.training["first_bias"]))

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Radiographs [b, 1, row, column] 0..1 with soft targets [b, 1]."""
        examples = [self._example(number) for number in numbers]
        target = torch.tensor([[target] for _, target in examples], dtype=torch.float32)
        return Batch(
            values=torch.from_numpy(np.stack([values for values, _ in examples])),
            target=target,
            counts=torch.ones_like(target),
        )

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """How well the averaged network does on the validation data, every now and then."""
        every = int(self._experiment.training["validate_every"])
        if not every or step % every:
            return {}
        said, truth = self.probabilities(network, "val"), self.truth("val")
        auc = float(roc_auc_score(truth, said))
        return {"validation_auc": round(auc, 5), "validation_nll": round(negative_log_likelihood(said, truth), 5)}

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: an example is known by its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def truth(self, split: str) -> Array:
        """1 for pneumonia, else 0."""
        return self._splits[split].pneumonia.astype(np.float64)

    def split(self, name: str) -> Split:
        """The images of a split."""
        return self._splits[name]

    def probabilities(self, network: nn.Module, split: str) -> Array:
        """What the network says of each image of a split, not calibrated."""
        network.eval()
        device = next(network.parameters()).device
        images = torch.from_numpy(self._splits[split].images[:, None])
        with torch.inference_mode():
            logits = torch.cat([network(part.to(device)).float().cpu() for part in images.split(256)])
        return np.asarray(torch.sigmoid(logits)[:, 0], dtype=np.float64)

    def calibrate(self, network: nn.Module) -> Calibration:
        """The calibration that fits the validation split best; images stand for patients."""
        truth = self.truth("val")
        return fit(self.probabilities(network, "val"), truth, [str(n) for n in range(len(truth))])

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Write the report of the test images; each look at them is one of those that the card must count."""
        said = self._judgement(network, calibration or Calibration(method="temperature"))
        images = self._splits["test"].images
        return report(said, images, self._facts(), calibration is not None, out / REPORT)

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Write the bundle."""
        said = self._judgement(network, calibration)
        export(self._experiment, network, calibration, said, self._facts(), run.seconds, run.step, bundle)

    def _judgement(self, network: nn.Module, calibration: Calibration) -> Judgement:
        validation, raw = self.probabilities(network, "val"), self.probabilities(network, "test")
        wanted = float(self._experiment.bundle["sensitivity_wanted"])
        return Judgement(
            validation_truth=self.truth("val"),
            validation=calibration(validation),
            test_truth=self.truth("test"),
            test=calibration(raw),
            raw_validation=validation,
            raw=raw,
            threshold=threshold(self.truth("val"), validation, calibration, wanted),
        )

    def _facts(self) -> Mapping[str, str]:
        counted = ", ".join(
            f"{name} {len(split)} ({int(split.pneumonia.sum())} with pneumonia)" for name, split in self._splits.items()
        )
        toy = self._experiment.data["source"] == "synthetic"
        return {
            "data": "a toy that was drawn" if toy else "PneumoniaMNIST of MedMNIST v2 (Kermany et al. 2018)",
            "images": counted,
        }

    def _example(self, number: int) -> tuple[NDArray[np.float32], float]:
        rng = np.random.default_rng((self._experiment.seed, number))
        image, target = self._one(number * 2, rng)
        alpha = float(self._experiment.data["mixup"])
        if alpha > 0 and rng.random() < _MIXED:
            share = rng.beta(alpha, alpha)
            other, its_target = self._one(number * 2 + 1, rng)
            image, target = share * image + (1 - share) * other, share * target + (1 - share) * its_target
        smoothing = float(self._experiment.data["smoothing"])
        return np.asarray(image, dtype=np.float32), target * (1 - smoothing) + smoothing / 2

    def _one(self, number: int, rng: Generator) -> tuple[NDArray[np.float32], float]:
        teaching = self._splits["train"]
        if self._experiment.data["balanced"]:
            of_class = self._by_class[int(rng.integers(2))]
            which = int(of_class[rng.integers(len(of_class))])
        else:
            which = int(rng.integers(len(teaching)))
        image, _ = self._augmentation(number, teaching.images[which][None])
        return np.clip(image, 0.0, 1.0), float(teaching.pneumonia[which])
