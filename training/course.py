"""From nothing to a detector's bundle: what `python -m training make` goes through where a detector is asked for.

Search network, its second round, second look at what it marks, reader-rating estimate, operating point, card. Each
stage leaves in the run's folder what it came to and how long that took (made.json); the same call goes on with the
first that is not there.
"""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from training import networks, operating_point, reader_ratings
from training.bundle import seal
from training.crops import shown
from training.dataset import load_data
from training.edition import edition
from training.evaluation import drawn_scans
from training.evaluation.drawn_scans import Case, DrawnScan, DrawnScans
from training.evaluation.toy_scans import toy_scan
from training.experiment import Experiment, ExperimentInvalid, named, read_experiment
from training.export import card, export_network, second_round
from training.tasks.second_look import SecondLook, add
from training.tasks.table import task_of
from training.tasks.task import CHECKPOINT, Task, Trained
from training.train import train, trained
from training.validation import Validation
from workers.bundles import load_bundle

MADE = "made.json"
#: Renderings of each held-out slab that the search network alone is judged on.
_RENDERINGS = 8
#: Folders of the search's rounds and of the second look in the run's.
_SEARCH, _SECOND_ROUND, _THIRD_ROUND, _SECOND_LOOK = "search", "second_round", "third_round", "second_look"
#: Where stages keep their weights; a run that is there goes on, or is taken as it is.
_FOLDERS: Mapping[str, str] = {
    "second round": _SECOND_ROUND,
    "third round": _THIRD_ROUND,
    "second look": _SECOND_LOOK,
}
#: The last stage, and what only that looks at.
_LAST = "operating point"
_OF_THE_LAST = ("validation_cases", "validation_normals", "weighing_cases")
Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is to be made, from what, and where."""

    experiment: Experiment
    data: Path
    #: The run's folder.
    out: Path

    @property
    def draft(self) -> Path:
        """The bundle while it is being made."""
        return self.out / "draft" / self.experiment.name

    @cached_property
    def task(self) -> Task:
        """The question of its searching network, with the data."""
        return task_of(self.experiment, self.data)

    def searching(self) -> Trained:
        """The searching network, as its last round left it."""
        rounds = (self.out / name for name in (_THIRD_ROUND, _SECOND_ROUND))
        done = (folder for folder in rounds if (folder / CHECKPOINT).is_file())
        return trained(self.task, next(done, self.out / _SEARCH))

    @property
    def is_toy(self) -> bool:
        """Whether it is a run of seconds, on data that are none."""
        return bool(self.experiment.data["source"] == "synthetic")


def make(course: Course, bundle: Path) -> str:
    """Go through the stages that are not done, and put the bundle where it is asked for; what was made, in words."""
    course.out.mkdir(parents=True, exist_ok=True)
    # What is drawn hours from now is drawn by the code that is loaded now.
    edition(drawn_scans.DRAWING)
    edition(operating_point.SEEING)
    made = _made(course)
    for name, stage in STAGES.items():
        if name not in made["stages"]:
            _forget_behind(course, made, name)
            began = time.monotonic()
            facts = stage(course)
            made["stages"][name] = {"seconds": round(time.monotonic() - began, 1), **facts}
            _write(course.out / MADE, made)
    (course.draft / "docs" / "README.md").write_text(_card(course, made["stages"]))
    seal(course.draft)
    shutil.copytree(course.draft, bundle, dirs_exist_ok=True)
    return f"{bundle}\n{durations(made['stages'])}"


def _forget_behind(course: Course, made: Facts, name: str) -> None:
    """Drop what stands behind a stage that is to be done, with its weights: it was made of what that replaces.

    The stage's own folder stays: where it was stopped, it goes on.
    """
    names = list(STAGES)
    for later in names[names.index(name) + 1 :]:
        made["stages"].pop(later, None)
        if later in _FOLDERS:
            shutil.rmtree(course.out / _FOLDERS[later], ignore_errors=True)
    _write(course.out / MADE, made)


def _made(course: Course) -> dict[str, Any]:
    """What is done already; refused where it is another experiment's."""
    path, experiment = course.out / MADE, json.loads(json.dumps(asdict(course.experiment)))
    if not path.is_file():
        return {"experiment": experiment, "stages": {}}
    made: dict[str, Any] = json.loads(path.read_text())
    before = _completed(made["experiment"])
    if _trains(before) != _trains(experiment):
        raise ExperimentInvalid(f"{path} is of another experiment: choose another --out")
    if before["bundle"] != experiment["bundle"]:
        made["stages"].pop(_LAST, None)
    return {**made, "experiment": experiment}


