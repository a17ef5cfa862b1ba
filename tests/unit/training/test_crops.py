"""What a second look is shown while it learns, and the bundle that it becomes part of."""

from pathlib import Path

import numpy as np
import pytest

from dicom_node.core.errors import BundleInvalid
from tests.bundles import little_bundle
from training import networks
from training.crops import Crops
from training.dataset import synthetic
from training.experiment import EXPERIMENTS, read_experiment
from training.tasks.second_look import add
from workers.algorithms import Prepared
from workers.algorithms.lung_nodule import LungNodule
from workers.algorithms.nodule_bundle import SECOND_WEIGHTS, second_look
from workers.bundles import load_bundle
from workers.inference import Inference

SIZE = (24, 32, 32)


def crops(seed: int = 1) -> Crops:
    return Crops(*synthetic(), SIZE, seed)


def test_every_other_crop_holds_a_nodule_and_a_number_is_always_the_same_crop() -> None:
    made, again = crops(), crops()
    for number in (0, 1, 2, 3):
        assert made[number].is_nodule == bool(number % 2)
        np.testing.assert_array_equal(made[number].values, again[number].values)
    assert made[1].values.shape == SIZE
    assert not np.array_equal(crops(seed=2)[1].values, made[1].values)


def test_in_the_middle_of_a_nodules_crop_is_no_plain_lung() -> None:
    made = crops()
    brightest = [made[number].values[8:16, 12:20, 12:20].max() for number in (1, 3, 5, 7, 9, 11)]
    assert min(brightest) > 0.2


def test_where_the_search_was_wrong_is_shown() -> None:
    """The body of the toy, which no crop of its lungs has in its middle."""
    made = crops()
    made.mined = np.array([[0, 20, 2, 64, 0.9]])
    whole_body = sum(made[number].values[8:16, 12:20, 12:20].min() > 0.5 for number in range(0, 40, 2))
    assert 4 <= whole_body <= 18


def test_of_a_pool_the_same_crops_come_again_turned_over() -> None:
    pooled, plain = Crops(*synthetic(), SIZE, 1, pool=4), crops()
    for number in (1, 5, 9, 13):
        assert pooled[number].is_nodule
        np.testing.assert_array_equal(np.sort(pooled[number].values.ravel()), np.sort(plain[1].values.ravel()))
    assert len({pooled[number].values.tobytes() for number in range(1, 41, 4)}) > 3
    np.testing.assert_array_equal(Crops(*synthetic(), SIZE, 1, pool=4)[9].values, pooled[9].values)


def bundle(folder: Path) -> Path:
    made = little_bundle(folder / "lung_nodule")
    experiment = read_experiment(EXPERIMENTS / "lung_nodule_second_look.toml")
    add(experiment, networks.built(experiment.network), made)
    return made


def test_a_bundle_that_was_given_a_second_look_is_whole_and_looks_again(tmp_path: Path) -> None:
    loaded = load_bundle(bundle(tmp_path))
    assert loaded.verified
    look = second_look(loaded)
    assert look is not None
    assert look.size == SIZE
    assert second_look(load_bundle(little_bundle(tmp_path / "without" / "lung_nodule"))) is None


def test_while_it_looks_again_the_reading_says_so(tmp_path: Path) -> None:
    beats: list[str] = []
    loaded = load_bundle(bundle(tmp_path))
    algorithm = LungNodule(loaded, Inference(loaded, "cpu", beat=beats.append))
    probability = np.zeros((30, 40, 40), dtype=np.float32)
    probability[10:14, 10:14, 10:14] = 0.9
    prepared = Prepared(voxels=np.zeros_like(probability), where=np.ones(probability.shape, dtype=bool))
    assert len(algorithm.marks(probability, prepared)) == 1
    assert beats == ["second look"]


def test_a_second_look_without_its_weights_is_refused_by_name(tmp_path: Path) -> None:
    loaded = load_bundle(bundle(tmp_path))
    (loaded.folder / SECOND_WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(BundleInvalid, match="second_look"):
        second_look(loaded)
