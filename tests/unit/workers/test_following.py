"""Findings followed from study to study: what the second report says of the first, and when it says nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core import codes
from tests.follow_ups import FIRST, NEW, SECOND, THIRD, Ward


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """A worker to which studies come."""
    index = Index.open("sqlite://")
    yield Ward(index=index, archive=Archive(tmp_path / "data"), folder=tmp_path)
    index.close()


def test_try(ward: Ward) -> None:
    a = ward.study("first", "20240101", [FIRST, SECOND, THIRD])
    print(ward.job(a).summary)
    b = ward.study("second", "20240401", [FIRST.grown(1.5), SECOND, NEW], breath=0.9, shift=(5.0, -6.0, 8.0))
    print(ward.job(b).job)
    print(ward.comment(b)); print(ward.tracked(a)); print(ward.tracked(b)); print(ward.job(b).summary)
    assert 0
