"""The way from data to a bundle: `python -m training VERB EXPERIMENT [--data DIR] [--out DIR]`.

EXPERIMENT is the name of a file in training/experiments, or a path. All share the run's folder: train leaves a
checkpoint there, calibrate the calibration, evaluate the report, and export writes the bundle from them; make does all
four, and for the detector of lung nodules all that its bundle holds.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.cases.case import DatasetInvalid
from training.course import Course, make
from training.experiment import DATA, Experiment, ExperimentInvalid, named, read_experiment
from training.tasks.table import task_of
from training.tasks.task import CALIBRATION
from training.train import train, trained
from workers.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person asked for."""

    experiment: Experiment
    data: Path
    #: The run's folder.
    out: Path
    bundle: Path
    #: The step to stop at, before the experiment's last.
    until: int | None
    #: The folder of a run that this one is a further round of.
    begin: Path | None


Verb = Callable[[Asked], str]


def _train(asked: Asked) -> str:
    return str(train(asked.experiment, asked.out, asked.data, until=asked.until, begin=asked.begin))


def _calibrate(asked: Asked) -> str:
    task = task_of(asked.experiment, asked.data)
    found = task.calibrate(trained(task, asked.out).network)
    (asked.out / CALIBRATION).write_text(json.dumps(found.as_json(), indent=2) + "\n")
    said = ", ".join(f"{name} {value:.4f}" for name, value in found.likelihoods.items())
    return f"{asked.out / CALIBRATION}: {found.method} (negative log-likelihood on held-out folds: {said})"


def _evaluate(asked: Asked) -> str:
    task = task_of(asked.experiment, asked.data)
    return str(task.evaluate(trained(task, asked.out).network, _calibration(asked.out), asked.out))


def _export(asked: Asked) -> str:
    task = task_of(asked.experiment, asked.data)
    calibration = _calibration(asked.out)
    if calibration is None:
        raise ExperimentInvalid(f"{asked.out} holds no {CALIBRATION}: run calibrate first")
    run = trained(task, asked.out)
    task.export(run.network, calibration, run, asked.bundle)
    return str(asked.bundle)


#: In the order in which they are run.
STEPS: Mapping[str, Verb] = {"train": _train, "calibrate": _calibrate, "evaluate": _evaluate, "export": _export}


def _make(asked: Asked) -> str:
    """From nothing to a bundle: a detector takes more than the four steps."""
    if asked.experiment.task == "lung_nodule":
        return make(Course(experiment=asked.experiment, data=asked.data, out=asked.out), asked.bundle)
    return "\n".join(step(asked) for step in STEPS.values())


VERBS: Mapping[str, Verb] = {**STEPS, "make": _make}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; what a person can mend is said in one line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("experiment")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data")
    parser.add_argument("--out", type=Path, help="the run's folder")
    parser.add_argument("--until", type=int, help="train: the step to stop at, before the experiment's last")
    parser.add_argument("--begin", type=Path, help="train: the folder of a run whose weights this one begins with")
    parser.add_argument("--bundle", type=Path, help="export: the bundle's folder; else bundle/NAME in the run's")
    chosen = parser.parse_args(arguments)
    try:
        experiment = read_experiment(named(chosen.experiment))
        out = chosen.out or experiment.folder
        bundle = chosen.bundle or out / "bundle" / experiment.name
        asked = Asked(
            experiment=experiment, data=chosen.data, out=out, bundle=bundle, until=chosen.until, begin=chosen.begin
        )
        print(VERBS[chosen.verb](asked))
    except (DatasetInvalid, ExperimentInvalid, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _calibration(out: Path) -> Calibration | None:
    path = out / CALIBRATION
    return Calibration.from_json(json.loads(path.read_text())) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
