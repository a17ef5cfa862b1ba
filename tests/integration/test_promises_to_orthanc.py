"""Storage commitment that we give, asked for by Orthanc."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pydicom.uid import MRImageStorage

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.settings import Peer
from tests.instances import ct_instance, sop_uid, write_instance
from tests.peers import free_port
from tests.promising_site import Site, images, until

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive"))
    yield site
    site.index.close()


@contextmanager
def orthanc(program: Path, folder: Path, node_port: int) -> Iterator[tuple[Peer, int]]:
    """An Orthanc that knows us as a modality: as our peer, and its port for REST."""
    port, http = free_port(), free_port()
    settings: dict[str, Any] = {
        "Name": "MODALITY",
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "DicomModalities": {"triage": ["TRIAGE", "127.0.0.1", node_port]},
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = (folder / "orthanc.log").open("wb")
    process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        until(lambda: is_open(http) and is_open(port))
        yield Peer(name="modality", ae_title="ORTHANC", host="127.0.0.1", port=port), http
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def rest(http: int, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"http://127.0.0.1:{http}{path}", data=data), timeout=60) as answer:
        return json.load(answer)


def commitment_by_orthanc(http: int, *objects: tuple[str, str]) -> dict[str, Any]:
    """Let Orthanc ask us, and what it then knows."""
    instances = [{"SOPClassUID": kind, "SOPInstanceUID": uid} for kind, uid in objects]
    asked = rest(http, "/modalities/triage/storage-commitment", {"DicomInstances": instances, "Timeout": 60})
    found: dict[str, Any] = {}

    def answered() -> bool:
        found.update(rest(http, asked["Path"]))
        return bool(found["Status"] != "Pending")

    until(answered)
    return found


def test_orthanc_asks_and_is_told_what_is_kept_and_what_is_not(
    site: Site, program: Callable[[str], Path], tmp_path: Path
) -> None:
    with orthanc(program("Orthanc"), tmp_path, site.port) as (peer, http), site.serving(peer):
        for number in (1, 2):
            path = write_instance(tmp_path / f"{number}.dcm", ct_instance(number))
            rest_import(http, path)
        for study in rest(http, "/studies"):
            sent = rest(http, "/modalities/triage/store", {"Resources": [study], "Synchronous": True})
            assert sent["FailedInstancesCount"] == 0
        whole = commitment_by_orthanc(http, *images(1, 2))
        site.path(2).unlink()
        partly = commitment_by_orthanc(http, *images(1, 2), (MRImageStorage, sop_uid(1)))
        until(lambda: site.index.promises.owed() == {})
    assert whole["Status"] == "Success"
    assert {one["SOPInstanceUID"] for one in whole["Success"]} == {sop_uid(1), sop_uid(2)}
    assert partly["Status"] == "Failure"
    assert {one["SOPInstanceUID"]: one["Description"] for one in partly["Failures"]}[sop_uid(2)]


def rest_import(http: int, path: Path) -> None:
    with urlopen(Request(f"http://127.0.0.1:{http}/instances", data=path.read_bytes()), timeout=60) as answer:
        assert json.load(answer)["Status"] == "Success"
