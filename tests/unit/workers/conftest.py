"""What the tests of workers share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from tests.factories import ct_series
from tests.received_study import queued, receive
from tests.unit.workers.test_triage import NOW, Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A received study, its job, and a worker."""
    index, archive = Index.open("sqlite://"), Archive(tmp_path / "archive")
    receive(index, archive, ct_series(tmp_path / "series", slices=10), at=NOW - 10)
    yield Room(index, archive, queued(index, at=NOW - 5))
    index.close()
