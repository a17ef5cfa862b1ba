"""Transfer syntaxes of an answer: the one asked for, the one stored, and the way between (PS3.18 Section 8.7.3)."""

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.web.dicomweb.reading import BIG_ENDIAN, EXPLICIT, IMPLICIT

#: Any transfer syntax will do.
ANY = "*"

#: Encodings without compression, as far as an answer may have them.
NATIVE = frozenset({IMPLICIT, EXPLICIT})

_DEFLATED_EXPLICIT = "1.2.840.10008.1.2.1.99"

#: Transfer syntaxes whose pixels are not compressed.
PLAIN_PIXELS = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, _DEFLATED_EXPLICIT})

#: Lossless compressions that pydicom can make: asked for, the same values come out.
COMPRESSIBLE = frozenset(
    {
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    }
)

#: The media type of a compressed frame (PS3.18 Table 8.7.3-5).
FRAME_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("50", "51", "57", "70"), "image/jpeg"),
    **dict.fromkeys(("80", "81"), "image/jls"),
    **dict.fromkeys(("90", "91"), "image/jp2"),
    **dict.fromkeys(("92", "93"), "image/jpx"),
    **dict.fromkeys(("201", "202"), "image/jphc"),
    **dict.fromkeys(("100", "101"), "video/mpeg"),
    **dict.fromkeys(("102", "103", "104", "105", "106", "107", "108"), "video/mp4"),
}

_RLE = "1.2.840.10008.1.2.5"
_COMPRESSED = "1.2.840.10008.1.2.4."


@dataclass(frozen=True, kw_only=True)
class Target:
    """How an instance or its frames are answered."""

    transfer_syntax_uid: str
    #: Whether they are what lies on the disk.
    as_stored: bool


def frame_type(transfer_syntax_uid: str) -> str:
    """The media type of frames in this transfer syntax."""
    if transfer_syntax_uid == _RLE:
        return "image/dicom-rle"
    return FRAME_TYPES.get(transfer_syntax_uid.removeprefix(_COMPRESSED), "application/octet-stream")


def target_of(stored: str, asked: str) -> Target | None:
    """How something stored in one transfer syntax is answered where another is asked for; None where it cannot be.

    Whoever asks for none gets Explicit VR Little Endian (PS3.18 Section 8.7.3.5.2).
    """
    wanted = asked or EXPLICIT
    if wanted in (ANY, stored):
        return Target(transfer_syntax_uid=stored, as_stored=True)
    if wanted in NATIVE or wanted in COMPRESSIBLE:
        return Target(transfer_syntax_uid=wanted, as_stored=False)
    return None
