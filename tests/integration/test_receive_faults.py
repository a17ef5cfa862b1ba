"""Faults of the disk, the index and our own while instances come in: each is answered, and named once."""

import errno
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.core.errors import SettingsError
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.settings import NodeSettings, Settings
from tests.instances import ct_instance, encoded, files_below, received, sop_uid, write_instance
from tests.receivers import (
    Dcmtk,
    Receiver,
    answers,
    associated,
    c_store,
    entity_of,
    eventually,
    receiving,
    send,
)

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def test_without_room_on_the_disk_the_sender_is_told_so(tmp_path: Path, dcmtk: Dcmtk) -> None:
    with receiving(tmp_path, minimum_free_megabytes=10**9) as receiver:
        source = write_instance(tmp_path / "1.dcm", ct_instance())
        (answer,) = answers(receiver.entity, received(ct_instance()))
        assert answer.Status == 0xA700
        assert str(answer.ErrorComment).startswith("disk nearly full")
        assert files_below(receiver.root) == []
        said = dcmtk("storescu", "-v", "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port, source)
        assert "OutOfResources" in said.stderr.replace(" ", "")


def test_a_disk_that_became_read_only_is_named_once_and_reception_goes_on_when_it_is_mended(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def read_only(path: str | Path, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_CREAT and str(receiver.root) in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open_(path, flags, *arguments, **named)

    large = ct_instance(9, PixelData=bytes(5 << 20))
    with caplog.at_level(logging.WARNING, "dicom_node"), monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        assert set(send(receiver.entity, *(ct_instance(n) for n in range(1, 9)), large)) == {0xA700}
        assert eventually(lambda: len(caplog.records) == 2)
    assert files_below(receiver.root) == []
    first, last = caplog.records
    assert "Read-only file system" in first.__dict__["reason"]
    assert last.__dict__["instances"] == 9
    assert send(receiver.entity, ct_instance(1), large) == [0x0000, 0x0000]


def test_a_database_that_another_holds_is_named_once_and_reception_goes_on_when_it_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program, such as a backup, has locked it; the wait for it is made short here."""
    monkeypatch.setattr("dicom_node.archive.index.PATIENCE_SECONDS", 0.2)
    with receiving(tmp_path) as receiver, associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance(1))).Status == 0x0000
        requests = [received(ct_instance(number)) for number in range(2, 6)]
        with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with caplog.at_level(logging.WARNING, "dicom_node"):
                assert {c_store(association, request).Status for request in requests} == {0xA700}
            other.execute("ROLLBACK")
        refused = [record for record in caplog.records if record.message == "instance refused"]
        assert len(refused) == 1
        assert "the index does not answer" in refused[0].__dict__["reason"]
        assert receiver.kept(sop_uid(2)) == []
        requests = [received(ct_instance(number)) for number in range(2, 6)]
        assert {c_store(association, request).Status for request in requests} == {0x0000}
        assert all(receiver.kept(sop_uid(n)) == [encoded(ct_instance(n))] for n in range(1, 6))


class BrokenReception:
    """A reception in which everything goes wrong."""

    def store(self, received: ReceivedInstance) -> object:
        raise RuntimeError("Secret^Patient broke it")

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        pass

    def association_ended(self, association_id: str, ending: str) -> None:
        pass

    def free_bytes(self) -> int:
        return 1 << 40


def test_a_fault_of_ours_is_answered_and_ends_no_association() -> None:
    entity = entity_of(BrokenReception())
    entity.start()
    try:
        first, second = answers(entity, received(ct_instance(1)), received(ct_instance(2)))
    finally:
        entity.stop()
    assert (first.Status, second.Status) == (0xC0FF, 0xC0FF)
    assert first.ErrorComment == "the node failed; see its log"


def test_a_taken_port_is_named_before_anything_is_received(receiver: Receiver) -> None:
    port = receiver.entity.port
    settings = Settings(node=NodeSettings(host="127.0.0.1", port=port))
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
        ApplicationEntity(settings, receiver.intake).start()
