"""Equipment: the algorithm in the words of every object that must name it (IHE AI Results, Table 6.5.3.1-1).

The table asks for equal values: manufacturer, model name, software versions and device UID of the Contributing
Equipment item; Algorithm Source, Name and Version in a segmentation; TID 4019 and the device observer of TID 1004 in a
report. So the device observer of our reports is the algorithm, not the node that runs it.
"""

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from highdicom import sr as hd_sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.codes import ACQUISITION_EQUIPMENT, ARTIFICIAL_INTELLIGENCE, PROCESSING_EQUIPMENT
from workers.reporting.evidence import LONG_STRING, Evidence, concept

_OF_THE_SCANNER = (
    ("manufacturer", "Manufacturer"),
    ("manufacturer_model_name", "ManufacturerModelName"),
    ("software_versions", "SoftwareVersions"),
    ("device_serial_number", "DeviceSerialNumber"),
    ("institution_name", "InstitutionName"),
    ("station_name", "StationName"),
)


def contributing_equipment(evidence: Evidence) -> ContributingEquipment:
    """The algorithm as an item of the Contributing Equipment Sequence (0018,A001)."""
    algorithm = evidence.algorithm
    item = ContributingEquipment(
        manufacturer=algorithm.manufacturer,
        purpose_of_reference=concept(PROCESSING_EQUIPMENT),
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.checksum,
        contribution_datetime=evidence.completed_locally,
        contribution_description="AI result, not for diagnostic use",
    )
    item.DeviceUID = algorithm.device_uid
    return item


def acquisition_equipment(evidence: Evidence) -> ContributingEquipment | None:
    """The scanner as such an item; None where nobody knows its maker, or what was received is no image."""
    header = evidence.header
    if not header.get("Manufacturer") or "Rows" not in header:
        return None
    known = {name: header.get(keyword) for name, keyword in _OF_THE_SCANNER}
    try:
        return ContributingEquipment(
            purpose_of_reference=concept(ACQUISITION_EQUIPMENT),
            contribution_description="Acquisition equipment of the source image(s)",
            **known,
        )
    # What it is called may break the rules of the standard: the report is not to fail for that.
    except (AttributeError, TypeError, ValueError):
        return None


def keep_own_equipment(result: Dataset, algorithm: AlgorithmIdentification) -> None:
    """Leave in a written object the scanner and the algorithm, and no other processing equipment.

    The writing library adds itself as processing equipment without a Device UID. Whoever looks for the algorithms
    behind a result by that purpose would count it as one. Equipment that contributed to the source images stays with
    them: they are referenced.
    """
    result.ContributingEquipmentSequence = [
        item
        for item in result.ContributingEquipmentSequence
        if item.PurposeOfReferenceCodeSequence[0].CodeValue != PROCESSING_EQUIPMENT.value
        or item.get("DeviceUID") == algorithm.device_uid
    ]


def algorithm_sequence(algorithm: AlgorithmIdentification) -> AlgorithmIdentificationSequence:
    """The algorithm as a segmentation names it (PS3.3 Table 10-19)."""
    return AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=concept(ARTIFICIAL_INTELLIGENCE),
        version=algorithm.version,
        source=algorithm.manufacturer,
        parameters=dict(algorithm.parameters) or None,
    )


def algorithm_template(algorithm: AlgorithmIdentification) -> hd_sr.AlgorithmIdentification:
    """The algorithm as a measurement group names it (PS3.16 TID 4019)."""
    return hd_sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        manufacturer=algorithm.manufacturer,
        parameters=[f"{name}={value}" for name, value in algorithm.parameters] or None,
        family=concept(ARTIFICIAL_INTELLIGENCE),
    )


def observation_context(algorithm: AlgorithmIdentification) -> hd_sr.ObservationContext:
    """The algorithm as the device that observed (PS3.16 TID 1001)."""
    return hd_sr.ObservationContext(observer_device_context=observer(algorithm))


def observer(algorithm: AlgorithmIdentification) -> hd_sr.ObserverContext:
    """The algorithm as a device observer (PS3.16 TID 1002, TID 1004)."""
    device = hd_sr.DeviceObserverIdentifyingAttributes(
        uid=algorithm.device_uid,
        name=f"{algorithm.name} {algorithm.version}"[:LONG_STRING],
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=algorithm.checksum,
    )
    return hd_sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