def _completed(experiment: Facts) -> Facts:
    """What an earlier version did not ask for was as it is by default."""
    default = read_experiment(named("defaults"))
    tables = ("data", "training", "bundle")
    return {**experiment, **{table: {**getattr(default, table), **experiment[table]} for table in tables}}


def _trains(experiment: Facts) -> Facts:
    """An experiment without what only the last stage looks at."""
    bundle = {key: value for key, value in experiment["bundle"].items() if key not in _OF_THE_LAST}
    return {**experiment, "bundle": bundle}


def _write(path: Path, made: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(made, indent=2) + "\n")
    partial.replace(path)


def _search(course: Course) -> Facts:
    """Train the network that searches the lungs."""
    train(course.experiment, course.out / _SEARCH, course.data)
    run = trained(course.task, course.out / _SEARCH)
    return {"seconds": round(run.seconds, 1), "steps": run.step, "machine": machine()}


def _second_round(course: Course) -> Facts:
    """Train it on, on what it finds hard, as another experiment says."""
    return _further_round(course.experiment, course, _SEARCH, _SECOND_ROUND)


def _third_round(course: Course) -> Facts:
    """And on, where the second round's experiment names another."""
    name = course.experiment.bundle["second_round"]
    if not name:
        return {"said": ""}
    return _further_round(read_experiment(named(name)), course, _SECOND_ROUND, _THIRD_ROUND)


def _further_round(before: Experiment, course: Course, begin: str, out: str) -> Facts:
    name = before.bundle["second_round"]
    if not name:
        return {"said": ""}
    further = read_experiment(named(name))
    train(further, course.out / out, course.data, begin=course.out / begin)
    run = trained(course.task, course.out / out)
    return {"seconds": round(run.seconds, 1), "said": second_round(further, run.step)}


def _draft(course: Course) -> Facts:
    """Write a bundle of the search alone, judged on held-out slabs."""
    run = course.searching()
    scans = 1 if course.is_toy else _RENDERINGS
    made = export_network(
        course.experiment, run.network, run.step, course.draft, *load_data(course.experiment, course.data), scans
    )
    return {"figures": made.figures, "parameters": networks.parameters(run.network)}


def _second_look(course: Course) -> Facts:
    """Train the network that looks again, on candidates of the first one, and add it to the bundle."""
    name = course.experiment.bundle["second_look"]
    if not name:
        return {"said": "There is none."}
    found = read_experiment(named(name))
    second = replace(found, data={**found.data, "search": str(course.draft)})
    folder = course.out / _SECOND_LOOK
    train(second, folder, course.data)
    # Not before: the lungs of both would be in memory together.
    task = SecondLook(second, course.data)
    run = trained(task, folder)
    add(second, run.network, course.draft)
    area = task.auc(run.network)
    told = f"AUC {area} on {area.cases} crops that did not teach, of lungs and shapes that did"
    among = "" if course.is_toy else f" among {second.data['thoraces']} generated thoraces"
    taught = f"{run.step} steps of {second.data['batch']} crops{among}"
    said = f"{networks.parameters(run.network):,} parameters, {taught}; {told}. {shown()}"
    return {"seconds": round(run.seconds, 1), "said": said}


def _reader_ratings(course: Course) -> Facts:
    """Fit the reader-rating estimate to the shapes, and write it into the bundle."""
    if course.is_toy:
        return {"said": "None: nobody rated the toy's balls."}
    entry, figures = reader_ratings.fitted(load_data(course.experiment, course.data)[1])
    reader_ratings.write(course.draft, entry)
    return {"said": "; ".join(f"{name} {estimate}" for name, estimate in figures.items())}


