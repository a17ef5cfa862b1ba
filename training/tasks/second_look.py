"""The second look at candidates of lung nodules: nodule or not, of a small box about each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training import networks
from training.bundle import seal
from training.calibration import fit
from training.crops import Crop, Crops
from training.evaluate import BUNDLE, bundle_network
from training.experiment import Experiment, ExperimentInvalid
from training.metrics import classification
from training.metrics.bootstrap import Estimate, bootstrap
from training.mining import marks, mine
from training.phantom_backgrounds import load_teaching
from training.tasks.lung_nodule import insertion_of
from training.tasks.task import Batch, Trained
from workers.calibration import Calibration

#: Times that each lung is searched for places where the first network is wrong, scanned anew, and slices each time.
_SEARCHES, _SLICES = 4, 72
#: Of the numbers of crops, from here on they judge; training never comes so far.
_JUDGING_FROM, _JUDGED, _JUDGED_OF_A_TOY = 10**9, 800, 20


class SecondLook:
    """Crops by number, and the places where the searching network of a bundle was wrong."""

    def __init__(self, experiment: Experiment, data: Path) -> None:
        self._experiment = experiment
        backgrounds, shapes = load_teaching(experiment, data)
        k, j, i = experiment.data["patch"]
        self._backgrounds = backgrounds
        pool, insertion = _pool(experiment), insertion_of(experiment)
        self._crops = Crops(backgrounds, shapes, (k, j, i), experiment.seed, pool, insertion)
        self._search_in = Path(experiment.data["search"] or BUNDLE)
        self._mined = False

    def network(self) -> nn.Module:
        """The network of the experiment."""
        return networks.built(self._experiment.network)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Crops [b, 1, k, j, i], and [b, 1] whether each is a nodule."""
        if not self._mined:
            self._search()
        return _batch([self._crops[number] for number in numbers])

    def _search(self) -> None:
        """Where the first network is wrong in lungs that hold no drawn nodule."""
        self._mined = True
        network = self._marking()
        rounds = tqdm(range(_SEARCHES), desc="search")
        self._crops.mined = np.concatenate(
            [mine(network, self._backgrounds, self._experiment, n, _SLICES) for n in rounds]
        )

    def _marking(self) -> nn.Module:
        """The first network, whose marks are shown from now on."""
        network, settings = bundle_network(self._search_in)
        threshold = float(settings["postprocessing"]["candidate_threshold"])
        self._crops.marks = marks(network, self._experiment, threshold)
        return network

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """The places that were found."""
        return {"mined": torch.from_numpy(self._crops.mined)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the places that were found."""
        self._crops.mined, self._mined = state["mined"].cpu().numpy(), True
        self._marking()

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Write how well crops that did not teach, of lungs and shapes that did, are told apart."""
        said, truth, numbers = self._judged(network)
        figures = classification.estimates(truth, said, 0.5, numbers)
        path = out / "report.json"
        path.write_text(json.dumps({name: _row(estimate) for name, estimate in figures.items()}, indent=2) + "\n")
        return path

    def auc(self, network: nn.Module) -> Estimate:
        """How well it tells apart crops that did not teach, of lungs and shapes that did."""
        said, truth, numbers = self._judged(network)
        return bootstrap(lambda cases: classification.auc(truth[cases], said[cases]), numbers)

    def calibrate(self, network: nn.Module) -> Calibration:
        """As crops go; what counts is fitted on whole volumes when the operating point is set."""
        said, truth, numbers = self._judged(network)
        return fit(said, truth, numbers)

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Add the network to the bundle of a detector, with both opinions weighed alike."""
        add(self._experiment, network, bundle)

    def _judged(self, network: nn.Module) -> tuple[np.ndarray, np.ndarray, list[str]]:
        if not self._mined:
            self._search()
        said, truth = [], []
        count = _JUDGED_OF_A_TOY if self._experiment.data["source"] == "synthetic" else _JUDGED
        with torch.inference_mode():
            for number in range(_JUDGING_FROM, _JUDGING_FROM + count):
                batch = _batch([self._crops.drawn(number)])
                said.append(float(torch.sigmoid(network(batch.values))[0, 0]))
                truth.append(float(batch.target[0, 0]))
        return np.array(said), np.array(truth), [str(number) for number in range(count)]


def _pool(experiment: Experiment) -> int:
    """How many crops are drawn; each of the processes that draw must find those of a step where it drew them."""
    pool, batch = int(experiment.data["pool"]), int(experiment.data["batch"])
    share = batch * max(1, int(experiment.training["drawing_processes"]))
    if pool % share:
        raise ExperimentInvalid(f"data.pool = {pool} is no multiple of batch x drawing_processes, {share}: change one")
    return pool


def add(experiment: Experiment, network: nn.Module, bundle: Path) -> None:
    """Write the network into a bundle that is there, and seal it anew."""
    path = bundle / "configs" / "inference.json"
    settings = json.loads(path.read_text())
    settings["second_look"] = {
        "network_def": dict(experiment.network),
        "size": list(experiment.data["patch"]),
        "score": {"first": 0.5, "second": 0.5, "constant": 0.0},
    }
    path.write_text(json.dumps(settings, indent=2) + "\n")
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    torch.save(state, bundle / "models" / "second_look.pt")
    seal(bundle)


def _batch(crops: Sequence[Crop]) -> Batch:
    values = torch.from_numpy(np.stack([crop.values for crop in crops])[:, None])
    target = torch.tensor([[float(crop.is_nodule)] for crop in crops])
    return Batch(values=values, target=target, counts=torch.ones_like(target))


def _row(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate)
