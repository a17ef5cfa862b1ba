"""A CT series as a volume: HU, affine, frame of reference; refuses by name what it cannot order.

The slices are ordered by their positions along the normal of Image Orientation (Patient), never by Instance Number
(PS3.3 Section C.7.6.2.1.1).
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array

from dicom_node.core.errors import InconsistentGeometry, NotApplicable, UnreadableInstance
from dicom_node.core.finding import Outline, Point
from dicom_node.core.geometry import stack_slices
from dicom_node.core.uid import is_uid
from workers.frames import frame_headers, is_multi_frame

#: Values below air are padding around the field of view.
LOWEST_HU = -1024.0
#: A padding value that is brighter is no tissue, nor metal: it is what surrounds the field of view.
BRIGHTEST_HU = 3000.0
#: Fewer slices have no spacing whose regularity can be judged.
FEWEST_SLICES = 3
#: What places a slice in the patient, and how many values each has.
_PLANE_ATTRIBUTES = {
    "SeriesInstanceUID": 1,
    "FrameOfReferenceUID": 1,
    "Rows": 1,
    "Columns": 1,
    "PixelSpacing": 2,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
}
#: With fewer slices each, threads wait for each other longer than they work.
_SLICES_A_THREAD = 16
#: What pydicom and its decoders raise for pixel data that they cannot make sense of.
_UNDECODABLE = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The voxels of one series in HU, and where they are in the patient."""

    #: [slice k, row j, column i]; slices in order of growing position along the normal.
    voxels: NDArray[np.float32]
    #: 4x4: (i, j, k, 1) to the LPS mm of the voxel's centre.
    affine: NDArray[np.float64]
    #: dz, dy, dx.
    spacing_mm: tuple[float, float, float]
    #: By k, without pixel data; of a frame, what a single-frame image of it would say.
    headers: tuple[pydicom.Dataset, ...]
    #: By k, from 1; empty where each slice is an instance of its own.
    frame_numbers: tuple[int, ...] = ()
    #: False for a radiograph: its pixels have no place in the patient, and its voxels are grey values.
    is_placed: bool = True

    @property
    def study_instance_uid(self) -> str:
        """The study that the series belongs to."""
        return str(self.headers[0].StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """The series that was read."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def frame_of_reference_uid(self) -> str:
        """What the patient coordinates refer to."""
        return str(self.headers[0].FrameOfReferenceUID)

    # Asked for by every outline: of 600 slices it takes longer than most of what is done with it.
    @cached_property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """One for each slice, by k."""
        return tuple(str(header.SOPInstanceUID) for header in self.headers)

    def frame_number(self, k: int) -> int | None:
        """The number of a slice among the frames of its instance; None where it is one of its own."""
        return self.frame_numbers[k] if self.frame_numbers else None

    def slice_of(self, outline: Outline) -> int | None:
        """The k of the slice that an outline lies on; None where it lies on none of the series."""
        place = (outline.sop_instance_uid, outline.frame_number)
        places = ((uid, self.frame_number(k)) for k, uid in enumerate(self.sop_instance_uids))
        return next((k for k, found in enumerate(places) if found == place), None)

    def to_patient(self, i: float, j: float, k: float) -> Point:
        """LPS mm of a place in voxel indices; whole numbers are voxel centres."""
        x, y, z = (float(value) for value in (self.affine @ (i, j, k, 1.0))[:3])
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class Region:
    """Some voxels of a volume or of a network's grid: a box [k, j, i] and the mask therein."""

    box: tuple[slice, slice, slice]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """One slice's header, and the instance that it is or is a frame of, with its pixel data still encoded."""

    header: pydicom.Dataset
    instance: pydicom.Dataset
    #: From 1; None for an instance of its own.
    frame_number: int | None = None


def load_volume(paths: Sequence[Path]) -> Volume:
    """Read a CT series of single-frame instances, or one multi-frame instance, in any transfer syntax, in any order.

    Raises NotApplicable for what is no CT in HU or is several multi-frame instances, InconsistentGeometry for slices
    that make no regular box of voxels, UnreadableInstance for an instance that is missing, cut short or cannot be
    decoded, and OSError where the disk does not give it.
    """
    with _threads_for(len(paths)) as each:
        slices, affine = _ordered(_slices(list(each(_read, paths))))
        first = slices[0].header
        voxels = np.empty((len(slices), int(first.Rows), int(first.Columns)), dtype=np.float32)
        list(each(_decode_into, slices, voxels))
    for piece in slices:
        piece.instance.pop("PixelData", None)
    dz, (dy, dx) = float(np.linalg.norm(affine[:3, 2])), (float(value) for value in first.PixelSpacing)
    return Volume(
        voxels=voxels,
        affine=affine,
        spacing_mm=(dz, dy, dx),
        headers=tuple(piece.header for piece in slices),
        frame_numbers=tuple(piece.frame_number for piece in slices if piece.frame_number is not None),
    )


@contextmanager
def _threads_for(slices: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """What does a thing for each slice: as many threads as are worth it, or this one."""
    threads = min(8, os.cpu_count() or 1, 1 + slices // _SLICES_A_THREAD)
    if threads == 1:
        yield map
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        yield pool.map


def _slices(instances: list[pydicom.Dataset]) -> list[_Slice]:
    """Each slice of the series: an instance, or a frame of the one multi-frame instance."""
    multi_frame = [ds for ds in instances if is_multi_frame(ds)]
    if not multi_frame:
        for ds in instances:
            _check_kind(ds)
        return [_Slice(header=ds, instance=ds) for ds in instances]
    if len(instances) > 1:
        found = f"{len(multi_frame)} of {len(instances)} instances are multi-frame"
        raise NotApplicable(f"{found}; a volume is read from single-frame CT, or from one multi-frame instance alone")
    (instance,) = instances
    headers = list(frame_headers(instance))
    if len(headers) != int(instance.get("NumberOfFrames") or 0):
        found = f"{instance.get('NumberOfFrames')} frames and describes {len(headers)}"
        raise UnreadableInstance(f"instance {_uid(instance)} has {found}: send it again")
    for header in headers:
        _check_kind(header)
    return [_Slice(header=header, instance=instance, frame_number=n) for n, header in enumerate(headers, start=1)]


def _read(path: Path) -> pydicom.Dataset:
    """The data set with its pixel data still encoded."""
    name = path.stem if is_uid(path.stem) else "of this series"
    if not path.is_file():
        raise UnreadableInstance(f"an instance {name} is not in the archive any more: send the study again")
    try:
        ds = pydicom.dcmread(path)
    except (InvalidDicomError, *_UNDECODABLE) as error:
        # The disk's own fault says nothing of the file, and may pass; what a parser raises bears no number.
        if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
            raise
        reason = f"an instance {name} is no readable DICOM file ({type(error).__name__}): send the study again"
        raise UnreadableInstance(reason) from error
    if not any(keyword in ds for keyword in _PIXEL_ELEMENTS):
        raise UnreadableInstance(f"instance {_uid(ds)} holds no pixel data: send the study again")
    return ds


def _uid(ds: pydicom.Dataset) -> str:
    return str(ds.get("SOPInstanceUID", "without a SOP Instance UID"))


def _check_kind(ds: pydicom.Dataset) -> None:
    """Raise NotApplicable unless the slice is a grey CT image in HU."""
    modality = str(ds.get("Modality", "unknown"))
    if modality != "CT":
        raise NotApplicable(f"instance {_uid(ds)} has modality {modality}; only CT is read")
    if int(ds.get("NumberOfFrames") or 1) > 1 and not is_multi_frame(ds):
        raise NotApplicable(f"instance {_uid(ds)} is multi-frame, and no Enhanced CT: its frames have no known place")
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise NotApplicable(f"instance {_uid(ds)} is a colour image; only grey CT slices are read")
    # Not quoted: it is free text, and might say anything.
    if str(ds.get("RescaleType") or "HU").strip().upper() != "HU":
        raise NotApplicable(f"instance {_uid(ds)} has values that are not in HU; only CT in HU is read")


def _ordered(slices: list[_Slice]) -> tuple[list[_Slice], NDArray[np.float64]]:
    """The slices by position along their normal, and the affine of the box they make."""
    if len(slices) < FEWEST_SLICES:
        raise InconsistentGeometry(f"{len(slices)} slices make no volume; send at least {FEWEST_SLICES}")
    if len({piece.header.get("SeriesInstanceUID") for piece in slices}) != 1:
        raise InconsistentGeometry("the instances belong to different series; read one series at a time")
    _check_patient(slices)
    stack = stack_slices([_plane(piece) for piece in slices])
    if stack.problem:
        raise InconsistentGeometry(f"{stack.problem}; send the series again, evenly spaced and whole")
    slices = [slices[index] for index in stack.order]
    first, last = slices[0].header, slices[-1].header
    row, column = np.reshape([float(value) for value in first.ImageOrientationPatient], (2, 3))
    dy, dx = (float(value) for value in first.PixelSpacing)
    if not (0.0 < dy < math.inf and 0.0 < dx < math.inf):
        raise InconsistentGeometry(f"the pixel spacing is {dy:g} x {dx:g} mm, which is no size; send the series again")
    origin, end = (np.array([float(value) for value in ds.ImagePositionPatient]) for ds in (first, last))
    affine = np.eye(4)
    affine[:3] = np.column_stack([row * dx, column * dy, (end - origin) / (len(slices) - 1), origin])
    return slices, affine


def _check_patient(slices: Sequence[_Slice]) -> None:
    """Raise InconsistentGeometry where slices name different patients: a report would name one of them alone."""
    for keyword in ("PatientID", "IssuerOfPatientID"):
        named = {str(piece.header.get(keyword) or "").strip() for piece in slices} - {""}
        if len(named) > 1:
            found = f"the instances name {len(named)} different patients"
            raise InconsistentGeometry(f"{found}; correct them where they come from, and send them under new UIDs")


def _plane(piece: _Slice) -> dict[str, Any]:
    """The attributes that place a slice; raises unless it has them all."""
    plane: dict[str, Any] = {}
    for keyword, count in _PLANE_ATTRIBUTES.items():
        value = piece.header.get(keyword)
        if value is None or np.size(value) != count:
            raise InconsistentGeometry(f"{_name(piece)} has no {keyword}: its place in the patient is unknown")
        plane[keyword] = tuple(float(part) for part in value) if count > 1 else str(value)
    # Not every slice says of which acquisition it is; then nothing is known of that.
    number = piece.header.get("AcquisitionNumber")
    return plane | {"AcquisitionNumber": None if number in (None, "") else str(number)}


def _name(piece: _Slice) -> str:
    frame = "" if piece.frame_number is None else f"frame {piece.frame_number} of "
    return f"{frame}instance {_uid(piece.header)}"


def _decode_into(piece: _Slice, target: NDArray[np.float32]) -> None:
    """Decode one slice and write its HU into its plane of the volume."""
    header = piece.header
    if header.get("RescaleSlope") is None or header.get("RescaleIntercept") is None:
        raise UnreadableInstance(f"{_name(piece)} has no Rescale Slope and Intercept: its HU are unknown")
    try:
        stored = _stored(piece)
    except _UNDECODABLE as error:
        reason = f"pixel data of {_name(piece)} cannot be decoded ({type(error).__name__}): send it again"
        raise UnreadableInstance(reason) from error
    if stored.shape != target.shape:
        raise UnreadableInstance(f"pixel data of {_name(piece)} is {stored.shape}, not {target.shape}")
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    if slope == 0.0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UnreadableInstance(f"{_name(piece)} is rescaled by {slope:g} and {intercept:g}: its HU are unknown")
    np.multiply(stored, np.float32(slope), out=target, casting="unsafe")
    target += np.float32(intercept)
    low, high = _padding(header)
    if min(low * slope, high * slope) + intercept > BRIGHTEST_HU:
        target[(stored >= low) & (stored <= high)] = LOWEST_HU
    np.maximum(target, np.float32(LOWEST_HU), out=target)


def _padding(header: pydicom.Dataset) -> tuple[float, float]:
    """The stored values from Pixel Padding Value to its Range Limit (PS3.3 Section C.7.5.1.1.2); none: not a number."""
    value = header.get("PixelPaddingValue")
    limit = header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return math.nan, math.nan
    ends = (value, limit if isinstance(limit, int) else value)
    return min(ends), max(ends)


def _stored(piece: _Slice) -> NDArray[Any]:
    """The stored values of a slice [j, i]."""
    # The data set's own property looks through it twice more, to keep what is wanted only once.
    if piece.frame_number is None:
        return pixel_array(piece.instance)
    return pixel_array(piece.instance, index=piece.frame_number - 1)
