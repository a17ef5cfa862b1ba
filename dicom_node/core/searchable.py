"""Searchable attributes: what a study, series or instance can be found by, and is answered with, over DICOMweb.

A further one is a row here: the header's reading, the index's column and the query follow from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class Level(StrEnum):
    """Of the Query/Retrieve information model (PS3.4 Annex C.6)."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"

    @property
    def rank(self) -> int:
        """Grows from study to instance."""
        return _RANKS[self]


_RANKS = {level: rank for rank, level in enumerate(Level)}


@dataclass(frozen=True, kw_only=True)
class Searchable:
    """One attribute."""

    keyword: str
    vr: str
    level: Level
    #: Whether it is answered without being asked for (PS3.18 Tables 10.6.3-3 to 10.6.3-5).
    returned: bool = True
    #: Whether the index computes it, since no header holds it.
    computed: bool = False


def _attributes(level: Level, rows: str, **traits: bool) -> tuple[Searchable, ...]:
    pairs = (row.split() for row in rows.split(","))
    return tuple(Searchable(keyword=keyword, vr=vr, level=level, **traits) for keyword, vr in pairs)


SEARCHABLE: tuple[Searchable, ...] = (
    *_attributes(
        Level.STUDY,
        "StudyDate DA, StudyTime TM, AccessionNumber SH, ReferringPhysicianName PN, PatientName PN, PatientID LO, "
        "PatientBirthDate DA, PatientSex CS, StudyInstanceUID UI, StudyID SH, TimezoneOffsetFromUTC SH, "
        "StudyDescription LO",
    ),
    *_attributes(Level.STUDY, "IssuerOfPatientID LO", returned=False),
    *_attributes(Level.STUDY, "ModalitiesInStudy CS", computed=True),
    *_attributes(
        Level.SERIES,
        "Modality CS, SeriesDescription LO, SeriesInstanceUID UI, SeriesNumber IS, "
        "PerformedProcedureStepStartDate DA, PerformedProcedureStepStartTime TM",
    ),
    *_attributes(
        Level.SERIES,
        "SeriesDate DA, SeriesTime TM, BodyPartExamined CS, Laterality CS, ProtocolName LO, StationName SH, "
        "Manufacturer LO",
        returned=False,
    ),
    *_attributes(
        Level.INSTANCE,
        "SOPClassUID UI, SOPInstanceUID UI, InstanceNumber IS, Rows US, Columns US, BitsAllocated US, "
        "NumberOfFrames IS",
    ),
)

BY_KEYWORD: Mapping[str, Searchable] = {attribute.keyword: attribute for attribute in SEARCHABLE}

#: The UIDs that the index holds by another name.
UID_KEYWORDS: Mapping[str, str] = {
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
}


@cache
def columns_of(level: Level) -> tuple[Searchable, ...]:
    """The attributes of a level that have a column of their own; those of instances stand in their JSON attributes."""
    return tuple(a for a in SEARCHABLE if a.level is level and not a.computed and a.keyword not in UID_KEYWORDS)


#: What intake reads of a header besides what routing wants.
SEARCHED_KEYWORDS: tuple[str, ...] = tuple(
    attribute.keyword for level in (Level.STUDY, Level.SERIES) for attribute in columns_of(level)
)
