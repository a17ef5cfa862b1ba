"""Unique Identifiers: which text is one, and which UID follows from given parts (PS3.5 Section 9)."""

import hashlib
import re
import uuid

#: PS3.5 Section 9.1: up to 64 digits and dots. Leading zeros break the rule but do occur, and harm no path.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Whether the text may stand as a UID, in a path as well as in a data set."""
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


def derived_uid(*parts: str) -> str:
    """The UID that always follows from the same parts (PS3.5 Annex B.2: 2.25 and a UUID as an integer)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
