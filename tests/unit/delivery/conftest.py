"""What the tests of delivery share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from tests.delivering_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site without a study yet."""
    site = Site(Index.open("sqlite://"), Archive(tmp_path / "archive"))
    yield site
    site.index.close()