def _operating_point(course: Course) -> Facts:
    """Weigh both opinions and put the report threshold, on validation data alone."""
    operating_point.allow_lower_precision(course.draft)
    bundle, settings = load_bundle(course.draft), course.experiment.bundle
    scans, count = _validation(course), int(settings["validation_cases"])
    folder = course.out / "validation" / (scans.folder.name if isinstance(scans, DrawnScans) else "toy")
    chosen = operating_point.chosen_cases(count, int(settings["validation_normals"]))
    seen = operating_point.seen_by(bundle, scans, chosen, folder)
    further = operating_point.weighing_cases(count, int(settings["weighing_cases"]))
    weighing = operating_point.seen_by(bundle, scans, further, folder) if further else None
    found = operating_point.set_on(seen, bundle, float(settings["false_positives_wanted"]), weighing)
    operating_point.write(course.draft, found.weights, found.report_threshold)
    weighed = "the same" if weighing is None else _counted(weighing)
    return {
        "report_threshold": found.report_threshold,
        "volumes": _counted(seen),
        "weighed on": weighed,
        "counted": dict(found.counted),
    }


def _counted(seen: Validation) -> str:
    return f"{len(seen.shares)} volumes with {sum(len(each) for each in seen.diameters)} nodules"


def _validation(course: Course) -> Callable[[Case], DrawnScan]:
    return toy_scan if course.is_toy else operating_point.validation_scans(course.data)


#: In the order in which they are gone through.
STAGES: Mapping[str, Callable[[Course], Facts]] = {
    "search": _search,
    "second round": _second_round,
    "third round": _third_round,
    "draft": _draft,
    "second look": _second_look,
    "reader ratings": _reader_ratings,
    "operating point": _operating_point,
}
_WORDS: Mapping[str, str] = {
    "search": "training the searching network",
    "second round": "training it on, on what it finds hard",
    "third round": "training it on once more, in more lungs, on more large nodules",
    "draft": "judging it on held-out slabs",
    "second look": "searching the teaching lungs for what it marks wrongly, and training the second look",
    "reader ratings": "fitting the reader-rating estimate",
    "operating point": "reading the validation volumes, and setting the operating point",
}


def durations(stages: Mapping[str, Facts]) -> str:
    """How long each stage took, and all, as a table in Markdown."""
    done = {name: facts for name, facts in stages.items() if facts.get("said") != ""}
    rows = [f"| {_WORDS[name]} | {facts['seconds'] / 60:.1f} |" for name, facts in done.items()]
    total = sum(facts["seconds"] for facts in stages.values()) / 60
    return "\n".join(["| stage | minutes |", "|---|---|", *rows, f"| all | {total:.1f} |"])


def machine() -> str:
    """What trained: a processor or a GPU by name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(information) if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _card(course: Course, stages: Mapping[str, Facts]) -> str:
    point, search = stages["operating point"], stages["search"]
    rows = "\n".join(f"| {name} | {said} |" for name, said in point["counted"].items())
    threshold = f"Report threshold {point['report_threshold']:.2f}, set on {point['volumes']}"
    weighed = f"How much each opinion counts was fitted on {point['weighed on']}."
    limit = f"the lowest with at most {course.experiment.bundle['false_positives_wanted']:g} false positives a scan"
    return card(
        course.experiment,
        parameters=stages["draft"]["parameters"],
        steps=search["steps"],
        further="".join(stages[name]["said"] for name in ("second round", "third round")),
        shapes=load_data(course.experiment, course.data)[1],
        figures=stages["draft"]["figures"],
        second_look=stages["second look"]["said"],
        operating_point=f"{threshold}: {limit}. {weighed}\n\n| on these very volumes | |\n|---|---|\n{rows}",
        duration=f"On {search['machine']}; of what trains, the steps alone:\n\n{durations(stages)}",
    )
