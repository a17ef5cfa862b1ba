"""A Structured Report as text: its content tree, item by item, as a page can show it (PS3.3 Section C.17.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.core.errors import UnreadableInstance

#: Deeper than any report of ours.
_DEEPEST = 12
#: Items of what a stranger may have written are cut off there; outlines, of which a finding has many, by themselves.
_MOST, _MOST_OUTLINES = 5000, 50_000
_OUTLINES = ("SCOORD", "SCOORD3D")


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
    #: The report goes on: it has more items than are read, or deeper ones.
    is_cut: bool = False


@dataclass(kw_only=True)
class _Left:
    """How much more of a report is read."""

    items: int
    outlines: int
    is_cut: bool = False

    def takes(self, *, depth: int, of_outline: bool) -> bool:
        """Whether one more item is read; that one was not is remembered."""
        if depth > _DEEPEST or (self.outlines if of_outline else self.items) <= 0:
            self.is_cut = True
            return False
        if of_outline:
            self.outlines -= 1
        else:
            self.items -= 1
        return True


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
    left = _Left(items=_MOST, outlines=_MOST_OUTLINES)
    items = _items(ds, 1, left)
    return ReportText(
        title=_meaning(ds, "ConceptNameCodeSequence"),
        completion=str(ds.get("CompletionFlag", "")),
        verification=str(ds.get("VerificationFlag", "")),
        items=items,
        is_cut=left.is_cut,
    )


def _items(ds: Dataset, depth: int, left: _Left) -> tuple[Item, ...]:
    """What an item has below it; the image that an outline was selected from counts as the outline does."""
    below_outline = ds.get("ValueType") in _OUTLINES
    children = (
        (child, below_outline or child.get("ValueType") in _OUTLINES) for child in ds.get("ContentSequence") or ()
    )
    return tuple(
        _item(child, depth, left) for child, of_outline in children if left.takes(depth=depth, of_outline=of_outline)
    )


def _item(ds: Dataset, depth: int, left: _Left) -> Item:
    return Item(
        code=_code(ds, "ConceptNameCodeSequence"),
        name=_meaning(ds, "ConceptNameCodeSequence"),
        value=_value(ds),
        items=_items(ds, depth + 1, left),
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
