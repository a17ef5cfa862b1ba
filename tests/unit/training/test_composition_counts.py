"""How composition is counted, on toy lungs: what can be told is told, and each kind is counted as itself."""

import numpy as np

from training.composition_counts import RIGHT, Counts, counted, in_words
from training.dataset import Background
from training.shapes import Shape


def lungs() -> Background:
    hu = np.full((80, 80, 120), -860, dtype=np.int16)
    everywhere = np.ones(hu.shape, dtype=bool)
    return Background(name="toy", hu=hu, lung=everywhere, teaching=~everywhere, judging=everywhere)


def shapes() -> list[Shape]:
    """Balls of 15 mm, of patients for whatever use."""
    grid = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    probability = (np.clip(8.0 - grid, 0, 1) * 255).astype(np.uint8)
    return [Shape(patient=f"P-{n}", probability=probability, texture=5.0, calcified=False) for n in range(60)]


def test_every_kind_is_drawn_as_often_as_asked_and_large_plain_balls_are_told_rightly() -> None:
    rows = counted([lungs()], shapes(), each=8)
    assert list(rows) == list(RIGHT)
    assert {row.drawn for row in rows.values()} == {8}
    for kind in ("solid", "calcified"):
        assert rows[kind].told >= 7
        assert rows[kind].right >= rows[kind].told - 1
    assert rows["ground glass"].right >= 5
    assert rows["cavity"].told <= 4
    assert counted([lungs()], shapes(), each=8) == rows


def test_of_what_has_air_inside_nothing_that_is_said_is_right() -> None:
    table = in_words({"solid": Counts(drawn=60, told=50, right=49), "ring": Counts(drawn=60, told=20, right=0)})
    assert "| solid | 60 | 50 | 49 |" in table
    assert "| ring | 60 | 20 | none is right |" in table
