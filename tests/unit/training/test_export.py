"""A bundle as the MONAI bundle specification wants it, and the one that is shipped."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.bundle.config_parser import ConfigParser

from training.evaluate import BUNDLE
from training.experiment import EXPERIMENTS, read_experiment
from training.export import export
from training.train import train


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    experiment = replace(read_experiment(EXPERIMENTS / "smoke.toml"), name="lung_nodule")
    export(experiment, train(experiment, folder, folder), folder / "bundle", folder, scans=1)
    return folder / "bundle"


@pytest.fixture(params=["exported", "shipped"])
def bundle(request: pytest.FixtureRequest, exported: Path) -> Path:
    return exported if request.param == "exported" else BUNDLE


def test_every_file_has_its_checksum(bundle: Path) -> None:
    rows = [line.split("  ") for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    for digest, name in rows:
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest, name
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {name for _, name in rows} | {"SHA256SUMS"}


def test_the_network_is_built_from_its_description_and_takes_the_weights(bundle: Path) -> None:
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 1, 16, 16, 16)
    assert callable(parser.get_parsed_content("inferer"))


def test_the_metadata_say_what_it_is_and_for_what(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    wanted = {
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "task",
        "description",
        "authors",
        "license",
    }
    assert wanted <= set(metadata)
    assert "not for diagnostic use" in metadata["intended_use"]
    assert set(metadata["network_data_format"]) == {"inputs", "outputs"}


def test_the_thresholds_are_in_order_and_the_card_names_the_one_that_reports(bundle: Path) -> None:
    settings = json.loads((bundle / "configs" / "inference.json").read_text())
    limits = settings["postprocessing"]
    # With a second look the one is of the search's score, the other of both opinions'.
    least = 0.0 if "second_look" in settings else limits["candidate_threshold"]
    assert 0 < limits["candidate_threshold"] < 1
    assert least <= limits["report_threshold"] < 1
    text = (bundle / "docs" / "README.md").read_text()
    assert f"Report threshold {limits['report_threshold']:.2f}" in text
    assert "semi-synthetic" in text
    assert "{" not in text


def test_the_card_of_new_weights_claims_nothing_that_others_were_counted_with(exported: Path) -> None:
    card, shipped = ((folder / "docs" / "README.md").read_text() for folder in (exported, BUNDLE))
    counted = [line for line in shipped.splitlines() if line.startswith(("- lung1", "- LIDC-IDRI-0063"))]
    assert len(counted) == 7
    assert not [line for line in counted if line in card]
    assert "Not counted with these weights" in card


def test_the_shipped_card_says_what_was_known_of_the_real_scans_when_the_operating_point_was_chosen() -> None:
    said = " ".join((BUNDLE / "docs" / "README.md").read_text().split())
    assert "after earlier versions had read both real scans" in said
    assert "before these weights had read the new test set or a real scan" in said


def test_the_shipped_bundles_together_are_at_most_40_mb() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.parent.rglob("*") if path.is_file()) <= 40_000_000


def test_the_shipped_weights_are_small_enough_for_the_repository() -> None:
    assert (BUNDLE / "models" / "model.pt").stat().st_size < 20_000_000
