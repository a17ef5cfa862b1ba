"""A DICOMweb service over a room, on a real port, and what a client without any library says to it."""

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from io import BytesIO
from typing import Any

from fastapi import FastAPI
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.reception.storage import Storage
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.scp.presentation_contexts import TRANSFER_SYNTAXES, storage_sop_classes
from dicom_node.telemetry import Metrics
from dicom_node.web.dicomweb.service import build_dicomweb
from dicom_node.web.server import WebServer
from tests.instances import encoded
from tests.room import Room

BOUNDARY = "a-boundary"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the service said."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Its JSON."""
        return json.loads(self.body)

    def parts(self) -> list[tuple[str, bytes]]:
        """Media type and bytes of each part of a multipart answer."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
        whole = BytesParser().parsebytes(head + self.body)
        assert whole.is_multipart()
        return [(part["Content-Type"], part.get_payload(decode=True)) for part in whole.get_payload()]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running service."""

    room: Room
    port: int
    application: FastAPI
    metrics: Metrics

    @property
    def root(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/dicomweb"

    def ask(self, path: str, *, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """One request; a header's name is written with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, f"/dicomweb{path}", body=body, headers=named)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=answer.msg, body=answer.read())
        finally:
            connection.close()

    def store(self, parts: Sequence[bytes], path: str = "/studies") -> Answer:
        """Instances, as whole DICOM files."""
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return self.ask(path, method="POST", body=multipart_body(parts), Content_Type=kind)


@contextmanager
def serving(room: Room, *, minimum_free_megabytes: int = 0, **options: Any) -> Iterator[Service]:
    """Serve a room's index and archive, and take instances into them, as the node puts it together."""
    application = FastAPI()
    metrics = Metrics()
    storage = Storage(
        metrics.counted(room.intake),
        DiskWatermark(minimum_free_megabytes),
        metrics.refused,
        sop_classes=storage_sop_classes(),
    )
    facts = {"transfer_syntaxes": TRANSFER_SYNTAXES, "ae_title": "TRIAGE", **options}
    build_dicomweb(room.index, room.archive, storage, **facts).join(application)
    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    try:
        yield Service(room=room, port=server.port, application=application, metrics=metrics)
    finally:
        server.stop()


def multipart_body(parts: Sequence[bytes], kind: str = "application/dicom") -> bytes:
    """The body of a STOW-RS request."""
    head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def dicom_file(ds: Dataset, syntax: str = ExplicitVRLittleEndian, data_set: bytes | None = None, **meta: str) -> bytes:
    """A whole DICOM file; `meta` by keyword replaces what its file meta information would say."""
    file_meta = FileMetaDataset()
    file_meta.MediaStorageSOPClassUID, file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    file_meta.TransferSyntaxUID = UID(syntax)
    for keyword, value in meta.items():
        setattr(file_meta, keyword, value)
    from pydicom.filewriter import write_file_meta_info

    head = BytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, file_meta, enforce_standard=True)
    return head.getvalue() + (encoded(ds, syntax) if data_set is None else data_set)
