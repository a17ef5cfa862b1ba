"""The page in a real browser: it draws, on a wide screen and on a phone, and asks no other host for anything."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, instance, open_populated, study_uid

#: PS3.5 Section 9.1: 64 characters.
LONGEST_UID = "1.2." + "9" * 60

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    # Any other host would be looked up in vain, and what it should have given would be missing.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a busy morning's page is served."""
    index = open_populated(tmp_path_factory.mktemp("index"))
    index.studies.add_instance(instance("long", 1, at=NOW, study_instance_uid=LONGEST_UID))
    lengths, health = {"stat": 0, "urgent": 1, "routine": 3}, {"receiver": True, "worker": False}
    server = WebServer(build_application(index, lambda: lengths, lambda: health, lambda: NOW), "127.0.0.1", 0)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def browse(program: Callable[[str], Path], tmp_path: Path) -> Callable[..., str]:
    """Runs the browser once, with a profile of its own, and gives what it wrote."""

    def run(*arguments: str) -> str:
        command = [str(program("chromium")), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    return run


def picture(browse: Callable[..., str], url: str, folder: Path, width: int, height: int) -> np.ndarray:
    """The page's pixels, [row, column, channel]."""
    path = folder / f"{width}.png"
    browse(f"--window-size={width},{height}", f"--screenshot={path}", url)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(("width", "height"), [(1280, 1000), (390, 1900)])
def test_the_page_is_dark_and_drawn_and_fits_the_screen(
    browse: Callable[..., str], address: str, tmp_path: Path, width: int, height: int
) -> None:
    pixels = picture(browse, address, tmp_path, width, height)
    assert pixels.shape == (height, width, 3)
    ground = np.array([0x10, 0x16, 0x1D])
    # The style sheet came: the ground is its colour, and what fails is drawn in its red.
    assert (pixels == ground).all(axis=2).mean() > 0.2
    assert (pixels == np.array([0xFF, 0x8A, 0x80])).all(axis=2).sum() > 100
    # Nothing runs into the margin at the right.
    assert (pixels[:, -8:] == ground).all()


def test_the_browser_reads_the_facts(browse: Callable[..., str], address: str) -> None:
    document = browse("--dump-dom", address)
    for words in ("Not running: worker", "slices are missing", study_uid("reading stat"), "silent for"):
        assert words in document


def test_a_study_fits_a_phone(browse: Callable[..., str], address: str, tmp_path: Path) -> None:
    for uid in (study_uid("delivered 1"), LONGEST_UID):
        pixels = picture(browse, f"{address}/studies/{uid}", tmp_path, 390, 1700)
        assert (pixels[:, -8:] == np.array([0x10, 0x16, 0x1D])).all()
        assert (pixels != np.array([0x10, 0x16, 0x1D])).any(axis=2).sum() > 5000
