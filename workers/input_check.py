"""Input check: whether a series is like those that a network was trained on, as codes with words.

Each measure is a function of a volume or its headers alone; what range it must lie in, the bundle's metadata says under
`trained_on`. What a header does not say is no deviation: nothing is known of it.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicom_node.core.errors import BundleInvalid, NotApplicable
from workers.bundles import METADATA, Bundle
from workers.volume import Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Range = tuple[float, float]


class Reason(StrEnum):
    """In what a series differs from what the network has seen."""

    SLICE_THICKNESS = "SLICE_THICKNESS"
    SLICE_GAP = "SLICE_GAP"
    PIXEL_SPACING = "PIXEL_SPACING"
    KERNEL = "KERNEL"
    CONTRAST = "CONTRAST"
    LUNGS_CUT = "LUNGS_CUT"
    MOTION = "MOTION"
    NOISE = "NOISE"
    NOT_STATED = "NOT_STATED"


#: What each says to a person; `found` and `range` are filled in.
WORDS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.SLICE_THICKNESS: "slices are {found} mm thick, and the algorithm was trained on {range} mm",
        Reason.SLICE_GAP: "{found} mm between slices are on none of them, and the algorithm was trained on {range} mm",
        Reason.PIXEL_SPACING: "pixels are {found} mm wide, and the algorithm was trained on {range} mm",
        Reason.KERNEL: "the reconstruction kernel is {found}, and the algorithm was trained on {range}",
        Reason.CONTRAST: "the series is {found} contrast agent, and the algorithm was trained on series {range}",
        Reason.LUNGS_CUT: "the lungs have {found} of their largest area at an end of the series, and may go on beyond",
        Reason.MOTION: "one slice differs {found} times as much from the next as its neighbours do: breath or movement",
        Reason.NOISE: "noise in soft tissue is {found} HU, and the algorithm was trained on {range} HU",
        Reason.NOT_STATED: "the bundle does not say on what series it was trained, so that this one was not compared",
    }
)

#: What published bundles were trained on that do not say it themselves: LUNA16 leaves out slices over 2.5 mm.
_PUBLISHED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"lung_nodule_ct_detection": MappingProxyType({"slice_thickness_mm": (0.0, 2.5)})}
)
#: Header values are rounded by their writers: as far beyond a range is within.
_ROUNDED = 0.05

#: Kernels whose names say whether they sharpen: GE and Canon by word or number, Siemens by number, Philips by letter.
_SHARP_WORDS = ("LUNG", "BONE", "EDGE", "SHARP", "ULTRA")
_SOFT_WORDS = ("STANDARD", "STND", "SOFT", "SMOOTH", "DETAIL", "CHEST")
#: Siemens: B10 to B50 and Br36 to Br54 are smooth, from B60 and Bl57 on sharp.
_SIEMENS = re.compile(r"^[A-Z][A-Z]?(\d{2})[A-Z]?")
_SIEMENS_SHARP_FROM = 57
#: Canon: FC01 to FC29 are for the body, FC30 to FC39 and FC50 to FC59 for bone and lung.
_CANON = re.compile(r"^FC(\d{2})")
_PHILIPS = MappingProxyType(
    {"A": "soft", "B": "soft", "C": "soft", "D": "sharp", "E": "sharp", "L": "sharp", "YA": "sharp"}
)

#: Soft tissue without fat and bone; in it, squares of so many pixels are taken as even.
_TISSUE_HU = (-20.0, 120.0)
_SQUARE = 5
#: The lower share of all squares: those without an edge.
_QUIETEST = 0.25
#: Fewer squares say nothing.
_FEWEST_SQUARES = 200
#: At most so many slices are measured, evenly over the series.
_MEASURED_SLICES = 24
#: Neighbours to either side of a step from slice to slice that it is compared with.
_NEIGHBOURS = 4
#: Steps as small as noise alone tell nothing of the patient.
_LEAST_STEP_HU = 5.0
#: Slices at both ends where anatomy itself changes fast, as a share.
_ENDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One way in which a series is out of the range."""

    reason: Reason
    words: str

    def __str__(self) -> str:
        return f"{self.words} ({self.reason})"


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The range of series that a network was trained on; None and empty: any."""

    slice_thickness_mm: Range | None = None
    slice_gap_mm: Range | None = None
    pixel_spacing_mm: Range | None = None
    #: Of "soft" and "sharp".
    kernels: tuple[str, ...] = ()
    #: Of "with" and "without".
    contrast: tuple[str, ...] = ()
    #: Area of the lungs in the first or last slice, as a share of that in the slice where it is largest.
    lungs_cut: Range | None = None
    #: As `discontinuity` measures it.
    discontinuity: Range | None = None
    noise_hu: Range | None = None
    #: Whether anything is known at all.
    is_stated: bool = True

    def __str__(self) -> str:
        """For a person."""
        if not self.is_stated:
            return "nothing that the bundle would say"
        stated = {name: getattr(self, name) for name in _READ if getattr(self, name)}
        return ", ".join(f"{name} {_in_words(value)}" for name, value in stated.items()) or "any series"


def trained_on(bundle: Bundle) -> TrainedOn:
    """What a bundle says of the series that it was trained on; BundleInvalid where that cannot be understood."""
    stated = bundle.metadata.get("trained_on") or _PUBLISHED.get(bundle.name)
    if stated is None:
        return TrainedOn(is_stated=False)
    try:
        return TrainedOn(**{key: _READ[key](value) for key, value in stated.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"bundle {bundle.name}: trained_on of {METADATA} cannot be understood ({error})"
        raise BundleInvalid(f"{reason}; it may have {', '.join(_READ)}") from error


@dataclass(frozen=True, kw_only=True)
class InputCheck:
    """What series one algorithm reads, and what becomes of others."""

    trained_on: TrainedOn = field(default_factory=lambda: TrainedOn())
    #: Whether a series out of the range is not read at all.
    refuses: bool = False

    @property
    def needs_lungs(self) -> bool:
        """Whether it must be known where the lungs are."""
        return self.trained_on.lungs_cut is not None

    def __call__(self, volume: Volume, lungs: Mask | None) -> tuple[Deviation, ...]:
        """Where the series lies out of the range; raises NotApplicable where such a one is not read."""
        found = deviations(volume, self.trained_on, lungs)
        known = [str(deviation) for deviation in found if deviation.reason is not Reason.NOT_STATED]
        if self.refuses and known:
            raise NotApplicable(f"{'; '.join(known)}; the settings say that such a series is not read")
        return found


def input_check(bundle: Bundle) -> InputCheck:
    """The check of what a bundle reads, as it and the settings say."""
    return InputCheck(trained_on=trained_on(bundle), refuses=bundle.settings.out_of_range == "refuse")


def deviations(volume: Volume, ranges: TrainedOn, lungs: Mask | None = None) -> tuple[Deviation, ...]:
    """Where a series lies out of the range; `lungs` [k, j, i], where they are known, end with the series."""
    return tuple(_deviations(volume, ranges, lungs))


def _deviations(volume: Volume, ranges: TrainedOn, lungs: Mask | None) -> Iterator[Deviation]:
    if not ranges.is_stated:
        yield Deviation(reason=Reason.NOT_STATED, words=WORDS[Reason.NOT_STATED])
        return
    if not volume.is_placed:
        # No range is of a radiograph yet.
        return
    header = volume.headers[0]
    measured: Sequence[tuple[Reason, Range | None, Callable[[], float | None], str]] = (
        (Reason.SLICE_THICKNESS, ranges.slice_thickness_mm, lambda: slice_thickness_mm(volume), ".2g"),
        (Reason.SLICE_GAP, ranges.slice_gap_mm, lambda: slice_gap_mm(volume), ".2g"),
        (Reason.PIXEL_SPACING, ranges.pixel_spacing_mm, lambda: max(volume.spacing_mm[1:]), ".2f"),
        (Reason.LUNGS_CUT, ranges.lungs_cut, lambda: None if lungs is None else share_at_ends(lungs), ".0%"),
        (Reason.MOTION, ranges.discontinuity, lambda: discontinuity(volume.voxels), ".1f"),
        (Reason.NOISE, ranges.noise_hu, lambda: noise_hu(volume.voxels), ".0f"),
    )
    for reason, allowed, measure, form in measured:
        found = None if allowed is None else measure()
        if allowed is not None and found is not None and not _within(found, allowed):
            yield _deviation(reason, format(found, form), f"{allowed[0]:g} to {allowed[1]:g}")
    named: Sequence[tuple[Reason, tuple[str, ...], str | None]] = (
        (Reason.KERNEL, ranges.kernels, kernel_kind(header)),
        (Reason.CONTRAST, ranges.contrast, contrast(header)),
    )
    for reason, kinds, kind in named:
        if kinds and kind is not None and kind not in kinds:
            yield _deviation(reason, kind, " or ".join(kinds))


def slice_thickness_mm(volume: Volume) -> float:
    """As the header says, or else the distance of the slices."""
    stated = volume.headers[0].get("SliceThickness")
    return float(stated) if stated else volume.spacing_mm[0]


def slice_gap_mm(volume: Volume) -> float:
    """What lies between two slices and in neither; 0 where they touch or overlap."""
    return max(0.0, volume.spacing_mm[0] - slice_thickness_mm(volume))


def kernel_kind(header: Dataset) -> str | None:
    """Whether the Convolution Kernel (0018,1210) is soft or sharp; None where its name does not tell."""
    values = header.get("ConvolutionKernel") or ""
    name = str(values if isinstance(values, str) else values[0]).strip().upper()
    for words, kind in ((_SHARP_WORDS, "sharp"), (_SOFT_WORDS, "soft")):
        if any(word in name for word in words):
            return kind
    if (canon := _CANON.match(name)) is not None:
        return "sharp" if int(canon[1]) // 10 in (3, 5, 8) else "soft"
    if (siemens := _SIEMENS.match(name)) is not None:
        return "sharp" if int(siemens[1]) >= _SIEMENS_SHARP_FROM else "soft"
    return _PHILIPS.get(name)


def contrast(header: Dataset) -> str | None:
    """Whether a contrast agent was given; None where the header has no Contrast/Bolus Agent (0018,0010) at all.

    An Enhanced CT instance names agents in a sequence, which it has only where there are any (PS3.3 Section C.7.6.4b).
    """
    if header.get("ContrastBolusAgentSequence"):
        return "with"
    if "ContrastBolusAgent" not in header:
        return None
    agent = str(header.ContrastBolusAgent or "").strip().casefold()
    return "without" if agent in ("", "none", "no", "n") else "with"


def share_at_ends(lungs: Mask) -> float:
    """Area of a mask [k, j, i] in its first or last slice, as a share of its largest; 0 for an empty one."""
    areas = lungs.reshape(len(lungs), -1).sum(axis=1)
    return float(max(areas[0], areas[-1]) / areas.max()) if areas.any() else 0.0


def discontinuity(hu: Floats) -> float | None:
    """How much more the steepest step from slice to slice differs than the median of its neighbours; None for few.

    Anatomy changes slowly along the patient, so that a step beyond its neighbours is a breath or a movement between two
    rotations. The ends of the series, where table and shoulders begin, are left out.
    """
    coarse = hu[:, ::4, ::4].clip(-1000, 300)
    steps = np.abs(np.diff(coarse, axis=0)).mean(axis=(1, 2))
    first = max(_NEIGHBOURS, int(len(steps) * _ENDS))
    if len(steps) - 2 * first < 1:
        return None
    ratios = []
    for place in range(first, len(steps) - first):
        around = np.concatenate([steps[place - _NEIGHBOURS : place], steps[place + 1 : place + 1 + _NEIGHBOURS]])
        ratios.append(steps[place] / max(float(np.median(around)), _LEAST_STEP_HU))
    return float(max(ratios))


def noise_hu(hu: Floats) -> float | None:
    """Standard deviation within squares of soft tissue that hold no edge; None where there are too few."""
    step = max(1, len(hu) // _MEASURED_SLICES)
    found = [_deviations_in_squares(plane) for plane in hu[step // 2 :: step]]
    squares = np.concatenate(found) if found else np.zeros(0, dtype=np.float32)
    return float(np.quantile(squares, _QUIETEST)) if len(squares) >= _FEWEST_SQUARES else None


def _deviations_in_squares(plane: Floats) -> Floats:
    """Standard deviations of the squares of a slice that lie in soft tissue as a whole."""
    low, high = _TISSUE_HU
    # Noise itself leaves the range: what counts is the mean of a square and of each of its neighbours.
    mean = ndimage.uniform_filter(plane, _SQUARE)
    tissue = ndimage.binary_erosion((mean > low) & (mean < high), iterations=_SQUARE // 2 + 1)
    square = ndimage.uniform_filter(plane * plane, _SQUARE)
    spread = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return np.asarray(spread[::_SQUARE, ::_SQUARE][tissue[::_SQUARE, ::_SQUARE]], dtype=np.float32)


def _within(found: float, allowed: Range) -> bool:
    return allowed[0] * (1 - _ROUNDED) <= found <= allowed[1] * (1 + _ROUNDED)


def _deviation(reason: Reason, found: str, allowed: str) -> Deviation:
    return Deviation(reason=reason, words=WORDS[reason].format(found=found, range=allowed))


def _in_words(value: tuple[Any, ...]) -> str:
    kinds = all(isinstance(part, str) for part in value)
    return " or ".join(value) if kinds else " to ".join(f"{part:g}" for part in value)


def _as_range(value: Any) -> Range:
    low, high = (float(part) for part in value)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError("a range is two numbers, the smaller first")
    return low, high


def _as_kinds(*known: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:
        if isinstance(value, str) or not set(value) <= set(known):
            raise ValueError(f"a list of {' and '.join(known)}")
        return tuple(value)

    return read


_READ: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "slice_thickness_mm": _as_range,
        "slice_gap_mm": _as_range,
        "pixel_spacing_mm": _as_range,
        "kernels": _as_kinds("soft", "sharp"),
        "contrast": _as_kinds("with", "without"),
        "lungs_cut": _as_range,
        "discontinuity": _as_range,
        "noise_hu": _as_range,
    }
)
