"""What a network is taught on and what it is asked about are made by the same transforms: one volume through both.

And what it is judged by is what is served: from the input to the answer, one function.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.core.errors import BundleInvalid
from tests.bundles import little_bundle, write_sums
from tests.factories import HEADFIRST_SUPINE, ct_series
from tests.unit.workers.test_lung_nodule import ORIGIN, SPACING, DenseBodies, chest
from tests.unit.workers.test_radiograph import radiograph
from training import pneumonia_mnist
from training.dataset import background
from training.inference import picture_scores, probabilities
from workers.algorithms.classification import Classification
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import METADATA, SHIPPED_BUNDLES, Bundle, load_bundle
from workers.calibration import Calibration
from workers.inference import Inference
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


#: Steps in which small differences of scores would show.
STEPS = {"method": "isotonic", "x": [0.0, 0.4, 0.6, 1.0], "y": [0.05, 0.1, 0.7, 0.9]}


def calibrated(folder: Path, calibration: object) -> Bundle:
    """The little bundle of nodules, which calls everything a candidate, with a calibration in its metadata."""
    little_bundle(folder)
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(metadata | {"calibration": calibration}))
    configuration = folder / "configs" / "inference.json"
    described = json.loads(configuration.read_text())
    described["postprocessing"] = {"candidate_threshold": 0.3, "report_threshold": 0.4}
    configuration.write_text(json.dumps(described))
    write_sums(folder)
    return load_bundle(folder)


def test_training_judges_a_volume_by_what_serving_makes_of_it(bundle: Bundle, tmp_path: Path) -> None:
    """Windows of the lungs and their margin, blended as probabilities: what a threshold is set on is what is served."""
    volume = load_volume(ct_series(tmp_path, voxels=stored(chest()), spacing=SPACING, origin=ORIGIN))
    inference = Inference(bundle, "cpu")
    asked = LungNodule(bundle, inference).prepare(volume)
    served = inference.probability(asked.voxels, asked.where)
    windows = bundle.configuration["inferer"]
    judged = probabilities(bundle.network(), asked.voxels, asked.where, windows["roi_size"], windows["overlap"])

    assert np.array_equal(judged, served)
    assert np.ptp(served[asked.where]) > 0.01
    assert not served.all()


def test_a_detector_says_of_a_candidate_what_its_calibration_says(tmp_path: Path) -> None:
    volume = load_volume(ct_series(tmp_path / "ct", voxels=stored(chest()), spacing=SPACING, origin=ORIGIN))
    plain = calibrated(tmp_path / "plain" / "lung_nodule", None)
    stepped = calibrated(tmp_path / "stepped" / "lung_nodule", STEPS)
    raw, said = (LungNodule(each, DenseBodies()).read(volume) for each in (plain, stepped))

    assert len(raw.findings) == len(said.findings) == 2
    expected = Calibration.from_json(STEPS)(np.array([finding.score for finding in raw.findings]))
    assert [finding.score for finding in said.findings] == pytest.approx(expected.tolist(), abs=1e-12)
    assert said.findings[0].score != pytest.approx(raw.findings[0].score, abs=0.02)
    assert ("calibration", "isotonic") in said.parameters
    assert "calibration" not in dict(raw.parameters)


@pytest.mark.parametrize("unusable", [{"method": "platt"}, "isotonic", {"method": "isotonic", "x": [0.1]}, []])
def test_a_calibration_that_cannot_be_applied_is_no_bundle(tmp_path: Path, unusable: object) -> None:
    with pytest.raises(BundleInvalid, match=r"calibration of configs/metadata\.json"):
        LungNodule(calibrated(tmp_path / "lung_nodule", unusable), DenseBodies())


def test_training_judges_a_radiograph_by_what_serving_makes_of_it(tmp_path: Path) -> None:
    """From 28 x 28 pixels of a file that a modality sent, and from the same pixels of a data set, one answer."""
    grey = np.round(pneumonia_mnist.synthetic()["test"].images[7] * 4095)
    paths = radiograph(tmp_path, grey, WindowCenter=2048, WindowWidth=4096)
    bundle = load_bundle(SHIPPED_BUNDLES / "chest_xray_pneumonia")
    served = Classification(bundle, "cpu", threads=0, beat=lambda _step: None)
    prepared = served.prepare(served.load(paths)).voxels
    picture = (grey / 4095).astype(np.float32)
    judged = picture_scores(bundle.network(), picture[None])[0]

    np.testing.assert_allclose(prepared, picture, atol=1e-6)
    assert served.probabilities(picture) == Calibration.from_json(bundle.metadata["calibration"])(judged).tolist()
    assert served.probabilities(prepared) == pytest.approx(served.probabilities(picture), abs=1e-5)
