"""A radiograph reaches the network as a viewer shows it: air dark, whatever its writer's convention."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import ComputedRadiographyImageStorage

from dicom_node.core.errors import NotApplicable, UnreadableInstance
from tests.factories import ct_series
from workers.radiograph import load_radiograph, square

#: What a radiograph has none of.
OF_CT = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "SliceThickness",
    "KVP",
    "ConvolutionKernel",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "GantryDetectorTilt",
)


def chest(rows: int = 60, columns: int = 80) -> NDArray[np.float64]:
    """Brightness 0 to 1 [j, i] as it is to be shown: air at the sides, a bright mediastinum, darker lungs."""
    j, i = np.indices((rows, columns))
    picture = np.where(abs(i - columns / 2) < columns * 0.4, 0.6, 0.05)
    picture[(abs(i - columns / 2) > columns * 0.12) & (abs(i - columns / 2) < columns * 0.32)] = 0.25
    return picture + 0.02 * np.sin(j / 7)


def radiograph(folder: Path, stored: NDArray[np.generic], **attributes: Any) -> list[Path]:
    """Write stored values [j, i], 12 bits, as a CR image without window."""
    absent: dict[str, Any] = dict.fromkeys(OF_CT)
    given = {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage, "ViewPosition": "PA", **attributes}
    hu = np.asarray(stored, dtype=np.int32)[None] - 1024
    return ct_series(folder, voxels=hu, seed="radiograph", **(absent | given))


def shown(folder: Path, stored: NDArray[np.generic], **attributes: Any) -> NDArray[np.float32]:
    return load_radiograph(radiograph(folder, stored, **attributes)).voxels[0]


def test_monochrome_1_is_turned_over(tmp_path: Path) -> None:
    bright = np.round(chest() * 4000)
    plain = shown(tmp_path / "2", bright)
    inverted = shown(tmp_path / "1", 4095 - bright, PhotometricInterpretation="MONOCHROME1")

    assert np.allclose(plain, inverted, atol=1e-3)
    assert plain[30, 2] < 0.1 < plain[30, 40]


def test_a_window_is_what_is_shown(tmp_path: Path) -> None:
    stored = np.tile(np.linspace(0, 4095, 80), (60, 1)).round()
    grey = shown(tmp_path, stored, WindowCenter=2000, WindowWidth=1000)

    assert (grey[0, 10], grey[0, -10]) == (0.0, 1.0)
    assert grey[0, np.abs(stored[0] - 2000).argmin()] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    "half", [{"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": 2000}, {"VOILUTSequence": []}]
)
def test_an_empty_or_half_window_is_none(tmp_path: Path, half: dict[str, Any]) -> None:
    stored = np.round(chest() * 400)
    plain = shown(tmp_path / "plain", stored)
    assert np.array_equal(shown(tmp_path / "half", stored, **half), plain)
    assert plain.max() > 0.9


def test_a_rescaled_image_is_windowed_in_its_own_units(tmp_path: Path) -> None:
    stored = np.tile(np.linspace(0, 4095, 80), (60, 1)).round()
    plain = shown(tmp_path / "plain", stored, WindowCenter=2000, WindowWidth=1000)
    rescaled = shown(
        tmp_path / "rescaled", stored, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3900, WindowWidth=2000
    )

    assert np.allclose(plain, rescaled, atol=2e-3)


def test_padding_is_dark_and_has_no_part_in_the_spread(tmp_path: Path) -> None:
    stored = np.round(1000 + chest() * 1000)
    padded = stored.copy()
    padded[:, :6] = 4095
    grey, whole = shown(tmp_path / "p", padded, PixelPaddingValue=4095), shown(tmp_path / "w", stored)

    assert not grey[:, :6].any()
    assert np.allclose(grey[:, 10:], whole[:, 10:], atol=0.1)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (28, 28), (300, 201)])
def test_the_middle_square_keeps_its_proportions(shape: tuple[int, int]) -> None:
    j, i = np.indices(shape)
    disc = ((j - shape[0] / 2) ** 2 + (i - shape[1] / 2) ** 2 < (min(shape) / 4) ** 2).astype(np.float32)
    small = square(disc, 28)

    assert small.shape == (28, 28)
    assert (small > 0.5).any(axis=0).sum() == pytest.approx((small > 0.5).any(axis=1).sum(), abs=1)
    assert (small.min(), small.max()) == (pytest.approx(0.0, abs=0.02), pytest.approx(1.0, abs=0.02))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": "MG"}, "modality MG"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "grey"),
        ({"Modality": "DX", "PresentationIntentType": "FOR PROCESSING"}, "raw"),
        ({"BodyPartExamined": "HAND"}, "hand"),
    ],
)
def test_what_the_network_never_saw_is_not_read(tmp_path: Path, attributes: dict[str, str], reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        shown(tmp_path, np.round(chest() * 4000), **attributes)


def test_two_images_are_not_one_radiograph(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="2 images"):
        load_radiograph([*radiograph(tmp_path, chest() * 4000), tmp_path / "other"])


def test_pixels_that_are_cut_short_are_named(tmp_path: Path) -> None:
    (path,) = radiograph(tmp_path, chest() * 4000)
    ds = pydicom.dcmread(path)
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(path)

    with pytest.raises(UnreadableInstance, match="cannot be decoded"):
        load_radiograph([path])
