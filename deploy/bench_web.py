"""DICOMweb measured: searches over many rows, and the frames of a series, beside Orthanc's plug-in; `make bench-web`.

Our index is filled with rows that intake would have written, without files: a search reads none. Orthanc has no such
way in and gets whole instances, far fewer; the table says how many. One client asks, over one connection that stays.
"""

import argparse
import http.client
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table

from deploy.bench_web_rows import DAYS, FIRST_DAY, INSTANCES_A_STUDY, day_of, fill, patient_of
from deploy.rig import Program, free_port
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake
from dicom_node.node import SWITCH_SECONDS
from dicom_node.web.dicomweb.service import PREFIX, build_application_alone
from dicom_node.web.server import WebServer

ORTHANC, PLUGIN = "/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"

#: The series whose frames are fetched: 400 slices of 512 by 512, 16 bits.
SIZE = 512
SERIES, STUDY = "1.2.826.0.1.3680043.10.998.1.1", "1.2.826.0.1.3680043.10.998.1"

_ASSOCIATION = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that is measured."""

    name: str
    port: int
    prefix: str
    #: Instances that its searches look among.
    instances: int

    @property
    def studies(self) -> int:
        """Of the drawn instances."""
        return max(1, self.instances // INSTANCES_A_STUDY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when it ran, whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000, metavar="N", help="rows of our index")
    parser.add_argument("--orthanc", type=int, default=10_000, metavar="N", help="instances in Orthanc; 0: without it")
    parser.add_argument("--slices", type=int, default=400, metavar="N", help="of the series whose frames are fetched")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="searches of each kind")
    parser.add_argument("--serve", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        return _serve(options.serve, options.port)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        servers = [stack.enter_context(_ours(folder / "node", options.instances, options.slices))]
        if options.orthanc and Path(ORTHANC).exists() and Path(PLUGIN).exists():
            servers.append(stack.enter_context(_orthanc(folder / "orthanc", options.orthanc, options.slices)))
        elif options.orthanc:
            console.print(
                "not measured beside Orthanc: it, or its plug-in (Debian: orthanc-dicomweb), is not installed"
            )
        console.print(_measured(servers, options.rounds, options.slices))
    return 0


def _measured(servers: Sequence[Server], rounds: int, slices: int) -> Table:
    table = Table(title=f"one client, {rounds} searches of each kind, {slices} frames one after the other")
    for column in ("server", "instances", "measured", "median ms", "p95 ms", "total s", "MB/s"):
        table.add_column(column, justify="left" if column in ("server", "measured") else "right")
    for server in servers:
        for title, paths in (("a patient's studies", _by_patient(server)), ("a week's studies", _by_date(server))):
            times, _ = _asked(server, [next(paths) for _ in range(rounds)])
            table.add_row(server.name, f"{server.instances:,}", title, *_times(times), f"{sum(times):.2f}", "")
        frames = [f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{n}/frames/1" for n in range(1, slices + 1)]
        for title in ("frames, the first time", "frames, again"):
            times, size = _asked(server, frames)
            rate = size / sum(times) / 1e6
            table.add_row(server.name, "", title, *_times(times), f"{sum(times):.2f}", f"{rate:.0f}")
    return table


def _times(times: Sequence[float]) -> tuple[str, str]:
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1e3:.2f}", f"{ordered[int(len(ordered) * 0.95)] * 1e3:.2f}"


def _by_patient(server: Server) -> Iterator[str]:
    number = 0
    while True:
        number = (number + 7919) % server.studies
        yield f"/studies?PatientID={patient_of(number)}"


def _by_date(server: Server) -> Iterator[str]:
    number = 0
    while True:
        number = (number + 7919) % server.studies
        first = min(day_of(number), FIRST_DAY + timedelta(days=DAYS - 7))
        yield f"/studies?StudyDate={first:%Y%m%d}-{first + timedelta(days=6):%Y%m%d}&limit=100"


def _asked(server: Server, paths: Sequence[str]) -> tuple[list[float], int]:
    """Seconds of each request, and bytes of all answers; whoever answers with a failure is not measured."""
    times, size = [], 0
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)) as connection:
        for path in paths:
            is_frame = "/frames/" in path
            accept = 'multipart/related; type="application/octet-stream"' if is_frame else "application/dicom+json"
            began = time.perf_counter()
            try:
                answer, data = _get(connection, server.prefix + path, accept)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # Orthanc closes a connection now and then; a client would ask again, and so its time counts.
                connection.close()
                answer, data = _get(connection, server.prefix + path, accept)
            times.append(time.perf_counter() - began)
            size += len(data)
            if answer.status not in (200, 204) or (is_frame and len(data) < SIZE * SIZE * 2):
                raise RuntimeError(f"{server.name} answered {answer.status} with {len(data)} bytes")
    return times, size


def _get(connection: http.client.HTTPConnection, path: str, accept: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    return answer, answer.read()


@contextmanager
def _ours(folder: Path, instances: int, slices: int) -> Iterator[Server]:
    folder.mkdir(parents=True)
    index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
    intake = Intake(archive=Archive(folder / "archive"), studies=index.studies)
    intake.association_opened(_ASSOCIATION, "BENCH")
    for number in range(1, slices + 1):
        intake.store(_received(_slice(number, SIZE, STUDY, SERIES, "P-series", "20300101")))
    index.close()
    fill(folder / "index.sqlite", instances)
    port = free_port()
    command = [sys.executable, "-m", "deploy.bench_web", "--serve", str(folder), "--port", str(port)]
    program = Program(command, folder / "node.log")
    server = Server(name="this node", port=port, prefix=PREFIX, instances=instances)
    with _running(program, server):
        yield server


@contextmanager
def _orthanc(folder: Path, instances: int, slices: int) -> Iterator[Server]:
    folder.mkdir(parents=True)
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "KeepAlive": True,
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "MainDicomTags"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    server = Server(name="Orthanc", port=port, prefix="/dicom-web", instances=instances)
    with _running(Program([ORTHANC, str(folder / "orthanc.json")], folder / "orthanc.log"), server):
        for data in _files(instances, slices):
            # Orthanc closes a connection after some hundred requests.
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/instances", data, timeout=600) as answer:
                answer.read()
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(program: Program, server: Server) -> Iterator[None]:
    def answers() -> bool:
        try:
            _asked(server, ["/studies?PatientID=none"])
        except (OSError, http.client.HTTPException, RuntimeError):
            return False
        return True

    program.start()
    try:
        program.wait_for(server.name, answers, 120.0)
        yield
    finally:
        program.stop()


def _serve(folder: Path, port: int) -> int:
    # As in a node.
    sys.setswitchinterval(SWITCH_SECONDS)
    index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
    server = WebServer(build_application_alone(index, Archive(folder / "archive")), "127.0.0.1", port)
    server.start()
    while server.alive:
        time.sleep(1.0)
    return 0


def _files(instances: int, slices: int) -> Iterator[bytes]:
    for number in range(instances):
        study = number // INSTANCES_A_STUDY
        uid = f"1.2.826.0.1.3680043.10.999.{100_000 + study}"
        ds = _slice(number + 1, 8, uid, f"{uid}.{number % 4}", patient_of(study), f"{day_of(study):%Y%m%d}")
        yield _file(ds)
    for number in range(1, slices + 1):
        yield _file(_slice(number, SIZE, STUDY, SERIES, "P-series", "20300101"))


def _slice(number: int, size: int, study: str, series: str, patient: str, day: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientID, ds.PatientName, ds.StudyDate, ds.StudyTime = patient, "Bench^Bea", day, "101500"
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = "CT", number, 1
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.add_new("PixelData", "OW", bytes([number % 251]) * (size * size * 2))
    return ds


def _file(ds: Dataset) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _received(ds: Dataset) -> ReceivedInstance:
    buffer = BytesIO()
    ds.save_as(buffer, implicit_vr=False, little_endian=True)
    return ReceivedInstance(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data_set=buffer,
        calling_ae_title="BENCH",
        called_ae_title="TRIAGE",
        association_id=_ASSOCIATION,
    )


if __name__ == "__main__":
    sys.exit(main())
