"""Presentation contexts: every SOP class that we store, in every transfer syntax (PS3.8 Section 7.1.1.13)."""

from dataclasses import dataclass

from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]  # there, but not in its list of exports
from pynetdicom import AllStoragePresentationContexts

VERIFICATION = "1.2.840.10008.1.1"

# The root of the Storage Service Class (PS3.4 Annex B.5); what else the dictionary calls storage is not for patients.
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."

# These lie under the root and belong to no study (PS3.4 Annex GG).
_NON_PATIENT_OBJECTS = frozenset(f"{_STORAGE_ROOT}{end}" for end in ("200.1", "200.3", "200.7", "201.1"))

# Younger than pydicom's dictionary.
_NAMES = {
    f"{_STORAGE_ROOT}66.7": "Label Map Segmentation Storage",
    f"{_STORAGE_ROOT}66.8": "Height Map Segmentation Storage",
    f"{_STORAGE_ROOT}9.100.1": "Waveform Presentation State Storage",
    f"{_STORAGE_ROOT}9.100.2": "Waveform Acquisition Presentation State Storage",
}

_UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)

# Of what one context proposes we take the first in this order: a sender that offers several can convert, and what needs
# no codec to read, and loses nothing on the way, is best. Lossy ones come after all that lose nothing.
TRANSFER_SYNTAXES = (
    *_UNCOMPRESSED[:2],
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    _UNCOMPRESSED[2],
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.202",  # High-Throughput JPEG 2000 with RPCL Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, Process 14 Selection Value 1
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, Process 14
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Multi-component Lossless
    "1.2.840.10008.1.2.4.58",  # JPEG Lossless, Process 15 (retired, as those up to 66)
    "1.2.840.10008.1.2.4.65",  # JPEG Lossless, Hierarchical, Process 28
    "1.2.840.10008.1.2.4.66",  # JPEG Lossless, Hierarchical, Process 29
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline, Process 1
    "1.2.840.10008.1.2.4.51",  # JPEG Extended, Processes 2 and 4
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.203",  # High-Throughput JPEG 2000
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2 Multi-component
    "1.2.840.10008.1.2.4.52",  # JPEG Extended, Processes 3 and 5
    "1.2.840.10008.1.2.4.53",  # JPEG Spectral Selection, Processes 6 and 8
    "1.2.840.10008.1.2.4.54",  # JPEG Spectral Selection, Processes 7 and 9
    "1.2.840.10008.1.2.4.55",  # JPEG Full Progression, Processes 10 and 12
    "1.2.840.10008.1.2.4.56",  # JPEG Full Progression, Processes 11 and 13
    "1.2.840.10008.1.2.4.59",  # JPEG Extended, Hierarchical, Processes 16 and 18
    "1.2.840.10008.1.2.4.60",  # JPEG Extended, Hierarchical, Processes 17 and 19
    "1.2.840.10008.1.2.4.61",  # JPEG Spectral Selection, Hierarchical, Processes 20 and 22
    "1.2.840.10008.1.2.4.62",  # JPEG Spectral Selection, Hierarchical, Processes 21 and 23
    "1.2.840.10008.1.2.4.63",  # JPEG Full Progression, Hierarchical, Processes 24 and 26
    "1.2.840.10008.1.2.4.64",  # JPEG Full Progression, Hierarchical, Processes 25 and 27
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile / Main Level
    "1.2.840.10008.1.2.4.100.1",  # the same, fragmentable
    "1.2.840.10008.1.2.4.101",  # MPEG2 Main Profile / High Level
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264 High Profile / Level 4.1
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103",  # MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104",  # MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105",  # MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106",  # MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
    "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107",  # HEVC/H.265 Main Profile / Level 5.1
    "1.2.840.10008.1.2.4.108",  # HEVC/H.265 Main 10 Profile / Level 5.1
    "1.2.840.10008.1.2.4.94",  # JPIP Referenced: the pixels stay with their server
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.204",  # JPIP HTJ2K Referenced
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
)


@dataclass(frozen=True, kw_only=True)
class SupportedContext:
    """One SOP class and the transfer syntaxes it is accepted in, the preferred first."""

    sop_class_uid: str
    name: str
    transfer_syntax_uids: tuple[str, ...]


#: What peers tell of what was made, and what they have (PS3.4 Annexes F and R).
NOTIFICATIONS = tuple(
    SupportedContext(sop_class_uid=uid, name=UID(uid).name, transfer_syntax_uids=_UNCOMPRESSED)
    for uid in ("1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.33")
)


def supported_presentation_contexts() -> tuple[SupportedContext, ...]:
    """Verification, then every storage SOP class by UID: what the SCP accepts and the conformance statement lists."""
    verification = SupportedContext(
        sop_class_uid=VERIFICATION, name=_name(VERIFICATION), transfer_syntax_uids=_UNCOMPRESSED
    )
    storage = (
        SupportedContext(sop_class_uid=uid, name=_name(uid), transfer_syntax_uids=TRANSFER_SYNTAXES)
        for uid in storage_sop_classes()
    )
    return (verification, *storage)


def storage_sop_classes() -> tuple[str, ...]:
    """Every storage SOP class that pynetdicom or pydicom's dictionary knows, also retired ones, by UID."""
    known = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    # A UID's entry is its name, its type, and what else the standard's table says of it.
    listed = {
        uid
        for uid, entry in UID_dictionary.items()
        if uid.startswith(_STORAGE_ROOT) and entry[1] == "SOP Class" and "Storage" in entry[0]
    }
    return tuple(sorted((known | listed) - _NON_PATIENT_OBJECTS))


def _name(uid: str) -> str:
    return _NAMES.get(uid) or UID(uid).name
