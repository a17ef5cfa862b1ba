"""Experiments open, learn a step, stop and go on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.dataset import Patches, synthetic
from training.train import EXPERIMENTS, Run, learning_rate, probabilities, read_experiment, train

SMOKE = EXPERIMENTS / "smoke.toml"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_experiment_opens_and_learns_one_step(path: Path) -> None:
    experiment = read_experiment(path)
    torch.set_num_threads(1)
    run = Run(experiment, Patches(*synthetic(), (16, 32, 32), seed=1))
    before = [parameter.clone() for parameter in run.network.parameters()]
    loss = run.advance()
    assert np.isfinite(loss)
    assert any((a != b).any() for a, b in zip(before, run.network.parameters(), strict=True))


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "typo.toml").write_text("[training]\nstepps = 3\n")
    with pytest.raises(ValueError, match="stepps"):
        read_experiment(tmp_path / "typo.toml")


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    experiment = read_experiment(SMOKE)
    whole = torch.load(train(experiment, tmp_path / "whole", tmp_path), weights_only=True)
    patches = Patches(*synthetic(experiment.seed), (16, 32, 32), experiment.seed)
    run = Run(experiment, patches)
    run.advance()
    (tmp_path / "halves").mkdir()
    run.save(tmp_path / "halves" / "checkpoint.pt")
    halves = torch.load(train(experiment, tmp_path / "halves", tmp_path), weights_only=True)
    assert whole["step"] == halves["step"] == 2
    for name, value in whole["averaged"].items():
        torch.testing.assert_close(value, halves["averaged"][name])


def test_the_losses_are_written_line_by_line(tmp_path: Path) -> None:
    train(read_experiment(SMOKE), tmp_path, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert any("mined" in line for line in lines)


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    training = {"steps": 100, "warmup_steps": 10, "decay_share": 0.2, "learning_rate": 1.0}
    rates = [learning_rate(step, training) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_probabilities_do_not_depend_on_the_window() -> None:
    """Batch normalisation in evaluation: a window large enough gives what the whole volume gives."""
    experiment = replace(read_experiment(SMOKE))
    network = Run(experiment, Patches(*synthetic(), (16, 32, 32), seed=1)).network
    values = np.random.default_rng(0).random((16, 32, 32), dtype=np.float32)
    small, whole = (
        probabilities(network, values, (16, 32, 32), 0.25),
        probabilities(network, values, (32, 64, 64), 0.25),
    )
    assert small.shape == values.shape
    assert (small > 0).all()
    assert (small < 1).all()
    np.testing.assert_allclose(small[4:12, 12:20, 12:20], whole[4:12, 12:20, 12:20], atol=0.05)
