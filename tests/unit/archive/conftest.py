"""What tests of the archive share, unless they make their own."""

from collections.abc import Iterator

import pytest

from dicom_node.archive.index import Index


@pytest.fixture
def index() -> Iterator[Index]:
    """An index in memory, with nothing in it."""
    index = Index.open("sqlite://")
    yield index
    index.close()
