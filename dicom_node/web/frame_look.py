"""The look of a frame: how its header turns stored values into those that are shown, in every kind of image."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

#: Functions that a window may name (PS3.3 Section C.11.2.1.3); an image that names none is linear.
LINEAR, EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"

#: The sequences of functional groups, and what of them changes the values (PS3.3 Sections C.7.6.16.2.9 and .10).
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


def look_of(ds: Dataset, number: int) -> Dataset:
    """The header with what holds for a frame, from 1 on, at its top: of its own group, the shared one, or the image."""
    found = Dataset()
    found.update(ds)
    for macro, keywords in _GROUPS.items():
        for item in _items(ds, number, macro):
            for keyword in keywords:
                if keyword in item:
                    found[keyword] = item[keyword]
            break
    return found


def _items(ds: Dataset, number: int, macro: str) -> Iterator[Dataset]:
    """The macro's item of the frame's own group, then of the shared one."""
    of_frames = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for group in (*of_frames[number - 1 : number], *shared[:1]):
        yield from (group.get(macro) or [])[:1]


def own_window(look: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function that the header names first; None where it names none that can be used."""
    centre, width = (_first(look.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = str(look.get("VOILUTFunction") or LINEAR)
    if centre is None or width is None or width < least_width(function):
        return None
    return centre, width, function


def whole_window(values: NDArray[np.float32]) -> tuple[float, float, str]:
    """Of an image that names no window: nearly all of its values, so that a few do not darken the rest."""
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low + high) / 2 + 0.5, high - low + 1.0, LINEAR


def least_width(function: str) -> float:
    """Of a window; those that are not linear may be as narrow as they like."""
    return 1.0 if function not in (EXACT, SIGMOID) else 1e-9


def windowed(values: NDArray[np.float32], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """Grey values from 0 to 255 (PS3.3 Sections C.11.2.1.2 and C.11.2.1.3)."""
    if function == SIGMOID:
        with np.errstate(over="ignore"):
            shares = 1.0 / (1.0 + np.exp((values - np.float32(centre)) * np.float32(-4.0 / width)))
    elif function == EXACT:
        shares = (values - np.float32(centre)) / np.float32(width) + np.float32(0.5)
    else:
        shares = (values - np.float32(centre - 0.5)) / np.float32(max(width - 1.0, 1.0)) + np.float32(0.5)
    grey: NDArray[np.uint8] = (shares.clip(0.0, 1.0) * np.float32(255.0)).round().astype(np.uint8)
    return grey


def _first(value: Any) -> float | None:
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)
