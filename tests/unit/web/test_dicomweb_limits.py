"""Limits: what a little request or file must not make DICOMweb do, and what it draws and tells; over a real port."""

import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fastapi import Response
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.audit import AuditTrail
from dicom_node.web.dicomweb.budget import Memory, Places, Turns
from dicom_node.web.dicomweb.codestream import pixels_of
from dicom_node.web.dicomweb.multipart_reader import Malformed, MultipartReader
from dicom_node.web.dicomweb.refusal import Refusal
from dicom_node.web.dicomweb.stored_parts import Keepers, PartOutcome
from tests.dicomweb_service import BOUNDARY, Service, dicom_file, serving
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, encoded, sop_uid
from tests.room import NOW, Room

NATIVE = "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"


def at(number: int) -> str:
    return f"/studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop_uid(number)}"


class Sheet:
    """Audit messages as they were written."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def write(self, message: str, at: float) -> None:
        self.messages.append(message)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return Sheet()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sheet: Sheet) -> Iterator[Service]:
    room = Room(tmp_path_factory.mktemp("room"))
    with serving(room, audit=AuditTrail([sheet], source="TRIAGE"), clock=lambda: NOW) as service:
        yield service
    room.index.close()


def stored(service: Service, ds: Dataset, syntax: str = ExplicitVRLittleEndian, data_set: bytes | None = None) -> str:
    answer = service.store([dicom_file(ds, syntax, data_set)])
    assert answer.status == 200, answer.body
    return at(int(ds.InstanceNumber))


def picture(service: Service, path: str) -> Any:
    answer = service.ask(path, Accept="image/png")
    assert answer.status == 200, answer.body
    return np.asarray(Image.open(BytesIO(answer.body))).astype(float)


def codestream(rows: int, columns: int) -> bytes:
    """The beginning of a J2K codestream, and nothing behind it."""
    return b"\xff\x4f\xff\x51" + struct.pack(">HH8LH", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1) + b"\7\1\1\0"


@pytest.mark.parametrize(
    ("claimed", "real", "frames", "words"),
    [(8, 20_000, 1, b"than its header says"), (6000, 6000, 1, b"pixels"), (4000, 4000, 60, b"too large")],
)
def test_a_frame_that_decodes_to_gigabytes_is_refused_before_it_is_decoded(
    service: Service, claimed: int, real: int, frames: int, words: bytes
) -> None:
    ds = ct_instance(claimed, Rows=claimed, Columns=claimed, BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.PixelRepresentation, ds.NumberOfFrames = 0, frames
    value = encapsulate([codestream(real, real)] * frames)
    del ds.PixelData
    head = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    data = encoded(ds) + head + value + b"\xfe\xff\xdd\xe0\0\0\0\0"
    path = stored(service, ds, JPEG2000Lossless, data)
    answer = service.ask(f"{path}/rendered" if frames == 1 else path, Accept="*/*" if frames == 1 else NATIVE)
    assert (answer.status, words in answer.body) == (406, True), answer.body


def test_a_codestream_says_its_size() -> None:
    buffer = BytesIO()
    Image.new("L", (7, 5)).save(buffer, "JPEG")
    assert pixels_of(buffer.getvalue()) == 35
    assert pixels_of(codestream(3, 4)) == 12
    assert pixels_of(b"") == pixels_of(b"\xff\xd8") == pixels_of(bytes(64)) == 0


def test_memory_is_shared_and_given_back() -> None:
    memory = Memory(most=10, patience=0.01)
    with memory.taken(6):
        with pytest.raises(Refusal) as refused, memory.taken(5):
            pass
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
    with memory.taken(1000):
        pass


def test_of_heavy_requests_a_few_are_answered_and_the_others_told_to_come_again() -> None:
    turns, begun, end = Turns(at_once=1, waiting=0), threading.Event(), threading.Event()

    def make() -> Response:
        begun.set()
        end.wait(10)
        return Response()

    thread = threading.Thread(target=turns.answer, args=(make,))
    thread.start()
    begun.wait(10)
    with pytest.raises(Refusal) as refused:
        turns.answer(Response)
    end.set()
    thread.join()
    assert refused.value.headers["Retry-After"] == "5"
    assert turns.answer(Response).status_code == 200


def test_places_are_held_in_all_and_by_each_visitor_and_given_back() -> None:
    places = Places(at_once=3, of_one=2)
    with places.taken("a"), places.taken("a"):
        with pytest.raises(Refusal) as refused, places.taken("a"):
            pass
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
        with places.taken("b"), pytest.raises(Refusal), places.taken("c"):
            pass
    with places.taken("a"), places.taken("b"), places.taken("c"):
        pass


def test_whoever_stores_too_much_at_once_is_told_to_come_again(tmp_path: Path) -> None:
    room = Room(tmp_path)
    with serving(room) as service, ExitStack() as stack:
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 9999\r\n\r\n"
        begun = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 20)) for _ in range(12)]
        for one in begun:
            one.sendall(head.encode() + b"--")
        data = dicom_file(ct_instance(1))
        assert _until(lambda: service.store([data]).status == 503)
        for one in begun:
            one.close()
        assert _until(lambda: service.store([data]).status == 200)
    room.index.close()


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


def test_parts_of_all_requests_share_few_threads() -> None:
    keepers, going_on = Keepers(2), threading.Event()
    running = threading.Semaphore(0)

    def keep() -> PartOutcome:
        running.release()
        going_on.wait(20)
        return PartOutcome()

    first = [keepers.keep(keep) for _ in range(2)]
    third: list[object] = []
    thread = threading.Thread(target=lambda: third.append(keepers.keep(keep)), daemon=True)
    thread.start()
    assert all(running.acquire(timeout=10) for _ in range(2))
    thread.join(0.2)
    # Its sender waits.
    assert (third, running.acquire(blocking=False)) == ([], False)
    going_on.set()
    thread.join(10)
    assert len(third) == 1
    assert [one.result(10) for one in first] == [PartOutcome()] * 2


def test_a_streamed_answer_gives_its_turn_back(service: Service) -> None:
    path = stored(service, ct_instance(20)).rsplit("/", 1)[0].rsplit("/", 1)[0]
    for _ in range(20):
        assert service.ask(f"{path}/rendered").status == 200


def test_each_frame_has_the_values_and_the_window_of_its_functional_groups(service: Service) -> None:
    ds = ct_instance(30, NumberOfFrames=2)
    ds.PixelData = np.full((2, 8, 8), 1064, np.int16).tobytes()
    rescale, window, group = Dataset(), Dataset(), Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = "-1024", "1", "HU"
    window.WindowCenter, window.WindowWidth = "40", "400"
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [window]
    ds.SharedFunctionalGroupsSequence = [group]
    own, bright = Dataset(), Dataset()
    bright.WindowCenter, bright.WindowWidth = "-1000", "400"
    own.FrameVOILUTSequence = [bright]
    ds.PerFrameFunctionalGroupsSequence = [Dataset(), own]
    path = stored(service, ds)
    assert 126 <= picture(service, f"{path}/frames/1/rendered").max() <= 129
    assert picture(service, f"{path}/frames/2/rendered").min() == 255
    assert 126 <= picture(service, f"{path}/frames/2/rendered?window=40,400").max() <= 129
    assert service.ask(f"{path}/frames/1,2/rendered").status == 400


def test_a_picture_is_drawn_by_the_function_and_the_part_that_are_asked_for(service: Service) -> None:
    ds = ct_instance(31)
    ds.PixelData = np.arange(64, dtype=np.int16).tobytes()
    path = f"{stored(service, ds)}/rendered"
    values = np.arange(64).reshape(8, 8)
    sigmoid = 255 / (1 + np.exp(-4 * (values - 30) / 50))
    assert np.abs(picture(service, f"{path}?window=30,50,sigmoid") - sigmoid).max() <= 1
    exact = 255 * ((values - 30) / 80 + 0.5).clip(0, 1)
    assert np.abs(picture(service, f"{path}?window=30,80,linear-exact") - exact).max() <= 1
    whole = picture(service, path)
    assert (picture(service, f"{path}?viewport=4,4,2,3,4,4") == whole[3:7, 2:6]).all()
    for wrong in ("viewport=8,8,9,9,1,1", "viewport=8,8,0,0,-8,8", "quality=00", "quality=0099999"):
        assert service.ask(f"{path}?{wrong}").status == 400, wrong


def test_metadata_keeps_places_and_names_kinds(service: Service) -> None:
    ds = ct_instance(32, SpecificCharacterSet="ISO_IR 192", StudyDescription="a\ufffeb")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "AXIAL"]
    ds.EncapsulatedDocument = b"%PDF" * 40_000
    path = stored(service, ds, ImplicitVRLittleEndian)
    (model,) = service.ask(f"{path}/metadata").json()
    assert model["00080008"]["Value"] == ["ORIGINAL", "PRIMARY", None, "AXIAL"]
    assert model["00420011"]["vr"] == "OB"
    ((_, xml),) = service.ask(f"{path}/metadata", Accept='multipart/related; type="application/dicom+xml"').parts()
    (kinds,) = [one for one in ElementTree.fromstring(xml) if one.get("tag") == "00080008"]
    assert [value.get("number") for value in kinds] == ["1", "2", "4"]


def test_words_of_eight_bit_pixels_in_big_endian_are_turned(service: Service) -> None:
    ds = ct_instance(33, Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    ds.NumberOfFrames = 2
    ds.PixelData = np.arange(18, dtype=np.uint8).view(">u2").byteswap().tobytes()
    path = stored(service, ds, ExplicitVRBigEndian, encoded(ds, ExplicitVRBigEndian))
    for number in (1, 2):
        frame = service.ask(f"{path}/frames/{number}", Accept="application/octet-stream").body
        assert list(frame) == list(range(9 * number - 9, 9 * number))


@pytest.mark.parametrize("undefined", [False, True])
def test_a_sequence_of_a_million_items_is_refused_in_words(service: Service, undefined: bool) -> None:
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000
    length = 0xFFFFFFFF if undefined else len(items)
    end = b"\xfe\xff\xdd\xe0\0\0\0\0" if undefined else b""
    ds = ct_instance(34 + undefined)
    del ds.PixelData
    tail = b"\x06\x30\x10\x00SQ\0\0" + struct.pack("<L", length) + items + end
    path = stored(service, ds, data_set=encoded(ds) + tail)
    answer = service.ask(f"{path}/metadata")
    assert (answer.status, b"too many" in answer.body) == (404, True)
    assert service.ask(path, Accept="application/dicom").status == 200


class Nobody:
    """Takes parts and forgets them."""

    def begin(self, head: Any) -> None: ...

    def take(self, data: memoryview) -> None: ...

    def end(self) -> None: ...


def test_a_body_of_blanks_or_of_countless_parts_is_malformed() -> None:
    reader = MultipartReader(BOUNDARY, Nobody())
    reader.feed(b"--" + BOUNDARY.encode())
    with pytest.raises(Malformed):
        deque((reader.feed(b" " * 100) for _ in range(20)), 0)
    reader, part = MultipartReader(BOUNDARY, Nobody()), b"--" + BOUNDARY.encode() + b"\r\n\r\n\r\n"
    with pytest.raises(Malformed):
        deque((reader.feed(part * 100) for _ in range(1001)), 0)


def test_a_request_of_many_wrong_parts_is_one_line_in_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        service.store([b"x"] * 50)
    assert len([record for record in caplog.records if record.message == "instance refused"]) == 1


def test_series_are_answered_without_opening_a_file_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path)
    room.receive(1, 2)
    with serving(room) as service:
        for path in room.paths():
            path.unlink()
        monkeypatch.setattr("dicom_node.web.dicomweb.searching._MOST_FILES", 1)
        assert service.ask("/instances").status == 200
        answer = service.ask("/instances?includefield=PatientComments")
        assert (answer.status, b"with a limit of" in answer.body) == (400, True)
        assert service.ask("/instances?includefield=PatientComments&limit=1").status == 200
        assert "00400275" not in service.ask("/series").json()[0]
    room.index.close()


def test_who_searched_retrieved_and_stored_is_in_the_audit_trail_once_a_minute(service: Service, sheet: Sheet) -> None:
    sheet.messages.clear()
    other = {"StudyInstanceUID": "1.2.77", "SeriesInstanceUID": "1.2.77.1", "SOPInstanceUID": "1.2.77.1.1"}
    assert service.store([dicom_file(ct_instance(1, **other))]).status == 200
    for _ in range(3):
        service.ask("/studies?PatientID=SECRET-1")
        service.ask("/studies/1.2.77/metadata")
        service.ask("/studies/1.2.77/rendered")
    said = [ElementTree.fromstring(one).findtext(".//EventOutcomeDescription") for one in sheet.messages]
    words = ("stored over DICOMweb", "searched for studies over DICOMweb", "retrieved over DICOMweb")
    assert sorted(map(str, said)) == sorted(words)
    assert "1.2.77" in "".join(sheet.messages)
    assert "SECRET" not in "".join(sheet.messages)
