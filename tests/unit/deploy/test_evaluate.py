"""The detector that is judged is the one that serves, with every candidate's own score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import deploy.evaluate
from deploy.evaluate import reader
from tests.bundles import little_bundle, write_sums
from tests.factories import ct_series
from tests.unit.workers.test_lung_nodule import ORIGIN, SPACING, DenseBodies, chest
from workers.algorithms.lung_nodule import LungNodule
from workers.algorithms.nodule_bundle import SECOND_WEIGHTS
from workers.bundles import CONFIGURATION, METADATA, load_bundle
from workers.volume import Volume, load_volume


class Found:
    """Stands where the bundle's own network would be run."""

    number_format = ""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        return DenseBodies().probability(voxels, where)

    def beat(self, step: str) -> None:
        pass


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return load_volume(ct_series(tmp_path_factory.mktemp("chest"), voxels=chest(), spacing=SPACING, origin=ORIGIN))


def changed(folder: Path, file: str, **further: object) -> Path:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **further}))
    write_sums(folder)
    return folder


def test_scores_are_counted_as_the_threshold_means_them(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a report says is calibrated; the report threshold is of the scores as they come."""
    monkeypatch.setattr(deploy.evaluate, "Inference", Found)
    calibration = {"method": "platt", "temperature": 1.0, "shift": -4.0}
    bundle = load_bundle(changed(little_bundle(tmp_path / "lung_nodule"), METADATA, calibration=calibration))
    served = LungNodule(bundle, DenseBodies()).read(volume).findings
    judged = reader(bundle)(volume).findings
    threshold = bundle.number("postprocessing", "report_threshold")
    assert len(served) == 2
    assert all(finding.score < threshold for finding in served)
    assert [finding.score >= threshold for finding in judged[:2]] == [True, True]


def test_what_a_second_look_doubts_is_counted_too(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report threshold may lie below the search's own: what is served must not be missing from what is judged."""
    monkeypatch.setattr(deploy.evaluate, "Inference", Found)
    folder = little_bundle(tmp_path / "lung_nodule")
    second = {
        "network_def": {
            "_target_": "DenseNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "init_features": 4,
            "growth_rate": 2, "block_config": [1, 1],
        },
        "size": [24, 32, 32],
        "score": {"first": 0.0, "second": 0.0, "constant": -2.0},
    }  # fmt: skip
    configuration = json.loads((folder / CONFIGURATION).read_text())
    post = {**configuration["postprocessing"], "report_threshold": 0.1}
    changed(folder, CONFIGURATION, second_look=second, postprocessing=post)
    network = load_bundle(folder).parts().built("second_look::network_def")
    torch.save(network.state_dict(), folder / SECOND_WEIGHTS)
    write_sums(folder)
    bundle = load_bundle(folder)
    assert len(LungNodule(bundle, DenseBodies()).read(volume).findings) == 2
    assert len(reader(bundle)(volume).findings) == 2
