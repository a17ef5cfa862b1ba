"""Image Type (0008,0008): what an image says of its own making (PS3.3 Section C.7.6.1.1.2)."""

from dicom_node.core.study import Attributes

# Some writers put SECONDARY first; ORIGINAL\SECONDARY is a later reconstruction from raw data and no derivation.
_DERIVED = frozenset({"DERIVED", "SECONDARY"})

# CT: LOCALIZER (PS3.3 Section C.8.2.1.1.1). The others are what scanners write for the same thing.
_LOCALIZER = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})


def image_type(attributes: Attributes) -> tuple[str, ...]:
    """The values of Image Type in capitals; empty when there is none."""
    value = attributes.get("ImageType")
    values = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
    return tuple(str(text).strip().upper() for text in values)


def is_derived(attributes: Attributes) -> bool:
    """Whether the pixels were made from other images' pixels; an image that does not say so is taken for original."""
    return bool(_DERIVED.intersection(image_type(attributes)[:1]))


def is_localizer(attributes: Attributes) -> bool:
    """Whether the image is an overview that the scan was planned on."""
    return bool(_LOCALIZER.intersection(image_type(attributes)[2:]))
