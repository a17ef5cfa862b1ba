import errno
import hashlib
import math
import os
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage

from dicom_node.archive import directories
from dicom_node.archive.disk import wait_for
from dicom_node.archive.file_meta import FileMeta
from dicom_node.archive.files import Archive, KeptFile
from dicom_node.core.errors import CannotUnderstand, OutOfResources, UnreadableInstance
from tests.instances import data_set_of, files_below

EXPLICIT, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.91"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def store(
    archive: Archive,
    data: bytes,
    *,
    study: str = "1.2",
    series: str = "1.2.3",
    sop: str = "1.2.3.4",
    syntax: str = EXPLICIT,
) -> KeptFile:
    meta = FileMeta(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=sop,
        transfer_syntax_uid=syntax,
        sending_ae_title="SCANNER",
        receiving_ae_title="TRIAGE",
    )
    kept = archive.store(BytesIO(data), meta, study_uid=study, series_uid=series)
    archive.indexed(kept)
    return kept


def test_a_stored_data_set_lies_under_its_uids_byte_for_byte(archive: Archive) -> None:
    kept = store(archive, b"content")
    path = archive.path_of(kept.path)
    assert path.parts[-3:] == ("1.2", "1.2.3", "1.2.3.4.dcm")
    assert data_set_of(path) == b"content"
    assert (kept.size_bytes, kept.written) == (7, True)
    archive.verify(kept.path, kept.sha256)


def test_a_second_identical_instance_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    first = store(archive, b"content")
    before = archive.path_of(first.path).stat().st_mtime_ns
    second = store(archive, b"content")
    assert (second.path, second.sha256, second.written) == (first.path, first.sha256, False)
    assert archive.path_of(first.path).stat().st_mtime_ns == before
    assert len(files_below(tmp_path)) == 1


