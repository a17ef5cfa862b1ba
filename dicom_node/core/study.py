"""A study and its series and instances, as far as decisions need them: attributes, no pixels, no paths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Keyword of an attribute to its value: text, number, or a tuple of them.
Attributes = Mapping[str, Any]

#: What intake keeps of a header, by keyword: enough for routing and geometry, and nothing that names the patient.
KEPT_KEYWORDS = (
    "AcquisitionNumber",
    "BitsAllocated",
    "BodyPartExamined",
    "Columns",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "FrameOfReferenceUID",
    "GantryDetectorTilt",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PixelSpacing",
    "ProtocolName",
    "RequestedProcedurePriority",
    "Rows",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StudyDescription",
)


#: SOP classes whose frames may be the slices of one volume: Enhanced CT, and Legacy Converted Enhanced CT.
MULTI_FRAME_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})

#: What is kept beside them of a multi-frame CT: x, y, z of each of its frames, one after another.
FRAME_POSITIONS = "FramePositions"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One SOP instance as the index holds it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    #: Relative to the archive's root.
    path: str
    size_bytes: int
    #: Of the data set's bytes as received, without the file meta information.
    sha256: str
    #: Seconds since 1970, UTC.
    received_at: float
    calling_ae_title: str
    #: Header attributes by keyword, as far as routing and geometry ask for them.
    attributes: Attributes = field(default_factory=dict)
    #: What the study and series are searched by, the patient's attributes among it: written into rows of its own,
    #: never read back with the instance, and never shown.
    searchable: Attributes = field(default_factory=dict, repr=False, compare=False)

    @property
    def slices(self) -> tuple[Attributes, ...]:
        """Its attributes, once for each frame whose place is known."""
        places = self.attributes.get(FRAME_POSITIONS)
        if not isinstance(places, (tuple, list)):
            return (self.attributes,)
        return tuple(
            {**self.attributes, "ImagePositionPatient": tuple(places[n : n + 3])} for n in range(0, len(places), 3)
        )


@dataclass(frozen=True, kw_only=True)
class Series:
    """The instances of one series, in no particular order."""

    series_instance_uid: str
    instances: tuple[Instance, ...]

    @property
    def attributes(self) -> Attributes:
        """The attributes of the first instance by SOP Instance UID: those that all share are the series' own."""
        return min(self.instances, key=lambda i: i.sop_instance_uid).attributes

    @property
    def slices(self) -> tuple[Attributes, ...]:
        """What geometry asks of every slice: it is an instance, or a frame of one."""
        return tuple(slice_ for instance in self.instances for slice_ in instance.slices)

    @property
    def is_multi_frame(self) -> bool:
        """Whether any of its slices are frames."""
        return any(FRAME_POSITIONS in instance.attributes for instance in self.instances)

    @property
    def modality(self) -> str:
        """The series' Modality (0008,0060)."""
        return str(self.attributes.get("Modality", ""))


@dataclass(frozen=True, kw_only=True)
class Study:
    """The series of one study, by Series Instance UID."""

    study_instance_uid: str
    series: tuple[Series, ...]

    @classmethod
    def from_instances(cls, study_instance_uid: str, instances: list[Instance]) -> "Study":
        """Group instances into series; any order of the same instances gives an equal study."""
        groups: dict[str, list[Instance]] = {}
        for instance in sorted(instances, key=lambda i: i.sop_instance_uid):
            groups.setdefault(instance.series_instance_uid, []).append(instance)
        series = (Series(series_instance_uid=uid, instances=tuple(group)) for uid, group in sorted(groups.items()))
        return cls(study_instance_uid=study_instance_uid, series=tuple(series))
