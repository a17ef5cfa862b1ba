"""Train a network: `python -m training.train EXPERIMENT.toml [--out DIR] [--data DIR]`. The same call resumes a run."""

import argparse
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from tqdm import tqdm

from training.augmentation import aerate, scan
from training.dataset import Background, Patches, load, synthetic
from training.losses import dice_focal
from training.shapes import Shape
from workers.preprocessing import normalise

Floats = NDArray[np.float32]

EXPERIMENTS = Path(__file__).parent / "experiments"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dicom-node"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_MINED_ABOVE = 0.15


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment file laid over the defaults; each table is a mapping with the keys of defaults.toml."""

    name: str
    seed: int
    data: Mapping[str, Any]
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    bundle: Mapping[str, Any]


def read_experiment(path: Path) -> Experiment:
    """The experiment of a TOML file; a key that defaults.toml does not know is refused."""
    merged = tomllib.loads((EXPERIMENTS / "defaults.toml").read_text())
    for key, value in tomllib.loads(path.read_text()).items():
        table = value if isinstance(value, dict) else {}
        unknown = [key] if key not in merged else sorted(set(table) - set(merged[key] if table else ()))
        if unknown:
            raise ValueError(f"{path.name}: unknown key {', '.join(unknown)}; defaults.toml lists the keys there are")
        merged[key] = {**merged[key], **table} if table else value
    return Experiment(**merged)


def build_network(experiment: Experiment) -> UNet:
    """The network of an experiment, its last bias set so that it starts by expecting nothing."""
    network = UNet(**experiment.network)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias") and p.numel() == 1]
    with torch.no_grad():
        biases[-1].fill_(float(experiment.training["first_bias"]))
    return channels_last(network)


def channels_last(network: UNet) -> UNet:
    """The network with its weights laid out channels last, in which a CPU convolves twice as fast."""
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs leave this form out
    return network


def load_data(experiment: Experiment, data: Path) -> tuple[list[Background], list[Shape]]:
    """Backgrounds and shapes of the experiment's source."""
    if experiment.data["source"] == "synthetic":
        return synthetic(experiment.seed)
    return load(data, CACHE)


def learning_rate(step: int, training: Mapping[str, Any]) -> float:
    """Rises over the warm-up, stays, and falls along a line to nothing over the last share of the steps."""
    rising = (step + 1) / training["warmup_steps"]
    falling = (training["steps"] - step) / max(1.0, training["decay_share"] * training["steps"])
    return float(training["learning_rate"]) * min(1.0, rising, falling)


class Run:
    """All that a resumed run needs: weights, their running average, the optimiser, the mined places and the step."""

    def __init__(self, experiment: Experiment, patches: Patches) -> None:
        torch.manual_seed(experiment.seed)
        self.experiment = experiment
        self.patches = patches
        self.network = build_network(experiment)
        self.averaged = deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=experiment.training["weight_decay"])
        self.step = 0

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "hard_negatives": torch.from_numpy(self.patches.hard_negatives),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on where the checkpoint stopped."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.patches.hard_negatives = state["hard_negatives"].numpy()

    def advance(self) -> float:
        """One step; the loss."""
        batch = int(self.experiment.data["batch"])
        drawn = [self.patches[self.step * batch + n] for n in range(batch)]
        values, nodules, counts = (
            _batch([getattr(patch, field) for patch in drawn]) for field in ("values", "nodules", "counts")
        )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.experiment.training)
        self.network.train()
        loss = dice_focal(self.network(values), nodules, counts)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self._average()
        self.step += 1
        return loss.item()

    def _average(self) -> None:
        decay = min(float(self.experiment.training["average_decay"]), (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.network.state_dict()
            for name, value in self.averaged.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(current[name], 1 - decay)
                else:
                    value.copy_(current[name])


def _batch(arrays: Sequence[NDArray[Any]]) -> Tensor:
    stacked = torch.from_numpy(np.stack(arrays)[:, None].astype(np.float32))
    return stacked.to(memory_format=torch.channels_last_3d)


def probabilities(network: nn.Module, values: Floats, roi_size: Sequence[int], overlap: float) -> Floats:
    """The network's probability at each voxel of a volume [k, j, i] of values 0..1."""
    network.eval()
    with torch.inference_mode():
        window = torch.from_numpy(np.ascontiguousarray(values))[None, None]
        logits = sliding_window_inference(
            window,
            tuple(roi_size),
            1,
            lambda part: network(part.contiguous(memory_format=torch.channels_last_3d)),
            overlap=overlap,
            mode="gaussian",
        )
    return np.asarray(torch.sigmoid(logits)[0, 0], dtype=np.float32)  # type: ignore[arg-type]  # one tensor in, one out


def mine(
    network: nn.Module, backgrounds: Sequence[Background], experiment: Experiment, round_: int
) -> NDArray[np.float64]:
    """Places [background, k, j, i, weight] where the network sees a nodule in backgrounds that hold none."""
    found = []
    for which, source in enumerate(backgrounds):
        rng = np.random.default_rng((experiment.seed, round_, which))
        where = ndimage.find_objects(source.lung.astype(np.int8))[0]
        hu = scan(aerate(source.hu[where].astype(np.float32), rng), rng)
        seen = probabilities(network, normalise(hu), experiment.bundle["roi_size"], 0.1)
        seen = seen * (source.teaching[where] & source.lung[where])
        labels, count = ndimage.label(seen > _MINED_ABOVE)
        for place in ndimage.maximum_position(seen, labels, np.arange(1, count + 1)):
            found.append((which, *(p + s.start for p, s in zip(place, where, strict=True)), seen[place]))
    return np.array(found, dtype=np.float64).reshape(-1, 5)


def train(experiment: Experiment, out: Path, data: Path) -> Path:
    """Train to the experiment's last step, from the checkpoint in out if there is one; the checkpoint's path."""
    torch.set_num_threads(int(experiment.training["threads"]))
    out.mkdir(parents=True, exist_ok=True)
    backgrounds, shapes = load_data(experiment, data)
    patches = Patches(backgrounds, shapes, tuple(experiment.data["patch"]), experiment.seed)
    run = Run(experiment, patches)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        run.resume(checkpoint)
    steps = int(experiment.training["steps"])
    with (out / "losses.jsonl").open("a") as log, tqdm(total=steps, initial=run.step, desc=experiment.name) as bar:
        while run.step < steps:
            loss = run.advance()
            log.write(json.dumps({"step": run.step, "loss": round(loss, 5)}) + "\n")
            bar.update()
            if run.step % experiment.training["mine_every"] == 0 and run.step < steps:
                mined = mine(run.averaged, backgrounds, experiment, run.step)
                patches.hard_negatives = np.concatenate([mined, patches.hard_negatives])[:400]
                highest = np.round(np.sort(mined[:, 4])[::-1][:12], 2).tolist()
                log.write(json.dumps({"step": run.step, "mined": len(mined), "highest": highest}) + "\n")
            if run.step % experiment.training["checkpoint_every"] == 0 or run.step == steps:
                run.save(checkpoint)
                log.flush()
                bar.set_postfix(loss=f"{loss:.3f}")
    return checkpoint


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the checkpoint and the losses")
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds lung-backgrounds/")
    chosen = parser.parse_args(arguments)
    experiment = read_experiment(chosen.experiment)
    print(train(experiment, chosen.out or CACHE / "runs" / experiment.name, chosen.data))


if __name__ == "__main__":
    main()