def test_content_that_lies_there_already_is_on_the_disk_before_it_is_answered(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who filed it may have been cut off before its sync, and then told nobody."""
    path = archive.path_of(store(archive, b"content").path)
    synced: set[int] = set()

    def noted(descriptors: Sequence[int]) -> None:
        synced.update(os.fstat(descriptor).st_ino for descriptor in descriptors)
        wait_for(descriptors)

    monkeypatch.setattr(directories, "wait_for", noted)
    assert not store(Archive(tmp_path / "archive"), b"content").written
    assert {place.stat().st_ino for place in (path, *list(path.parents)[:4])} <= synced


def test_what_the_disk_did_not_take_is_looked_up_on_the_disk_the_next_time(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of such a fault once; it would be a success the second time."""
    path = archive.path_of(store(archive, b"content").path)
    dropped: list[int] = []
    advise = os.posix_fadvise

    def noted(descriptor: int, offset: int, length: int, advice: int) -> None:
        if (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED):
            dropped.append(os.fstat(descriptor).st_ino)
        advise(descriptor, offset, length, advice)

    def fails(_descriptors: Sequence[int]) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fadvise", noted)
    monkeypatch.setattr(directories, "wait_for", fails)
    with pytest.raises(OSError, match="Input/output error"):
        store(archive, b"content")
    assert dropped == [path.stat().st_ino]
    assert path.exists(), "it may have a row"


def test_other_content_under_the_same_uid_is_kept_beside_the_first(archive: Archive) -> None:
    first, second = store(archive, b"content"), store(archive, b"other content")
    assert first.path != second.path
    assert Path(first.path).parent == Path(second.path).parent
    assert data_set_of(archive.path_of(first.path)) == b"content"
    assert data_set_of(archive.path_of(second.path)) == b"other content"
    assert store(archive, b"other content").path == second.path


def test_the_same_bytes_in_another_transfer_syntax_are_other_content(archive: Archive, tmp_path: Path) -> None:
    first, second = store(archive, b"content"), store(archive, b"content", syntax=JPEG_2000)
    assert first.path != second.path
    assert first.sha256 == second.sha256
    assert len(files_below(tmp_path)) == 2


@pytest.mark.parametrize(
    "uid", ["", "..", "../../x", "1.2/3", "/etc/passwd", "1.2\x00", "1" * 65, "1.2.", "1.2\n", "A^B"]
)
@pytest.mark.parametrize("which", ["study", "series", "sop"])
def test_what_is_no_uid_never_becomes_a_path(archive: Archive, tmp_path: Path, uid: str, which: str) -> None:
    with pytest.raises(CannotUnderstand):
        store(archive, b"content", **{which: uid})
    uids = {"study": "1.2", "series": "1.2.3", "sop": "1.2.3.4", which: uid}
    with pytest.raises(CannotUnderstand):
        archive.store_result(study_uid=uids["study"], series_uid=uids["series"], sop_uid=uids["sop"], data=b"content")
    assert files_below(tmp_path) == []


def test_many_threads_with_the_same_content_leave_one_file(archive: Archive, tmp_path: Path) -> None:
    kept = at_once([lambda: store(archive, b"content")] * 8)
    assert len({k.path for k in kept}) == 1
    assert sum(k.written for k in kept) == 1
    assert len(files_below(tmp_path)) == 1


def test_many_threads_with_different_contents_lose_none(archive: Archive, tmp_path: Path) -> None:
    contents = [bytes([n]) * 1000 for n in range(8)]
    kept = at_once([lambda c=c: store(archive, c) for c in contents])  # type: ignore[misc]  # a default binds the loop's value
    assert sorted(data_set_of(archive.path_of(k.path)) for k in kept) == contents
    assert len(files_below(tmp_path)) == 8


def at_once(calls: list) -> list[KeptFile]:  # type: ignore[type-arg]  # of calls without arguments
    start, kept = threading.Barrier(len(calls)), []

    def run(call) -> None:  # type: ignore[no-untyped-def]  # as above
        start.wait()
        kept.append(call())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == len(calls)
    return kept


def test_a_data_set_that_breaks_off_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    class BreaksOff:
        def __init__(self, content: bytes) -> None:
            self.reads, self._file = 0, BytesIO(content)
            self.seek, self.tell = self._file.seek, self._file.tell

        def read(self, size: int = -1, /) -> bytes:
            self.reads += 1
            # The first pass takes the checksum, the second writes.
            if self.reads == 4:
                raise OSError("the source broke")
            return self._file.read(size)

    meta = FileMeta(
        sop_class_uid=CTImageStorage,
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=EXPLICIT,
        sending_ae_title="SCANNER",
        receiving_ae_title="TRIAGE",
    )
    with pytest.raises(OSError, match="the source broke"):
        archive.store(BreaksOff(b"content"), meta, study_uid="1.2", series_uid="1.2.3")
    assert files_below(tmp_path) == []


def test_a_damaged_file_is_not_overwritten_and_the_instance_is_kept_all_the_same(archive: Archive) -> None:
    first = store(archive, b"content")
    archive.path_of(first.path).write_bytes(b"")
    again = store(archive, b"content")
    assert again.path != first.path
    assert data_set_of(archive.path_of(again.path)) == b"content"
    archive.path_of(again.path).write_bytes(b"")
    with pytest.raises(OutOfResources, match=r"damaged on disk; move .* away"):
        store(archive, b"content")


def test_verify_names_an_altered_a_cut_and_a_missing_file(archive: Archive) -> None:
    kept = store(archive, b"content")
    path = archive.path_of(kept.path)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UnreadableInstance, match="altered"):
        archive.verify(kept.path, kept.sha256)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableInstance, match="cannot be read"):
        archive.verify(kept.path, kept.sha256)
    path.unlink()
    with pytest.raises(UnreadableInstance, match="cannot be read"):
        archive.verify(kept.path, kept.sha256)


