"""UIDs: those that stand in the bytes of an object, wherever they stand in it."""

from dataclasses import dataclass
from functools import cached_property

from pydicom.datadict import keyword_for_tag

from dicom_node.core.uid import is_uid
from workers.reporting.encoding import elements

REFERENCED_SOP_INSTANCE_UID = 0x00081155
CURRENT_REQUESTED_PROCEDURE_EVIDENCE = 0x0040A375
PREDECESSOR_DOCUMENTS = 0x0040A360
CONTENT = 0x0040A730


@dataclass(frozen=True, kw_only=True)
class StandingUids:
    """The UIDs of one object; they are looked for once, for all who ask."""

    #: The object's bytes.
    file: bytes

    def referenced(self, within: int | None = None) -> set[str]:
        """The SOP instances that the object refers to: in one of its sequences, by its tag, or anywhere."""
        found = self._by_place
        places = found.values() if within is None else [found.get(within, [])]
        return {uid for uids in places for tag, uid in uids if tag == REFERENCED_SOP_INSTANCE_UID}

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
