"""Experiments: small TOML files that say what differs from `experiments/defaults.toml`."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parent / "experiments"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dicom-node"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

#: Tables of names that are free: an experiment that has one means all of it, and nothing of the default's.
_WHOLE = ("augmentation", "loss")


class ExperimentInvalid(ValueError):
    """An experiment file that cannot be used: the message names file, key and mend."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment file laid over the defaults; each table is a mapping with the keys of defaults.toml."""

    #: Also the name of the model card beside it, and of the bundle.
    name: str
    #: A name in `training.tasks.TASKS`.
    task: str
    seed: int
    data: Mapping[str, Any]
    #: Transforms by name, each with its arguments.
    augmentation: Mapping[str, Any]
    #: `_target_` is a class of MONAI's networks, the rest are its arguments.
    network: Mapping[str, Any]
    #: Losses by name, each with its weight in the sum.
    loss: Mapping[str, float]
    training: Mapping[str, Any]
    report: Mapping[str, Any]
    bundle: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its run is kept when nobody says where."""
        return CACHE / "runs" / self.name


def read_experiment(path: Path) -> Experiment:
    """The experiment of a TOML file; a key that defaults.toml does not know is refused by name."""
    merged = tomllib.loads((EXPERIMENTS / "defaults.toml").read_text())
    try:
        changes = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(file.name for file in EXPERIMENTS.glob("*.toml")))
        raise ExperimentInvalid(f"{path} is not there; {EXPERIMENTS} has {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ExperimentInvalid(f"{path.name} is no TOML: {error}") from error
    for key, value in changes.items():
        if key not in merged:
            raise ExperimentInvalid(_unknown(path, [key]))
        merged[key] = _laid_over(path, key, merged[key], value)
    return Experiment(**merged)


def named(name: str) -> Path:
    """The file that a person means by an experiment's name or path."""
    shipped = EXPERIMENTS / f"{name}.toml"
    return shipped if shipped.is_file() else Path(name)


def _laid_over(path: Path, key: str, default: Any, value: Any) -> Any:
    if not isinstance(default, dict):
        return value
    if not isinstance(value, dict):
        raise ExperimentInvalid(f"{path.name}: {key} is a table in defaults.toml; write [{key}]")
    if key in _WHOLE or "_target_" in value:
        return value
    unknown = sorted(set(value) - set(default))
    if unknown:
        raise ExperimentInvalid(_unknown(path, [f"{key}.{name}" for name in unknown]))
    return {**default, **value}


def _unknown(path: Path, keys: list[str]) -> str:
    return f"{path.name}: unknown key {', '.join(keys)}; defaults.toml lists the keys there are"
