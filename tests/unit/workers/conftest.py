"""What the tests of workers share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from tests.factories import ct_series
from tests.received_study import queued, receive
from tests.triage_room import NOW, Room


@pytest.fixture
def holdings(tmp_path: Path) -> Iterator[tuple[Index, Archive]]:
    """An index and an archive with nothing in them."""
    index = Index.open("sqlite://")
    yield index, Archive(tmp_path / "archive")
    index.close()


@pytest.fixture
def room(holdings: tuple[Index, Archive], tmp_path: Path) -> Room:
    """A received study, its job, and a worker."""
    index, archive = holdings
    receive(index, archive, ct_series(tmp_path / "series", slices=10), at=NOW - 10)
    return Room(index, archive, queued(index, at=NOW - 5))
