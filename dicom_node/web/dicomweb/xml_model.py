"""The Native DICOM Model in XML (PS3.19 Annex A.1), from the JSON model."""

import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import dictionary_has_tag, keyword_for_tag

from dicom_node.web.dicomweb.json_model import Model

#: XML 1.0 has no way to write most control characters, halves of pairs, and two that are no characters (Section 2.2).
_UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def xml_of(model: Model) -> bytes:
    """One data set as a document."""
    text = "".join(_attribute(tag, found) for tag, found in model.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">{text}</NativeDicomModel>'.encode()


def _attribute(tag: str, found: dict[str, Any]) -> str:
    number = int(tag, 16)
    keyword = keyword_for_tag(number) if dictionary_has_tag(number) else ""
    named = f" keyword={quoteattr(keyword)}" if keyword else ""
    return f'<DicomAttribute tag="{tag}" vr="{found["vr"]}"{named}>{_content(found)}</DicomAttribute>'


def _content(found: dict[str, Any]) -> str:
    if "BulkDataURI" in found:
        return f"<BulkData uri={quoteattr(found['BulkDataURI'])}/>"
    if "InlineBinary" in found:
        return f"<InlineBinary>{found['InlineBinary']}</InlineBinary>"
    values = enumerate(found.get("Value", []), 1)
    # What is null keeps its number and has no element.
    return "".join(_value(found["vr"], number, value) for number, value in values if value is not None)


def _value(vr: str, number: int, value: Any) -> str:
    if vr == "SQ":
        inner = "".join(_attribute(tag, found) for tag, found in value.items())
        return f'<Item number="{number}">{inner}</Item>'
    if vr == "PN":
        inner = "".join(f"<{group}>{_name(text)}</{group}>" for group, text in value.items())
        return f'<PersonName number="{number}">{inner}</PersonName>'
    return f'<Value number="{number}">{_text(value)}</Value>'


def _name(text: str) -> str:
    parts = zip(_COMPONENTS, text.split("^"), strict=False)
    return "".join(f"<{component}>{_text(part)}</{component}>" for component, part in parts if part)


def _text(value: object) -> str:
    return escape(_UNWRITABLE.sub("", str(value)))
