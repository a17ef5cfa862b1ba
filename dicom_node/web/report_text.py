"""A Structured Report as text: its content tree, item by item, as a page can show it (PS3.3 Section C.17.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.core.errors import UnreadableInstance

#: Deeper than any report of ours.
_DEEPEST = 12
#: Items of what a stranger may have written are cut off there.
_MOST = 5000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One content item."""

    #: Of its name, by which software knows it.
    code: str
    name: str
    value: str
    items: tuple["Item", ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportText:
    """A report without whom it is about: that stands in the viewer that shows the images."""

    title: str
    #: Completion Flag and Verification Flag.
    completion: str
    verification: str
    items: tuple[Item, ...]


def read_report_text(path: Path) -> ReportText:
    """Read a Structured Report; OSError where the file is not there, UnreadableInstance where it is damaged."""
    try:
        return _text(dcmread(path, stop_before_pixels=True))
    except OSError:
        raise
    except Exception as error:  # pydicom raises what it meets in a damaged file: no list of kinds is whole
        raise UnreadableInstance("the report cannot be read") from error


def _text(ds: Dataset) -> ReportText:
    if ds.get("ValueType") != "CONTAINER":
        # An empty page would be taken for a report without findings (PS3.3 Section C.17.3: its root is a container).
        raise UnreadableInstance("the file has no content")
    left = [_MOST]
    return ReportText(
        title=_meaning(ds, "ConceptNameCodeSequence"),
        completion=str(ds.get("CompletionFlag", "")),
        verification=str(ds.get("VerificationFlag", "")),
        items=tuple(_item(child, 1, left) for child in ds.get("ContentSequence", ())),
    )


def _item(ds: Dataset, depth: int, left: list[int]) -> Item:
    left[0] -= 1
    children = ds.get("ContentSequence", ()) if depth < _DEEPEST else ()
    return Item(
        code=_code(ds, "ConceptNameCodeSequence"),
        name=_meaning(ds, "ConceptNameCodeSequence"),
        value=_value(ds),
        items=tuple(_item(child, depth + 1, left) for child in children if left[0] > 0),
    )


def _meaning(ds: Dataset, keyword: str) -> str:
    codes = ds.get(keyword) or ()
    return str(codes[0].get("CodeMeaning", "")) if codes else ""


def _value(ds: Dataset) -> str:
    kind = str(ds.get("ValueType", ""))
    if kind == "NUM":
        return _measured(ds)
    if kind == "CODE":
        return _meaning(ds, "ConceptCodeSequence")
    if kind in ("IMAGE", "COMPOSITE"):
        references = ds.get("ReferencedSOPSequence") or ()
        what = "image" if kind == "IMAGE" else "object"
        return f"{what} {references[0].get('ReferencedSOPInstanceUID', '')}" if references else ""
    if kind in ("SCOORD", "SCOORD3D"):
        return f"{str(ds.get('GraphicType', '')).lower()}"
    return str(ds.get(_ATTRIBUTES.get(kind, ""), ""))


def _measured(ds: Dataset) -> str:
    values = ds.get("MeasuredValueSequence") or ()
    if not values:
        return "not measured"
    unit = _code(values[0], "MeasurementUnitsCodeSequence")
    return f"{values[0].get('NumericValue', '')} {_UNITS.get(unit, unit)}".strip()


def _code(ds: Dataset, keyword: str) -> str:
    codes = ds.get(keyword) or ()
    return str(codes[0].get("CodeValue", "")) if codes else ""


#: The attribute that has the value, by Value Type.
_ATTRIBUTES: Mapping[str, str] = {
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "DATE": "Date",
    "TIME": "Time",
    "DATETIME": "DateTime",
}

#: UCUM codes that people write otherwise.
_UNITS: Mapping[str, str] = {"1": "", "mm2": "mm²", "mm3": "mm³", "[hnsf'U]": "HU", "{hounsfield}": "HU"}