def test_a_disk_that_does_not_answer_says_nothing_of_the_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: Path) -> None:
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr("dicom_node.archive.files.open_data_set", stale)
    with pytest.raises(OSError, match="stale file handle"):
        archive.verify("studies/a.dcm", "ab" * 32)


def test_a_result_replaces_the_earlier_one_of_its_uid(archive: Archive, tmp_path: Path) -> None:
    first = archive.store_result(study_uid="1.2", series_uid="1.2.9", sop_uid="1.2.9.1", data=b"first")
    second = archive.store_result(study_uid="1.2", series_uid="1.2.9", sop_uid="1.2.9.1", data=b"second")
    assert first == second
    assert first.startswith("results/")
    assert archive.path_of(first).read_bytes() == b"second"
    assert len(files_below(tmp_path)) == 1


def test_a_sweep_removes_the_results_that_were_not_finished_and_nothing_else(archive: Archive, tmp_path: Path) -> None:
    kept = store(archive, b"content")
    root = tmp_path / "archive"
    (root / "outgoing" / "being written by a worker").write_bytes(b"half")
    old = root / "outgoing" / "of a worker that died"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert archive.sweep() == 1
    assert files_below(root) == ["outgoing/being written by a worker", kept.path]
    assert archive.sweep() == 0


def test_a_new_file_has_a_second_name_until_the_index_knows_it(archive: Archive) -> None:
    meta = FileMeta(
        sop_class_uid=CTImageStorage,
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=EXPLICIT,
        sending_ae_title="SCANNER",
        receiving_ae_title="TRIAGE",
    )
    (archive.path_of("incoming") / "half").write_bytes(b"half")
    kept = archive.store(BytesIO(b"content"), meta, study_uid="1.2", series_uid="1.2.3")
    leftovers = {path.name: is_whole for path, is_whole in archive.leftovers(math.inf)}
    assert kept.incoming is not None
    assert leftovers == {"half": False, kept.incoming.name: True}
    assert list(archive.leftovers(before=0.0)) == []
    again = archive.store(BytesIO(b"content"), meta, study_uid="1.2", series_uid="1.2.3")
    assert (again.path, again.incoming) == (kept.path, None)
    archive.indexed(again)
    archive.indexed(kept)
    assert [path.name for path, _ in archive.leftovers(math.inf)] == ["half"]


def test_no_file_of_a_study_is_removed_while_one_is_filed(archive: Archive) -> None:
    with archive.filing("1.2"), archive.filing("1.2"), archive.emptying("1.2") as may_be_emptied:
        assert not may_be_emptied
    with archive.emptying("1.2") as may_be_emptied, archive.emptying("1.2") as by_another:
        assert may_be_emptied
        assert not by_another
    with archive.filing("1.2"):
        pass


def test_filing_waits_until_the_study_was_emptied(archive: Archive) -> None:
    filed = threading.Event()

    def file() -> None:
        with archive.filing("1.2"):
            filed.set()

    with archive.emptying("1.2"):
        waiting = threading.Thread(target=file)
        waiting.start()
        assert not filed.wait(0.1)
    assert filed.wait(10)
    waiting.join()


def test_a_results_checksum_is_that_of_the_whole_file(archive: Archive) -> None:
    path = archive.store_result(study_uid="1.2", series_uid="1.2.9", sop_uid="1.2.9.1", data=b"report")
    archive.verify(path, hashlib.sha256(b"report").hexdigest())
    archive.path_of(path).write_bytes(b"retort")
    with pytest.raises(UnreadableInstance, match="altered"):
        archive.verify(path, hashlib.sha256(b"report").hexdigest())


def test_files_are_for_the_nodes_own_group_only(archive: Archive) -> None:
    path = archive.path_of(store(archive, b"content").path)
    assert path.stat().st_mode & 0o007 == 0
    assert path.parent.stat().st_mode & 0o007 == 0


def test_free_bytes_are_those_of_the_archives_disk(archive: Archive, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert 0 < archive.free_bytes() <= disk.f_blocks * disk.f_frsize
