"""A radiograph (CR, DX) as a network of small inputs wants it: grey from 0 to 1, air dark, a square of few pixels.

Grey is what a viewer would show by default: Modality LUT, then VOI LUT or window, then MONOCHROME1 turned over (PS3.3
Sections C.11.1, C.11.2 and C.7.6.3.1.2). Without a window the middle of the values is spread, padding left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from dicom_node.core.errors import NotApplicable, UnreadableInstance
from workers.volume import Volume

Floats = NDArray[np.float32]

MODALITIES = ("CR", "DX")
#: Body Part Examined (0018,0015) of a chest, as PS3.16 Annex L and older devices write it.
_CHEST = ("CHEST", "THORAX", "LUNG")
#: What is shown from the darkest to the brightest where the header names no window, as quantiles.
_SPREAD = (0.005, 0.995)
_GREY = ("MONOCHROME1", "MONOCHROME2")
#: What pydicom and its decoders raise for pixel data that they cannot make sense of.
_UNDECODABLE = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def load_radiograph(paths: Sequence[Path]) -> Volume:
    """Read the one radiograph of a series, as grey values 0 to 1 [1, j, i] that have no place in the patient.

    Raises NotApplicable for other modalities, colour, several images or a lateral view, UnreadableInstance for what is
    missing, cut short or cannot be decoded.
    """
    if len(paths) != 1:
        raise NotApplicable(f"the series has {len(paths)} images; one radiograph is read at a time")
    ds = _read(paths[0])
    _check_kind(ds)
    name = f"instance {ds.get('SOPInstanceUID')}"
    try:
        grey = shown(ds, pixel_array(ds))
    except _UNDECODABLE as error:
        reason = f"pixel data of {name} cannot be decoded ({type(error).__name__})"
        raise UnreadableInstance(f"{reason}: send it again") from error
    ds.pop("PixelData", None)
    dy, dx = (float(value) for value in ds.get("PixelSpacing") or ds.get("ImagerPixelSpacing") or (1.0, 1.0))
    return Volume(voxels=grey[None], affine=np.eye(4), spacing_mm=(1.0, dy, dx), headers=(ds,), is_placed=False)


def shown(ds: pydicom.Dataset, stored: NDArray[np.generic]) -> Floats:
    """Stored values [j, i] as a viewer shows them first: 0 dark to 1 bright, air dark; padding is dark."""
    padding = _padding(ds, stored)
    values = apply_modality_lut(stored, ds)
    if _names_a_window(ds):
        grey = _windowed(ds, np.asarray(values))
    else:
        inside = values[~padding] if not padding.all() else values
        low, high = np.quantile(inside, _SPREAD)
        grey = ((values - low) / max(float(high - low), 1e-6)).clip(0.0, 1.0)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = 1.0 - grey
    result = np.asarray(grey, dtype=np.float32)
    result[padding] = 0.0
    return result


def square(grey: Floats, side: int) -> Floats:
    """The middle square of the shorter side, reduced to side x side pixels [j, i]; bicubic, anti-aliased."""
    rows, columns = grey.shape
    size = min(rows, columns)
    top, left = (rows - size) // 2, (columns - size) // 2
    picture = Image.fromarray(np.ascontiguousarray(grey[top : top + size, left : left + size], dtype=np.float32))
    reduced = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(reduced, dtype=np.float32).clip(0.0, 1.0)


def _read(path: Path) -> pydicom.Dataset:
    if not path.is_file():
        raise UnreadableInstance("the radiograph is not in the archive any more: send the study again")
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, *_UNDECODABLE) as error:
        # The disk's own fault says nothing of the file, and may pass.
        if isinstance(error, OSError) and error.errno:
            raise
        reason = f"the radiograph is no readable DICOM file ({type(error).__name__})"
        raise UnreadableInstance(f"{reason}: send the study again") from error


def _check_kind(ds: pydicom.Dataset) -> None:
    modality = str(ds.get("Modality", "unknown"))
    if modality not in MODALITIES:
        raise NotApplicable(f"the image has modality {modality}; only {' and '.join(MODALITIES)} are read")
    if int(ds.get("NumberOfFrames") or 1) != 1 or str(ds.get("PhotometricInterpretation")) not in _GREY:
        raise NotApplicable("the image is not one grey picture")
    if "PixelData" not in ds:
        raise UnreadableInstance(f"instance {ds.get('SOPInstanceUID')} holds no pixel data: send the study again")
    if str(ds.get("PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
        raise NotApplicable("the image is raw, for processing; what a viewer shows is read: send it for presentation")
    part = str(ds.get("BodyPartExamined") or "").strip().upper()
    if part and part not in _CHEST:
        raise NotApplicable(f"the radiograph is of the {part.lower()}; the algorithm was trained on chests")
    if str(ds.get("ViewPosition") or "").strip().upper() in ("LL", "RL", "LATERAL", "LAT"):
        raise NotApplicable("the radiograph is a lateral view; the algorithm was trained on frontal ones")


def _padding(ds: pydicom.Dataset, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where there is no image: Pixel Padding Value (0028,0120), up to its Range Limit (0028,0121) if it has one."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    low, high = sorted((int(value), int(ds.get("PixelPaddingRangeLimit", value))))
    return np.asarray((stored >= low) & (stored <= high))  # type: ignore[operator]  # stored values are numbers


def _names_a_window(ds: pydicom.Dataset) -> bool:
    """Whether a viewer has something to go by: an empty attribute, or half a window, is none."""
    center, width = ds.get("WindowCenter"), ds.get("WindowWidth")
    return bool(ds.get("VOILUTSequence")) or (center not in (None, "", []) and width not in (None, "", []))


def _windowed(ds: pydicom.Dataset, values: NDArray[np.generic]) -> NDArray[np.float64]:
    """By the first VOI LUT or window, 0 to 1 over what it can give."""
    windowed = np.asarray(apply_voi_lut(values, ds, prefer_lut=True), dtype=np.float64)
    if ds.get("VOILUTSequence"):
        bits = int(ds.VOILUTSequence[0].LUTDescriptor[2])
        return (windowed / (2.0**bits - 1)).clip(0.0, 1.0)
    # The window maps onto the whole range of output values, whatever the image itself uses of it.
    modality = next(iter(ds.get("ModalityLUTSequence") or ()), None)
    bits = int(ds.BitsStored) if modality is None else int(modality.LUTDescriptor[2])
    signed = modality is None and int(ds.get("PixelRepresentation") or 0)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if modality is None and "RescaleSlope" in ds and "RescaleIntercept" in ds:
        ends = sorted(end * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for end in (low, high))
        low, high = ends[0], ends[1]
    return ((windowed - low) / max(high - low, 1e-6)).clip(0.0, 1.0)
