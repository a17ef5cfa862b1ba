"""The DICOM JSON Model (PS3.18 Annex F): a data set as plain values that JSON can hold."""

import base64
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag

from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.web.dicomweb.reading import BULK_VRS

#: A data set in the model: eight hex digits to an attribute.
Model = dict[str, dict[str, Any]]

#: The address of a value that is not written into the model; None where it is.
BulkAddress = Callable[[tuple[str, ...], int], str | None]

_FLOATS = frozenset({"DS", "FL", "FD"})
_INTEGERS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})

#: The model is always in UTF-8 (PS3.18 Annex F.2).
_CHARACTER_SET = {"vr": "CS", "Value": ["ISO_IR 192"]}
_SPECIFIC_CHARACTER_SET = 0x00080005

#: Sequences within sequences; real ones have a handful.
_DEEPEST = 32


@cache
def hex_tag(keyword: str) -> str:
    """The eight hex digits of an attribute."""
    return f"{tag_for_keyword(keyword) or 0:08X}"


def attribute(vr: str, value: Any) -> dict[str, Any]:
    """One attribute by its plain value or values; what is empty has none."""
    if not isinstance(value, list | tuple):
        plain = _plain(vr, value)
        return {"vr": vr} if plain is None else {"vr": vr, "Value": [plain]}
    values = [_plain(vr, one) for one in value]
    # An empty one among others is null: the others keep their places (PS3.18 Annex F.2.5).
    return {"vr": vr, "Value": values} if any(one is not None for one in values) else {"vr": vr}


def model_of(ds: Dataset, bulk: BulkAddress, path: tuple[str, ...] = ()) -> Model:
    """A data set; elements that cannot be read are left out."""
    model: Model = {}
    for tag in sorted(ds.keys()):
        if tag.group <= 0x0002 or tag.element == 0:
            continue
        try:
            found = _element(ds, tag, bulk, path)
        except BROKEN_BYTES:
            continue
        if found is not None:
            model[f"{int(tag):08X}"] = found
    if model and not path:
        model[f"{_SPECIFIC_CHARACTER_SET:08X}"] = _CHARACTER_SET
    return dict(sorted(model.items()))


def _element(ds: Dataset, tag: BaseTag, bulk: BulkAddress, path: tuple[str, ...]) -> dict[str, Any] | None:
    here = (*path, f"{int(tag):08X}")
    raw = ds.get_item(tag, keep_deferred=True)
    if isinstance(raw, RawDataElement) and raw.value is None and raw.length:
        # It was left on the disk.
        uri = bulk(here, raw.length)
        return {"vr": raw.VR or _vr_of(tag), "BulkDataURI": uri} if uri else None
    element = ds[tag]
    if element.VR == "SQ":
        return _sequence(element, bulk, here)
    if element.VR in BULK_VRS:
        return _binary(element, bulk, here)
    return attribute(_single_vr(element.VR), _values(element))


def _sequence(element: DataElement, bulk: BulkAddress, path: tuple[str, ...]) -> dict[str, Any] | None:
    if len(path) > 2 * _DEEPEST:
        return None
    items: DicomSequence = element.value
    models = [model_of(item, bulk, (*path, str(number))) for number, item in enumerate(items, 1)]
    return {"vr": "SQ", "Value": models} if models else {"vr": "SQ"}


def _binary(element: DataElement, bulk: BulkAddress, path: tuple[str, ...]) -> dict[str, Any]:
    value = element.value
    data = value if isinstance(value, bytes) else b""
    if not data:
        return {"vr": element.VR}
    if (uri := bulk(path, len(data))) is not None:
        return {"vr": element.VR, "BulkDataURI": uri}
    return {"vr": element.VR, "InlineBinary": base64.b64encode(data).decode("ascii")}


def _values(element: DataElement) -> Sequence[Any]:
    value = element.value
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list) else [value]


def _single_vr(vr: str) -> str:
    """Of an ambiguous VR that nobody resolved, the first."""
    return vr.split(" or ")[0]


def _vr_of(tag: BaseTag) -> str:
    """Of what is in Implicit VR: by the dictionary."""
    return _single_vr(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"


def _plain(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr == "PN":
        return _person_name(str(value))
    if vr == "AT":
        return f"{int(Tag(value)):08X}"
    if vr in _INTEGERS:
        return int(value)
    if vr in _FLOATS:
        number = float(value)
        return number if math.isfinite(number) else None
    return str(value)


def _person_name(name: str) -> dict[str, str] | None:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    return {group: text for group, text in groups if text} or None
