"""What a network is taught on and what it is asked about are made by the same transforms: one volume through both."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import little_bundle
from tests.factories import HEADFIRST_SUPINE, ct_series
from tests.unit.workers.test_lung_nodule import ORIGIN, SPACING, DenseBodies, chest
from training.dataset import background
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import Bundle, load_bundle
from workers.preprocessing import normalise
from workers.volume import load_volume

PRONE = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(little_bundle(tmp_path_factory.mktemp("bundles") / "lung_nodule"))


def stored(voxels: NDArray[np.float64]) -> NDArray[np.int16]:
    """As a scanner stores them: whole numbers from -1024 on."""
    return np.round(voxels).clip(-1024, 3071).astype(np.int16)


def test_training_and_serving_make_the_same_input_of_one_volume(bundle: Bundle, tmp_path: Path) -> None:
    voxels = stored(chest())
    taught = background("drawn", voxels, SPACING)
    asked = LungNodule(bundle, DenseBodies()).prepare(
        load_volume(ct_series(tmp_path, voxels=voxels, spacing=SPACING, origin=ORIGIN))
    )

    # A background is kept in whole HU: half of one, of the 1300 that the window spans.
    assert np.abs(normalise(taught.hu.astype(np.float32)) - asked.voxels).max() <= 0.51 / 1300
    assert np.array_equal(taught.lung, asked.where)


def test_the_same_study_gives_the_same_findings_on_every_run_and_in_any_order(bundle: Bundle, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "one", voxels=chest(), spacing=SPACING, origin=ORIGIN)
    shuffled = [paths[place] for place in np.random.default_rng(5).permutation(len(paths))]
    algorithm = LungNodule(bundle, DenseBodies())
    first, again, other_order = (algorithm.read(load_volume(given)) for given in (paths, paths, shuffled))

    assert first.findings
    assert first.findings == again.findings == other_order.findings
    assert np.array_equal(first.labels, other_order.labels)


def test_a_patient_lying_the_other_way_has_findings_at_the_same_places(bundle: Bundle, tmp_path: Path) -> None:
    """The same voxels of the same patient, written with rows and columns the other way round."""
    algorithm = LungNodule(bundle, DenseBodies())
    voxels = chest()
    as_it_is = algorithm.read(
        load_volume(ct_series(tmp_path / "a", voxels=voxels, spacing=SPACING, directions=HEADFIRST_SUPINE))
    )
    last = np.array([-110.5, -140.25, 33.0])
    last[:2] += (voxels.shape[2] - 1) * SPACING[2], (voxels.shape[1] - 1) * SPACING[1]
    turned = algorithm.read(
        load_volume(
            ct_series(
                tmp_path / "b",
                voxels=voxels[:, ::-1, ::-1],
                spacing=SPACING,
                origin=tuple(float(value) for value in last),
                directions=PRONE,
            )
        )
    )

    places = [sorted(finding.centre for finding in reading.findings) for reading in (as_it_is, turned)]
    assert len(places[0]) == 2
    assert np.abs(np.subtract(*places)).max() <= 1.0
    sides = [{(f.laterality, round(f.volume_mm3, -3)) for f in reading.findings} for reading in (as_it_is, turned)]
    assert sides[0] == sides[1]
