"""UIDs: those that stand in the bytes of an object, wherever they stand in it."""

from dataclasses import dataclass
from functools import cached_property

from pydicom.datadict import keyword_for_tag

from dicom_node.core.uid import is_uid
from workers.reporting.encoding import elements

REFERENCED_SOP_INSTANCE_UID = 0x00081155
CURRENT_REQUESTED_PROCEDURE_EVIDENCE = 0x0040A375
PREDECESSOR_DOCUMENTS = 0x0040A360
PERTINENT_OTHER_EVIDENCE = 0x0040A385
CONTENT = 0x0040A730
#: Where a segmentation names the images that it is drawn on: Source Image Sequence, Referenced Series Sequence, and the
#: functional groups (PS3.3 Sections C.8.20.2 and C.7.6.16). What it repeats of its source, such as the Referenced Study
#: Sequence, may name other objects.
DRAWN_ON = (0x00082112, 0x00081115, 0x52009229, 0x52009230)


@dataclass(frozen=True, kw_only=True)
class StandingUids:
    """The UIDs of one object; they are looked for once, for all who ask."""

    #: The object's bytes.
    file: bytes

    def referenced(self, *within: int) -> set[str]:
        """The SOP instances that the object refers to in some of its sequences, by their tags."""
        found = (self._by_place.get(place, []) for place in within)
        return {uid for uids in found for tag, uid in uids if tag == REFERENCED_SOP_INSTANCE_UID}

    @cached_property
    def faulty(self) -> tuple[str, ...]:
        """The keywords of those that are none."""
        found = (tag for uids in self._by_place.values() for tag, uid in uids if not is_uid(uid))
        return tuple(keyword_for_tag(tag) or f"{tag:08x}" for tag in found)

    @cached_property
    def _by_place(self) -> dict[int, list[tuple[int, str]]]:
        """Tag and UID, by the tag of the object's own element in which they stand."""
        found: dict[int, list[tuple[int, str]]] = {}
        for within, tag, vr, value in elements(self.file):
            if vr == b"UI":
                uids = value.removesuffix(b"\0").decode("ascii", "replace").split("\\")
                found.setdefault(within, []).extend((tag, uid) for uid in uids)
        return found
