"""Content tree: the items of a structured report as a reader walks them."""

from collections.abc import Iterator

from pydicom import Dataset

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
