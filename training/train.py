"""Train a network: `python -m training train EXPERIMENT [--out DIR] [--data DIR]`. The same call resumes a run.

Several GPUs: `torchrun --nproc-per-node N -m training train EXPERIMENT`. Read downward: a run is its weights, their
running average, the optimiser and the step; example n is a function of seed and n, so that a run that stopped goes on
as if it had not.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tensorboardX import SummaryWriter
from torch import nn
from tqdm import tqdm

from training.batches import Batches
from training.experiment import DATA, Experiment, ExperimentInvalid, named, read_experiment
from training.losses import weighted_sum
from training.precision import Precision
from training.processes import Processes, processes
from training.tasks.table import task_of
from training.tasks.task import CHECKPOINT, Task, Trained

_LARGEST_GRADIENT = 5.0
#: What may change in an experiment between the parts of one run.
_MAY_CHANGE = frozenset({"steps", "threads", "drawing_processes", "checkpoint_every", "device"})


def learning_rate(step: int, training: Mapping[str, Any]) -> float:
    """Rises over the warm-up, stays, and falls along a line to nothing over the last share of the steps."""
    rising = (step + 1) / training["warmup_steps"]
    falling = (training["steps"] - step) / max(1.0, training["decay_share"] * training["steps"])
    return float(training["learning_rate"]) * min(1.0, rising, falling)


class Run:
    """All that a resumed run needs: weights, their running average, the optimiser, the task's state and the step."""

    def __init__(self, experiment: Experiment, task: Task, here: Processes) -> None:
        torch.manual_seed(experiment.seed)
        self.experiment = experiment
        self.task = task
        self.here = here
        self.network = task.network().to(here.device)
        self.averaged = deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=experiment.training["weight_decay"])
        self.step, self.seconds = 0, 0.0
        self._joined = here.joined(self.network)
        self._loss = weighted_sum(experiment.loss)
        self._precision = Precision(experiment.training["precision"], here.device)
        self._batches = Batches(
            task,
            here,
            size=int(experiment.data["batch"]),
            last=int(experiment.training["steps"]),
            processes=int(experiment.training["drawing_processes"]),
        )

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "experiment": json.dumps(asdict(self.experiment)),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._precision.scaler.state_dict(),
            "task": dict(self.task.state()),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on where the checkpoint stopped; refused where it is of another experiment."""
        state = torch.load(path, map_location=self.here.device, weights_only=True)
        _check_same(path, json.loads(state["experiment"]), asdict(self.experiment))
        self.step, self.seconds = state["step"], state["seconds"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._precision.scaler.load_state_dict(state["scaler"])
        self.task.restore(state["task"])

    def begin_with(self, path: Path) -> None:
        """Begin with the averaged weights of another run, and with what its task came to."""
        state = torch.load(path, map_location=self.here.device, weights_only=True)
        _check_may_begin_with(path, json.loads(state["experiment"]), json.loads(json.dumps(asdict(self.experiment))))
        self.network.load_state_dict(state["averaged"])
        self.averaged.load_state_dict(state["averaged"])
        self.task.restore(state["task"])

    def advance(self) -> float:
        """One step; the loss of this process's share of the batch."""
        began = time.monotonic()
        batch = self._batches(self.step).to(self.here.device)
        # Dropout, too, is a function of seed and step.
        torch.manual_seed(self.experiment.seed * 1_000_003 + self.step * self.here.count + self.here.rank)
        self.network.train()
        with self._precision.autocast():
            loss = self._loss(self._joined(batch.values).float(), batch.target, batch.counts)
        self._descend(loss)
        self._average()
        self.step += 1
        said = loss.item()
        self.seconds += time.monotonic() - began
        return said

    def between(self) -> Mapping[str, Any]:
        """What the task does after a step, unless it was the last; what it says is logged."""
        if self.step >= self.experiment.training["steps"]:
            return {}
        began = time.monotonic()
        said = self.task.between(self.step, self.averaged)
        if said:
            self._batches.forget()
        self.seconds += time.monotonic() - began
        return said

    def _descend(self, loss: torch.Tensor) -> None:
        scaler = self._precision.scaler
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.experiment.training)
        self.optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        scaler.step(self.optimiser)
        scaler.update()

    def _average(self) -> None:
        decay = min(float(self.experiment.training["average_decay"]), (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.network.state_dict()
            for name, value in self.averaged.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(current[name], 1 - decay)
                else:
                    value.copy_(current[name])


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ExperimentInvalid where a run would go on as something else than it began."""
    # What an earlier version did not ask for was as it is by default.
    default = read_experiment(named("defaults"))
    before = {**before, **{table: {**getattr(default, table), **before[table]} for table in ("data", "training")}}
    differ = [
        f"{table}.{key}" if key else table
        for table in ("task", "seed", "data", "augmentation", "network", "loss", "training")
        for key in _differences(before[table], json.loads(json.dumps(now[table])))
        if key not in _MAY_CHANGE
    ]
    if differ:
        raise ExperimentInvalid(f"{path} is of another experiment ({', '.join(differ)} differ): choose another --out")


def _check_may_begin_with(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ExperimentInvalid where weights are of another network, or hard places in lungs that are not here."""
    differ = [table for table in ("task", "network") if before[table] != now[table]]
    thoraces = [each["data"].get("thoraces", 0) for each in (before, now)]
    differ += ["data.thoraces"] if thoraces[0] > thoraces[1] else []
    if differ:
        raise ExperimentInvalid(f"nothing begins with {path}: {', '.join(differ)} must be as there, or thoraces more")


def _differences(before: Any, now: Any) -> list[str]:
    if not isinstance(before, dict):
        return [] if before == now else [""]
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


class Log:
    """What a run says: a progress bar, losses.jsonl, and TensorBoard's files; only the first process says anything."""

    def __init__(self, out: Path, run: Run, stack: ExitStack) -> None:
        steps = int(run.experiment.training["steps"])
        self._file = stack.enter_context((out / "losses.jsonl").open("a"))
        self._bar = stack.enter_context(tqdm(total=steps, initial=run.step, desc=run.experiment.name))
        self._board = stack.enter_context(SummaryWriter(str(out / "tensorboard"), write_to_disk=True))

    def loss(self, step: int, loss: float, rate: float) -> None:
        """The loss of a step."""
        self.entry(step, {"loss": round(loss, 5)})
        self._board.add_scalar("learning_rate", rate, step)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update()

    def entry(self, step: int, values: Mapping[str, Any]) -> None:
        """Other values of a step; TensorBoard gets those that are numbers."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)


def train(
    experiment: Experiment, out: Path, data: Path, *, until: int | None = None, begin: Path | None = None
) -> Path:
    """Train to the experiment's last step, or to step `until`, from the checkpoint in out if there is one; its path.

    Without one, `begin` is the folder of a run that this one is a further round of.
    """
    torch.set_num_threads(int(experiment.training["threads"]))
    # What the fastest algorithm is may differ from run to run, and its rounding with it.
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    last = min(int(experiment.training["steps"]), until or 10**12)
    with processes(experiment.training["device"]) as here, ExitStack() as stack:
        run = Run(experiment, task_of(experiment, data), here)
        if checkpoint.exists():
            run.resume(checkpoint)
        elif begin is not None:
            run.begin_with(begin / CHECKPOINT)
        here.wait()
        log = Log(out, run, stack) if here.first else None
        while run.step < last:
            loss = run.advance()
            said = run.between()
            if log is None:
                continue
            log.loss(run.step, loss, learning_rate(run.step - 1, experiment.training))
            if said:
                log.entry(run.step, said)
            if run.step % experiment.training["checkpoint_every"] == 0 or run.step == last:
                run.save(checkpoint)
        here.wait()
    return checkpoint


def trained(task: Task, out: Path) -> Trained:
    """What the checkpoint in a folder holds; the task goes on with what it had then."""
    if not (out / CHECKPOINT).is_file():
        raise ExperimentInvalid(f"{out} holds no {CHECKPOINT}: train first, or name the run's folder with --out")
    state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    network = task.network()
    network.load_state_dict(state["averaged"])
    task.restore(state["task"])
    return Trained(network=network.eval(), step=int(state["step"]), seconds=float(state["seconds"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of before: `python -m training.train EXPERIMENT`."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--out", type=Path, help="folder of the checkpoint and the losses")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data")
    chosen = parser.parse_args(arguments)
    experiment = read_experiment(named(chosen.experiment))
    print(train(experiment, chosen.out or experiment.folder, chosen.data))


if __name__ == "__main__":
    main()
