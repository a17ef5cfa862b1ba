"""The semi-synthetic test set, over toy lungs, and a volume of it counted."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.codes import LUNG, MORPHOLOGICALLY_ABNORMAL_STRUCTURE, NODULE
from dicom_node.core.finding import Axis, Finding, Outline
from tests.bundles import little_bundle
from training import phantom_backgrounds
from training.augmentation import on_grid, scanned
from training.dataset import Background
from training.evaluation.drawn_scans import Case, DrawnNodule, DrawnScan, DrawnScans, cases
from training.evaluation.judged import Read, judge
from training.evaluation.report import Result, figures, write
from training.evaluation.toy_scans import toy_scan
from training.experiment import EXPERIMENTS, ExperimentInvalid, read_experiment
from training.metrics.detection import MISSED
from training.phantom_backgrounds import TEACHING_SEEDS, TEST_SEEDS, VALIDATION_SEEDS, kept_at, load_teaching
from training.shapes import Shape
from training.validation import validated
from workers.algorithms import Reading
from workers.bundles import load_bundle
from workers.preprocessing import GRID_MM, grid_shape
from workers.volume import Region, Volume

SEEDS = TEST_SEEDS[:2]


def background(name: str, slabs: tuple[tuple[int, int], ...], height: int = 200) -> Background:
    """Two boxes of lung in muscle."""
    hu = np.full((height, 60, 90), 40, dtype=np.int16)
    lung = np.zeros(hu.shape, dtype=bool)
    lung[:, 8:52, 8:40] = lung[:, 8:52, 50:82] = True
    hu[lung] = -860
    judging = np.zeros(hu.shape, dtype=bool)
    for low, high in slabs:
        judging[low:high] = True
    return Background(name=name, hu=hu, lung=lung, teaching=~judging, judging=judging)


def ball(patient: str) -> Shape:
    grid = np.linalg.norm(np.indices((15, 15, 15)) - 7, axis=0)
    probability = (np.clip(4.5 - grid, 0, 1) * 255).astype(np.uint8)
    return Shape(patient=patient, probability=probability, texture=5.0, calcified=False)


def of_use(use: str) -> Shape:
    return next(shape for shape in (ball(f"P-{n}") for n in range(200)) if shape.use == use)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where generated thoraces would be kept: toy lungs in their place."""
    folder = tmp_path_factory.mktemp("cache")
    for seed in SEEDS:
        made = background(f"phantom-{seed}", ((0, 200),))
        np.savez_compressed(kept_at(folder, seed), hu=made.hu, lung=made.lung)
    return folder


def scans(cache: Path, use: str = "test", seed: int = 1) -> DrawnScans:
    real = [background("real", ((30, 50), (110, 130)))]
    return DrawnScans(real, [of_use("teaching"), of_use(use)], SEEDS, cache, seed, use=use)


def test_seeds_and_patients_of_teaching_validation_and_test_never_mix() -> None:
    assert not set(TEACHING_SEEDS) & set(VALIDATION_SEEDS)
    assert not set(TEST_SEEDS) & {*TEACHING_SEEDS, *VALIDATION_SEEDS}
    with pytest.raises(ValueError, match="kept for test"):
        DrawnScans([], [of_use("teaching"), of_use("validation")], SEEDS, Path("none"), 1)


def test_of_150_cases_a_hundred_have_nodules_and_twenty_of_them_real_lungs() -> None:
    chosen = cases(100, 50)
    assert sum(case.with_nodules for case in chosen) == 100
    assert sum(case.is_real for case in chosen) == 20
    assert not any(case.is_real for case in chosen if not case.with_nodules)


def test_every_lung_of_a_set_has_its_turn_with_nodules_and_without() -> None:
    chosen = cases(100, 50)
    for number in (10, 14):
        for with_nodules in (True, False):
            drawn = [case for case in chosen if case.with_nodules is with_nodules and not case.is_real]
            turns = Counter(case.generated % number for case in drawn)
            assert len(turns) == number
            assert max(turns.values()) - min(turns.values()) <= 1


