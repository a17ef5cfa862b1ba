"""A kept instance: the index's row of a file, as far as the file itself tells it."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from pydicom.errors import InvalidDicomError

from dicom_node.archive.checksum import sha256_of
from dicom_node.archive.file_meta import open_data_set, read_file_meta
from dicom_node.archive.header import read_header
from dicom_node.core.errors import CannotUnderstand, UnreadableInstance
from dicom_node.core.study import Instance
from dicom_node.core.uid import is_uid

# Headers are far smaller; pixels stay on the disk.
_MAXIMUM_HEADER_BYTES = 64 << 20


def read_kept_instance(path: Path, place: str = "", character_sets: Mapping[str, str] | None = None) -> Instance:
    """The row of a file that this node wrote, with its path in the archive; UnreadableInstance where it is none.

    It was received when the file was last written, from the sender that its file meta information names;
    `character_sets`: calling AE title to that of the texts that came from there without one.
    """
    try:
        meta = read_file_meta(path)
        syntax, file = open_data_set(path)
        with file:
            start = file.tell()
            character_set = (character_sets or {}).get(meta.sending_ae_title, "")
            header = read_header(BytesIO(file.read(_MAXIMUM_HEADER_BYTES)), syntax, character_set)
            file.seek(start)
            sha256 = sha256_of(file)
            size_bytes = file.tell() - start
        received_at = path.stat().st_mtime
    except (OSError, InvalidDicomError, CannotUnderstand) as error:
        raise UnreadableInstance(f"{path.name} is no DICOM file of this node; send the study again") from error
    uids = (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid, header.sop_class_uid)
    if not all(map(is_uid, uids)):
        raise UnreadableInstance(f"{path.name} lacks a UID; send the study again")
    return Instance(
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=syntax,
        path=place,
        size_bytes=size_bytes,
        sha256=sha256,
        received_at=received_at,
        calling_ae_title=meta.sending_ae_title,
        attributes=header.attributes,
        searchable=header.searchable,
    )
