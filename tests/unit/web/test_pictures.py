"""Pictures of slices: the outline lies where the segmentation has it, and a stranger's file breaks nothing."""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.core.errors import UnreadableInstance
from dicom_node.settings import NodeSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.dicomweb.pictures import Look, Pictures
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.shown_frame import ShownFrames
from dicom_node.web.picture import COLOURS, WINDOWS, marked, missing, outline
from dicom_node.web.picture_cache import PictureCache
from dicom_node.web.server import WebServer
from dicom_node.web.study_pictures import StudyPictures, sides
from tests.instances import STUDY_UID, ct_instance, received
from tests.populated_index import NOW, receive, study_uid
from tests.read_study import CENTRES, read_study
from tests.room import Room
from tests.visitors import Person, session


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, Archive, Path, str]]:
    folder = tmp_path_factory.mktemp("house")
    index, archive = Index.open(f"sqlite:///{folder / 'index.sqlite'}"), Archive(folder / "archive")
    study = read_study(index, archive, folder / "series", at=NOW - 500)
    yield index, archive, folder, study
    index.close()


@pytest.fixture
def pictures(house: tuple[Index, Archive, Path, str]) -> StudyPictures:
    index, archive, folder, _ = house
    return StudyPictures(index, archive, PictureCache(folder / "pictures", 2**20), Readings(archive))


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def series_of(index: Index, study: str) -> str:
    return index.studies.study(study).series[0].series_instance_uid


def test_slices_stand_in_their_order_with_their_findings_and_sides(
    house: tuple[Index, Archive, Path, str], pictures: StudyPictures
) -> None:
    index, _, _, study = house
    slices = pictures.slices(study, series_of(index, study))
    assert [one["position_mm"] for one in slices] == sorted(one["position_mm"] for one in slices)
    for number, (k, _j, _i) in enumerate(CENTRES, start=1):
        assert number in slices[k]["findings"]
    assert slices[0]["findings"] == []
    assert slices[0]["sides"] == ("L", "P")


def test_the_outline_is_drawn_around_the_finding_in_its_colour(
    house: tuple[Index, Archive, Path, str], pictures: StudyPictures
) -> None:
    index, _, _, study = house
    slices = pictures.slices(study, series_of(index, study))
    for number, (k, j, i) in enumerate(CENTRES, start=1):
        picture = pixels(pictures.slice(study, slices[k]["image"], "lung"))
        rows, columns = np.nonzero((np.abs(picture.astype(int) - COLOURS[number - 1]) < 24).all(axis=2))
        assert len(rows) > 10
        # Pixels of 0.8 by 0.7 mm are drawn as what they are.
        assert abs(rows.mean() - j * 0.8 / 0.7) < 2
        assert abs(columns.mean() - i) < 2


def test_a_slice_without_a_finding_is_grey(house: tuple[Index, Archive, Path, str], pictures: StudyPictures) -> None:
    index, _, _, study = house
    first = pictures.slices(study, series_of(index, study))[0]["image"]
    picture = pixels(pictures.slice(study, first, "soft"))
    assert (picture[:, :, 0] == picture[:, :, 1]).all()
    assert (picture[:, :, 0] == picture[:, :, 2]).all()


def test_the_preview_shows_the_largest_finding(
    house: tuple[Index, Archive, Path, str], pictures: StudyPictures
) -> None:
    *_, study = house
    picture = pixels(pictures.preview(study))
    second = (np.abs(picture.astype(int) - COLOURS[1]) < 40).all(axis=2)
    assert second.sum() > 10
    assert max(picture.shape) <= 320


def test_a_study_without_an_outline_has_no_preview(
    house: tuple[Index, Archive, Path, str], pictures: StudyPictures
) -> None:
    receive(house[0], "unread", at=NOW)
    with pytest.raises(UnreadableInstance):
        pictures.preview(study_uid("unread"))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_an_outline_lies_just_outside_of_its_mask(scale: int) -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[3:6, 2:7] = True
    drawn = outline(mask, scale)
    large = np.kron(mask, np.ones((scale, scale), dtype=bool))
    assert not (drawn & large).any()
    assert drawn.sum() == 2 * scale * (3 + 5)


