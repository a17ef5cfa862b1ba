import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.doctor import Check, examine
from dicom_node.settings import (
    ArchiveSettings,
    BrokerSettings,
    DeliverySettings,
    IndexSettings,
    NodeSettings,
    Peer,
    Settings,
)
from dicom_node.stocktaking import Stocktaking
from tests.instances import STUDY_UID
from tests.peers import Behaviour, free_port, storage_peer
from tests.room import Room

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning")

BUNDLES = [sys.executable, "-c", "print('lung_nodule 0.1.0: Lung nodules'); print('  checksum 1')"]
NO_BUNDLES = [sys.executable, "-c", "import sys; sys.exit('no bundle was found')"]


def settings(folder: Path, *peers: Peer, **changes: object) -> Settings:
    node = NodeSettings(data_dir=folder / "data", minimum_free_megabytes=0)
    whole = Settings(node=node, peers=peers, delivery=DeliverySettings(timeout_seconds=3.0))
    return replace(whole, **changes)  # type: ignore[arg-type]  # sections by name


def checks(whole: Settings, bundles: list[str] = BUNDLES) -> dict[str, Check]:
    return {check.name: check for check in examine(whole, lambda: bundles)}


def test_a_sound_node_has_nothing_wrong(tmp_path: Path) -> None:
    with storage_peer(Behaviour()) as peer:
        found = checks(settings(tmp_path, peer))
    assert [check for check in found.values() if not check.good] == []
    assert list(found) == ["settings", "index", "archive", "disk", "broker", "peer pacs", "decoders", "bundles"]
    assert found["index"].finding == "0 studies"
    assert found["archive"].finding == "no file missing or altered as far as known; no look at every file yet"
    assert "answered a C-ECHO in" in found["peer pacs"].finding
    assert "a Redis of our own" in found["broker"].finding
    assert found["bundles"].finding == "lung_nodule 0.1.0: Lung nodules"


def test_every_fault_is_found_in_one_run_each_with_its_mend(tmp_path: Path) -> None:
    port = free_port()
    away = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    node = NodeSettings(data_dir=tmp_path / "data", minimum_free_megabytes=10**9)
    broker = BrokerSettings(url=f"redis://127.0.0.1:{free_port()}/0")
    found = checks(settings(tmp_path, away, node=node, broker=broker), NO_BUNDLES)
    wrong = {name: check.finding for name, check in found.items() if not check.good}
    assert set(wrong) == {"disk", "broker", "peers", "peer pacs", "bundles"}
    assert "make room or lower minimum_free_megabytes of [node]" in wrong["disk"]
    assert "the broker does not answer" in wrong["broker"]
    assert "no peer has results = true" in wrong["peers"]
    assert f"127.0.0.1:{port}) does not answer; is it running" in wrong["peer pacs"]
    assert wrong["bundles"] == "none can be used: no bundle was found"


def test_an_index_that_cannot_be_opened_does_not_end_the_examination(tmp_path: Path) -> None:
    found = checks(settings(tmp_path, index=IndexSettings(url="nonsense://db/triage")))
    assert not found["archive and index"].good
    assert "correct url of [index]" in found["archive and index"].finding
    assert found["bundles"].good


def test_files_that_are_missing_are_named_with_how_far_the_look_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    room = Room(tmp_path / "data")
    room.receive(1, 2)
    room.paths()[0].unlink()
    Stocktaking(ArchiveSettings(check_files_per_second=1000), room.archive, room.index, room.clock).step()
    room.index.close()
    check = checks(settings(tmp_path))["archive"]
    assert not check.good
    assert check.finding == (
        f"1 file(s) of the archive missing: send their studies again (first studies: {STUDY_UID}); "
        "every file was looked at (1), last at 2023-11-14T22:13:20Z"
    )


def test_an_index_whose_pages_are_torn_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    room = Room(tmp_path / "data")
    room.receive(1)
    room.index.close()
    path = tmp_path / "data" / "index.sqlite"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(data) // 2)
        file.write(b"\xaa" * (len(data) // 4))
    found = checks(settings(tmp_path))
    wrong = [check.finding for name, check in found.items() if "index" in name and not check.good]
    assert ["dicom-node reindex" in finding for finding in wrong] == [True]


def test_the_transfer_syntaxes_of_every_scanner_can_be_decoded(tmp_path: Path) -> None:
    finding = checks(settings(tmp_path))["decoders"].finding
    unreadable = finding.partition("stored but not readable: ")[2]
    for name in ("Explicit VR Little Endian", "RLE Lossless", "JPEG 2000 Image", "JPEG-LS Lossless", "JPEG Lossless"):
        assert name not in unreadable


def test_what_cannot_be_decoded_is_named_by_its_standard_in_a_line_that_can_be_read(tmp_path: Path) -> None:
    finding = checks(settings(tmp_path))["decoders"].finding
    unreadable = finding.partition("stored but not readable: ")[2].split(", ")
    assert {"MPEG2", "MPEG-4", "HEVC", "JPIP"} <= set(unreadable)
    assert len(set(unreadable)) == len(unreadable)
    assert len(finding) < 200
