import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.file_meta import FileMeta
from dicom_node.archive.files import Archive
from dicom_node.archive.spool import Spool
from tests.instances import data_set_of, files_below

META = FileMeta(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    sending_ae_title="SCANNER",
    receiving_ae_title="TRIAGE",
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def spooled(archive: Archive, data: bytes) -> Spool:
    spool = archive.spool(META)
    for at in range(0, len(data), 1000):
        spool.write(memoryview(data)[at : at + 1000])
    return spool


def test_a_spool_becomes_the_file_without_being_written_again(archive: Archive, tmp_path: Path) -> None:
    spool = spooled(archive, b"content" * 500)
    inode = spool.path.stat().st_ino
    kept = archive.store(spool, META, study_uid="1.2", series_uid="1.2.3")
    assert archive.path_of(kept.path).stat().st_ino == inode
    assert (kept.sha256, kept.size_bytes) == (hashlib.sha256(b"content" * 500).hexdigest(), 3500)
    assert kept.incoming == spool.path
    spool.discard()
    assert data_set_of(archive.path_of(kept.path)) == b"content" * 500
    assert len(files_below(tmp_path)) == 2
    archive.indexed(kept)
    assert files_below(tmp_path / "archive") == [kept.path]
    archive.verify(kept.path, kept.sha256)


def test_of_the_same_content_again_nothing_stays(archive: Archive, tmp_path: Path) -> None:
    first = archive.store(spooled(archive, b"content"), META, study_uid="1.2", series_uid="1.2.3")
    archive.indexed(first)
    again = spooled(archive, b"content")
    kept = archive.store(again, META, study_uid="1.2", series_uid="1.2.3")
    again.discard()
    assert (kept.path, kept.written) == (first.path, False)
    assert files_below(tmp_path / "archive") == [first.path]


def test_other_content_is_kept_beside(archive: Archive) -> None:
    first = archive.store(spooled(archive, b"content"), META, study_uid="1.2", series_uid="1.2.3")
    other = archive.store(spooled(archive, b"other"), META, study_uid="1.2", series_uid="1.2.3")
    assert first.path != other.path
    assert data_set_of(archive.path_of(other.path)) == b"other"


def test_what_is_discarded_is_gone(archive: Archive, tmp_path: Path) -> None:
    spool = spooled(archive, b"half")
    spool.discard()
    spool.discard()
    assert files_below(tmp_path) == []


@given(data=st.binary(max_size=300), reads=st.lists(st.tuples(st.integers(0, 350), st.integers(-1, 60)), max_size=6))
def test_it_reads_as_a_file_of_the_data_set(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, reads: list[tuple[int, int]]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "file", b"meta" * 20)
    spool.write(data)
    assert spool.seek(0, os.SEEK_END) == spool.size_bytes == len(data)
    for at, size in reads:
        spool.seek(at)
        assert spool.read(size) == (data[at:] if size < 0 else data[at : at + size])
        assert spool.tell() == at + len(data[at:] if size < 0 else data[at : at + size])
    assert spool.sha256 == hashlib.sha256(data).hexdigest()
    spool.discard()


def test_it_is_for_the_nodes_own_group_only(archive: Archive) -> None:
    spool = spooled(archive, b"content")
    assert spool.path.stat().st_mode & 0o007 == 0
    spool.discard()


def test_a_disk_that_became_read_only_keeps_no_sender_from_its_answer(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spooled(archive, b"content")

    def read_only(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    spool.discard()
    spool.discard()
    assert spool.path.exists()
