"""Content tree: the items of a structured report as a reader walks them, and what an object refers to."""

from collections.abc import Iterable, Iterator

from pydicom import DataElement, Dataset

from dicom_node.core.codes import Code


def walk(item: Dataset) -> Iterator[Dataset]:
    """Every content item of a tree, depth first."""
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def name_of(item: Dataset) -> tuple[str, str]:
    """Value and scheme of a content item's name."""
    names = item.get("ConceptNameCodeSequence")
    return (str(names[0].get("CodeValue", "")), str(names[0].CodingSchemeDesignator)) if names else ("", "")


def is_named(item: Dataset, name: Code) -> bool:
    """Whether a content item has this name."""
    return name_of(item) == (name.value, name.scheme)


def value_of(item: Dataset) -> str:
    """The text or UID that a content item says; empty for one that says neither."""
    return str(item.get("TextValue") or item.get("UID") or "")


def text_of(group: Dataset, name: Code) -> str:
    """What the first child of this name says; empty without one."""
    return next((value_of(item) for item in group.get("ContentSequence", []) if is_named(item, name)), "")


def uid_elements(item: Dataset) -> Iterator[DataElement]:
    """Every element of a data set that holds UIDs, at any depth; the values of others are not even looked at."""
    for tag in item.keys():  # noqa: SIM118 - a data set's own iteration converts every value
        vr = item.get_item(tag).VR
        if vr == "SQ":
            for child in item[tag].value:
                yield from uid_elements(child)
        elif vr == "UI":
            yield item[tag]


def referenced(items: Iterable[Dataset]) -> set[str]:
    """The SOP instances that data sets refer to, at any depth."""
    elements = (element for item in items for element in uid_elements(item))
    return {str(element.value) for element in elements if element.keyword == "ReferencedSOPInstanceUID"}