def test_more_thoraces_than_there_are_seeds_that_teach_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_backgrounds, "load_data", lambda *_: ([], []))
    experiment = read_experiment(EXPERIMENTS / "lung_nodule.toml")
    asked = replace(experiment, data={**experiment.data, "thoraces": len(TEACHING_SEEDS) + 1})
    with pytest.raises(ExperimentInvalid, match="thoraces = 61: there are seeds for 60"):
        load_teaching(asked, Path("none"))


def test_a_case_is_the_same_whether_drawn_or_kept(cache: Path, tmp_path: Path) -> None:
    case = Case(number=3, with_nodules=True)
    first = scans(cache)(case)
    again = scans(cache)(case)
    np.testing.assert_array_equal(first.hu, again.hu)
    assert [n.kind for n in first.nodules] == [n.kind for n in again.nodules]
    assert not np.array_equal(scans(cache, seed=2)(case).hu, first.hu)


def test_nodules_lie_in_judged_lung_and_normals_have_none(cache: Path) -> None:
    made = scans(cache)
    drawn = made(Case(number=4, with_nodules=True))
    assert drawn.background == "real"
    assert 1 <= len(drawn.nodules) <= 3
    assert all(drawn.judged[n.region.box][n.region.mask].any() for n in drawn.nodules)
    # Only the upper slab is the test's.
    assert drawn.judged.any(axis=(1, 2)).sum() == 20
    assert made(Case(number=0, with_nodules=False)).nodules == ()


def test_where_a_piece_is_cut_out_of_a_lung_no_nodule_lies_and_nothing_is_judged(cache: Path) -> None:
    made = scans(cache)
    for number in range(4):
        drawn = made(Case(number=number, with_nodules=True))
        assert not drawn.judged[:12].any()
        assert not drawn.judged[-12:].any()
        assert drawn.judged[12:-12].any(axis=(1, 2)).all()
        assert all(12 <= np.argwhere(n.region.mask)[:, 0].mean() + n.region.box[0].start < 72 for n in drawn.nodules)
    assert made(Case(number=0, with_nodules=False)).judged.all()


def test_a_nodule_in_the_middle_of_the_lung_is_whole_beyond_where_it_is_judged(cache: Path) -> None:
    made = scans(cache)
    drawn = [nodule for number in range(30) for nodule in made(Case(number=number, with_nodules=True)).nodules]
    beyond = [n for n in drawn if n.region.box[0].start < 12 or n.region.box[0].stop > 72]
    assert beyond
    for nodule in beyond:
        areas = nodule.region.mask.sum(axis=(1, 2))
        # Sawn off, the first or last slice would be among the largest.
        assert min(areas[0], areas[-1]) < 0.6 * areas.max()


def ball_in(thickness_mm: float, seed: int) -> DrawnScan:
    """A ball of 12 mm in even lung, in thick slices that begin anywhere."""
    k, j, i = np.indices((60, 80, 90), dtype=np.float32)
    ball = ((k - 31) * 1.5) ** 2 + (j - 38) ** 2 + (i - 52) ** 2 < 36
    hu = np.where(ball, 40.0, -860.0).astype(np.float32)
    slices = scanned(hu, np.random.default_rng(seed), thickness_mm, 1.0)
    (box,) = ndimage.find_objects(ball.astype(np.int8))
    nodule = DrawnNodule(region=Region(box=box, mask=ball[box]), kind="solid", diameter_mm=12.0)
    judged = np.ones(hu.shape, dtype=bool)
    return DrawnScan(
        name="ball",
        background="toy",
        slice_thickness_mm=thickness_mm,
        hu=on_grid(slices, len(hu)),
        slices=slices,
        judged=judged,
        nodules=(nodule,),
    )


