"""A finding: what an algorithm saw, where, and how large, in patient coordinates."""

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.core.change import Change
from dicom_node.core.codes import Code
from dicom_node.core.lung_rads import Category, Composition, Course

#: x, y, z in mm in the patient-based coordinate system (LPS, PS3.3 Section C.7.6.2.1.1).
Point = tuple[float, float, float]

#: column, row in an image: (0.5, 0.5) is the centre of its first pixel (PS3.3 Section C.18.6.1.1).
Pixel = tuple[float, float]


class Border(StrEnum):
    """What told where a finding ends, between the voxels inside and those outside."""

    #: How much of each voxel is filled, by its attenuation.
    ATTENUATION = "ATTENUATION"
    #: The mask, with the steps of its voxels smoothed away.
    SMOOTHED = "SMOOTHED"
    #: The mask as it is.
    VOXELS = "VOXELS"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A diameter of a finding on one source instance."""

    length_mm: float
    start: Point
    end: Point


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The border of a finding on the source instance of its largest extent."""

    sop_instance_uid: str
    #: A closed polygon: the last point equals the first.
    points: tuple[Pixel, ...]
    #: From 1, where the source instance has several frames.
    frame_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding with its measurements."""

    #: From 1 in order of falling score: its segment number, and its value in the label array.
    number: int
    concept: Code
    category: Code
    site: Code
    laterality: Code | None
    centre: Point
    #: Longest diameter in the plane of largest extent, and the longest perpendicular to it.
    long_axis: Axis
    short_axis: Axis
    maximum_3d_diameter_mm: float
    volume_mm3: float
    mean_hu: float
    deviation_hu: float
    #: The detector's certainty, 0 to 1; no probability of disease.
    score: float
    outline: Outline
    #: How axes, largest diameter and volume were measured.
    border: Border = Border.VOXELS
    #: The rest is what not every algorithm tells.
    composition: Composition | None = None
    #: Mean diameter of the solid part of a part-solid nodule.
    solid_diameter_mm: float | None = None
    #: How that was measured.
    solid_border: Border = Border.VOXELS
    #: Of CID 6119 or 6120.
    margin: Code | None = None
    #: Probability of cancer, 0 to 1.
    malignancy: float | None = None
    #: Days in which its volume surely doubled since an earlier examination; negative where it shrank.
    doubling_days: float | None = None
    #: Only for what a screening found.
    lung_rads: Category | None = None
    #: What people and software call it, where an earlier study or what was there before decides that; else empty.
    tracking_identifier: str = ""
    tracking_uid: str = ""
    #: Beside itself in an earlier study; None where it is not surely one of that.
    change: Change | None = None
    #: Whether an earlier study was looked at for it, and what that says; None: nothing that is sure.
    is_compared: bool = False
    course: Course | None = None

    @property
    def name(self) -> str:
        """What people call it, in every object and on every page."""
        return self.tracking_identifier or f"{self.concept.meaning} {self.number}"

    @property
    def is_new(self) -> bool:
        """Whether an earlier study saw its place, and it was not marked there."""
        return self.course is Course.NEW

    @property
    def mean_diameter_mm(self) -> float:
        """The mean of long and short axis."""
        return (self.long_axis.length_mm + self.short_axis.length_mm) / 2
