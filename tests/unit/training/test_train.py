"""Experiments open, learn a step, stop and go on; several processes learn what one does."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from training.batches import Batches
from training.experiment import EXPERIMENTS, Experiment, ExperimentInvalid, named, read_experiment
from training.inference import probabilities
from training.precision import Precision
from training.processes import Processes, processes
from training.tasks.table import task_of
from training.tasks.task import Batch, Task
from training.train import Run, learning_rate, train, trained

ALONE = Processes(rank=0, count=1, device="cpu")
SMOKE = EXPERIMENTS / "smoke.toml"
SMOKE_XRAY = EXPERIMENTS / "smoke_xray.toml"
SMOKES = pytest.mark.parametrize("path", [SMOKE, SMOKE_XRAY], ids=lambda path: path.stem)


def toy(path: Path, **training: object) -> Experiment:
    """An experiment on toy data, in small patches, with other values in its table training."""
    experiment = read_experiment(path)
    patch = experiment.network.get("in_shape", [1, 16, 32, 32])[1:]
    data = {**experiment.data, "source": "synthetic", "patch": patch, "batch": 4}
    chosen = {**experiment.training, "threads": 1, "precision": "fp32", **training}
    return replace(experiment, data=data, training=chosen)


def state_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)
    moments = {f"{n}.{key}": v for n, row in state["optimiser"]["state"].items() for key, v in row.items()}
    return {**state["network"], **{f"averaged.{k}": v for k, v in state["averaged"].items()}, **moments}


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_experiment_opens_and_learns_one_step(path: Path, tmp_path: Path) -> None:
    experiment = toy(path)
    torch.set_num_threads(1)
    run = Run(experiment, task_of(experiment, tmp_path), ALONE)
    before = [parameter.clone() for parameter in run.network.parameters()]
    loss = run.advance()
    assert np.isfinite(loss)
    assert any((a != b).any() for a, b in zip(before, run.network.parameters(), strict=True))


@SMOKES
def test_a_run_that_stopped_ends_bit_for_bit_where_an_unbroken_one_does(path: Path, tmp_path: Path) -> None:
    """Four steps are two steps, another process's beginning, and two steps."""
    experiment = toy(path, steps=4, mine_every=2)
    whole = state_of(train(experiment, tmp_path / "whole", tmp_path))
    train(experiment, tmp_path / "halves", tmp_path, until=2)
    assert torch.load(tmp_path / "halves" / "checkpoint.pt", weights_only=True)["step"] == 2
    torch.rand(7)  # whatever happens between
    halves = state_of(train(experiment, tmp_path / "halves", tmp_path))
    assert whole.keys() == halves.keys()
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


@SMOKES
def test_what_other_processes_draw_ahead_teaches_the_same(path: Path, tmp_path: Path) -> None:
    """Searches between the steps change what is drawn: nothing that was drawn before them is used."""
    experiment = toy(path, steps=5, mine_every=2)
    here = state_of(train(experiment, tmp_path / "here", tmp_path))
    ahead = toy(path, steps=5, mine_every=2, drawing_processes=2)
    there = state_of(train(ahead, tmp_path / "there", tmp_path))
    for name, value in here.items():
        assert torch.equal(value, there[name]), name


class Counting:
    """A task whose examples tell what it had come to when they were drawn."""

    def __init__(self) -> None:
        self.come_to = 0

    def batch(self, numbers: Sequence[int]) -> Batch:
        told = torch.tensor([[float(self.come_to), float(number)] for number in numbers])
        return Batch(values=told, target=told, counts=told)


def test_nothing_is_used_that_was_drawn_before_the_task_came_to_something_else() -> None:
    task = Counting()
    batches = Batches(cast(Task, task), ALONE, size=2, last=6, processes=2)
    seen = []
    for step in range(6):
        seen.append(batches(step).values.tolist())
        if step in (1, 3):
            task.come_to += 1
            batches.forget()
    assert [batch[0][0] for batch in seen] == [0, 0, 1, 1, 2, 2]
    assert [row[1] for batch in seen for row in batch] == list(range(12))


