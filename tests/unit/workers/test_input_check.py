"""A series unlike those that a network was trained on is named by a code, in words, with what was measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from dicom_node.core.errors import BundleInvalid, NotApplicable
from tests.bundles import little_bundle
from tests.factories import ct_series
from tests.unit.workers.test_lung_nodule import SPACING as LUNGS_SPACING
from tests.unit.workers.test_lung_nodule import DenseBodies
from tests.unit.workers.test_lung_nodule import chest as lungs_chest
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import METADATA, SHIPPED_BUNDLES, Bundle, load_bundle
from workers.input_check import (
    WORDS,
    InputCheck,
    Reason,
    TrainedOn,
    contrast,
    deviations,
    discontinuity,
    kernel_kind,
    noise_hu,
    share_at_ends,
    slice_gap_mm,
    trained_on,
)
from workers.volume import Volume, load_volume

ANY = TrainedOn()


@pytest.fixture(scope="module")
def chest_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(little_bundle(tmp_path_factory.mktemp("bundles") / "lung_nodule"))


def chest(noise: float = 12.0, slices: int = 40, side: int = 96) -> NDArray[np.float32]:
    """A body of soft tissue with two lungs and a spine, wandering slowly from slice to slice; HU [k, j, i]."""
    k, j, i = np.indices((slices, side, side), dtype=np.float32)
    drift = 3 * np.sin(k / slices * np.pi)
    body = ((j - 48) / 44) ** 2 + ((i - 48) / 46) ** 2 < 1
    hu = np.where(body, 45.0, -1000.0)
    for middle in (28.0, 68.0):
        lung = ((j - 45 - drift) / 22) ** 2 + ((i - middle) / 13) ** 2 < 1
        hu[lung] = -850.0
    hu[((j - 78) / 6) ** 2 + ((i - 48) / 6) ** 2 < 1] = 250.0
    return (hu + np.random.default_rng(3).normal(0, noise, hu.shape)).astype(np.float32)


def series(folder: Path, thickness: float = 2.0, **attributes: Any) -> Volume:
    return load_volume(ct_series(folder, spacing=(2.0, 0.8, 0.8), SliceThickness=thickness, **attributes))


def found(volume: Volume, ranges: TrainedOn, lungs: NDArray[np.bool_] | None = None) -> list[Reason]:
    return [deviation.reason for deviation in deviations(volume, ranges, lungs)]


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Reason)


def test_a_series_within_every_range_has_no_deviation(tmp_path: Path) -> None:
    ranges = TrainedOn(
        slice_thickness_mm=(0.5, 2.5),
        slice_gap_mm=(0.0, 0.5),
        pixel_spacing_mm=(0.4, 1.0),
        kernels=("soft",),
        contrast=("with", "without"),
        lungs_cut=(0.0, 0.2),
        discontinuity=(0.0, 3.0),
        noise_hu=(0.0, 30.0),
    )
    volume = load_volume(ct_series(tmp_path, voxels=chest(), spacing=(2.0, 0.8, 0.8), ConvolutionKernel="B30f"))
    lungs = np.zeros((20, 8, 8), dtype=bool)
    lungs[3:17, 2:6, 2:6] = True

    assert deviations(volume, ranges, lungs) == ()


def test_slices_thicker_than_those_of_the_training_are_named_with_both_numbers(tmp_path: Path) -> None:
    (deviation,) = deviations(series(tmp_path, 5.0), replace(ANY, slice_thickness_mm=(0.5, 2.5)))

    assert str(deviation) == ("slices are 5 mm thick, and the algorithm was trained on 0.5 to 2.5 mm (SLICE_THICKNESS)")


def test_what_a_header_rounds_is_within_the_range(tmp_path: Path) -> None:
    assert found(series(tmp_path, 2.51), replace(ANY, slice_thickness_mm=(0.5, 2.5))) == []


@pytest.mark.parametrize(("thickness", "gap"), [(2.0, 0.0), (3.0, 0.0), (1.0, 1.0)])
def test_a_gap_is_what_no_slice_shows(tmp_path: Path, thickness: float, gap: float) -> None:
    volume = series(tmp_path, thickness)

    assert slice_gap_mm(volume) == pytest.approx(gap)
    assert found(volume, replace(ANY, slice_gap_mm=(0.0, 0.5))) == ([Reason.SLICE_GAP] if gap > 0.5 else [])


def test_pixels_wider_than_those_of_the_training_are_named(tmp_path: Path) -> None:
    assert found(series(tmp_path), replace(ANY, pixel_spacing_mm=(0.3, 0.7))) == [Reason.PIXEL_SPACING]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("STANDARD", "soft"),
        ("LUNG", "sharp"),
        ("BONEPLUS", "sharp"),
        ("B30f", "soft"),
        ("B45f", "soft"),
        ("B70f", "sharp"),
        (["Br40d", "3"], "soft"),
        ("Bl57f", "sharp"),
        ("FC08", "soft"),
        ("FC52", "sharp"),
        ("YA", "sharp"),
        ("C", "soft"),
        ("\\", None),
        ("", None),
    ],
)
def test_kernels_are_soft_or_sharp_by_their_names(name: str | list[str], kind: str | None) -> None:
    header = pydicom.Dataset()
    header.ConvolutionKernel = name

    assert kernel_kind(header) == kind


def test_a_sharp_kernel_is_named_where_only_soft_ones_taught(tmp_path: Path) -> None:
    assert found(series(tmp_path, ConvolutionKernel="B70f"), replace(ANY, kernels=("soft",))) == [Reason.KERNEL]


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [({}, None), ({"ContrastBolusAgent": ""}, "without"), ({"ContrastBolusAgent": "OMNI"}, "with")],
)
def test_contrast_is_told_by_the_header_or_not_at_all(
    tmp_path: Path, attributes: dict[str, str], kind: str | None
) -> None:
    volume = series(tmp_path, **attributes)

    assert contrast(volume.headers[0]) == kind
    assert found(volume, replace(ANY, contrast=("without",))) == ([Reason.CONTRAST] if kind == "with" else [])


def test_an_enhanced_image_names_its_agents_in_a_sequence() -> None:
    header = pydicom.Dataset()
    header.ContrastBolusAgentSequence = []
    assert contrast(header) is None
    header.ContrastBolusAgentSequence = [pydicom.Dataset()]
    assert contrast(header) == "with"


def test_lungs_that_reach_the_end_of_the_series_are_cut(tmp_path: Path) -> None:
    lungs = np.zeros((20, 8, 8), dtype=bool)
    lungs[3:17, 2:6, 2:6] = True
    cut = lungs.copy()
    cut[17:, 2:6, 2:4] = True

    assert (share_at_ends(lungs), share_at_ends(cut), share_at_ends(~np.ones_like(lungs))) == (0.0, 0.5, 0.0)
    assert found(series(tmp_path), replace(ANY, lungs_cut=(0.0, 0.2)), cut) == [Reason.LUNGS_CUT]


def test_a_breath_between_two_slices_is_seen() -> None:
    still = chest()
    moved = still.copy()
    moved[20:] = np.roll(moved[20:], 4, axis=1)
    quiet, breath = discontinuity(still), discontinuity(moved)

    assert quiet is not None
    assert breath is not None
    assert quiet < 1.7
    assert breath > 2.0


def test_few_slices_do_not_tell_of_motion() -> None:
    assert discontinuity(chest(slices=8)) is None


@pytest.mark.parametrize("noise", [5.0, 20.0, 60.0])
def test_noise_is_measured_in_soft_tissue(noise: float) -> None:
    measured = noise_hu(chest(noise))

    assert measured is not None
    # The quietest squares: somewhat below what was drawn.
    assert 0.75 * noise < measured < 1.05 * noise


def test_air_has_no_soft_tissue_to_measure_noise_in() -> None:
    assert noise_hu(np.full((10, 64, 64), -1000, dtype=np.float32)) is None


def test_motion_and_noise_are_named_in_a_series(tmp_path: Path) -> None:
    voxels = chest(noise=60.0)
    voxels[20:] = np.roll(voxels[20:], 12, axis=1)
    volume = load_volume(ct_series(tmp_path, voxels=voxels, spacing=(2.0, 0.8, 0.8)))

    assert found(volume, replace(ANY, discontinuity=(0.0, 1.5), noise_hu=(0.0, 30.0))) == [Reason.MOTION, Reason.NOISE]


def shipped() -> TrainedOn:
    return trained_on(load_bundle(SHIPPED_BUNDLES / "lung_nodule"))


def breathing() -> NDArray[np.float32]:
    voxels = chest()
    voxels[20:] = np.roll(voxels[20:], 12, axis=1)
    return voxels


#: A drawn series for every reason: what it is made of, its slices' distance and pixels, and what its headers say.
UNLIKE: dict[Reason, tuple[NDArray[np.float32], tuple[float, float, float], dict[str, Any]]] = {
    Reason.SLICE_THICKNESS: (chest(), (2.0, 0.8, 0.8), {"SliceThickness": 8.0}),
    Reason.SLICE_GAP: (chest(), (4.0, 0.8, 0.8), {"SliceThickness": 2.0}),
    Reason.PIXEL_SPACING: (chest(), (2.0, 1.4, 1.4), {}),
    Reason.KERNEL: (chest(), (2.0, 0.8, 0.8), {"ConvolutionKernel": "B70f"}),
    Reason.CONTRAST: (chest(), (2.0, 0.8, 0.8), {"ContrastBolusAgent": "OMNIPAQUE"}),
    Reason.MOTION: (breathing(), (2.0, 0.8, 0.8), {}),
    Reason.NOISE: (chest(noise=70.0), (2.0, 0.8, 0.8), {}),
}


@pytest.mark.parametrize("reason", UNLIKE)
def test_of_a_series_that_is_unlike_in_one_way_that_one_is_named_and_it_is_read_or_not_as_the_settings_say(
    tmp_path: Path, reason: Reason
) -> None:
    """By the ranges that the shipped detector states; of kernels and contrast it knows both, so one of each is left."""
    voxels, spacing, attributes = UNLIKE[reason]
    plain = {"ConvolutionKernel": "B30f", "ContrastBolusAgent": ""}
    volume = load_volume(ct_series(tmp_path, voxels=voxels, spacing=spacing, **(plain | attributes)))
    ranges = replace(shipped(), kernels=("soft",), contrast=("without",))

    (deviation,) = InputCheck(trained_on=ranges)(volume, None)
    assert deviation.reason is reason
    with pytest.raises(NotApplicable, match=rf"\({reason}\); the settings say that such a series is not read"):
        InputCheck(trained_on=ranges, refuses=True)(volume, None)


def test_a_series_that_ends_within_the_lungs_is_named_by_what_the_algorithm_found_of_them(
    tmp_path: Path, chest_bundle: Bundle
) -> None:
    """The lungs are those that the algorithm itself searches, not drawn for the check."""
    whole = lungs_chest()
    algorithm, check = LungNodule(chest_bundle, DenseBodies()), InputCheck(trained_on=TrainedOn(lungs_cut=(0.0, 0.3)))
    for name, voxels, reasons in (("whole", whole, []), ("cut", whole[: len(whole) // 2 + 6], [Reason.LUNGS_CUT])):
        volume = load_volume(ct_series(tmp_path / name, voxels=voxels, spacing=LUNGS_SPACING))
        assert check.needs_lungs
        found_ones = check(volume, algorithm.prepare(volume).where)
        assert [deviation.reason for deviation in found_ones] == reasons, name


def test_every_reason_but_that_nothing_was_stated_has_a_drawn_series() -> None:
    assert {*UNLIKE, Reason.LUNGS_CUT, Reason.NOT_STATED} == set(Reason)


def test_what_was_never_stated_is_said_and_never_refused(tmp_path: Path) -> None:
    (deviation,) = InputCheck(trained_on=TrainedOn(is_stated=False), refuses=True)(series(tmp_path), None)

    assert deviation.reason is Reason.NOT_STATED


def test_a_series_out_of_the_range_is_read_with_a_caveat_or_not_read_as_the_settings_say(tmp_path: Path) -> None:
    volume, ranges = series(tmp_path, 5.0), replace(ANY, slice_thickness_mm=(0.5, 2.5))

    assert [found.reason for found in InputCheck(trained_on=ranges)(volume, None)] == [Reason.SLICE_THICKNESS]
    with pytest.raises(NotApplicable, match=r"slices are 5 mm thick.*SLICE_THICKNESS"):
        InputCheck(trained_on=ranges, refuses=True)(volume, None)


def test_ranges_come_from_the_bundle(tmp_path: Path) -> None:
    import json

    folder = little_bundle(tmp_path / "lung_nodule")
    (folder / "SHA256SUMS").unlink()
    metadata = json.loads((folder / METADATA).read_text())

    def stated(value: object) -> TrainedOn:
        (folder / METADATA).write_text(json.dumps(metadata | {"trained_on": value}))
        return trained_on(load_bundle(folder))

    assert not trained_on(load_bundle(folder)).is_stated
    assert stated({"slice_thickness_mm": [1, 5], "kernels": ["soft"]}) == TrainedOn(
        slice_thickness_mm=(1.0, 5.0), kernels=("soft",)
    )
    for wrong in ({"cheese": [1, 2]}, {"noise_hu": [2, 1]}, {"kernels": "soft"}, {"kernels": ["hard"]}, [1]):
        with pytest.raises(BundleInvalid, match="trained_on"):
            stated(wrong)
