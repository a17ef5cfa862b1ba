"""The way from data to a bundle: `python -m training VERB EXPERIMENT [--data DIR] [--out DIR]`.

EXPERIMENT is the name of a file in training/experiments, or a path. All four share the run's folder: train leaves a
checkpoint there, calibrate the calibration, evaluate the report, and export writes the bundle from them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.calibration import Calibration
from training.cases.case import DatasetInvalid
from training.experiment import DATA, Experiment, ExperimentInvalid, named, read_experiment
from training.tasks.table import task_of
from training.tasks.task import CALIBRATION
from training.train import train, trained

Verb = Callable[[Experiment, Path, Path, Path], str]


def _train(experiment: Experiment, data: Path, out: Path, bundle: Path) -> str:
    return f"{train(experiment, out, data)}: trained to step {experiment.training['steps']}"


def _calibrate(experiment: Experiment, data: Path, out: Path, bundle: Path) -> str:
    task = task_of(experiment, data)
    found = task.calibrate(trained(task, out).network)
    (out / CALIBRATION).write_text(json.dumps(found.as_json(), indent=2) + "\n")
    said = ", ".join(f"{name} {value:.4f}" for name, value in found.likelihoods.items())
    return f"{out / CALIBRATION}: {found.method} (negative log-likelihood on held-out folds: {said})"


def _evaluate(experiment: Experiment, data: Path, out: Path, bundle: Path) -> str:
    task = task_of(experiment, data)
    return str(task.evaluate(trained(task, out).network, _calibration(out), out))


def _export(experiment: Experiment, data: Path, out: Path, bundle: Path) -> str:
    task = task_of(experiment, data)
    calibration = _calibration(out)
    if calibration is None:
        raise ExperimentInvalid(f"{out} holds no {CALIBRATION}: run calibrate first")
    run = trained(task, out)
    task.export(run.network, calibration, run, bundle)
    return str(bundle)


VERBS: Mapping[str, Verb] = {"train": _train, "calibrate": _calibrate, "evaluate": _evaluate, "export": _export}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; what a person can mend is said in one line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("experiment")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data")
    parser.add_argument("--out", type=Path, help="the run's folder")
    parser.add_argument("--bundle", type=Path, help="export: the bundle's folder; else bundle/NAME in the run's")
    chosen = parser.parse_args(arguments)
    try:
        experiment = read_experiment(named(chosen.experiment))
        out = chosen.out or experiment.folder
        bundle = chosen.bundle or out / "bundle" / experiment.name
        print(VERBS[chosen.verb](experiment, chosen.data, out, bundle))
    except (DatasetInvalid, ExperimentInvalid, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _calibration(out: Path) -> Calibration | None:
    path = out / CALIBRATION
    return Calibration.from_json(json.loads(path.read_text())) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
