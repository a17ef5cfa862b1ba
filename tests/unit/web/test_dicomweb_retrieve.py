"""WADO-RS: what is retrieved, in which form, and what a client's headers change about it; over a real port."""

import gzip
import json
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicomweb_service import Service, dicom_file, serving
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, data_set_of, received, sop_uid
from tests.room import Room

SERIES = f"/studies/{STUDY_UID}/series/{SERIES_UID}"
PIXELS = bytes(range(128))


def at(number: int) -> str:
    return f"{SERIES}/instances/{sop_uid(number)}"


def frames_of_bits(number: int) -> Dataset:
    """Three frames of 3 by 5 single bits: none but the first begins at a byte."""
    bits = np.array([[1, 0, 0, 1, 1] * 3, [0, 1, 1, 0, 1] * 3, [1, 1, 0, 0, 0] * 3], np.uint8)
    data = np.packbits(bits.ravel(), bitorder="little").tobytes()
    ds = ct_instance(number, NumberOfFrames=3, Rows=3, Columns=5, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelRepresentation = 0
    ds.PixelData = data
    return ds


def run_length_encoded(number: int) -> Dataset:
    ds = dcmread(BytesIO(dicom_file(ct_instance(number))))
    ds.compress(RLELossless, generate_instance_uid=False)
    return ds


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """1 Explicit, 2 Implicit, 3 deflated, 4 Big Endian, 5 of single bits, 6 run-length encoded, 7 with a long value."""
    room = Room(tmp_path_factory.mktemp("room"))
    room.intake.association_opened(received(ct_instance(1)).association_id, "SCANNER")
    for number, syntax in enumerate(
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian), 1
    ):
        ds = ct_instance(number)
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(PIXELS, "<u2").byteswap().tobytes()
        room.intake.store(received(ds, syntax))
    room.intake.store(received(frames_of_bits(5)))
    with serving(room) as service:
        buffer = BytesIO()
        run_length_encoded(6).save_as(buffer, enforce_file_format=True)
        private = ct_instance(7)
        private.add_new(0x00431029, "OB", bytes(100_000))
        item = Dataset()
        item.add_new(0x00420011, "OB", b"nested" * 1000)
        private.ReferencedImageSequence = [item]
        assert service.store([buffer.getvalue(), dicom_file(private)]).status == 200
        yield service
    room.index.close()


def test_an_instance_comes_as_it_lies_on_the_disk(service: Service) -> None:
    ((kind, data),) = service.ask(at(1)).parts()
    (path,) = [path for path in service.room.paths() if path.stem == sop_uid(1)]
    assert kind == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert data == path.read_bytes()
    assert data_set_of(path) in data


def test_a_series_comes_whole_in_what_is_asked_for(service: Service) -> None:
    stored = service.ask(SERIES, Accept='multipart/related; type="application/dicom"; transfer-syntax=*').parts()
    assert len(stored) == 7
    # Without a transfer syntax: Explicit VR Little Endian, whatever lies on the disk (PS3.18 Section 8.7.3.5.2).
    for kind, data in service.ask(SERIES, Accept='multipart/related; type="application/dicom"').parts():
        ds = dcmread(BytesIO(data))
        assert kind.endswith(ExplicitVRLittleEndian)
        assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        if ds.InstanceNumber != 5:
            assert ds.PixelData == PIXELS


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_transcoding_changes_no_pixel(service: Service, syntax: str) -> None:
    answer = service.ask(at(1), Accept=f"application/dicom; transfer-syntax={syntax}")
    ds = dcmread(BytesIO(answer.body))
    assert (answer.status, ds.file_meta.TransferSyntaxUID) == (200, syntax)
    assert np.array_equal(pixel_array(ds), np.frombuffer(PIXELS, "<i2").reshape(8, 8))
    assert ds.SOPInstanceUID == sop_uid(1)


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50",  # lossy: never made here
        "image/jpeg",
        "application/dicom; q=0",
        "text/html",
    ],
)
def test_what_cannot_be_had_is_not_acceptable(service: Service, accept: str) -> None:
    assert service.ask(at(1), Accept=accept).status == 406


def test_the_quality_decides(service: Service) -> None:
    wish = 'multipart/related; type="application/dicom"; q=0.2, application/dicom; q=0.9'
    assert service.ask(at(1), Accept=wish).headers["Content-Type"].startswith("application/dicom")


