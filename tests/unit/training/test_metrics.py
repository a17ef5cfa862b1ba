"""Figures of a reader: worked out by hand where that can be done, and held to their laws where not."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics.froc import compute_froc_curve_data
from scipy import ndimage
from scipy.spatial import KDTree
from sklearn.metrics import average_precision_score, roc_auc_score

from training.metrics import classification, detection
from training.metrics.bootstrap import Estimate, bootstrap
from training.metrics.classification import Counts, threshold_for_sensitivity
from training.metrics.detection import MISSED, RATES, Mark, Matched, Scan, Target, froc, match
from training.metrics.outlines import agreement, dice, hausdorff_95
from training.metrics.reliability import calibration_error, reliability

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 1.0])
SCORE = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1, 0.4, 0.6])


@st.composite
def readings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Truth of both classes, and scores on a coarse grid, so that some are equal."""
    truth = draw(st.lists(st.booleans(), min_size=2, max_size=30).filter(lambda t: 0 < sum(t) < len(t)))
    scores = draw(st.lists(st.integers(0, 8), min_size=len(truth), max_size=len(truth)))
    return np.array(truth, dtype=float), np.array(scores) / 8


def test_the_four_cells_and_their_shares_by_hand() -> None:
    counts = Counts.at(0.5, TRUTH, SCORE)
    assert counts == Counts(true_positives=3, false_positives=1, true_negatives=3, false_negatives=1)
    assert (counts.accuracy, counts.sensitivity, counts.specificity) == (0.75, 0.75, 0.75)
    assert (counts.precision, counts.f1) == (0.75, 0.75)
    assert math.isnan(Counts.at(0.5, np.zeros(3), np.zeros(3)).sensitivity)


def test_the_areas_by_hand() -> None:
    # Of 16 pairs the positive is higher in 4 + 4 + 2 + 3.
    assert classification.auc(TRUTH, SCORE) == pytest.approx(13 / 16)
    # Positives come at ranks 1, 2, 4 and 6.
    assert classification.average_precision(TRUTH, SCORE) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)


