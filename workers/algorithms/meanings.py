"""Meanings: what the words in a bundle's description stand for in the codes that a report needs.

A bundle may say it itself, in metadata.json: `"finding_codes": {"spleen": {"concept": [value, scheme, meaning],
"category": [...], "site": [...]}}`, by the names of `channel_def`, or by "*" for all of them. Else the words are looked
up here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.core.codes import (
    ANATOMICAL_STRUCTURE,
    LUNG,
    MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
    NODULE,
    Code,
)
from dicom_node.core.errors import BundleInvalid
from workers.bundles import METADATA, Bundle

NEOPLASM = Code("108369006", "SCT", "Neoplasm")
LESION = Code("52988006", "SCT", "Lesion")

#: Words of things that stand in an organ, each one of its own.
_THINGS: Mapping[str, Code] = {
    "nodule": NODULE,
    "nodules": NODULE,
    "tumor": NEOPLASM,
    "tumour": NEOPLASM,
    "tumors": NEOPLASM,
    "tumours": NEOPLASM,
    "lesion": LESION,
    "lesions": LESION,
}
#: Words of organs (CID 4031, CID 7199).
_ORGANS: Mapping[str, Code] = {
    "brain": Code("12738006", "SCT", "Brain"),
    "heart": Code("80891009", "SCT", "Heart"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "liver": Code("10200004", "SCT", "Liver"),
    "lung": LUNG,
    "lungs": LUNG,
    "pancreas": Code("15776009", "SCT", "Pancreas"),
    "prostate": Code("41216001", "SCT", "Prostate"),
    "spleen": Code("78961009", "SCT", "Spleen"),
}


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a class of a bundle's output is."""

    concept: Code
    category: Code
    site: Code

    @property
    def is_organ(self) -> bool:
        """Whether there is one of it, and not one finding for each place."""
        return self.category == ANATOMICAL_STRUCTURE


def classes_of(bundle: Bundle, output: Mapping[str, Any]) -> dict[int, str]:
    """Names of an output's channels by number, as `channel_def` gives them."""
    return {int(number): str(name) for number, name in (output.get("channel_def") or {}).items()}


def meaning_of(bundle: Bundle, name: str) -> Meaning:
    """What a class of this name is; BundleInvalid where neither the bundle nor the table above knows it."""
    stated = bundle.metadata.get("finding_codes") or {}
    if (own := stated.get(name) or stated.get("*")) is not None:
        return _stated(bundle, own)
    about = " ".join(str(bundle.metadata.get(key) or "") for key in ("name", "task", "description"))
    thing, organ = _first(_THINGS, name), _first(_ORGANS, name)
    if thing is None and organ is None:
        # The class has a name like "image" or "1": what the bundle is for must tell.
        thing, organ = _first(_THINGS, about), _first(_ORGANS, about)
    if thing is not None:
        site = organ or _first(_ORGANS, about)
        if site is not None:
            return Meaning(concept=thing, category=MORPHOLOGICALLY_ABNORMAL_STRUCTURE, site=site)
    elif organ is not None:
        return Meaning(concept=organ, category=ANATOMICAL_STRUCTURE, site=organ)
    reason = f'bundle {bundle.name}: no codes are known for "{name}" of network_data_format'
    raise BundleInvalid(f'{reason}; add "finding_codes" with concept, category and site to {METADATA}')


def _first(words: Mapping[str, Code], text: str) -> Code | None:
    return next((words[word] for word in re.findall(r"[a-z]+", text.lower()) if word in words), None)


def _stated(bundle: Bundle, own: Any) -> Meaning:
    try:
        concept, category, site = (Code(*map(str, own[part])) for part in ("concept", "category", "site"))
    except (KeyError, TypeError) as error:
        mend = "each needs concept, category and site, as [value, scheme, meaning]"
        raise BundleInvalid(f"bundle {bundle.name}: finding_codes of {METADATA}: {mend}") from error
    return Meaning(concept=concept, category=category, site=site)
