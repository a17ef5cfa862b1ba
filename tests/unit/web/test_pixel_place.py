"""Where pixels lie: what the scan finds pydicom finds, too, and where it could be otherwise the scan finds nothing."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from dicom_node.archive.contents import Content
from dicom_node.archive.files import Archive
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb import reading
from dicom_node.web.dicomweb.pixel_place import PixelPlace, scanned_place
from dicom_node.web.dicomweb.reading import Readings
from tests.dicomweb_service import dicom_file
from tests.instances import ct_instance

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def by_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> PixelPlace | None:
    content = Content(
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        sop_instance_uid="1.2.3.4",
        sop_class_uid="1.2.3.4.5",
        path=path.name,
        transfer_syntax_uid="",
        sha256="",
        is_result=False,
    )
    with monkeypatch.context() as patch:
        patch.setattr(reading, "scanned_place", lambda _path: None)
        try:
            return Readings(Archive(path.parent)).pixel_place(content)
        except UnreadableInstance:
            return None


def kept(folder: Path, data: bytes) -> Path:
    path = folder / "instance.dcm"
    path.write_bytes(data)
    return path


def encapsulated(**attributes: object) -> Dataset:
    ds = ct_instance(1, **attributes)
    ds.PixelData = encapsulate([bytes(20), bytes(30)])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


WITH_SEQUENCE = {"ReferencedImageSequence": Sequence([Dataset(), Dataset()])}


@pytest.mark.parametrize(
    ("ds", "syntax"),
    [
        *((ct_instance(1, NumberOfFrames=3, SamplesPerPixel=3), syntax) for syntax in NATIVE),
        *((ct_instance(1, **WITH_SEQUENCE), syntax) for syntax in NATIVE),
        (encapsulated(NumberOfFrames=2, PhotometricInterpretation="YBR_FULL_422"), JPEGLosslessSV1),
        (encapsulated(), RLELossless),
    ],
)
def test_the_scan_finds_what_pydicom_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ds: Dataset, syntax: str
) -> None:
    path = kept(tmp_path, dicom_file(ds, syntax))
    found = scanned_place(path)
    assert found is not None
    assert found == by_pydicom(path, monkeypatch)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_left_to_pydicom(tmp_path: Path, syntax: str) -> None:
    assert scanned_place(kept(tmp_path, dicom_file(ct_instance(1), syntax))) is None


def test_pixels_behind_a_long_header_and_none_at_all_are_left_to_pydicom(tmp_path: Path) -> None:
    long = ct_instance(1)
    long.add_new(0x00091010, "OB", bytes(40_000))
    none = ct_instance(1)
    del none.PixelData
    for ds in (long, none):
        assert scanned_place(kept(tmp_path, dicom_file(ds))) is None
    assert scanned_place(tmp_path / "missing.dcm") is None


WHOLE = dicom_file(ct_instance(1, NumberOfFrames=2))


@settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=200)
@given(at=st.integers(128, len(WHOLE) - 1), changed=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_of_broken_files_it_finds_nothing_that_pydicom_finds_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, changed: bytes, cut: bool
) -> None:
    path = kept(tmp_path, WHOLE[:at] + changed + (b"" if cut else WHOLE[at + len(changed) :]))
    found = scanned_place(path)
    if found is not None:
        # What pydicom gives up for a fault elsewhere, such as in a UID, is no contradiction.
        assert by_pydicom(path, monkeypatch) in (None, found)
