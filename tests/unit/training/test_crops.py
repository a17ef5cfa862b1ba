"""What a second look is shown while it learns, and the bundle that it becomes part of."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

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
from workers.preprocessing import Candidate, candidates
from workers.second_look import centre_of, crop

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
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


def bright(values: Floats, lung: Mask) -> list[Candidate]:
    """A search that marks whatever in the lungs is dense."""
    return candidates(np.where(lung, values, 0.0).astype(np.float32), lung, 0.5)


def is_about(made: Floats, values: Floats, middle: tuple[int, int, int]) -> bool:
    """Whether it is the crop of values about a voxel, or two voxels beside it."""
    near = itertools.product(range(-2, 3), repeat=3)
    k, j, i = middle
    return any(np.array_equal(made, crop(values, (k + dk, j + dj, i + di), SIZE)) for dk, dj, di in near)


def is_in_the_middle(at: tuple[int, int, int], shape: tuple[int, ...]) -> bool:
    """Whether a crop about a voxel lies within what was drawn."""
    return all(n // 3 <= v < n - n // 3 for v, n in zip(at, shape, strict=True))


def test_what_the_search_marks_highest_among_lookalikes_is_shown_as_it_marks_it() -> None:
    searched = crops()
    seen: list[tuple[Floats, list[Candidate]]] = []

    def marks(values: Floats, lung: Mask) -> list[Candidate]:
        seen.append((values, bright(values, lung)))
        return seen[-1][1]

    searched.marks = marks
    about = []
    for number in range(0, 20, 2):
        made = searched[number].values
        values, found = seen[-1]
        highest = next((at for at in map(centre_of, found) if is_in_the_middle(at, values.shape)), None)
        about.append(highest is not None and is_about(made, values, highest))
    assert sum(about) >= 5, "without mined places most crops that hold no nodule"


def top(values: Floats, lung: Mask) -> list[Candidate]:
    """A search that marks the uppermost voxel alone of whatever is dense."""
    found = []
    for each in bright(values, lung):
        k, j, i = (int(v) + part.start for v, part in zip(np.argwhere(each.mask)[-1], each.region, strict=True))
        region = (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1))
        found.append(Candidate(score=1.0, peak=(k, j, i), region=region, mask=np.ones((1, 1, 1), dtype=bool)))
    return found


def levels_above(there: Floats, here: Floats) -> int:
    """How much higher the middle of one crop lies than that of another of the same lung."""
    sought = there[9:15, 12:20, 12:20]
    for k, j, i in itertools.product(range(-6, 7), repeat=3):
        if np.array_equal(here[9 + k : 15 + k, 12 + j : 20 + j, 12 + i : 20 + i], sought):
            return k
    raise AssertionError("crops of different lungs")


def test_a_nodule_that_the_search_marks_is_shown_where_it_marks_it() -> None:
    searched, plain = crops(), crops()
    searched.marks = top
    above = [levels_above(searched[n].values, plain[n].values) for n in (1, 3, 5, 7)]
    assert min(above) >= 0
    assert max(above) > 0


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
