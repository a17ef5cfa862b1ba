"""Weights and thresholds set on opinions that are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import little_bundle
from training import networks
from training.experiment import EXPERIMENTS, read_experiment
from training.operating_point import (
    choices,
    chosen_cases,
    report_threshold,
    said,
    set_on,
    weighed,
    weighing_cases,
    write,
)
from training.tasks.second_look import add
from training.validation import SHOWN, Validation, kept, seen_before
from workers.bundles import Bundle, load_bundle
from workers.second_look import Weights

RNG = np.random.default_rng(3)


def seen(count: int = 40) -> Validation:
    """Ten volumes with one nodule each and three marks on nothing."""
    nodules = np.where(np.arange(count) % 4 == 0, 0, -1)
    return Validation(
        volumes=np.arange(count) // 4,
        nodules=nodules,
        first=np.where(nodules == 0, 0.6, 0.7) + RNG.uniform(-0.1, 0.1, count),
        crops=np.zeros((count, *SHOWN), dtype=np.float32),
        diameters=((8.0,),) * (count // 4),
        shares=(0.5,) * (count // 4),
    )


def test_an_opinion_that_knows_is_given_the_weight() -> None:
    given = seen()
    second = np.where(given.nodules == 0, 0.9, 0.1) + RNG.uniform(-0.08, 0.08, 40)
    weights = weighed(given.first, second, given.nodules >= 0)
    assert weights is not None
    assert weights.second > abs(weights.first)
    both = weights(given.first, second)
    assert report_threshold(given, both, 1.0, 0.05) < both[given.nodules >= 0].min()
    assert "one false positive a scan 1.000" in said(given, both)


def test_from_too_few_nodules_no_weights_are_fitted() -> None:
    given = seen(16)
    assert weighed(given.first, given.first, given.nodules >= 0) is None


@pytest.mark.parametrize("wanted", [0.5, 1.0, 2.0, 4.0])
def test_the_threshold_is_the_lowest_that_keeps_the_promise(wanted: float) -> None:
    given = seen()
    threshold = report_threshold(given, given.first, wanted, 0.05)
    false = given.first[given.nodules < 0]
    assert (false >= threshold).sum() / 5 <= wanted < (false >= threshold - 0.01).sum() / 5


def test_more_false_positives_are_had_with_a_lower_threshold_and_never_find_less() -> None:
    given = seen()
    rows = choices(given, given.first, 0.05)
    thresholds = [float(re.findall(r"threshold of (\S+),", name)[0]) for name in rows]
    found = [int(said.partition(" of ")[0]) for said in rows.values()]
    assert len(rows) == 5
    assert thresholds == sorted(thresholds, reverse=True)
    assert found == sorted(found)


def test_weights_are_fitted_on_other_volumes_than_the_threshold() -> None:
    names = [case.name for case in (*chosen_cases(6), *weighing_cases(6, 4))]
    assert names[:6] + names[7:] == [f"nodules-{n:03d}" for n in range(10)]
    assert len(set(names)) == len(names)


def test_the_weights_are_those_of_the_volumes_that_weigh(looks_again: Bundle) -> None:
    """With the same opinions, but the truth turned round where weights are fitted, the search counts the other way."""
    given = seen()
    turned = replace(given, nodules=np.where(given.nodules == 0, -1, 0))
    plain, weighed_elsewhere = (set_on(given, looks_again, 1.0, weighing) for weighing in (None, turned))
    assert plain.weights is not None
    assert weighed_elsewhere.weights is not None
    assert plain.weights.first < 0 < weighed_elsewhere.weights.first
    assert plain.counted["the search alone"] == weighed_elsewhere.counted["the search alone"]


def test_what_was_seen_comes_back(tmp_path: Path) -> None:
    given = seen()
    kept(given, tmp_path / "seen.npz")
    again = seen_before(tmp_path / "seen.npz")
    np.testing.assert_array_equal(again.first, given.first)
    assert (again.diameters, again.shares) == (given.diameters, given.shares)


@pytest.fixture
def looks_again(tmp_path: Path) -> Bundle:
    """A little bundle with a second look that knows nothing."""
    folder = little_bundle(tmp_path / "lung_nodule")
    experiment = read_experiment(EXPERIMENTS / "smoke_second_look.toml")
    add(experiment, networks.built(experiment.network), folder)
    return load_bundle(folder)


def test_a_bundle_with_a_new_threshold_is_whole(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    write(folder, None, 0.37)
    bundle = load_bundle(folder)
    assert bundle.verified
    assert bundle.number("postprocessing", "report_threshold") == 0.37
    settings = json.loads((folder / "configs" / "inference.json").read_text())
    settings["second_look"] = {}
    (folder / "configs" / "inference.json").write_text(json.dumps(settings))
    write(folder, Weights(first=0.1, second=0.9, constant=-1.0), 0.4)
    score = load_bundle(folder).configuration["second_look"]["score"]
    assert score == {"first": 0.1, "second": 0.9, "constant": -1.0}
