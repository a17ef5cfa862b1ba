"""The patient: whether two studies are of the same one, by what their headers say.

A wrong match harms: findings would be followed from one person to another. So whatever contradicts, parts, and an ID,
which is somebody's only where it was issued (PS3.3 Section C.2.3), needs the same issuer on both sides or else the same
birth date: emergencies and anonymised studies share IDs.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What identifies a patient; empty where a header does not say it."""

    patient_id: str
    issuer: str = ""
    #: YYYYMMDD.
    birth_date: str = ""
    sex: str = ""

    def is_same(self, other: "Patient") -> bool:
        """Whether both are surely one person, as far as headers tell."""
        if not self.patient_id or self.patient_id != other.patient_id:
            return False
        if any(_contradict(*pair) for pair in ((self.issuer, other.issuer), (self.birth_date, other.birth_date))):
            return False
        # Other is no contradiction: it may mean that nobody knew.
        if {self.sex, other.sex} == {"M", "F"}:
            return False
        # None of them contradicts by now: what both sides tell is equal.
        return bool(self.issuer and other.issuer) or bool(self.birth_date and other.birth_date)


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other