@given(readings())
def test_the_area_is_the_share_of_pairs_in_order(reading: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = reading
    differences = score[truth > 0.5][:, None] - score[truth < 0.5][None, :]
    expected = ((differences > 0) + 0.5 * (differences == 0)).mean()
    assert classification.auc(truth, score) == pytest.approx(expected)
    assert classification.auc(1 - truth, score) == pytest.approx(1 - expected)


@given(readings(), st.floats(0, 1))
def test_every_operating_point_lies_on_the_roc(reading: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    truth, score = reading
    counts = Counts.at(threshold, truth, score)
    false, true = classification.roc(truth, score)
    assert np.interp(1 - counts.specificity, false, true) >= counts.sensitivity - 1e-9
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()


@given(readings(), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_a_threshold_for_a_sensitivity_keeps_it_and_no_higher_one_does(
    reading: tuple[np.ndarray, np.ndarray], wanted: float
) -> None:
    truth, score = reading
    threshold = threshold_for_sensitivity(truth, score, wanted)
    assert Counts.at(threshold, truth, score).sensitivity >= wanted
    assert Counts.at(threshold + 1e-9, truth, score).sensitivity < wanted


@settings(max_examples=30)
@given(readings())
def test_the_areas_are_those_of_scikit_learn(reading: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = reading
    assert classification.auc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert classification.average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
    for one_class in (np.zeros(3), np.ones(3)):
        assert math.isnan(classification.auc(one_class, np.arange(3.0)))
    assert math.isnan(classification.average_precision(np.zeros(3), np.arange(3.0)))


def test_intervals_hold_their_figure_and_repeat_with_their_seed() -> None:
    patients = [str(n // 2) for n in range(len(TRUTH))]
    found = classification.estimates(TRUTH, SCORE, 0.5, patients, replicates=200)
    assert found == classification.estimates(TRUTH, SCORE, 0.5, patients, replicates=200)
    accuracy = found["accuracy"]
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert (accuracy.cases, accuracy.patients) == (8, 4)


def test_patients_are_drawn_whole() -> None:
    """Of two patients, one all right and one all wrong, a replicate is 0, a half or 1, and nothing between."""
    right = np.array([1.0] * 50 + [0.0] * 50)
    seen = []

    def share(cases: np.ndarray) -> float:
        seen.append(float(right[cases].mean()))
        return seen[-1]

    found = bootstrap(share, ["a"] * 50 + ["b"] * 50, replicates=200)
    assert set(seen) == {0.0, 0.5, 1.0}
    assert (found.low, found.high) == (0.0, 1.0)


def test_one_patient_gives_no_interval_and_says_so() -> None:
    found = bootstrap(lambda cases: float(len(cases)), ["a"] * 5)
    assert found.value == 5.0
    assert math.isnan(found.low)
    assert str(found) == "5.000 (no interval)"


def test_a_known_interval_is_found() -> None:
    """The mean of 400 patients of deviation 1 is known to within 0.05: its 95 % interval is 0.196 wide."""
    values = np.random.default_rng(3).normal(size=400)
    found = bootstrap(lambda cases: float(values[cases].mean()), [str(n) for n in range(400)], replicates=2000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def scan(*marks: tuple[float, float], nodules: tuple[float, ...] = (0.0,), irrelevant: tuple[float, ...] = ()) -> Scan:
    """Marks (place on a line, score), nodules of 10 mm, irrelevant findings of no known size."""
    return Scan(
        name="scan",
        patient="patient",
        marks=tuple(Mark(centre_mm=(x, 0.0, 0.0), score=score) for x, score in marks),
        nodules=tuple(Target(centre_mm=(x, 0.0, 0.0), diameter_mm=10.0) for x in nodules),
        irrelevant=tuple(Target(centre_mm=(x, 0.0, 0.0), diameter_mm=-1.0) for x in irrelevant),
    )


@pytest.mark.parametrize(
    ("read", "nodules", "false"),
    [
        (scan((4.9, 0.5)), (0.5,), ()),
        (scan((5.0, 0.5)), (MISSED,), (0.5,)),
        (scan((1.0, 0.4), (-2.0, 0.8), (0.0, 0.1)), (0.8,), ()),
        (scan((104.0, 0.9), (90.0, 0.7), irrelevant=(100.0,)), (MISSED,), (0.7,)),
        (scan((3.0, 0.6), nodules=(0.0, 6.0)), (0.6, 0.6), ()),
        (scan(nodules=()), (), ()),
    ],
    ids=["within the radius", "on the radius", "several hits count once", "irrelevant", "between two", "empty"],
)
def test_marks_are_counted_as_luna16_counts_them(
    read: Scan, nodules: tuple[float, ...], false: tuple[float, ...]
) -> None:
    counted = match(read)
    assert counted.nodule_scores == nodules
    assert counted.false_scores == false


def matched(nodules: tuple[float, ...], false: tuple[float, ...], patient: str = "p") -> Matched:
    return Matched(patient=patient, nodule_scores=nodules, false_scores=false)


def test_the_curve_and_its_mean_by_hand() -> None:
    """Two scans, four nodules: 0.9 found, then one false, then 0.7, then a second false one, then 0.2; one missed."""
    curve = froc([matched((0.9, 0.7), (0.8,)), matched((0.2, MISSED), (0.5,))])
    np.testing.assert_allclose(curve.false_positives, [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(curve.sensitivity, [0, 0.25, 0.25, 0.5, 0.5, 0.75])
    assert curve.sensitivity_at(8.0) == 0.75
    assert curve.sensitivity_at(0.75) == 0.5
    expected = [0.25, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75]
    np.testing.assert_allclose([curve.sensitivity_at(rate) for rate in RATES], expected)
    assert curve.cpm == pytest.approx(np.mean(expected))


SCORES = st.lists(st.integers(1, 99).map(lambda n: n / 100), max_size=12)


@given(SCORES, SCORES, st.integers(0, 3), st.integers(1, 4))
def test_every_point_that_monai_counts_is_on_the_curve(
    hits: list[float], false: list[float], missed: int, scans: int
) -> None:
    nodules = max(1, len(hits) + missed)
    first = matched((*hits, *[MISSED] * (nodules - len(hits))), tuple(false))
    ours = froc([first, *[matched((), ())] * (scans - 1)])
    theirs = compute_froc_curve_data(np.array(false), np.array(hits), nodules, scans)
    for rate, sensitivity in zip(*theirs, strict=True):
        assert (np.isclose(ours.false_positives, rate) & np.isclose(ours.sensitivity, sensitivity)).any()


@given(SCORES, SCORES, st.floats(0.01, 0.99))
def test_more_false_positives_a_scan_never_find_fewer(hits: list[float], false: list[float], more: float) -> None:
    before, after = (froc([matched((*hits, MISSED), each)]) for each in (tuple(false), (*false, more)))
    assert (np.diff(before.sensitivity) >= 0).all()
    for rate in RATES:
        assert after.sensitivity_at(rate) <= before.sensitivity_at(rate) + 1e-9


def test_a_scan_that_was_seen_in_part_counts_in_part() -> None:
    half = Matched(patient="p", nodule_scores=(0.5,), false_scores=(0.9,), share=0.5)
    assert froc([half]).false_positives[-1] == 2.0


def test_no_nodules_have_no_sensitivity_and_no_scans_no_curve() -> None:
    assert math.isnan(froc([matched((), (0.4,))]).cpm)
    with pytest.raises(ValueError, match="no scan"):
        froc([])


def test_cpm_comes_with_its_interval() -> None:
    scans = [matched((0.9 if n % 3 else MISSED,), (0.5,), patient=str(n)) for n in range(12)]
    found = detection.estimates(scans, replicates=100)
    assert found["CPM"].low < found["CPM"].value < found["CPM"].high
    assert set(found) >= {"CPM", "sensitivity at 0.125 false positives a scan"}


def ball(radius: float, shift: int = 0) -> np.ndarray:
    k, j, i = np.indices((24, 24, 24))
    return np.asarray((k - 12) ** 2 + (j - 12) ** 2 + (i - 12 - shift) ** 2 <= radius**2)


def test_outlines_by_hand() -> None:
    one, two = np.zeros((1, 4, 4), dtype=bool), np.zeros((1, 4, 4), dtype=bool)
    one[0, 1, :2], two[0, 1, 1:4] = True, True
    assert dice(one, two) == pytest.approx(2 / 5)
    assert dice(one & ~one, two & ~two) == 1.0
    assert hausdorff_95(one & ~one, two & ~two, (1, 1, 1)) == 0.0
    assert hausdorff_95(one, two & ~two, (1, 1, 1)) == math.inf


def surface(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    return np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 0.5), (2.0, 0.7, 0.7), (1.0, 1.0, 2.0)])
def test_surfaces_lie_as_far_apart_as_their_nearest_points_say(spacing: tuple[float, float, float]) -> None:
    one, two = ball(6), ball(7, shift=3)
    places = surface(one, spacing), surface(two, spacing)
    distances = [KDTree(places[1 - n]).query(places[n])[0] for n in (0, 1)]
    expected = max(float(np.percentile(each, 95)) for each in distances)
    assert hausdorff_95(one, two, spacing) == pytest.approx(expected, rel=1e-5)
    assert hausdorff_95(two, one, spacing) == pytest.approx(expected, rel=1e-5)
    assert hausdorff_95(one, one, spacing) == 0.0


@given(arrays(bool, (2, 3, 3)), arrays(bool, (2, 3, 3)))
def test_dice_is_symmetric_and_1_only_for_the_same(one: np.ndarray, two: np.ndarray) -> None:
    assert dice(one, two) == dice(two, one)
    assert 0 <= dice(one, two) <= 1
    assert (dice(one, two) == 1) == bool((one == two).all())


def test_bias_and_limits_of_agreement_by_hand() -> None:
    found = agreement(np.array([110.0, 90, 120]), np.array([100.0, 100, 100]), ["a", "b", "c"], replicates=50)
    deviation = np.std([0.1, -0.1, 0.2], ddof=1)
    assert found.bias.value == pytest.approx(0.2 / 3)
    assert found.upper_limit.value == pytest.approx(0.2 / 3 + 1.96 * deviation)
    assert found.lower_limit.value == pytest.approx(0.2 / 3 - 1.96 * deviation)
    with pytest.raises(ValueError, match="empty outlines"):
        agreement(np.array([1.0]), np.array([0.0]), ["a"])


def test_the_calibration_error_by_hand() -> None:
    curve = reliability(np.array([1, 0, 1, 1.0]), np.array([0.95, 0.95, 0.15, 1.0]))
    np.testing.assert_allclose(curve.said, [0.15, (0.95 + 0.95 + 1) / 3])
    np.testing.assert_allclose(curve.observed, [1, 2 / 3])
    assert curve.error == pytest.approx((0.85 * 1 + (2.9 / 3 - 2 / 3) * 3) / 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_a_calibration_error_is_between_0_and_1_and_counts_every_case(cases: list[tuple[float, bool]]) -> None:
    probability, truth = np.array([p for p, _ in cases]), np.array([float(t) for _, t in cases])
    curve = reliability(truth, probability)
    assert 0 <= curve.error <= 1
    assert curve.cases.sum() == len(cases)
    assert (curve.said * curve.cases).sum() == pytest.approx(probability.sum())


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_what_is_said_truly_has_nearly_no_calibration_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random(4000)
    truth = (rng.random(4000) < probability).astype(float)
    found = calibration_error(truth, probability, [str(n) for n in range(4000)], replicates=10)
    assert found.value < 0.04


def test_a_figure_that_nothing_defines_says_so() -> None:
    nothing = Estimate(value=math.nan, low=math.nan, high=math.nan, cases=0, patients=0)
    assert str(nothing) == "not defined"
