"""The tables that studies and series are searched by; a column is called by the keyword of its attribute.

The patient's attributes stand here and in no other table: what reads the others cannot show or log them by accident.
"""

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, String, Table, Text, false

from dicom_node.core.searchable import Level, Searchable, columns_of

_UID = String(64)

#: Columns beside a person name's own: what its groups are compared by, and its words and sounds.
NAME_KEYS = ("key", "ideographic_key", "words")


def name_column(keyword: str, key: str) -> str:
    """The column of a person name's key."""
    return f"{keyword}_{key}"


def add_search_tables(metadata: MetaData) -> None:
    """Add them; no foreign keys, since the rows of a result may come before those of its study were completed."""
    studies = Table(
        "searched_studies",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        *(column for attribute in columns_of(Level.STUDY) for column in _columns(attribute)),
    )
    # By the patient, by the date, the newest first, and by the order that the images were taken for.
    Index("searched_by_patient", studies.c.PatientID)
    # The earlier studies of a patient, without a look at the rows of others.
    Index("searched_by_patient_in_time", studies.c.PatientID, studies.c.StudyDate, studies.c.StudyTime)
    Index("searched_by_name", studies.c.PatientName_key)
    Index("searched_by_date", studies.c.StudyDate, studies.c.StudyTime, studies.c.study_instance_uid)
    Index("searched_by_accession", studies.c.AccessionNumber)
    Table(
        "searched_series",
        metadata,
        Column("study_instance_uid", _UID, primary_key=True),
        Column("series_instance_uid", _UID, primary_key=True),
        #: This node made it.
        Column("is_result", Boolean, nullable=False, default=False, server_default=false()),
        *(column for attribute in columns_of(Level.SERIES) for column in _columns(attribute)),
    )


def _columns(attribute: Searchable) -> list["Column[str] | Column[int]"]:
    if attribute.vr == "IS":
        return [Column(attribute.keyword, Integer)]
    columns: list[Column[str] | Column[int]] = [Column(attribute.keyword, Text, nullable=False, default="")]
    if attribute.vr == "PN":
        columns += [Column(name_column(attribute.keyword, key), Text, nullable=False, default="") for key in NAME_KEYS]
    return columns