def received_picture(tmp_path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The picture of an instance that was received."""
    room = Room(tmp_path)
    try:
        request = received(ds, syntax)
        room.intake.association_opened(request.association_id, "SCANNER")
        room.intake.store(request)
        pictures = StudyPictures(
            room.index, room.archive, PictureCache(tmp_path / "pictures", 2**20), Readings(room.archive)
        )
        return pictures.slice(STUDY_UID, ds.SOPInstanceUID, "lung")
    finally:
        room.index.close()


@pytest.mark.parametrize("changes", [{"Rows": 60000, "Columns": 60000}, {"SamplesPerPixel": 3}, {"PixelData": None}])
def test_what_cannot_be_drawn_is_said_and_no_memory_taken(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UnreadableInstance):
        received_picture(tmp_path, ct_instance(1, **changes))


@pytest.mark.parametrize("side", [0, 64])
def test_an_image_that_unpacks_into_more_than_it_says_is_not_drawn(tmp_path: Path, side: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((600, 800), dtype=np.uint8)).save(file, "JPEG")
    rows, columns = (side, side) if side else (600, 800)
    ds = ct_instance(1, Rows=rows, Columns=columns, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    ds.PixelData = encapsulate([file.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    if side:
        with pytest.raises(UnreadableInstance, match="larger than its header says"):
            received_picture(tmp_path, ds, JPEGBaseline8Bit)
    else:
        assert received_picture(tmp_path, ds, JPEGBaseline8Bit)[:4] == b"\x89PNG"


def test_a_page_and_dicomweb_show_the_same_grey_values(house: tuple[Index, Archive, Path, str]) -> None:
    index, archive, _, study = house
    (content, *_) = index.contents.of(study, series_of(index, study))
    shown = ShownFrames(Readings(archive))
    drawn = Pictures(shown).draw(content, 1, Look(window=WINDOWS["lung"]), "image/png")
    plain = replace(shown.draw(content, 1, WINDOWS["lung"]), header=Dataset())
    assert (pixels(marked(plain, {})) == pixels(drawn)).all()


def test_the_sides_are_what_the_orientation_says() -> None:
    assert sides((1.0, 0.0, 0.0, 0.0, 1.0, 0.0)) == ("L", "P")
    assert sides((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)) == ("R", "A")
    assert sides((0.0, 1.0, 0.0, 0.0, 0.0, -1.0)) == ("P", "F")
    for nothing in (None, (), (1.0, 0.0), "x"):
        assert sides(nothing) == ("", "")


def test_the_pictures_on_the_disk_stay_within_their_bound_and_the_longest_unused_go(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path / "pictures", 10_000)
    for number in range(40):
        cache.picture((number,), lambda: b"x" * 1000)
        for path in (tmp_path / "pictures").glob("*.png"):
            os.utime(path, (path.stat().st_mtime - 1, path.stat().st_mtime - 1))
    kept = sum(path.stat().st_size for path in (tmp_path / "pictures").iterdir())
    assert kept <= 10_000
    drawn = []
    cache.picture((39,), lambda: drawn.append(1) or b"new")
    assert drawn == [], "the last one is still there"


def test_a_folder_that_cannot_be_written_costs_no_picture(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert PictureCache(tmp_path / "file", 1000).picture(("a",), lambda: b"drawn") == b"drawn"


def test_pictures_come_to_who_is_logged_in_alone_and_only_of_their_own_study(
    house: tuple[Index, Archive, Path, str], pictures: StudyPictures
) -> None:
    index, archive, folder, study = house
    settings = Settings(node=NodeSettings(data_dir=folder))
    server = WebServer(
        build_application(index, dict, dict, lambda: NOW, settings=settings, archive=archive), "127.0.0.1", 0
    )
    server.start()
    try:
        person = Person(server.port, session(index, Role.READER))
        image = pictures.slices(study, series_of(index, study))[8]["image"]
        assert person.get(f"/studies/{study}/slices/{image}?window=bone").headers["Content-Type"] == "image/png"
        assert person.get(f"/studies/{study}/preview.png").headers["Cache-Control"].startswith("private")
        for path in (
            f"/studies/{study_uid('unread')}/slices/{image}",
            f"/studies/{study}/slices/1.2.3",
            f"/studies/{study}/slices/..%2f..%2findex.sqlite",
            f"/studies/{study}/slices/{image}?window=../x",
            f"/studies/{study}/series/1.2.3/slices",
            f"/studies/{study}/report/1.2.3",
        ):
            assert person.get(path).status == 404, path
        for path in (f"/studies/{study}/preview.png", f"/studies/{study}/slices/{image}"):
            assert Person(server.port).get(path).status == 401
    finally:
        server.stop()


def test_a_picture_that_is_missing_says_so() -> None:
    picture = pixels(missing("no picture"))
    assert picture.shape == (256, 256, 3)
    assert len(np.unique(picture)) > 4
