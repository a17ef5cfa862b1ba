"""Locks of many studies at once; what they hold is told in test_files."""

import os
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.places import spread_of
from dicom_node.archive.study_locks import StudyLocks


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted where Linux lists them")
def test_thousands_of_studies_need_no_more_open_files_than_there_are_directories(tmp_path: Path) -> None:
    uids = [f"1.2.{number}" for number in range(3000)]
    before = open_files()
    with Archive(tmp_path).filing(*uids):
        assert open_files() - before == len({spread_of(uid) for uid in uids}) <= 256
    assert open_files() == before


def test_each_of_several_studies_is_held(tmp_path: Path) -> None:
    locks = StudyLocks(tmp_path)
    with locks.filing("1.2", "1.3"):
        for uid in ("1.2", "1.3"):
            with locks.emptying(uid) as may_be_emptied:
                assert not may_be_emptied
