"""STOW-RS: what is kept, what is refused and in which words; over a real port, into a real archive."""

import logging
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage

from dicom_node.archive.group_commit import GroupCommit
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake, IntakeRules
from dicom_node.web.dicomweb.multipart_reader import MultipartReader
from tests.dicomweb_service import BOUNDARY, Service, dicom_file, multipart_body, serving
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, files_below, received, sop_uid
from tests.receivers import answers, receiving
from tests.room import Room

# What pydicom says of broken values is no fault of ours.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FAILED, OTHERS, KEPT, REASON = "00081198", "0008119A", "00081199", "00081197"
KIND = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    room = Room(tmp_path)
    with serving(room) as service:
        yield service
    room.index.close()


def reasons(answer, sequence: str = FAILED) -> list[int]:
    return [item[REASON]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", [])]


def test_what_is_answered_with_success_is_on_the_disk_and_in_the_index(service: Service) -> None:
    answer = service.store([dicom_file(ct_instance(number)) for number in (1, 2, 3)])
    assert answer.status == 200
    kept = answer.json()[KEPT]["Value"]
    assert [item["00081155"]["Value"][0] for item in kept] == [sop_uid(number) for number in (1, 2, 3)]
    assert all(path.is_file() for path in service.room.paths())
    assert len(service.room.paths()) == 3
    (reception,) = service.room.index.studies.receptions()
    # As after a C-STORE association that was released: the study may be complete.
    assert (reception.open_associations, reception.aborted_associations) == (0, 0)
    address = kept[0]["00081190"]["Value"][0].removeprefix(service.root)
    assert service.ask(address, Accept="application/dicom").status == 200


def broken_instances() -> dict[str, tuple[ReceivedInstance, int]]:
    """What C-STORE and STOW-RS must judge alike: the announcement and the data set, and the status."""
    whole = received(ct_instance(1))
    no_study = ct_instance(2)
    del no_study.StudyInstanceUID
    return {
        "whole": (whole, 0),
        "again": (received(ct_instance(1)), 0),
        "other content": (received(ct_instance(1, SeriesDescription="OTHER")), 0),
        "no study": (received(no_study), 0xC000),
        "a name for a UID": (received(ct_instance(3, SeriesInstanceUID="Doe^Jane")), 0xC000),
        "another instance": (replace(received(ct_instance(4)), sop_instance_uid="1.2.3"), 0xA900),
        "another class": (replace(received(ct_instance(5)), sop_class_uid=MRImageStorage), 0xA900),
        "cut short": (replace(received(ct_instance(6)), data_set=BytesIO(b"\x08\x00")), 0xC000),
        "garbage": (replace(received(ct_instance(7)), data_set=BytesIO(b"\xff" * 99)), 0xC000),
    }


def as_file(one: ReceivedInstance) -> bytes:
    """The instance as a part of a STOW-RS body."""
    ds = ct_instance(1, SOPClassUID=one.sop_class_uid, SOPInstanceUID=one.sop_instance_uid)
    return dicom_file(ds, one.transfer_syntax_uid, one.data_set.read())


def test_an_instance_is_judged_and_counted_as_by_c_store(service: Service, tmp_path: Path) -> None:
    cases = broken_instances()
    (tmp_path / "scp").mkdir()
    with receiving(tmp_path / "scp") as receiver:
        statuses = [int(answer.Status or 0) for answer in answers(receiver.entity, *(one for one, _ in cases.values()))]
        rows = [len(receiver.index.studies.find(sop_uid(number))) for number in range(1, 8)]
    assert statuses == [status for _, status in cases.values()]
    answer = service.store([as_file(one) for one, _ in broken_instances().values()])
    assert answer.status == 202
    assert reasons(answer) == [status for _, status in cases.values() if status]
    assert [len(service.room.index.studies.find(sop_uid(number))) for number in range(1, 8)] == rows
    told = {
        (sample.labels.get("outcome") or sample.labels.get("reason")): sample.value
        for metric in service.metrics.registry.collect()
        for sample in metric.samples
        if sample.name in ("dicom_node_instances_received_total", "dicom_node_refusals_total")
    }
    assert told == {"new": 1, "identical": 1, "conflict": 1, "DatasetMismatch": 2, "CannotUnderstand": 4}
    assert files_below(service.room.root / "incoming") == []


def test_another_content_is_refused_where_the_settings_say_so(tmp_path: Path) -> None:
    room = Room(tmp_path)
    rules = IntakeRules(refuses_conflicts=True)
    room.intake = Intake(archive=room.archive, studies=room.index.studies, rules=rules)
    with serving(room) as service:
        both = [dicom_file(ct_instance(1)), dicom_file(ct_instance(1, SeriesDescription="OTHER"))]
        assert service.store(both[:1]).status == 200
        answer = service.store(both)
    assert (answer.status, reasons(answer)) == (202, [0x0111])
    assert len(room.paths()) == 1
    room.index.close()


def test_a_transfer_syntax_that_nobody_knows_is_refused_by_its_own_reason(service: Service) -> None:
    answer = service.store([dicom_file(ct_instance(1), TransferSyntaxUID="1.2.3")])
    assert (answer.status, reasons(answer)) == (409, [0xC122])
    assert answer.json()[FAILED]["Value"][0]["00081155"]["Value"] == [sop_uid(1)]


def test_a_thousand_refusals_of_one_request_are_two_lines_without_what_they_quote(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    bad = dicom_file(ct_instance(1), MediaStorageSOPInstanceUID="1.2.3")
    with caplog.at_level(logging.WARNING, "dicom_node"):
        assert len(reasons(service.store([bad] * 1000))) == 1000
    first, last = caplog.records
    assert (first.message, first.__dict__["status"]) == ("instance refused", "0xA900")
    assert (last.message, last.__dict__["instances"]) == ("instances refused on one association", 1000)


def test_instances_of_one_request_are_committed_together(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    whole = GroupCommit._commit

    def counted(self: GroupCommit, deeds: list[Any], *attempts: int) -> None:
        nonlocal commits
        commits += 1
        time.sleep(0.005)
        whole(self, deeds, *attempts)

    monkeypatch.setattr(GroupCommit, "_commit", counted)
    assert service.store([dicom_file(ct_instance(number)) for number in range(1, 81)]).status == 200
    assert commits < 60


@pytest.mark.parametrize(
    ("step", "status"), [("association_opened", 409), ("store", 409), ("association_ended", 200), ("spool", 409)]
)
def test_an_index_or_disk_that_is_away_is_told_of_each_instance_and_takes_no_success_back(
    tmp_path: Path, step: str, status: int
) -> None:
    room = Room(tmp_path)
    with serving(room) as service:
        away = OSError(28, "No space left on device") if step == "spool" else IndexUnavailable("the index is away")

        def fail(*_given: object) -> None:
            raise away

        setattr(room.intake, step, fail)
        large = ct_instance(1, Rows=2048, Columns=2048)
        large.PixelData = bytes(2048 * 2048 * 2)
        answer = service.store([dicom_file(large)])
        assert (answer.status, reasons(answer)) == (status, [] if status == 200 else [0xA700])
    assert len(room.index.studies.find(sop_uid(1))) == (status == 200)
    assert files_below(room.root / "incoming") == []
    room.index.close()


def test_one_that_is_refused_hinders_no_other(service: Service) -> None:
    mismatched = dicom_file(ct_instance(2), MediaStorageSOPInstanceUID="1.2.3")
    unknown_class = dicom_file(ct_instance(3), MediaStorageSOPClassUID="1.2.3")
    answer = service.store([dicom_file(ct_instance(1)), b"garbage" * 100, mismatched, unknown_class, b""])
    assert answer.status == 202
    assert len(answer.json()[KEPT]["Value"]) == 1
    assert reasons(answer) == [0xA900, 0x0122]
    assert reasons(answer, OTHERS) == [0xC000, 0xC000]
    assert files_below(service.room.root / "incoming") == []


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/../../3", "/abs", "1.2.3\\x"])
def test_a_uid_like_a_path_is_refused_and_leaves_no_file(service: Service, uid: str) -> None:
    plain = dicom_file(ct_instance(1))
    answer = service.store([plain.replace(sop_uid(1).encode(), uid.encode().ljust(len(sop_uid(1)), b"\x00"))])
    assert answer.status == 409
    assert files_below(service.room.root) == []
    assert uid not in answer.body.decode()


def test_an_instance_of_another_study_than_the_address_is_refused(service: Service) -> None:
    answer = service.store([dicom_file(ct_instance(1))], "/studies/1.2.3")
    assert (answer.status, reasons(answer)) == (409, [0xA900])
    assert service.store([dicom_file(ct_instance(1))], f"/studies/{STUDY_UID}").status == 200


def test_a_deflate_bomb_is_looked_into_within_a_bound(service: Service) -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join([*(deflater.compress(bytes(1 << 20)) for _ in range(100)), deflater.flush()])
    answer = service.store([dicom_file(ct_instance(1), DeflatedExplicitVRLittleEndian, bomb)])
    assert (answer.status, reasons(answer)) == (409, [0xC000])
    assert service.store([dicom_file(ct_instance(2))]).status == 200


def test_a_large_instance_goes_to_the_disk_as_it_comes(service: Service) -> None:
    large = ct_instance(1, Rows=2048, Columns=2048)
    large.PixelData = bytes(2048 * 2048 * 2)
    assert service.store([dicom_file(large)]).status == 200
    (path,) = service.room.paths()
    assert path.stat().st_size > 2048 * 2048 * 2


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (KIND, b"", 400),
        (KIND, b"no boundary anywhere", 400),
        (KIND, multipart_body([])[:-4], 400),
        ('multipart/related; type="application/dicom"', multipart_body([b"x"]), 400),
        (KIND.replace("dicom", "dicom+json"), multipart_body([b"[]"]), 415),
        ("application/dicom", b"x", 415),
        ("text/plain", b"x", 415),
    ],
)
def test_a_body_that_is_none_is_refused(service: Service, kind: str, body: bytes, status: int) -> None:
    assert service.ask("/studies", method="POST", body=body, Content_Type=kind).status == status
    assert files_below(service.room.root) == []


def test_a_part_of_another_kind_is_refused(service: Service) -> None:
    body = multipart_body([dicom_file(ct_instance(1))], "image/jpeg")
    answer = service.ask("/studies", method="POST", body=body, Content_Type=KIND)
    assert (answer.status, reasons(answer, OTHERS)) == (409, [0xC000])


def test_a_client_that_goes_away_leaves_what_was_whole_and_nothing_else(service: Service) -> None:
    whole, half = dicom_file(ct_instance(1)), dicom_file(ct_instance(2))
    body = multipart_body([whole, half])[: -len(half) // 2]
    head = (
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {KIND}\r\nContent-Length: {len(body) * 2}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        # What has not been read when a connection ends was never there.
        time.sleep(1.0)
    for _ in range(100):
        if service.room.index.studies.receptions() and not service.room.index.studies.receptions()[0].open_associations:
            break
        service.ask("/studies")
    assert [path.stem for path in service.room.paths()] == [sop_uid(1)]
    assert service.room.index.studies.receptions()[0].aborted_associations == 1
    assert files_below(service.room.root / "incoming") == []


def test_a_body_that_trickles_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.web.dicomweb.storing.SILENCE_SECONDS", 0.5)
    whole, half = dicom_file(ct_instance(1)), dicom_file(ct_instance(2))
    body = multipart_body([whole, half])[: -len(half) // 2]
    head = (
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {KIND}\r\nContent-Length: {len(body) * 9}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        connection.settimeout(0.1)
        told = b""
        # A byte is never long in coming, and never enough.
        for _ in range(600):
            with suppress(TimeoutError):
                told += connection.recv(65536)
            if told:
                break
            connection.sendall(b"x")
    assert told.startswith(b"HTTP/1.1 202")
    assert b"ended too soon" in told
    assert [path.stem for path in service.room.paths()] == [sop_uid(1)]
    assert files_below(service.room.root / "incoming") == []


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    room = Room(tmp_path)
    with serving(room, minimum_free_megabytes=1 << 40) as service:
        answer = service.store([dicom_file(ct_instance(1))])
        assert (answer.status, reasons(answer)) == (409, [0xA700])
        assert answer.json()[FAILED]["Value"][0]["00081155"]["Value"] == [sop_uid(1)]
    room.index.close()


class Taken:
    """Parts as they were read."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, str], bytes]] = []
        self.open = False

    def begin(self, head) -> None:
        self.parts.append((dict(head), b""))
        self.open = True

    def take(self, data: memoryview) -> None:
        head, before = self.parts[-1]
        self.parts[-1] = (head, before + bytes(data))

    def end(self) -> None:
        self.open = False


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_a_body_is_taken_apart_alike_however_it_is_cut(size: int) -> None:
    contents = [b"one", b"", b"\r\n--a-bound no boundary\r\n", b"\r\n--a-boundaryX\r\n", b"x" * 999 + b"\r"]
    body = b"preamble\r\n" + multipart_body(contents) + b"epilogue"
    taken = Taken()
    reader = MultipartReader(BOUNDARY, taken)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    reader.close()
    assert [data for _, data in taken.parts] == contents
    assert not taken.open


@pytest.fixture
def quick_service(tmp_path: Path) -> Iterator[Service]:
    """A service over a folder in memory, where there is room: a disk takes half a minute to lose ten thousand files."""
    memory = Path("/dev/shm")
    has_room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if has_room else tmp_path) as folder:
        room = Room(Path(folder))
        with serving(room) as service:
            yield service
        room.index.close()


def test_ten_thousand_instances_in_one_request(quick_service: Service) -> None:
    service = quick_service
    template = dicom_file(ct_instance(10_001))
    marks = (sop_uid(10_001).encode(), sop_uid(20_001).encode())

    def pieces() -> Iterator[bytes]:
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        for number in range(10_000):
            yield head + template.replace(marks[0], sop_uid(10_000 + number).encode()) + b"\r\n"
        yield f"--{BOUNDARY}--\r\n".encode()

    answer = service.ask("/studies", method="POST", body=pieces(), Content_Type=KIND)
    assert answer.status == 200
    assert len(answer.json()[KEPT]["Value"]) == 10_000
    (series,) = service.ask(f"/studies/{STUDY_UID}/series").json()
    assert series["00201209"]["Value"] == [10_000]
    assert series["0020000E"]["Value"] == [SERIES_UID]
