"""The patient: whether two studies are of the same one, by what their headers say.

A wrong match harms: findings would be followed from one person to another. So whatever contradicts, parts, and an ID,
which is somebody's only where it was issued (PS3.3 Section C.2.3), needs the same issuer on both sides or else the same
birth date, and names that have a word in common: emergencies and anonymised studies share IDs, and two hospitals give
the same one to two people.
"""

from dataclasses import dataclass
from datetime import date

from dicom_node.core.person_name import words_of

#: Nobody was born so early, or so late, of whom there are scans: such a date stands for one that is not known.
_BORN = (date(1900, 1, 2), date(2100, 1, 1))


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What identifies a patient; empty where a header does not say it."""

    patient_id: str
    issuer: str = ""
    #: YYYYMMDD.
    birth_date: str = ""
    sex: str = ""
    #: As headers write it.
    name: str = ""

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
        if self.issuer and other.issuer:
            return True
        return self.birth_date == other.birth_date and _is_told(self.birth_date) and self._may_be_called(other)

    def _may_be_called(self, other: "Patient") -> bool:
        """Whether both names may be of one person: people marry, but something stays."""
        if not (words_of(self.name) and words_of(other.name)):
            return True
        return bool(_called(self.name) & _called(other.name))


def _called(name: str) -> set[str]:
    """The words of family and given names: titles, suffixes and initials are shared by many (PS3.5 Section 6.2.1.1)."""
    names = "=".join("^".join(group.split("^")[:2]) for group in name.split("="))
    words = set(words_of(names))
    # A single sign is an initial where letters have cases, and a name where they have none.
    names_alone = {word for word in words if len(word) > 1 or word.upper() == word}
    return names_alone or ({" ".join(sorted(words))} if words else set())


def _contradict(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _is_told(birth_date: str) -> bool:
    """Whether it is a date on which somebody may be born."""
    try:
        born = date(int(birth_date[:4]), int(birth_date[4:6]), int(birth_date[6:]))
    except ValueError:
        return False
    return _BORN[0] <= born < _BORN[1]
