"""An index with very many studies, written past its own methods, which would take an hour."""

from collections.abc import Iterator
from typing import Any

from dicom_node.archive.index import Index
from tests.populated_index import NOW, SEG, SR, summary, uid


def fill(index: Index, studies: int, *, within_seconds: float) -> None:
    """Studies that were all read and delivered, spread over this time; every fifth with findings."""
    tables = index.transactions.tables
    for first in range(0, studies, 5000):
        some = range(first, min(first + 5000, studies))
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in some:
            for table, row in _rows(number, NOW - within_seconds * number / studies):
                rows.setdefault(table, []).append(row)
        with index.transactions.write() as connection:
            for table in ("studies", "instances", "jobs", "reports", "deliveries", "history"):
                connection.execute(tables[table].insert(), rows[table])


def _rows(number: int, at: float) -> Iterator[tuple[str, dict[str, Any]]]:
    study, findings = uid("many", number), 2 if number % 5 == 0 else 0
    times = {"first_received_at": at - 20, "last_received_at": at}
    yield "studies", {"study_instance_uid": study, "state": "DELIVERED", "state_since": at + 12, **times}
    for k in range(3):
        yield (
            "instances",
            {
                "sop_instance_uid": uid("many image", number, k),
                "sha256": f"{number:060d}{k:04d}",
                "study_instance_uid": study,
                "series_instance_uid": uid("many series", number),
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "path": f"many/{number}/{k}",
                "size_bytes": 525_312,
                "received_at": at,
                "calling_ae_title": "CT1",
                "attributes": {"Modality": "CT"},
            },
        )
    job = uid("many job", number)
    yield (
        "jobs",
        {
            "job_uid": job,
            "study_instance_uid": study,
            "series_instance_uid": uid("many series", number),
            "algorithm": "lung_nodule",
            "route": "chest",
            "priority": "ROUTINE",
            "send_to": [],
            "evidence": "e" * 64,
            "state": "REPORTED",
            "queued_at": at + 2,
            "started_at": at + 3,
            "ended_at": at + 11,
            "summary": dict(summary(findings)),
            "flag": summary(findings)["priority"],
        },
    )
    for name, sop_class in (("seg", SEG), ("sr", SR)) if findings else (("sr", SR),):
        sop = uid("many", name, number)
        yield (
            "reports",
            {
                "sop_instance_uid": sop,
                "job_uid": job,
                "study_instance_uid": study,
                "series_instance_uid": uid("many result series", name, number),
                "sop_class_uid": sop_class,
                "path": f"many/{number}/{name}",
                "sha256": "f" * 64,
                "written_at": at + 11,
                "form": name.upper(),
            },
        )
        yield (
            "deliveries",
            {
                "sop_instance_uid": sop,
                "peer": "pacs",
                "study_instance_uid": study,
                "state": "ACCEPTED",
                "next_try_at": at + 11,
                "accepted_at": at + 12,
            },
        )
    change = {"study_instance_uid": study, "at": at + 12, "before": "REPORTED", "after": "DELIVERED"}
    yield "history", {**change, "cause": "accepted by every peer", "actor": "delivery"}
