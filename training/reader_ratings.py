"""Fit the reader-rating estimate: `python -m training.reader_ratings [--bundle DIR]` measures it, and writes it there.

Nodules of LIDC-IDRI that at least three readers outlined and rated; those whose mean rating of malignancy is 3 say
neither and are left out. Judged on the patients who teach nothing else either; the interval's members are fitted to
patients drawn with replacement.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from training.bundle import seal
from training.dataset import load
from training.experiment import CACHE, DATA
from training.metrics import classification
from training.metrics.bootstrap import Estimate, bootstrap
from training.shapes import Shape
from workers.algorithms.nodule_bundle import NOT_OF_CANCER, OUTCOMES
from workers.reader_estimate import FEATURES, features

Array = NDArray[np.float64]

_MEMBERS = 40
_MIDDLE = 3.0
#: Strength of the ridge that keeps weights small.
_INVERSE_RIDGE = 1.0
NAME = "reader_estimate"


def fitted(shapes: Sequence[Shape], seed: int = 0) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """The entry of inference.json, and how well it does on patients that it was not fitted to."""
    rated = [shape for shape in shapes if shape.malignancy != _MIDDLE]
    measured = [features(shape.probability / 255) for shape in tqdm(rated, desc="shapes")]
    usable = [n for n, row in enumerate(measured) if row is not None]
    x = np.array([measured[n] for n in usable])
    y = np.array([rated[n].malignancy > _MIDDLE for n in usable], dtype=float)
    patients = np.array([rated[n].patient for n in usable])
    held = np.array([rated[n].held_out for n in usable])
    centre, scale = x[~held].mean(axis=0), x[~held].std(axis=0)
    scaled = (x - centre) / scale
    members = _members(scaled[~held], y[~held], patients[~held], seed)
    said = _said(members[0], scaled[held])
    trees = HistGradientBoostingClassifier(max_depth=3, max_iter=80, learning_rate=0.08, random_state=seed)
    other = trees.fit(scaled[~held], y[~held]).predict_proba(scaled[held])[:, 1]
    figures = _figures(y[held], said, other, scaled[held], list(patients[held]))
    entry = {
        "features": list(FEATURES),
        "centre": [round(float(value), 5) for value in centre],
        "scale": [round(float(value), 5) for value in scale],
        "members": [[round(float(value), 4) for value in member] for member in members],
        "fitted_to": f"{int((~held).sum())} nodules of {len(set(patients[~held]))} patients of LIDC-IDRI",
        "judged_on": f"{int(held.sum())} nodules of {len(set(patients[held]))} other patients",
        "means": f"mean malignancy rating of readers above 3, {NOT_OF_CANCER}",
        "figures": {name: {k: round(v, 4) for k, v in asdict(e).items()} for name, e in figures.items()},
    }
    return entry, figures


def _members(x: Array, y: Array, patients: NDArray[np.str_], seed: int) -> list[Array]:
    """Weights fitted to all, and to patients drawn with replacement."""
    rng, names = np.random.default_rng(seed), np.unique(patients)
    of_patient = {name: np.flatnonzero(patients == name) for name in names}
    draws = [np.arange(len(y))]
    for _ in range(_MEMBERS):
        draws.append(np.concatenate([of_patient[name] for name in rng.choice(names, len(names))]))
    members = []
    for rows in draws:
        model = LogisticRegression(C=_INVERSE_RIDGE, max_iter=500).fit(x[rows], y[rows])
        members.append(np.append(model.coef_[0], model.intercept_[0]))
    return members


def _said(member: Array, x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-(x @ member[:-1] + member[-1]))))


def _figures(y: Array, said: Array, other: Array, x: Array, patients: list[str]) -> dict[str, Estimate]:
    def area(of: Array) -> Estimate:
        return bootstrap(lambda cases: classification.auc(y[cases], of[cases]), patients)

    return {
        "AUC": area(said),
        "AUC of boosted trees": area(other),
        "AUC of volume alone": area(x[:, 0]),
        "mean squared error (Brier)": bootstrap(lambda cases: float(((said - y)[cases] ** 2).mean()), patients),
        "mean said less share observed": bootstrap(lambda cases: float((said - y)[cases].mean()), patients),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.reader_ratings", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="the bundle to write it into; else it is measured only")
    chosen = parser.parse_args(arguments)
    entry, figures = fitted(load(DATA, CACHE)[1])
    print(entry["fitted_to"], "|", entry["judged_on"])
    print("\n".join(f"{name}: {estimate}" for name, estimate in figures.items()))
    if chosen.bundle:
        write(chosen.bundle, entry)
    return 0


def write(bundle: Path, entry: dict[str, Any]) -> None:
    """Put the estimate into a bundle, and seal it anew."""
    path = bundle / "configs" / "inference.json"
    settings = json.loads(path.read_text())
    settings[NAME] = entry
    path.write_text(json.dumps(settings, indent=2) + "\n")
    # Ratings are no outcomes, whatever the estimate before was fitted to.
    told = bundle / "configs" / "metadata.json"
    metadata = json.loads(told.read_text())
    if metadata.pop(OUTCOMES, None) is not None:
        told.write_text(json.dumps(metadata, indent=2) + "\n")
    seal(bundle)


if __name__ == "__main__":
    raise SystemExit(main())
