"""A drawn chest with nodules of known place and size, read by a network that is known too."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.codes import LEFT, LUNG, NODULE, RIGHT
from dicom_node.core.errors import BundleInvalid, NotApplicable
from dicom_node.core.finding import Border
from dicom_node.settings import BundleSettings
from tests.bundles import little_bundle
from tests.factories import HEADFIRST_SUPINE, ct_series
from workers.algorithms import Prepared, Reading
from workers.algorithms.lung_nodule import LungNodule, laterality, on_grid
from workers.algorithms.nodule_bundle import NOT_OF_CANCER, OUTCOMES, outcomes
from workers.bundles import CONFIGURATION, Bundle, load_bundle
from workers.dependence import Part
from workers.inference import Inference
from workers.lungs import Sides
from workers.precision import BFLOAT16, PRECISION
from workers.preprocessing import GRID_MM, grid_shape
from workers.reader_estimate import FEATURES
from workers.volume import Region, Volume, load_volume

SPACING = (3.0, 2.0, 2.0)
SHAPE = (44, 84, 112)
ORIGIN = (-151.3, -122.7, -310.4)
TURNED = ((math.cos(0.15), math.sin(0.15), 0.0), (-math.sin(0.15), math.cos(0.15), 0.0))
PRONE = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
FEET_FIRST = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0))

#: Centre as (k, j, i) in mm from voxel 0, and radius in mm.
NODULES = (((50.0, 80.0, 60.0), 9.0), ((80.0, 95.0, 165.0), 6.0))


def chest(nodules: tuple[tuple[tuple[float, float, float], float], ...] = NODULES) -> NDArray[np.float64]:
    """A body with two lungs and nodules with partial volume; HU [k, j, i]."""
    k, j, i = (axis * spacing for axis, spacing in zip(np.indices(SHAPE, dtype=float), SPACING, strict=True))
    body = ((j - 84) / 78) ** 2 + ((i - 112) / 105) ** 2 < 1
    hu = np.where(body, 40.0, -1000.0)
    for middle in (62.0, 162.0):
        lung = ((k - 66) / 62) ** 2 + ((j - 84) / 60) ** 2 + ((i - middle) / 42) ** 2 < 1
        hu[lung] = -860.0
    for (z, y, x), radius in nodules:
        distance = np.sqrt((k - z) ** 2 + (j - y) ** 2 + (i - x) ** 2)
        hu += np.clip((radius - distance) / 2 + 0.5, 0, 1) * (30.0 - hu)
    return hu + np.random.default_rng(4).normal(0, 10, SHAPE)


class DenseBodies:
    """A network that finds whatever is dense within the lungs."""

    number_format = ""

    def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        # How deep in the lungs a place lies, by every second voxel along each axis: it takes an eighth of the time.
        deep = ndimage.distance_transform_edt(where[::2, ::2, ::2], sampling=2 * np.array(GRID_MM)) > 8
        inner = deep.repeat(2, 0).repeat(2, 1).repeat(2, 2)[tuple(slice(0, size) for size in where.shape)]
        return (0.95 * ndimage.gaussian_filter((inner & (voxels > 0.4)).astype(np.float32), 0.8)).astype(np.float32)

    def opinion(self, piece: NDArray[np.float32]) -> NDArray[np.float32]:
        return (0.95 * ndimage.gaussian_filter((piece > 0.4).astype(np.float32), 0.8)).astype(np.float32)

    def beat(self, step: str) -> None:
        pass


def everywhere(probability: NDArray[np.float32]) -> Prepared:
    """A grid that is lung wherever one looks."""
    return Prepared(voxels=np.zeros_like(probability), where=np.ones(probability.shape, dtype=bool))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(little_bundle(tmp_path_factory.mktemp("bundles") / "lung_nodule"))


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    folder = tmp_path_factory.mktemp("chest")
    return load_volume(ct_series(folder, voxels=chest(), spacing=SPACING, origin=ORIGIN))


@pytest.fixture(scope="module")
def reading(bundle: Bundle, volume: Volume) -> Reading:
    return LungNodule(bundle, DenseBodies()).read(volume)


def test_every_nodule_is_found_once_by_falling_score(reading: Reading) -> None:
    assert [finding.number for finding in reading.findings] == [1, 2]
    assert reading.findings[0].score >= reading.findings[1].score
    assert {(finding.concept, finding.site) for finding in reading.findings} == {(NODULE, LUNG)}


@pytest.mark.parametrize("directions", [HEADFIRST_SUPINE, PRONE, FEET_FIRST, TURNED])
def test_a_nodule_is_reported_where_it_lies_in_the_patient(
    bundle: Bundle, tmp_path: Path, directions: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> None:
    paths = ct_series(tmp_path, voxels=chest(), spacing=SPACING, origin=ORIGIN, directions=directions)
    findings = LungNodule(bundle, DenseBodies()).read(load_volume(paths)).findings

    row, column = np.array(directions)
    for finding, ((k, j, i), _) in zip(findings, NODULES, strict=True):
        drawn = np.array(ORIGIN) + i * row + j * column + k * np.cross(row, column)
        # Half a voxel, in every direction.
        assert np.abs(np.array(finding.centre) - drawn).max() <= 1.0


def test_a_nodule_has_its_size(reading: Reading) -> None:
    for finding, (_, radius) in zip(reading.findings, NODULES, strict=True):
        assert finding.long_axis.length_mm == pytest.approx(2 * radius, rel=0.15)
        assert finding.short_axis.length_mm == pytest.approx(2 * radius, rel=0.15)
        assert finding.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.05)
        assert finding.border is Border.ATTENUATION
        assert finding.mean_hu > -300


def test_labels_and_findings_tell_the_same(reading: Reading, volume: Volume) -> None:
    assert reading.labels.shape == volume.voxels.shape
    assert set(np.unique(reading.labels)) == {0, 1, 2}
    for finding in reading.findings:
        mask = reading.labels == finding.number
        # Of a voxel at the border up to half is filled beyond the mask, or not within it.
        border = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
        assert abs(finding.volume_mm3 - mask.sum() * math.prod(SPACING)) < border.sum() * math.prod(SPACING) / 2
        k = volume.sop_instance_uids.index(finding.outline.sop_instance_uid)
        assert mask[k].sum() == max(plane.sum() for plane in mask)


def test_the_side_is_the_patients_and_not_the_images(reading: Reading) -> None:
    # In LPS x grows to the patient's left; these columns do too.
    assert [finding.laterality for finding in reading.findings] == [RIGHT, LEFT]


def test_the_side_is_not_told_in_the_middle_or_by_one_lung_alone(volume: Volume) -> None:
    lungs = np.zeros((88, 168, 224), dtype=bool)
    lungs[10:80, 30:140, 20:105] = True
    assert laterality((-100.0, 0.0, 0.0), Sides(lungs, volume)) is None
    lungs[10:80, 30:140, 120:205] = True
    sides = Sides(lungs, volume)
    assert laterality((-100.0, 0.0, 0.0), sides) == RIGHT
    assert laterality((ORIGIN[0] + 115, 0.0, 0.0), sides) is None


def test_one_wide_lung_tells_no_side_of_a_nodule(volume: Volume) -> None:
    """A left lung that is alone, and grew across the middle: half of it would be called the right one."""
    lungs = np.zeros((88, 168, 224), dtype=bool)
    lungs[10:80, 30:140, 20:200] = True
    sides = Sides(lungs, volume)
    assert {laterality((ORIGIN[0] + x, 0.0, 0.0), sides) for x in (30, 60, 110, 160, 190)} == {None}


def test_where_one_lung_reaches_across_the_middle_no_side_is_told(volume: Volume) -> None:
    lungs = np.zeros((88, 168, 224), dtype=bool)
    # A small right lung, and a left one of which the foremost part reaches far to the right of the middle.
    lungs[10:80, 30:140, 10:60], lungs[10:80, 30:140, 90:205] = True, True
    lungs[10:80, 30:60, 65:90] = True
    lungs[10:80, 30:66, 10:60] = False
    sides = Sides(lungs, volume)
    front, back, middle = ORIGIN[1] + 40, ORIGIN[1] + 120, ORIGIN[2] + 60
    assert laterality((ORIGIN[0] + 80, front, middle), sides) is None
    assert laterality((ORIGIN[0] + 30, back, middle), sides) == RIGHT
    assert laterality((ORIGIN[0] + 190, front, middle), sides) == LEFT


def test_the_thresholds_are_told(reading: Reading) -> None:
    assert dict(reading.parameters) == {"report threshold": "0.5", "candidate threshold": "0.3"}


def test_the_settings_threshold_is_taken_in_place_of_the_bundle_s(
    bundle: Bundle, volume: Volume, reading: Reading
) -> None:
    asked = replace(bundle, settings=BundleSettings(name="lung_nodule", report_threshold=0.999))
    strict = LungNodule(asked, DenseBodies()).read(volume)
    assert reading.findings
    assert max(finding.score for finding in reading.findings) < 0.999
    assert strict.findings == ()
    told = dict(strict.parameters)
    # The bundle's is of scores as they come, the settings' of those that are said: neither is taken for the other.
    assert (told["report threshold"], told["report threshold of the settings"]) == ("0.5", "0.999")


def test_the_settings_threshold_is_of_calibrated_scores(bundle: Bundle, volume: Volume) -> None:
    halved = {"method": "temperature", "temperature": 4.0}
    metadata = {**bundle.metadata, "calibration": halved}
    said = LungNodule(replace(bundle, metadata=metadata), DenseBodies()).read(volume).findings
    between = 0.5 * (min(f.score for f in said) + 0.95)
    asked = replace(bundle, metadata=metadata, settings=BundleSettings(name="any", report_threshold=between))
    assert max(f.score for f in said) < between < 0.95
    assert LungNodule(asked, DenseBodies()).read(volume).findings == ()


@pytest.mark.parametrize("has_units", [True, False])
def test_that_it_was_computed_in_bfloat16_is_a_part_of_the_report_s_identity(
    bundle: Bundle, tmp_path: Path, has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_units})
    paths = ct_series(tmp_path, voxels=chest(nodules=()), spacing=SPACING, origin=ORIGIN)
    allowing = replace(bundle, metadata={**bundle.metadata, PRECISION: BFLOAT16})
    network = DenseBodies()
    network.number_format = Inference(allowing, "cpu").number_format
    told = dict(LungNodule(allowing, network).read(load_volume(paths)).parameters)
    assert told.get("number format") == ("bfloat16" if has_units else None)


def test_lungs_without_nodules_give_no_findings(bundle: Bundle, tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=chest(nodules=()), spacing=SPACING, origin=ORIGIN)
    reading = LungNodule(bundle, DenseBodies()).read(load_volume(paths))

    assert reading.findings == ()
    assert not reading.labels.any()


def test_no_more_than_twenty_are_reported_and_the_rest_is_counted(bundle: Bundle, volume: Volume) -> None:
    places = [(k, j, i) for k in (26, 38, 50, 62) for j in (60, 84, 108) for i in (50, 74)]
    probability = np.zeros((87, 167, 223), dtype=np.float32)
    for k, j, i in places:
        probability[k - 3 : k + 3, j - 4 : j + 4, i - 4 : i + 4] = 0.9
    wide = Volume(
        voxels=volume.voxels.copy(), affine=volume.affine, spacing_mm=volume.spacing_mm, headers=volume.headers
    )
    for k, j, i in places:
        wide.voxels[k // 2 - 1 : k // 2 + 2, j // 2 - 2 : j // 2 + 2, i // 2 - 2 : i // 2 + 2] = 30.0
    reading = LungNodule(bundle, DenseBodies()).findings(probability, everywhere(probability), wide)

    assert len(reading.findings) == 20
    assert reading.not_reported == len(places) - 20
    assert dict(reading.parameters) == {"report threshold": "0.5", "candidate threshold": "0.3"}


def test_a_mark_that_attenuation_does_not_bound_is_outlined_as_the_network_saw_it(
    bundle: Bundle, volume: Volume
) -> None:
    probability = np.zeros((87, 167, 223), dtype=np.float32)
    # In plain lung, where nothing is denser than its surroundings.
    probability[40:46, 60:68, 50:58] = 0.9
    plain = replace(volume, voxels=np.full_like(volume.voxels, -860.0))
    reading = LungNodule(bundle, DenseBodies()).findings(probability, everywhere(probability), plain)

    (finding,) = reading.findings
    assert reading.not_reported == 0
    # Voxels of 3 x 2 x 2 mm on a grid of 1.5 x 1 x 1 mm: every other one of the network's.
    inside = np.zeros(plain.voxels.shape, dtype=bool)
    inside[20:23, 30:34, 25:29] = True
    np.testing.assert_array_equal(reading.labels == 1, inside)
    assert finding.volume_mm3 == pytest.approx(6 * 8 * 8 * 1.5)


def test_a_mark_that_no_voxel_of_the_series_holds_is_counted(
    bundle: Bundle, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Region(box=(slice(0, 1), slice(0, 1), slice(0, 1)), mask=np.zeros((1, 1, 1), dtype=bool))
    monkeypatch.setattr("workers.algorithms.lung_nodule.outline", lambda *_: nothing)
    probability = np.zeros((87, 167, 223), dtype=np.float32)
    # Between two slices: the series' lie on every other of the grid's.
    probability[41, 60:68, 50:58] = 0.9
    reading = LungNodule(bundle, DenseBodies()).findings(probability, everywhere(probability), volume)

    assert (reading.findings, reading.not_reported) == ((), 1)


def test_the_lung_that_was_searched_is_told_in_millilitres(reading: Reading) -> None:
    drawn = 2 * 4 / 3 * math.pi * 62 * 60 * 42 / 1000
    assert reading.searched_ml == pytest.approx(drawn, rel=0.05)


def test_a_weak_candidate_is_not_reported(bundle: Bundle, volume: Volume) -> None:
    probability = np.zeros((87, 167, 223), dtype=np.float32)
    probability[31:36, 76:85, 56:65] = 0.49
    reading = LungNodule(bundle, DenseBodies()).findings(probability, everywhere(probability), volume)

    assert reading.findings == ()


def test_a_body_without_lungs_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    hu = np.where(chest(nodules=()) < -600, 40.0, chest(nodules=()))

    with pytest.raises(NotApplicable, match="no lungs"):
        LungNodule(bundle, DenseBodies()).read(load_volume(ct_series(tmp_path, voxels=hu, spacing=SPACING)))


@pytest.mark.parametrize(
    ("shape", "spacing", "directions", "words"),
    [
        ((30, 32, 32), (7.5, 8.0, 8.0), HEADFIRST_SUPINE, "7.5 mm apart"),
        ((10, 32, 32), (5.0, 8.0, 8.0), HEADFIRST_SUPINE, "too few"),
        ((40, 32, 32), (1.0, 8.0, 8.0), HEADFIRST_SUPINE, "too few"),
        ((40, 32, 32), (5.0, 2.0, 2.0), HEADFIRST_SUPINE, "field of view"),
        ((40, 32, 32), (5.0, 8.0, 8.0), ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)), "not axial"),
    ],
)
def test_a_series_that_the_network_was_not_made_for_is_not_read(
    bundle: Bundle,
    tmp_path: Path,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    directions: tuple[tuple[float, float, float], tuple[float, float, float]],
    words: str,
) -> None:
    volume = load_volume(ct_series(tmp_path, voxels=np.zeros(shape), spacing=spacing, directions=directions))

    with pytest.raises(NotApplicable, match=words):
        LungNodule(bundle, DenseBodies()).read(volume)


def test_a_bundle_for_another_grid_is_refused(tmp_path: Path) -> None:
    folder = little_bundle(tmp_path / "lung_nodule")
    text = (folder / CONFIGURATION).read_text()
    (folder / CONFIGURATION).write_text(text.replace("1.5", "2.5"))
    (folder / "SHA256SUMS").unlink()

    with pytest.raises(BundleInvalid, match="grid_mm"):
        LungNodule(load_bundle(folder), DenseBodies())


def test_of_an_outline_that_attenuation_does_not_bound_neither_density_nor_shape_is_told(
    bundle: Bundle, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's own coarse voxels stand for it then."""
    members = [[0.0] * (len(FEATURES) + 1)]
    zeros, wide = [0.0] * len(FEATURES), [100.0] * len(FEATURES)
    section = {"features": list(FEATURES), "centre": zeros, "scale": wide, "members": members}
    told = replace(bundle, configuration={**bundle.configuration, "reader_estimate": section})
    outlined = LungNodule(told, DenseBodies()).read(volume)
    nothing = Region(box=(slice(0, 1),) * 3, mask=np.zeros((1, 1, 1), dtype=bool))
    monkeypatch.setattr("workers.algorithms.lung_nodule.outline", lambda *_: nothing)
    coarse = LungNodule(told, DenseBodies()).read(volume)
    assert [finding.composition for finding in outlined.findings] != [None, None]
    assert len(outlined.further_remarks) == 2, "by which rule composition is told, and the estimate"
    assert [finding.composition for finding in coarse.findings] == [None, None]
    assert coarse.further_remarks == ()


