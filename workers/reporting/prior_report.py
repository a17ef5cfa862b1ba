"""Prior report: what a structured report on an earlier study of the patient has measured of its findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.change import Size
from dicom_node.core.codes import Code
from dicom_node.core.patient import Patient
from workers.reporting.content_tree import is_named, text_of, walk
from workers.reporting.quantities import OF_DIAMETERS
from workers.reporting.tracked import MEASUREMENT_GROUP, TRACKING_UID

MEASUREMENT_METHOD = Code("370129005", "SCT", "Measurement Method")

_BORDERS = MappingProxyType({code.value: border for border, code in OF_DIAMETERS.items()})


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finding's sizes as a report says them; what it does not say is None."""

    mean_diameter_mm: float | None = None
    volume_mm3: float | None = None
    solid_diameter_mm: float | None = None
    #: As `core.finding.Border` calls it; empty: not told.
    method: str = ""

    def size(
        self, report: Dataset, slice_thickness_mm: float, kernel: str, measured_by: str, contrast: str = ""
    ) -> Size | None:
        """With how the study was made; None where the report does not tell diameter and volume."""
        if not self.mean_diameter_mm or not self.volume_mm3:
            return None
        return Size(
            mean_diameter_mm=self.mean_diameter_mm,
            volume_mm3=self.volume_mm3,
            solid_diameter_mm=self.solid_diameter_mm,
            method=self.method,
            slice_thickness_mm=slice_thickness_mm,
            kernel=kernel,
            outlined_by=outlined_by(report),
            measured_by=measured_by,
            contrast=contrast,
        )


def measured_in(report: Dataset) -> Mapping[str, Measured]:
    """The findings of a structured report of ours, by Tracking Unique Identifier.

    Raises AttributeError, IndexError, KeyError, TypeError or ValueError where it is not as ours are.
    """
    found: dict[str, dict[str, float | str]] = {}
    for group in (item for item in walk(report) if is_named(item, MEASUREMENT_GROUP)):
        own = found.setdefault(text_of(group, TRACKING_UID), {})
        for item in group.ContentSequence:
            for name, code in _SIZES:
                if is_named(item, code) and "MeasuredValueSequence" in item:
                    own[name] = float(item.MeasuredValueSequence[0].NumericValue)
                    if code is codes.DIAMETER:
                        own["method"] = _method(item)
    return {uid: Measured(**values) for uid, values in found.items()}  # type: ignore[arg-type]  # names of its fields


def patient_of(header: Dataset) -> Patient:
    """Whose an object is."""
    # What hides a patient may give every patient the same birth date (PS3.15 Table E.1-1: Z).
    is_hidden = str(header.get("PatientIdentityRemoved") or "").strip() == "YES"
    return Patient(
        patient_id=str(header.get("PatientID") or "").strip(),
        issuer=str(header.get("IssuerOfPatientID") or "").strip(),
        birth_date="" if is_hidden else str(header.get("PatientBirthDate") or "").strip(),
        sex=str(header.get("PatientSex") or "").strip(),
        name=str(header.get("PatientName") or "").strip(),
    )


def outlined_by(report: Dataset) -> tuple[str, str, str]:
    """Name, version and checksum of the algorithm that a report is of, as its equipment says them."""
    keywords = ("ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber")
    name, version, checksum = (str(report.get(keyword) or "") for keyword in keywords)
    return name, version, checksum


_SIZES = (
    ("mean_diameter_mm", codes.DIAMETER),
    ("volume_mm3", codes.VOLUME),
    ("solid_diameter_mm", codes.SOLID_DIAMETER),
)


def _method(item: Dataset) -> str:
    """How a diameter was measured; empty where it does not say so in a code of ours."""
    methods = (child for child in item.get("ContentSequence", []) if is_named(child, MEASUREMENT_METHOD))
    found = (str(method.ConceptCodeSequence[0].CodeValue) for method in methods)
    return next((_BORDERS[value].value for value in found if value in _BORDERS), "")
