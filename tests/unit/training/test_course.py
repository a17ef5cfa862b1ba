"""From nothing to a detector's bundle in one command, in toy size: every stage, once, and again where it stopped."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from training.__main__ import main
from training.course import MADE, STAGES
from training.evaluation.drawn_scans import Case
from training.evaluation.judged import as_volume
from training.evaluation.toy_scans import toy_scan
from workers.algorithms.lung_nodule import LungNodule
from workers.algorithms.nodule_bundle import second_look
from workers.bundles import Bundle, load_bundle
from workers.inference import Inference


def make(out: Path, *further: str) -> int:
    return main(["make", "smoke", "--out", str(out), "--data", str(out), *further])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    assert make(folder) == 0
    return folder


@pytest.fixture
def bundle(run: Path) -> Bundle:
    return load_bundle(run / "bundle" / "smoke")


def test_the_bundle_holds_both_networks_and_reads(bundle: Bundle) -> None:
    assert bundle.verified
    assert second_look(bundle) is not None
    volume = as_volume(toy_scan(Case(number=0, with_nodules=True)).hu)
    reading = LungNodule(bundle, Inference(bundle, "cpu")).read(volume)
    assert reading.searched_ml > 800


def test_the_card_says_how_long_each_stage_took_and_what_was_validated(bundle: Bundle) -> None:
    text = (bundle.folder / "docs" / "README.md").read_text()
    assert "{" not in text
    for words in ("training the searching network", "training the second look", "| all | "):
        assert words in text
    threshold = bundle.number("postprocessing", "report_threshold")
    assert f"Report threshold {threshold:.2f}, set on 2 volumes with 2 nodules" in text
    assert "| found of all nodules | " in text


def test_each_round_begins_with_the_one_before(run: Path) -> None:
    rounds = [run / name / "checkpoint.pt" for name in ("search", "second_round", "third_round")]
    assert all(path.is_file() for path in rounds)
    last = torch.load(rounds[-1], weights_only=True)["averaged"]
    served = load_bundle(run / "bundle" / "smoke").network().state_dict()
    assert all(torch.equal(value, served[name]) for name, value in last.items())
    text = (run / "bundle" / "smoke" / "docs" / "README.md").read_text()
    assert "training it on once more" in text
    assert "50% were drawn from the shapes of 15 mm and more alone" in text


def test_what_is_done_is_not_done_again(run: Path, tmp_path: Path) -> None:
    """A stage that was lost is made anew, the others stay as they were."""
    out = tmp_path / "again"
    shutil.copytree(run, out)
    made = json.loads((out / MADE).read_text())
    assert list(made["stages"]) == list(STAGES)
    made["stages"]["search"]["seconds"] = 7200.0
    del made["stages"]["operating point"]
    (out / MADE).write_text(json.dumps(made))
    assert make(out, "--bundle", str(tmp_path / "made")) == 0
    again = json.loads((out / MADE).read_text())
    assert again["stages"]["operating point"]["counted"]
    assert "| training the searching network | 120.0 |" in (tmp_path / "made" / "docs" / "README.md").read_text()


def test_a_round_that_is_done_anew_has_all_that_learnt_from_it_trained_anew(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "redone"
    shutil.copytree(run, out)
    made = json.loads((out / MADE).read_text())
    del made["stages"]["second round"]
    (out / MADE).write_text(json.dumps(made))
    shutil.rmtree(out / "second_round")
    later = [out / name / "checkpoint.pt" for name in ("third_round", "second_look")]
    before, first = (
        [path.stat().st_mtime_ns for path in paths] for paths in (later, [out / "search" / "checkpoint.pt"])
    )
    assert make(out) == 0
    assert all(path.stat().st_mtime_ns != time for path, time in zip(later, before, strict=True))
    assert [(out / "search" / "checkpoint.pt").stat().st_mtime_ns] == first


def test_what_stood_behind_a_stage_that_was_interrupted_is_done_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "interrupted"
    shutil.copytree(run, out)
    made = json.loads((out / MADE).read_text())
    del made["stages"]["draft"]
    (out / MADE).write_text(json.dumps(made))

    def interrupted(_course: object) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.course.STAGES", {**STAGES, "draft": interrupted})
    with pytest.raises(KeyboardInterrupt):
        make(out)
    assert list(json.loads((out / MADE).read_text())["stages"]) == ["search", "second round", "third round"]


def test_another_experiment_in_the_same_folder_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "another"
    shutil.copytree(run, out)
    made = json.loads((out / MADE).read_text())
    made["experiment"]["seed"] = 1
    (out / MADE).write_text(json.dumps(made))
    assert make(out) == 1
    assert "choose another --out" in capsys.readouterr().err