def test_a_probability_of_cancer_is_told_only_by_a_bundle_that_was_fitted_to_outcomes(
    bundle: Bundle, volume: Volume
) -> None:
    zeros, wide = [0.0] * len(FEATURES), [100.0] * len(FEATURES)
    section = {"features": list(FEATURES), "centre": zeros, "scale": wide, "members": [[*zeros, 0.4]] * 3}
    rated = replace(bundle, configuration={**bundle.configuration, "reader_estimate": section})
    reading = LungNodule(rated, DenseBodies()).read(volume)
    assert [finding.malignancy for finding in reading.findings] == [None, None]
    assert "not a probability of cancer" in reading.further_remarks[-1]
    fitted = replace(rated, metadata={**bundle.metadata, OUTCOMES: "histology"})
    reading = LungNodule(fitted, DenseBodies()).read(volume)
    assert [finding.malignancy for finding in reading.findings] == [pytest.approx(1 / (1 + math.exp(-0.4)))] * 2
    assert "Probability of cancer" in reading.further_remarks[-1]
    assert "outcomes (histology)" in reading.further_remarks[-1]
    # Without an estimate there is nothing to tell, whatever it was trained on.
    alone = LungNodule(replace(bundle, metadata={**bundle.metadata, OUTCOMES: "histology"}), DenseBodies()).read(volume)
    assert {finding.malignancy for finding in alone.findings} == {None}


