"""Evidence: the series that was read and who read it; what every object of its report has in common."""

import datetime
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from highdicom.sr import CodedConcept
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, TM, format_number_as_ds

from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.form import Form
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.core.uid import derived_uid
from workers.reporting.multi_frame import multi_frame_image
from workers.reporting.software import software_digest
from workers.volume import Volume

#: By tag.
Elements = MutableMapping[BaseTag, DataElement | RawDataElement]

UTF_8 = "ISO_IR 192"
LONG_STRING = 64

#: What every reference to a source image needs.
_OF_ANY_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: What the report's objects take from every source image that was read.
_OF_EVERY_IMAGE = (
    *_OF_ANY_IMAGE,
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "ImagePositionPatient",
)
#: And from the first one, for the whole series.
_OF_THE_SERIES = (
    "Modality",
    "PositionReferenceIndicator",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "StationName",
    "AcquisitionDate",
    "AcquisitionTime",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
#: Copied from the header when the object stands, so that no library on the way judges, rewrites or logs them.
_OF_THE_PATIENT = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


#: References to objects that no archive has any more: the services that made them are retired.
#: Both are optional, and who follows every reference of a result would look for them in vain.
_OF_RETIRED_SERVICES = ("ReferencedStudySequence", "ReferencedPatientSequence")
#: What stands where whoever hid the patient does not say how: something must (PS3.3 Table C.7-1).
_METHOD_NOT_STATED = "not stated by the source images"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was read, by which algorithm, and since when there is all of it."""

    volume: Volume
    algorithm: AlgorithmIdentification
    #: SHA-256 over the instances that were read.
    evidence: str
    #: When the last of the evidence was received, with a time zone. Not when the reading ended: a second reading of the
    #: same evidence writes the same UIDs, and so must write the same times.
    completed_at: datetime.datetime
    #: The structured report of this study and algorithm that this one replaces; None for a first.
    predecessor: Dataset | None = None
    #: Of the structured report whose numbers all objects of the report have.
    form: Form = Form.SR
    #: In a further form: what the first one replaces. On that the UIDs of segments and findings rest, which both name.
    first_predecessor: Dataset | None = None
    #: The predecessors of structured reports in further forms, which other peers may hold.
    predecessors: Mapping[Form, Dataset] = field(default_factory=dict)
    #: Tracking Unique Identifiers of findings by their numbers, where the replaced report tracks any, or an earlier
    #: study's.
    followed: Mapping[int, str] = field(default_factory=dict)
    #: The structured report on an earlier study that findings were compared with.
    prior: Dataset | None = None
    #: The same in other forms.
    priors: Mapping[Form, Dataset] = field(default_factory=dict)
    #: False where the images could not be read: then they need not say where they lie, and the volume has no voxels.
    was_read: bool = True

    @property
    def header(self) -> Dataset:
        """The source image that stands for its series."""
        return self.volume.headers[0]

    def uid(self, role: str) -> str:
        """The UID of one part of the report: what the same software and algorithm read is the same."""
        algorithm = self.algorithm
        # Parameters too: another threshold writes another report, and one UID must never name two contents. After an
        # upgrade, what is read again replaces what was written before it.
        parameters = (f"{name}={value}" for name, value in algorithm.parameters)
        reading = (algorithm.name, algorithm.version, algorithm.checksum, *parameters, self.evidence, software_digest())
        replaced = () if self.predecessor is None else (str(self.predecessor.SOPInstanceUID),)
        first = () if self.first_predecessor is None else ("first", str(self.first_predecessor.SOPInstanceUID))
        return derived_uid(self.volume.study_instance_uid, *reading, *replaced, *first, role)

    def tracking_uid(self, number: int) -> str:
        """What software calls a finding: the same whenever the same algorithm finds it in the same evidence.

        And when the report that is replaced has it, with fewer images of the same study; what that report lacks has one
        that none of its findings has. In a follow-up it is that of the earlier study where the finding is surely the
        same one, and another where it is not.
        """
        if number in self.followed:
            return self.followed[number]
        return replace(self, predecessor=None, first_predecessor=None).uid(f"finding {number}")

    @property
    def replaced(self) -> tuple[Dataset, ...]:
        """The structured reports that this one replaces, each once."""
        found = {} if self.predecessor is None else {str(self.predecessor.SOPInstanceUID): self.predecessor}
        if not self.was_read:
            # What says that there is no result replaces those in every form.
            found |= {str(earlier.SOPInstanceUID): earlier for earlier in self.predecessors.values()}
        return tuple(found.values())

    @property
    def prior_in_form(self) -> Dataset | None:
        """The prior in the form that this structured report has, as its peer has it; else in that it was read in."""
        return self.priors.get(self.form, self.prior)

    def in_form(self, form: Form) -> "Evidence":
        """The evidence of a structured report in another form, whose predecessor is of that form, too."""
        own = self.predecessors.get(form)
        return replace(self, form=form, predecessor=own, first_predecessor=self.predecessor)

    def series_uid(self, role: str) -> str:
        """The UID of one result series of the study: what one version of an algorithm writes stays together."""
        algorithm = self.algorithm
        of_series = ("series", algorithm.name, algorithm.version, algorithm.checksum)
        return derived_uid(self.volume.study_instance_uid, *of_series, role)

    @property
    def _earlier_in_series(self) -> Dataset | None:
        """The predecessor, where the same version of the algorithm wrote it."""
        earlier = self.predecessor
        return earlier if earlier is not None and earlier.SeriesInstanceUID == self.series_uid(self.form) else None

    @property
    def character_set(self) -> str | list[str] | None:
        """The source's Specific Character Set, or UTF-8 where the algorithm's own name would not fit into it."""
        algorithm = self.algorithm
        if not f"{algorithm.name}{algorithm.version}{algorithm.manufacturer}{algorithm.parameters}".isascii():
            return UTF_8
        found = self.header.get("SpecificCharacterSet")
        return found if found is None or isinstance(found, str) else list(found)

    @property
    def completed_locally(self) -> datetime.datetime:
        """When the evidence was complete, in the time zone that the source's times are in."""
        return self.completed_at.astimezone(self.time_zone).replace(tzinfo=None, microsecond=0)

    @property
    def time_zone(self) -> datetime.tzinfo | None:
        """The source's; None where there is none, or none that can be read."""
        return zone_of(self.header)

    @cached_property
    def slices(self) -> tuple[Dataset, ...]:
        """The slices by k as the object writers want them: whole, alike, and without the patient."""
        is_placed = self.was_read and self.volume.is_placed
        spacing = self.volume.spacing_mm[0] if is_placed else None
        shared = _shared_elements(self.header, spacing)
        keywords = _OF_EVERY_IMAGE if is_placed else _OF_ANY_IMAGE
        first, *others = (_source_image(header, shared, keywords) for header in self.volume.headers)
        for keyword in _OF_THE_SERIES:
            if keyword in self.header:
                first[keyword] = self.header[keyword]
        return first, *others

    @cached_property
    def source_images(self) -> tuple[Dataset, ...]:
        """The source instances: the slices by k, or the one whose frames they are."""
        return (multi_frame_image(self.slices, self.volume),) if self.volume.frame_numbers else self.slices

    def reference(self, k: int) -> Dataset:
        """A slice as an item of a sequence of references to images (PS3.3 Table 10-11)."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.volume.headers[k].SOPClassUID
        item.ReferencedSOPInstanceUID = self.volume.headers[k].SOPInstanceUID
        if (frame_number := self.volume.frame_number(k)) is not None:
            item.ReferencedFrameNumber = frame_number
        return item

    def references(self, places: Sequence[int]) -> list[Dataset]:
        """Slices as such items: one each, or one for all of them that are frames of one instance."""
        if not self.volume.frame_numbers:
            return [self.reference(k) for k in places]
        item = self.reference(places[0])
        item.ReferencedFrameNumber = sorted(self.volume.frame_numbers[k] for k in places)
        return [item]

    def place_in_words(self, k: int) -> str:
        """Where people find a slice: by its place in the series, and by the number that viewers show."""
        of_all = f"slice {k + 1} of {len(self.volume.headers)}"
        if (frame_number := self.volume.frame_number(k)) is not None:
            return f"{of_all} (frame {frame_number})"
        number = self.volume.headers[k].get("InstanceNumber")
        return of_all if number is None else f"{of_all} (image {number})"

    def series_description(self, of: str = "") -> str:
        """Says in every list of series whose work this is, and what of it stands in this one."""
        name, suffix = self.algorithm.name.replace("_", " "), f"{f', {of}' if of else ''} - not for diagnosis"
        return f"AI {name[: LONG_STRING - len('AI ' + suffix)]}{suffix}"

    def header_attributes(self, of: str = "") -> dict[str, Any]:
        """Arguments that every object's constructor takes: series and what stands in it, equipment and times."""
        completed = self.completed_locally
        # A series begins with its first report.
        number, began_on, began_at = 1, completed.date(), completed.time()
        if (earlier := self._earlier_in_series) is not None:
            number, began_on, began_at = int(earlier.InstanceNumber) + 1, DA(earlier.SeriesDate), TM(earlier.SeriesTime)
        return {
            "series_description": self.series_description(of),
            "manufacturer": self.algorithm.manufacturer,
            "manufacturer_model_name": self.algorithm.name,
            "software_versions": self.algorithm.version,
            "device_serial_number": self.algorithm.checksum,
            "content_date": completed.date(),
            "content_time": completed.time(),
            "series_date": began_on,
            "series_time": began_at,
            "instance_number": number,
        }

    def complete(self, result: Any) -> None:
        """Give a written object the patient and study of its source, its writer, and times that no clock changes."""
        result.copy_patient_and_study_information(self.header)
        for keyword in _OF_RETIRED_SERVICES:
            result.pop(keyword, None)
        is_hidden = str(result.get("PatientIdentityRemoved") or "").strip() == "YES"
        if is_hidden and not (result.get("DeidentificationMethod") or result.get("DeidentificationMethodCodeSequence")):
            result.DeidentificationMethod = _METHOD_NOT_STATED
        if self.character_set is not None:
            result.SpecificCharacterSet = self.character_set
        result.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        completed = self.completed_locally
        result.InstanceCreationDate, result.InstanceCreationTime = DA(completed.date()), TM(completed.time())
        if self.time_zone is not None:
            result.TimezoneOffsetFromUTC = self.header.TimezoneOffsetFromUTC


def zone_of(header: Dataset) -> datetime.tzinfo | None:
    """The Timezone Offset From UTC (0008,0201) of an object; None where there is none, or none that can be read."""
    offset = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if not re.fullmatch(r"[+-][0-9]{4}", offset):
        return None
    try:
        return datetime.datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return None


def concept(code: Code) -> CodedConcept:
    """A code as an item of a code sequence."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def blank_patient() -> Dataset:
    """A data set of nobody, for those who want a patient and must not see one."""
    nobody = Dataset()
    for keyword in _OF_THE_PATIENT:
        setattr(nobody, keyword, "")
    return nobody


def _shared_elements(first: Dataset, spacing_mm: float | None) -> Elements:
    """What all source images have in common for those who write of them: no patient, and one grid.

    `spacing_mm` is the distance of the slices, None where the images have no place.
    """
    shared = blank_patient()
    if spacing_mm is not None:
        # A volume lets these stray by a rounding error from slice to slice; the derived object has them once.
        shared.ImageOrientationPatient = first.ImageOrientationPatient
        shared.PixelSpacing = first.PixelSpacing
        # A segmentation must have one (PS3.3 Section C.7.6.16.2.1); its slices are as thick as they are apart.
        shared.SliceThickness = first.get("SliceThickness") or format_number_as_ds(spacing_mm)
    return {element.tag: element for element in shared}


def _source_image(header: Dataset, shared: Elements, keywords: Sequence[str]) -> Dataset:
    """One source image with what a derived object needs to know of it."""
    elements: Elements = dict(shared)
    for keyword in keywords:
        if not header.get(keyword):
            raise EvidenceInvalid(f"source instance {header.get('SOPInstanceUID')} has no {keyword}: send it whole")
        element = header[keyword]
        elements[element.tag] = element
    return Dataset(elements)
