"""Whether an outline tells its margin: `python -m training.margin_ratings` measures that against readers of LIDC-IDRI.

For each description of a margin: how well readers agree among themselves, and how well a logistic function of the
outline's shape, fitted to the teaching patients, tells the nodules that most readers described so, in patients that it
was not fitted to. A report says nothing of a margin that is not told as well as `REPORTED` asks.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from training.metrics import classification
from training.metrics.bootstrap import Estimate, bootstrap
from training.shapes import Ratings, Shape, annotation_database, read_shapes
from workers.reader_estimate import FEATURES, features

Array = NDArray[np.float64]

#: A reader's rating as yes or no.
DESCRIPTIONS: Mapping[str, Callable[[Ratings], bool]] = MappingProxyType(
    {
        "spiculated": lambda rated: rated.spiculation >= 3,
        "lobulated": lambda rated: rated.lobulation >= 3,
        "poorly defined": lambda rated: rated.margin <= 2,
    }
)
#: Of an area under the curve the lower end of its interval, and of two readers' agreement beyond chance (kappa) the
#: figure: from here on a margin would be reported.
REPORTED = (0.80, 0.40)
_INVERSE_RIDGE = 1.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """How well one description can be told."""

    description: str
    #: Nodules that most readers described so, of those judged.
    positives: int
    #: Cohen's kappa of two readers of the same nodule, over all pairs.
    kappa: Estimate
    #: One reader against what most of the others say.
    reader: Estimate
    shape: Estimate
    volume: Estimate

    @property
    def is_reported(self) -> bool:
        """Whether it is told well enough, by readers and by the outline, and better than by size alone."""
        lowest, agreement = REPORTED
        return self.shape.low >= lowest and self.kappa.value >= agreement and self.shape.low > self.volume.value

    def __str__(self) -> str:
        figures = {"readers' kappa": self.kappa, "a reader": self.reader, "shape": self.shape, "volume": self.volume}
        lines = [f"{self.description}: {self.positives} of {self.shape.cases} nodules, {self.shape.patients} patients"]
        lines += [f"  {name}: {figure}" for name, figure in figures.items()]
        return "\n".join([*lines, f"  reported: {'yes' if self.is_reported else 'no'}"])


def judged(shapes: Sequence[Shape]) -> list[Told]:
    """Each description, judged on the patients who teach nothing."""
    measured = [features(shape.probability / 255) for shape in tqdm(shapes, desc="shapes")]
    usable = [n for n, row in enumerate(measured) if row is not None and len(shapes[n].ratings) > 2]
    x = np.array([measured[n] for n in usable])
    rated = [shapes[n] for n in usable]
    held = np.array([shape.held_out for shape in rated])
    scaled = (x - x[~held].mean(axis=0)) / x[~held].std(axis=0)
    return [_told(name, rated, scaled, held) for name in DESCRIPTIONS if _varies(name, rated)]


def _varies(name: str, shapes: Sequence[Shape]) -> bool:
    """Whether any reader described a nodule so, and any did not."""
    return len({DESCRIPTIONS[name](rated) for shape in shapes for rated in shape.ratings}) > 1


def _told(name: str, shapes: Sequence[Shape], x: Array, held: NDArray[np.bool_]) -> Told:
    votes = [np.array([DESCRIPTIONS[name](rated) for rated in shape.ratings], dtype=float) for shape in shapes]
    # Where as many say so as do not, nobody can be right.
    clear = np.array([vote.mean() != 0.5 for vote in votes])
    y = np.array([vote.mean() > 0.5 for vote in votes], dtype=float)
    teach, judge = clear & ~held, clear & held
    model = LogisticRegression(C=_INVERSE_RIDGE, max_iter=500).fit(x[teach], y[teach])
    said, truth = model.decision_function(x[judge]), y[judge]
    size = x[judge, list(FEATURES).index("log volume")]
    patients = [shapes[n].patient for n in np.flatnonzero(judge).tolist()]
    # Where a description goes with small nodules, smallness tells it.
    towards = 1.0 if classification.auc(y[teach], x[teach, 0]) >= 0.5 else -1.0
    of_held = np.flatnonzero(held).tolist()
    held_votes, held_patients = [votes[n] for n in of_held], [shapes[n].patient for n in of_held]
    return Told(
        description=name,
        positives=int(truth.sum()),
        kappa=_agreement(held_votes, held_patients),
        reader=_reader(held_votes, held_patients),
        shape=bootstrap(lambda cases: classification.auc(truth[cases], said[cases]), patients),
        volume=bootstrap(lambda cases: classification.auc(truth[cases], towards * size[cases]), patients),
    )


def kappa(one: Array, two: Array) -> float:
    """Cohen's kappa of two readers who say 1 or 0: their agreement beyond chance; nan where chance alone agrees."""
    agreed = float((one == two).mean())
    first, second = float(one.mean()), float(two.mean())
    by_chance = first * second + (1 - first) * (1 - second)
    return 1 - (1 - agreed) / (1 - by_chance) if by_chance < 1 else float("nan")


def _agreement(votes: Sequence[Array], patients: Sequence[str]) -> Estimate:
    pairs = [(a, b, n) for n, vote in enumerate(votes) for a, b in itertools.permutations(vote, 2)]
    one, two = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    owners = [patients[n] for _, _, n in pairs]
    return bootstrap(lambda cases: kappa(one[cases], two[cases]), owners, replicates=200)


def _reader(votes: Sequence[Array], patients: Sequence[str]) -> Estimate:
    """The area under the curve of one reader's yes or no, against what most of the other readers say."""
    rows = [
        (vote[n], others.mean() > 0.5, patient)
        for vote, patient in zip(votes, patients, strict=True)
        for n in range(len(vote))
        for others in (np.delete(vote, n),)
        if others.mean() != 0.5
    ]
    said, truth = (np.array([row[side] for row in rows], dtype=float) for side in (0, 1))
    return bootstrap(
        lambda cases: classification.auc(truth[cases], said[cases]), [patient for *_, patient in rows], replicates=200
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.margin_ratings", description=__doc__)
    parser.parse_args(arguments)
    for told in judged(read_shapes(annotation_database())):
        print(told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
