from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, JPEGLSLossless

from dicom_node.archive.file_meta import FileMeta, encode_file_meta, open_data_set, read_file_meta
from dicom_node.archive.kept_instance import read_kept_instance
from dicom_node.core.errors import UnreadableInstance
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.instances import ct_instance, encoded

UIDS = st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){0,5}", fullmatch=True)


def meta(**changes: str) -> FileMeta:
    facts = {
        "sop_class_uid": CTImageStorage,
        "sop_instance_uid": "1.2.3",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sending_ae_title": "SCANNER",
        "receiving_ae_title": "TRIAGE",
    }
    return FileMeta(**{**facts, **changes})


@given(uid=UIDS, title=st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True))
def test_what_is_written_is_what_pydicom_reads(uid: str, title: str) -> None:
    whole = encode_file_meta(meta(sop_instance_uid=uid, sending_ae_title=title)) + encoded(ct_instance())
    read = dcmread(BytesIO(whole))
    assert read.file_meta.MediaStorageSOPInstanceUID == uid
    assert read.file_meta.SourceApplicationEntityTitle == title
    assert read.file_meta.SendingApplicationEntityTitle == title
    assert read.PixelData == bytes(range(128))


def test_the_meta_information_names_the_transfer_and_this_software() -> None:
    read = dcmread(BytesIO(encode_file_meta(meta(transfer_syntax_uid=JPEGLSLossless)))).file_meta
    assert read.FileMetaInformationVersion == b"\x00\x01"
    assert read.MediaStorageSOPClassUID == CTImageStorage
    assert read.TransferSyntaxUID == JPEGLSLossless
    assert read.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert read.ReceivingApplicationEntityTitle == "TRIAGE"


def test_the_group_length_counts_what_follows_it() -> None:
    encoded_meta = encode_file_meta(meta())
    read = dcmread(BytesIO(encoded_meta)).file_meta
    assert read.FileMetaInformationGroupLength == len(encoded_meta) - 144


def test_the_version_name_fits_its_short_string() -> None:
    assert 0 < len(IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, b"some bytes that are no data set"])
def test_a_file_opens_at_its_data_set(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "instance.dcm"
    path.write_bytes(encode_file_meta(meta(sop_instance_uid="1.2.34")) + content)
    syntax, file = open_data_set(path)
    with file:
        assert file.read() == content
    assert syntax == "1.2.840.10008.1.2.1"


# What pydicom remarks on values that are none is no error of the node's.
@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.dictionaries(st.integers(128, 400), st.integers(0, 255), max_size=4), length=st.integers(0, 500))
def test_any_bytes_are_a_file_or_no_dicom_file(tmp_path: Path, changes: dict[int, int], length: int) -> None:
    whole = bytearray(encode_file_meta(meta()) + bytes(100))
    for place, value in changes.items():
        whole[min(place, len(whole) - 1)] = value
    path = tmp_path / "instance.dcm"
    path.write_bytes(whole[: length if length < 400 else None])
    with suppress(InvalidDicomError):
        open_data_set(path)[1].close()
    with suppress(InvalidDicomError):
        read_file_meta(path)
    with suppress(UnreadableInstance):
        read_kept_instance(path)


def test_what_the_disk_says_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_data_set(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        read_file_meta(tmp_path)