def test_an_instance_is_not_sent_again_to_who_has_it(service: Service) -> None:
    first = service.ask(at(1), Accept="application/dicom")
    again = service.ask(at(1), Accept="application/dicom", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert "immutable" in first.headers["Cache-Control"]
    # A series may grow.
    assert "no-cache" in service.ask(SERIES).headers["Cache-Control"]


@pytest.mark.parametrize(
    ("wanted", "status", "piece"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=5-2", 416, None),
        ("bytes=99999999-", 416, None),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_a_range_is_a_piece_of_the_file(service: Service, wanted: str, status: int, piece: slice | None) -> None:
    whole = service.ask(at(1), Accept="application/dicom").body
    answer = service.ask(at(1), Accept="application/dicom", Range=wanted)
    assert answer.status == status
    if piece is not None:
        assert answer.body == whole[piece]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_frame_is_the_same_in_every_encoding(service: Service, number: int) -> None:
    ((kind, data),) = service.ask(f"{at(number)}/frames/1").parts()
    assert kind == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    assert data == PIXELS


def test_a_compressed_frame_comes_as_it_is_or_decoded(service: Service) -> None:
    ((_, decoded),) = service.ask(
        f"{at(6)}/frames/1", Accept="multipart/related; type=application/octet-stream"
    ).parts()
    assert decoded == PIXELS
    wish = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    ((kind, stored),) = service.ask(f"{at(6)}/frames/1", Accept=wish).parts()
    assert kind == f"image/dicom-rle; transfer-syntax={RLELossless}"
    assert 0 < len(stored) != len(PIXELS)
    assert service.ask(f"{at(6)}/frames/1", Accept="image/dicom-rle").body == stored


def test_frames_of_single_bits_each_begin_at_a_byte(service: Service) -> None:
    parts = service.ask(f"{at(5)}/frames/2,3").parts()
    bits = [np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:15].tolist() for _, data in parts]
    assert bits == [[0, 1, 1, 0, 1] * 3, [1, 1, 0, 0, 0] * 3]


@pytest.mark.parametrize("frames", ["0", "4", "1,9", "x", "-1", "1-2"])
def test_frames_that_are_not_there_are_not_found(service: Service, frames: str) -> None:
    assert service.ask(f"{at(5)}/frames/{frames}").status == 404


def test_metadata_names_every_bulk_value_by_an_address_that_answers(service: Service) -> None:
    models = service.ask(f"{SERIES}/metadata").json()
    assert len(models) == 7
    for model in models:
        assert model["00080018"]["Value"][0].startswith(SERIES_UID)
        uri = model["7FE00010"]["BulkDataURI"]
        assert service.ask(uri.removeprefix(service.root), Accept="application/octet-stream").status == 200
    (model,) = service.ask(f"{at(7)}/metadata").json()
    long = service.ask(model["00431029"]["BulkDataURI"].removeprefix(service.root), Accept="application/octet-stream")
    assert long.body == bytes(100_000)
    nested = model["00081140"]["Value"][0]["00420011"]["BulkDataURI"]
    answer = service.ask(nested.removeprefix(service.root), Accept="application/octet-stream")
    assert answer.body == b"nested" * 1000
    assert service.ask(f"{at(7)}/bulkdata/00100010").status == 404
    assert service.ask(f"{at(7)}/bulkdata/../../x").status == 404


def test_metadata_is_compressed_for_who_takes_that(service: Service) -> None:
    answer = service.ask(f"{SERIES}/metadata", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body)) == service.ask(f"{SERIES}/metadata").json()


def test_pictures_are_windowed_and_fit(service: Service) -> None:
    dark = service.ask(f"{at(1)}/rendered?window=100000,1,linear", Accept="image/png")
    assert np.asarray(Image.open(BytesIO(dark.body))).max() == 0
    small = service.ask(f"{at(1)}/rendered?viewport=4,4&quality=50", Accept="image/jpeg")
    assert Image.open(BytesIO(small.body)).size == (4, 4)
    for path in (f"/studies/{STUDY_UID}", SERIES, at(1), f"{at(5)}/frames/2"):
        picture = service.ask(f"{path}/thumbnail")
        assert (picture.status, picture.headers["Content-Type"]) == (200, "image/jpeg")
    assert service.ask(f"{at(1)}/rendered?window=1").status == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/studies/1.2.3", "/studies/1.2.3/metadata", f"/studies/{STUDY_UID}/series/1.2.3"),
        *(f"{SERIES}/instances/1.2.3", f"{SERIES}/instances/1.2.3/frames/1", "/studies/1.2.3/thumbnail"),
    ],
)
def test_what_is_not_here_is_not_found(service: Service, path: str) -> None:
    assert service.ask(path).status == 404


@pytest.mark.parametrize("uid", ["..", "%2e%2e%2fetc", "1.2.3;x", "a" * 100, "1..2"])
def test_what_is_no_uid_never_becomes_a_path(service: Service, uid: str) -> None:
    assert service.ask(f"/studies/{uid}/metadata").status in (400, 404)