def seeing(volume: Volume) -> Reading:
    """Who looks at nothing but the series: what is dense is a finding; the lower half of its grid is searched."""
    labels = (volume.voxels > -400).astype(np.uint8)
    k, j, i = np.argwhere(labels).mean(axis=0)
    place = volume.to_patient(float(i), float(j), float(k))
    searched = np.zeros(grid_shape(volume.voxels.shape, volume.spacing_mm), dtype=bool)
    heights = volume.affine[2, 3] + np.arange(len(searched)) * GRID_MM[0]
    searched[heights < 45.0] = True
    return Reading(findings=(finding(1, place, 0.9),), labels=labels, parameters=(), searched=searched)


@pytest.mark.parametrize("thickness", [1.5, 2.5, 3.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_seen_in_slices_is_where_it_was_drawn(thickness: float, seed: int) -> None:
    judged = judge(ball_in(thickness, seed), seeing, 0.5)
    (nodule,) = judged.nodules
    assert nodule.score == 0.9
    assert nodule.dice > (0.75 if thickness < 5 else 0.65)
    # Half of 60 levels of 80 x 90 voxels, to a level.
    assert judged.lung_ml == pytest.approx(30 * 80 * 90 * 1.5 / 1000, rel=0.04)


@pytest.mark.parametrize("levels", [slice(30, 60), slice(32, 60), slice(34, 60), slice(0, 29)])
def test_a_nodule_at_the_edge_of_what_is_judged_is_found_by_a_mark_in_its_middle(levels: slice) -> None:
    """Its middle, on level 31, may lie a little beyond that edge; what lies there on no nodule counts as nothing."""
    drawn = ball_in(2.5, 0)
    judged = np.zeros_like(drawn.judged)
    judged[levels] = True
    (nodule,) = judge(replace(drawn, judged=judged), seeing, 0.5).nodules
    assert nodule.score == 0.9
    assert nodule.dice > 0.75
    counted = judge(replace(drawn, judged=judged, nodules=()), seeing, 0.5)
    assert len(counted.matched.false_scores) == len(counted.sights) == int(judged[31].all())


@pytest.mark.parametrize("thickness", [2.5, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_mark_in_slices_is_counted_for_the_nodule_that_it_is_on(
    thickness: float, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dense:
        """A network that marks what is dense in the lungs."""

        number_format = ""

        def __init__(self, *_given: object, **_further: object) -> None: ...

        def beat(self, step: str) -> None: ...

        def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
            return np.where(where & (voxels > 0.5), 0.9, 0.0).astype(np.float32)

    monkeypatch.setattr("training.validation.Inference", Dense)
    toy = toy_scan(Case(number=seed, with_nodules=True))
    slices = scanned(toy.hu, np.random.default_rng(seed), thickness, 1.0)
    thick = replace(toy, slices=slices, hu=on_grid(slices, len(toy.hu)), slice_thickness_mm=thickness)
    bundle = load_bundle(little_bundle(tmp_path / "lung_nodule"))
    seen = validated(bundle, [thick], 0.5, 1)
    assert {0, 1} <= set(seen.nodules.tolist())
    on_nodules = [crop for crop, nodule in zip(seen.crops, seen.nodules, strict=True) if nodule >= 0]
    # What a second look is shown has the nodule in its middle.
    assert all(crop[10:14, 14:18, 14:18].mean() > 0.5 for crop in on_nodules)
    elsewhere = validated(bundle, [replace(thick, judged=np.zeros_like(thick.judged))], 0.5, 1)
    assert elsewhere.nodules.tolist() == [nodule for nodule in seen.nodules if nodule >= 0]


def test_no_nodule_lies_hidden_in_what_is_as_dense(cache: Path) -> None:
    """In lungs that are all vessel only what is denser or hollow can be seen."""
    source = background("real", ((30, 50), (110, 130)))
    source.hu[source.lung] = 40
    made = DrawnScans([source], [of_use("test")], SEEDS, cache, 5)
    kinds = [
        nodule.kind for number in range(4, 84, 5) for nodule in made(Case(number=number, with_nodules=True)).nodules
    ]
    assert kinds
    assert set(kinds) <= {"calcified", "ring", "cavity"}


def finding(number: int, centre: tuple[float, float, float], score: float) -> Finding:
    axis = Axis(length_mm=8.0, start=centre, end=centre)
    return Finding(
        number=number,
        concept=NODULE,
        category=MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=LUNG,
        laterality=None,
        centre=centre,
        long_axis=axis,
        short_axis=axis,
        maximum_3d_diameter_mm=8.0,
        volume_mm3=250.0,
        mean_hu=0.0,
        deviation_hu=1.0,
        score=score,
        outline=Outline(sop_instance_uid="2.25.1", points=((1, 1), (2, 1), (2, 2), (1, 1))),
    )


def knowing(drawn: DrawnScan, extra: bool = False) -> Read:
    """A reader that finds every nodule exactly, and something else where it is asked to."""

    def read(volume: Volume) -> Reading:
        truth = np.zeros(drawn.hu.shape, dtype=np.uint8)
        found = []
        for number, nodule in enumerate(drawn.nodules, start=1):
            truth[nodule.region.box][nodule.region.mask] = number
            k, j, i = (np.argwhere(truth == number).mean(axis=0)) * GRID_MM
            found.append(finding(number, (float(i), float(j), float(k)), 0.9))
        if extra:
            k, j, i = np.argwhere(drawn.judged)[0] * GRID_MM
            found.append(finding(len(found) + 1, (float(i), float(j), float(k)), 0.7))
        heights = volume.affine[2, 3] + np.arange(len(volume.voxels)) * volume.spacing_mm[0]
        levels = np.round(heights / GRID_MM[0]).astype(int).clip(0, len(truth) - 1)
        return Reading(findings=tuple(found), labels=truth[levels], parameters=(), searched=drawn.judged)

    return read


def blind(volume: Volume) -> Reading:
    return Reading(findings=(), labels=np.zeros(volume.voxels.shape, dtype=np.uint8), parameters=())


def result(cache: Path, *, extra: bool = False, seeing: bool = True) -> Result:
    made = scans(cache)
    judged = []
    for case in cases(4, 1):
        drawn = made(case)
        judged.append(judge(drawn, knowing(drawn, extra) if seeing else blind, 0.5))
    return Result(
        bundle="toy 1, checksum 0",
        report_threshold=0.5,
        with_nodules=tuple(judged[:4]),
        normals=tuple(judged[4:]),
        real=(),
        real_false={},
        real_sights=(),
        seconds=1.0,
    )


def test_who_knows_the_truth_finds_all(cache: Path) -> None:
    knows = result(cache)
    tables = figures(knows)
    assert tables["Found at the report threshold"]["all"].value == 1.0
    assert all(n.dice == 1.0 for n in knows.nodules if n.slice_thickness_mm == GRID_MM[0])
    # On thick slices even the truth is coarse.
    assert tables["Outlines of nodules that were found"]["Dice, mean"].value > 0.8
    assert tables["At the report threshold"]["normals without any finding"].value == 1.0
    assert knows.sights == ()


def test_who_is_blind_misses_every_nodule_and_each_is_shown(cache: Path) -> None:
    sees_nothing = result(cache, seeing=False)
    assert all(nodule.score == MISSED for nodule in sees_nothing.nodules)
    assert len(sees_nothing.sights) == len(sees_nothing.nodules) > 3
    assert all(seen.is_miss and seen.truth.any() for seen in sees_nothing.sights)


def test_every_false_positive_is_counted_shown_and_told(cache: Path, tmp_path: Path) -> None:
    wrong = result(cache, extra=True)
    tables = figures(wrong)
    assert tables["At the report threshold"]["normals without any finding"].value == 0.0
    assert len(wrong.sights) == 5
    written, numbers = write(wrong, tables, tmp_path)
    assert "Semi-synthetic data." in written.read_text()
    assert "false positive, score 0.70" in written.read_text()
    # Not a number is no JSON.
    assert "NaN" not in numbers.read_text()
    said = json.loads(numbers.read_text())
    assert said["data"] == "semi-synthetic, and two real scans"
    assert len(said["nodules"]) == len(wrong.nodules)
