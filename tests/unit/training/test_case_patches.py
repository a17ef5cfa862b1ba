"""Scans as they come, made ready: masks lie where findings are, patients who judge never teach."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests import data_sets
from tests.data_sets import known
from training.case_evaluation import judge, scores
from training.case_patches import CasePatches, GridCase, identity, load_cases, on_grid
from training.cases.case import patient_hash
from training.cases.layouts import read_cases
from training.evaluate import Sight
from training.metrics.detection import froc

OBLIQUE = Rotation.from_euler("zyx", [14, -9, 6], degrees=True).as_matrix() @ np.diag([-1.0, -1.0, 1.0])
TEACHING, JUDGING = "1", "a"


@pytest.fixture(params=[data_sets.luna16, data_sets.datalist_of_masks], ids=["ball", "mask"])
def ready(request: pytest.FixtureRequest, tmp_path: Path) -> GridCase:
    request.param(known(OBLIQUE), tmp_path / "set")
    (case,) = read_cases(tmp_path / "set")
    return on_grid(case)


def test_the_mask_lies_on_the_bright_voxels_around_the_nodules_millimetres(ready: GridCase) -> None:
    chest = known(OBLIQUE)
    middle = np.argwhere(ready.nodules).mean(axis=0)[::-1]
    np.testing.assert_allclose(ready.to_patient(*middle), chest.centre_mm, atol=0.6)
    assert ready.nodules.sum() * 1.5 == pytest.approx(np.pi / 6 * chest.diameter_mm**3, rel=0.15)
    assert (ready.hu[ready.nodules] > -400).mean() > 0.8


def test_irrelevant_findings_carry_no_loss(tmp_path: Path) -> None:
    data_sets.luna16(known(OBLIQUE), tmp_path / "set")
    (case,) = read_cases(tmp_path / "set")
    ready = on_grid(case)
    i, j, k = (round(at) for at in (np.linalg.inv(ready.affine) @ (*case.irrelevant[0].centre_mm, 1))[:3])
    assert not ready.counts[k, j, i]
    assert ready.counts[ready.nodules].all()


def test_what_was_kept_is_what_was_made_ready(tmp_path: Path) -> None:
    data_sets.datalist_of_masks(known(OBLIQUE), tmp_path / "set")
    made = on_grid(next(read_cases(tmp_path / "set")))
    for _ in range(2):
        (kept,) = load_cases(tmp_path / "set", "auto", tmp_path / "cache")
        assert (kept.name, kept.patient, kept.findings) == (made.name, made.patient, made.findings)
        for array in ("hu", "lung", "nodules", "counts"):
            np.testing.assert_array_equal(getattr(kept, array), getattr(made, array))


def test_a_data_set_that_changed_is_made_ready_anew(tmp_path: Path) -> None:
    data = tmp_path / "set"
    data_sets.datalist_of_masks(known(OBLIQUE), data)
    load_cases(data, "auto", tmp_path / "cache")
    (listed,) = data.glob("*.json")
    content = json.loads(listed.read_text())
    content["training"][0]["patient"] = "somebody else"
    listed.write_text(json.dumps(content))
    (case,) = load_cases(data, "auto", tmp_path / "cache")

    assert case.patient == patient_hash("somebody else")
    assert len(list((tmp_path / "cache" / "cases").iterdir())) == 2


def test_a_data_set_is_told_by_each_file_and_its_time(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    one, two = tmp_path / "scans" / "one", tmp_path / "scans" / "two"
    one.write_text("1")
    told = [identity(tmp_path, "auto"), identity(tmp_path, "luna16")]
    two.write_text("2")
    told.append(identity(tmp_path, "auto"))
    os.utime(one, (1, 1))
    told.append(identity(tmp_path, "auto"))
    two.rename(tmp_path / "two")
    told.append(identity(tmp_path, "auto"))

    assert len(set(told)) == 5
    assert identity(tmp_path, "auto") == told[-1]


def test_the_same_number_gives_the_same_patch_and_half_of_them_hold_the_nodule(ready: GridCase) -> None:
    patches = CasePatches([replace(ready, patient=TEACHING)], (16, 24, 24), seed=3)
    first, again = patches[5], patches[5]
    np.testing.assert_array_equal(first.values, again.values)
    assert first.values.shape == first.nodules.shape == (16, 24, 24)
    held = [bool(patches[n].nodules.any()) for n in range(12)]
    assert 3 <= sum(held) <= 12
    bright = [
        patch.values[patch.nodules].mean() for patch in (patches[n] for n in range(12)) if patch.nodules.sum() > 50
    ]
    dark = [patch.values[~patch.nodules].mean() for patch in (patches[n] for n in range(12))]
    assert min(bright) > max(dark)


def test_patients_who_judge_never_teach(ready: GridCase) -> None:
    judging = replace(ready, patient=JUDGING)
    assert judging.held_out
    assert not replace(ready, patient=TEACHING).held_out
    with pytest.raises(ValueError, match="none may teach"):
        CasePatches([judging], (16, 24, 24), seed=1)
    with pytest.raises(ValueError, match="none may judge"):
        judge(lambda values, _lungs: np.zeros_like(values), [replace(ready, patient=TEACHING)], 0.3)


def test_a_seeing_detector_finds_the_nodule_and_a_blind_one_is_shown_its_miss(ready: GridCase) -> None:
    """The seeing one takes what is dense for a nodule; the lungs are the whole of this chest."""
    case = replace(ready, patient=JUDGING, lung=np.ones_like(ready.lung))
    seen: list[Sight] = []
    (result,) = judge(lambda values, _lungs: (values > 0.5).astype(np.float32), [case], 0.3, seen.append)
    assert froc([result.matched]).sensitivity_at(1.0) == 1.0
    assert result.matched.false_scores == ()
    assert min(result.dice) > 0.75
    assert seen == []
    said, truth, patients = scores([result])
    assert (said.tolist(), truth.tolist(), patients) == ([1.0], [1.0], [JUDGING])
    (blind,) = judge(lambda values, _lungs: np.zeros_like(values), [case], 0.3, seen.append)
    assert froc([blind.matched]).sensitivity_at(8.0) == 0.0
    assert [sight.words for sight in seen] == [f"missed: {case.findings[0].diameter_mm:.1f} mm"]
    assert seen[0].truth.any()
