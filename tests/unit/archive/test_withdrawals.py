"""What was taken back stays so in the index, whatever a worker that does not know it writes."""

from collections.abc import Iterator

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import LeaseLost
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import NOW, claim, objects, queue, study_uid, summary

STUDY = study_uid("a")


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def withdrawn_and_read_again(index: Index, *, offered: bool) -> tuple[Job, Lease]:
    """A report that was taken back, whether or not a peer may have it, and whose job is read once more."""
    job = queue(index, "a", at=NOW - 9)
    index.jobs.report(claim(index, job, at=NOW - 8), objects("a"), summary=summary(2), at=NOW - 7)
    if offered:
        for row in objects("a"):
            index.reports.offered(row.sop_instance_uid, NOW - 6)
    index.withdrawals.withdraw(STUDY, reason="another patient's", safety=True, actor="radiologist", at=NOW - 5)
    index.jobs.ask_again(STUDY, actor="radiologist", at=NOW - 4)
    index.jobs.queue(STUDY, [job], cause="asked for again", actor="assembly", at=NOW - 3)
    return job, claim(index, job, at=NOW - 2)


def test_nothing_is_written_again_under_a_uid_that_was_taken_back_from_peers(index: Index) -> None:
    _, lease = withdrawn_and_read_again(index, offered=True)
    with pytest.raises(LeaseLost, match="was withdrawn meanwhile"):
        index.jobs.report(lease, objects("a"), summary=summary(2), at=NOW)
    assert index.studies.rows(STUDY)[0].state is StudyState.READING
    assert not index.reports.offered(objects("a")[0].sop_instance_uid, NOW), "it stays withdrawn and is not sent"
    assert index.deliveries.unplanned() == []


def test_what_no_peer_may_have_is_written_again_as_it_was(index: Index) -> None:
    _, lease = withdrawn_and_read_again(index, offered=False)
    index.jobs.report(lease, objects("a"), summary=summary(2), at=NOW)
    assert index.studies.rows(STUDY)[0].state is StudyState.REPORTED
    assert index.reports.offered(objects("a")[0].sop_instance_uid, NOW)
