"""The viewer's path: what is served of a folder, what says what to do without it, and a package that is not ours."""

import http.client
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from fastapi import FastAPI

from deploy.viewer import MARK, ViewerUnavailable, is_there, unpack
from dicom_node.telemetry import Metrics
from dicom_node.web.dicomweb.viewer import build_viewer
from dicom_node.web.server import WebServer
from tests.dicomweb_service import Answer, Service
from tests.room import Room

PAGE = '<html><head><script src="/app.js"></script></head><body>window.PUBLIC_URL="/"</body></html>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "viewer"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def service(folder: Path, tmp_path: Path) -> Iterator[Service]:
    application = FastAPI()
    application.include_router(build_viewer(folder))
    (tmp_path / "room").mkdir()
    room = Room(tmp_path / "room")
    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    yield Service(room=room, port=server.port, application=application, metrics=Metrics())
    server.stop()
    room.index.close()


def test_without_the_viewer_its_page_says_what_to_do(service: Service) -> None:
    for path in ("/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2"):
        answer = fetch(service, path)
        assert answer.status == 404
        assert b"make viewer" in answer.body


def test_its_pages_lie_below_our_path_and_may_do_more_than_ours(service: Service, folder: Path) -> None:
    (folder / "index.html").write_text(PAGE)
    (folder / "app.js").write_text("1")
    for path in ("/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2"):
        answer = fetch(service, path)
        assert answer.status == 200
        assert b'<base href="/viewer/">' in answer.body
        assert b'src="/viewer/app.js"' in answer.body
        policy = answer.headers["Content-Security-Policy"]
        assert "wasm-unsafe-eval" in policy
        # Nothing of another host.
        assert "http" not in policy
    assert fetch(service, "/viewer/app.js").body == b"1"
    assert f"http://127.0.0.1:{service.port}/dicomweb".encode() in fetch(service, "/viewer/app-config.js").body


@pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "a/../../secret.txt", "%00"])
def test_no_path_leads_out_of_its_folder(service: Service, folder: Path, path: str) -> None:
    (folder / "index.html").write_text(PAGE)
    assert b"secret" not in fetch(service, f"/viewer/{path}").body.replace(b"secret.txt", b"")


@pytest.mark.parametrize("folder", [Path("/srv") / ("x" * 300), Path("~nobody-has-this-name/viewer")], ids=str)
def test_a_folder_that_cannot_be_looked_into_has_no_viewer(service: Service) -> None:
    answer = fetch(service, "/viewer/")
    assert (answer.status, b"make viewer" in answer.body) == (404, True)


def test_a_path_too_long_for_a_file_is_none(service: Service, folder: Path) -> None:
    (folder / "index.html").write_text(PAGE)
    assert fetch(service, f"/viewer/{'x' * 300}.js").status == 404


def test_a_package_with_another_checksum_is_not_unpacked(tmp_path: Path) -> None:
    package = tmp_path / "app.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/dist/index.html"), BytesIO())
    with pytest.raises(ViewerUnavailable, match="checksum"):
        unpack(package, tmp_path / "viewer")
    assert not is_there(tmp_path / "viewer")
    assert not (tmp_path / "viewer" / MARK).exists()


def fetch(service: Service, path: str) -> Answer:
    """One request outside of /dicomweb."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return Answer(status=answer.status, headers=answer.msg, body=answer.read())
    finally:
        connection.close()