def test_what_another_version_did_not_ask_for_keeps_no_run_from_going_on(tmp_path: Path) -> None:
    train(toy(SMOKE_XRAY), tmp_path, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    experiment = json.loads(state["experiment"])
    del experiment["data"]["pool"], experiment["training"]["drawing_processes"]
    torch.save({**state, "experiment": json.dumps(experiment)}, tmp_path / "checkpoint.pt")
    train(toy(SMOKE_XRAY, steps=3), tmp_path, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_a_pool_that_its_processes_would_draw_again_and_again_is_refused(tmp_path: Path) -> None:
    look = toy(EXPERIMENTS / "smoke_second_look.toml", drawing_processes=3)
    with pytest.raises(ExperimentInvalid, match=r"data\.pool = 8000 is no multiple of .* 12"):
        task_of(look, tmp_path)


@SMOKES
def test_the_same_seed_learns_the_same_and_another_seed_something_else(path: Path, tmp_path: Path) -> None:
    runs = [
        state_of(train(replace(toy(path), seed=seed), tmp_path / f"{n}", tmp_path)) for n, seed in enumerate((1, 1, 2))
    ]
    name = next(name for name in runs[0] if name.endswith("weight"))
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_a_run_does_not_go_on_as_another_experiment(tmp_path: Path) -> None:
    experiment = toy(SMOKE_XRAY)
    train(experiment, tmp_path, tmp_path)
    train(toy(SMOKE_XRAY, steps=3), tmp_path, tmp_path)
    with pytest.raises(ExperimentInvalid, match=r"training\.learning_rate.*choose another --out"):
        train(toy(SMOKE_XRAY, steps=3, learning_rate=1.0), tmp_path, tmp_path)


def test_a_further_round_begins_with_the_averaged_weights_and_places_of_the_first(tmp_path: Path) -> None:
    first = train(toy(SMOKE, steps=2, mine_every=1), tmp_path / "first", tmp_path)
    train(toy(SMOKE, steps=1, learning_rate=0.0), tmp_path / "second", tmp_path, begin=tmp_path / "first")
    before, after = (torch.load(path, weights_only=True) for path in (first, tmp_path / "second" / "checkpoint.pt"))
    assert after["step"] == 1
    for name, _ in task_of(toy(SMOKE), tmp_path).network().named_parameters():
        assert torch.equal(before["averaged"][name], after["network"][name]), name
    assert torch.equal(before["task"]["hard_negatives"], after["task"]["hard_negatives"])
    # What has begun goes on as itself.
    resumed = train(toy(SMOKE, steps=1, learning_rate=0.0), tmp_path / "second", tmp_path, begin=tmp_path / "none")
    assert torch.load(resumed, weights_only=True)["step"] == 1


def test_a_round_begins_with_no_other_network_and_no_place_in_lungs_that_it_lacks(tmp_path: Path) -> None:
    experiment = toy(SMOKE, steps=1)
    train(experiment, tmp_path / "first", tmp_path)
    fewer = replace(experiment, data={**experiment.data, "thoraces": experiment.data["thoraces"] - 1})
    other = replace(experiment, network={**experiment.network, "norm": "instance"})
    for wrong, named_so in ((fewer, r"data\.thoraces"), (other, "network")):
        with pytest.raises(ExperimentInvalid, match=named_so):
            train(wrong, tmp_path / named_so, tmp_path, begin=tmp_path / "first")


def test_a_folder_without_a_checkpoint_is_told_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(ExperimentInvalid, match="train first"):
        trained(task_of(toy(SMOKE_XRAY), tmp_path), tmp_path)


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "typo.toml").write_text("[training]\nstepps = 3\n")
    with pytest.raises(ExperimentInvalid, match=r"training\.stepps"):
        read_experiment(tmp_path / "typo.toml")


def test_an_unknown_task_loss_and_transform_are_refused_with_those_there_are(tmp_path: Path) -> None:
    experiment = toy(SMOKE_XRAY)
    with pytest.raises(ExperimentInvalid, match="lung_nodule"):
        task_of(replace(experiment, task="lungs"), tmp_path)
    with pytest.raises(ValueError, match="cross_entropy"):
        Run(replace(experiment, loss={"entropy": 1.0}), task_of(experiment, tmp_path), ALONE)
    with pytest.raises(ValueError, match="elastic_2d"):
        task_of(replace(experiment, augmentation={"elastic": {}}), tmp_path)


def test_an_experiment_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert named("smoke") == SMOKE
    assert named(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    with pytest.raises(ExperimentInvalid, match=r"mine\.toml is not there; .*smoke\.toml"):
        read_experiment(tmp_path / "mine.toml")


def test_a_network_with_a_target_is_said_whole(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[network]\n_target_ = "BasicUNet"\n')
    assert read_experiment(tmp_path / "other.toml").network == {"_target_": "BasicUNet"}


def test_the_losses_are_written_line_by_line_and_for_tensorboard(tmp_path: Path) -> None:
    train(toy(SMOKE), tmp_path, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert any("mined" in line for line in lines)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    written = events.read_bytes()
    assert b"learning_rate" in written
    assert written.count(b"loss") == 2


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    training = {"steps": 100, "warmup_steps": 10, "decay_share": 0.2, "learning_rate": 1.0}
    rates = [learning_rate(step, training) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_bfloat16_computes_in_half_precision_and_keeps_weights_whole(tmp_path: Path) -> None:
    experiment = toy(SMOKE_XRAY, precision="bf16")
    run = Run(experiment, task_of(experiment, tmp_path), ALONE)
    with Precision("bf16", "cpu").autocast():
        assert run.network(torch.zeros(1, 1, 28, 28)).dtype == torch.bfloat16
    assert np.isfinite(run.advance())
    assert all(p.dtype == torch.float32 for p in run.network.parameters())


@pytest.mark.parametrize("has_units", [True, False])
def test_a_cpu_computes_in_bfloat16_by_itself_only_where_it_has_units_for_it(
    has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_units})
    with Precision("auto", "cpu").autocast():
        said = torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2))
    assert said.dtype == (torch.bfloat16 if has_units else torch.float32)


@pytest.mark.parametrize(("name", "said"), [("fp16", "bf16 or fp32"), ("fp8", "auto, fp32")])
def test_a_precision_that_a_cpu_cannot_train_in_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Precision(name, "cpu")


def test_a_batch_that_does_not_divide_is_refused() -> None:
    two = Processes(rank=1, count=2, device="cpu")
    assert list(two.share(range(4, 8))) == [5, 7]
    with pytest.raises(ValueError, match=r"data\.batch"):
        two.share(range(3))


#: Trains one step and keeps the gradients; run under torchrun and alone.
#: What each of two processes runs.
LEARNS = "import sys; from tests.unit.training.test_train import learn; learn(sys.argv[1])"


def learn(folder: str) -> None:
    """One step's gradients, and the weights after it, into a file that names how many learn, and who this is."""
    with processes("cpu") as here:
        found = read_experiment(SMOKE_XRAY)
        experiment = replace(found, training={**found.training, "precision": "fp32"})
        run = Run(experiment, task_of(experiment, Path()), here)
        run.advance()
        gradients = parameters_to_vector([p.grad for p in run.network.parameters() if p.grad is not None])
        weights = parameters_to_vector(run.network.parameters()).detach()
        torch.save([gradients, weights], Path(folder) / f"{here.count}-{here.rank}.pt")


def test_two_processes_learn_what_one_learns_of_both_their_examples(tmp_path: Path) -> None:
    learn(str(tmp_path))
    script = tmp_path / "learns.py"
    script.write_text(LEARNS)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, script, tmp_path], capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    alone, first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert float(alone[0].norm()) > 0
    torch.testing.assert_close(alone[0], first[0], rtol=1e-4, atol=1e-6)
    # Not the weights: the optimiser's first step makes of a gradient near 0, whose sign is rounding, a whole step.


def test_probabilities_do_not_depend_on_the_window(tmp_path: Path) -> None:
    """Batch normalisation in evaluation: a window large enough gives what the whole volume gives."""
    experiment = toy(SMOKE)
    network = Run(experiment, task_of(experiment, tmp_path), ALONE).network
    values = np.random.default_rng(0).random((16, 32, 32), dtype=np.float32)
    small, whole = (
        probabilities(network, values, np.ones(values.shape, dtype=bool), (16, 32, 32), 0.25),
        probabilities(network, values, np.ones(values.shape, dtype=bool), (32, 64, 64), 0.25),
    )
    assert small.shape == values.shape
    assert (small > 0).all()
    assert (small < 1).all()
    np.testing.assert_allclose(small[4:12, 12:20, 12:20], whole[4:12, 12:20, 12:20], atol=0.05)
