"""An algorithm as DICOM names it in a report (PS3.16 TID 4019, PS3.3 Table 10-19)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AlgorithmIdentification:
    """Who made a finding, in the words that SR, SEG and Contributing Equipment must share."""

    name: str
    version: str
    manufacturer: str
    #: The same for every installation of one version (IHE AIR: Device UID of the Contributing Equipment item).
    device_uid: str
    #: SHA-256 of the bundle's weights: stands for the software's serial number.
    checksum: str
    #: Settings that shaped the result, such as thresholds, as name and value.
    parameters: tuple[tuple[str, str], ...] = ()