def test_outcomes_beside_an_estimate_of_ratings_are_refused(bundle: Bundle) -> None:
    section = {"means": f"mean malignancy rating of readers above 3, {NOT_OF_CANCER}"}
    rated = replace(bundle, configuration={**bundle.configuration, "reader_estimate": section})
    assert outcomes(rated) == ""
    with pytest.raises(BundleInvalid, match="one of them is not so"):
        outcomes(replace(rated, metadata={**bundle.metadata, OUTCOMES: "histology"}))


def test_outcomes_that_are_not_told_in_words_are_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match=OUTCOMES):
        LungNodule(replace(bundle, metadata={**bundle.metadata, OUTCOMES: True}), DenseBodies())


def test_on_what_a_score_depended_is_found_by_running_the_network_again(reading: Reading) -> None:
    """This network looks at what is dense, and at nothing else."""
    assert reading.dependences is not None
    told = reading.dependences(lambda: False)

    assert sorted(told) == [finding.number for finding in reading.findings]
    for number, found in told.items():
        assert found.score == pytest.approx(reading.findings[number - 1].score, abs=0.02)
        assert found.most is Part.OUTLINED
        assert found.without[Part.OUTLINED] < found.score / 3
        assert found.without[Part.LUNG] == pytest.approx(found.score, abs=0.01)


def test_when_there_is_no_time_left_the_highest_scores_have_been_explained(reading: Reading) -> None:
    answers = iter([False, True])

    assert reading.dependences is not None
    assert list(reading.dependences(lambda: next(answers))) == [1]
    assert reading.dependences(lambda: True) == {}


@pytest.mark.parametrize("spacing", [(3.0, 2.0, 2.0), (5.0, 0.6, 0.7), (0.8, 0.5, 1.5)])
def test_a_findings_voxels_are_found_again_on_the_networks_grid(spacing: tuple[float, float, float]) -> None:
    mask = np.zeros((20, 40, 40), dtype=bool)
    mask[8:12, 10:24, 12:30] = True
    region = on_grid(mask, spacing, grid_shape(mask.shape, spacing))

    assert region is not None
    assert region.mask.all(), "a block is a block"
    for side, first, last, mm, grid in zip(region.box, (8, 10, 12), (12, 24, 30), spacing, GRID_MM, strict=True):
        assert side.start * grid == pytest.approx(first * mm, abs=max(mm, grid))
        assert side.stop * grid == pytest.approx(last * mm, abs=max(mm, grid))
    assert on_grid(np.zeros_like(mask), spacing, grid_shape(mask.shape, spacing)) is None
