"""Rows of an index as intake would have written them, without files: what a search is measured over."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from dicom_node.archive.searched import searched_values
from dicom_node.core.searchable import Level

#: Instances of a study, in four series.
INSTANCES_A_STUDY, SERIES_A_STUDY = 200, 4

#: Studies of a patient.
STUDIES_A_PATIENT = 3

FIRST_DAY, DAYS = date(2015, 1, 1), 3650

_AT_ONCE = 250


def fill(index: Path, instances: int) -> int:
    """Write so many instances into an SQLite index that no node has open; how many studies they are of."""
    studies = max(1, instances // INSTANCES_A_STUDY)
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for first in range(0, studies, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, studies))
            for table, rows in _tables(numbers):
                names = list(rows[0])
                places = ", ".join("?" * len(names))
                statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"
                connection.executemany(statement, [tuple(row.values()) for row in rows])
            connection.commit()
        connection.execute("ANALYZE")
        connection.commit()
    return studies


def patient_of(study: int) -> str:
    """The Patient ID of a study."""
    return f"P{study // STUDIES_A_PATIENT:07d}"


def day_of(study: int) -> date:
    """The Study Date of a study: they are spread evenly."""
    return FIRST_DAY + timedelta(days=study * 7919 % DAYS)


def _tables(numbers: range) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield "studies", [_study(number) for number in numbers]
    yield "instances", [row for number in numbers for row in _instances(number)]
    yield "searched_studies", [_searched_study(number) for number in numbers]
    yield "searched_series", [_searched_series(number, s) for number in numbers for s in range(SERIES_A_STUDY)]


def _uid(study: int, *parts: int) -> str:
    return ".".join(map(str, ("1.2.826.0.1.3680043.10.999.20150101", 100_000 + study, *parts)))


def _study(number: int) -> dict[str, Any]:
    at = 1.4e9 + number
    times = {"state_since": at, "first_received_at": at, "last_received_at": at}
    row = {"state": "COMMITTED", "reason": "", "priority": "ROUTINE", "files_left": 0}
    return {"study_instance_uid": _uid(number), **row, **times}


def _instances(study: int) -> Iterator[dict[str, Any]]:
    for number in range(INSTANCES_A_STUDY):
        series = number % SERIES_A_STUDY
        uid = _uid(study, series, number)
        attributes = {"Modality": "CT", "Rows": 512, "Columns": 512, "BitsAllocated": 16, "InstanceNumber": number}
        yield {
            "sop_instance_uid": uid,
            "sha256": f"{study:032d}{number:032d}",
            "study_instance_uid": _uid(study),
            "series_instance_uid": _uid(study, series),
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "path": f"studies/00/{_uid(study)}/{_uid(study, series)}/{uid}.dcm",
            "size_bytes": 525_312,
            "received_at": 1.4e9 + study,
            "calling_ae_title": "BENCH",
            "conflict": 0,
            "attributes": json.dumps(attributes | {"ImagePositionPatient": [0.0, 0.0, float(number)]}),
        }


def _searched_study(number: int) -> dict[str, Any]:
    attributes = {
        "PatientID": patient_of(number),
        "PatientName": f"Family{number // STUDIES_A_PATIENT}^Given",
        "StudyDate": f"{day_of(number):%Y%m%d}",
        "StudyTime": "101500",
        "AccessionNumber": f"A{number}",
        "StudyDescription": "CT CHEST",
    }
    return {"study_instance_uid": _uid(number), **searched_values(Level.STUDY, attributes)}


def _searched_series(study: int, series: int) -> dict[str, Any]:
    attributes = {"Modality": "CT", "SeriesNumber": series, "SeriesDescription": "CHEST 1.0 LUNG"}
    uids = {"study_instance_uid": _uid(study), "series_instance_uid": _uid(study, series), "is_result": 0}
    return {**uids, **searched_values(Level.SERIES, attributes)}
