"""The clinical questions there are, by the name that an experiment gives as its task."""

from collections.abc import Callable, Mapping
from pathlib import Path

from training.experiment import Experiment, ExperimentInvalid
from training.tasks.chest_xray_pneumonia import ChestXrayPneumonia
from training.tasks.lung_nodule import LungNodule
from training.tasks.lung_nodule_cases import LungNoduleCases
from training.tasks.second_look import SecondLook
from training.tasks.task import Task

TASKS: Mapping[str, Callable[[Experiment, Path], Task]] = {
    "chest_xray_pneumonia": ChestXrayPneumonia,
    "lung_nodule": LungNodule,
    "lung_nodule_cases": LungNoduleCases,
    "lung_nodule_second_look": SecondLook,
}


def task_of(experiment: Experiment, data: Path) -> Task:
    """The clinical question of an experiment, with its data."""
    if experiment.task not in TASKS:
        raise ExperimentInvalid(f"unknown task {experiment.task!r}: there are {', '.join(TASKS)}")
    return TASKS[experiment.task](experiment, data)
