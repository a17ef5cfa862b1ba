"""Drawn lungs at two breaths: findings are followed there, and a wrong pair is rare."""

import numpy as np
import pytest

from training.breathing import Count, Points, breath, drawn_lungs, follow, main


@pytest.fixture(scope="module")
def lungs() -> dict[str, Points]:
    """Those of one drawn chest."""
    return drawn_lungs(1)


def test_another_breath_moves_the_base_more_than_the_apex(lungs: dict[str, Points]) -> None:
    places = np.concatenate(list(lungs.values()))
    moved = [np.linalg.norm(breath(places, np.random.default_rng(seed))(places) - places, axis=1) for seed in range(9)]
    assert max(float(np.ptp(away)) for away in moved) > 10


def test_few_findings_are_followed_and_hardly_any_as_another(lungs: dict[str, Points]) -> None:
    rng, count = np.random.default_rng(1), Count()
    for _ in range(60):
        follow(lungs, 5, rng, count)
    both = count.right + count.wrong + count.unclear + count.missed
    assert both == 60 * 4
    assert count.right >= 0.8 * both
    assert count.wrong + count.alone_wrong <= 0.02 * both


def test_the_counts_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--chests", "1", "--pairs", "2", "--findings", "5"])
    assert "8 findings in both scans" in capsys.readouterr().out
