"""DICOMweb measured: searches over many rows, and the frames of a series, beside Orthanc's plug-in; `make bench-web`.

Our index is filled with rows that intake would have written, without files: a search reads none. Orthanc has no such
way in and gets whole instances, far fewer; a second node of ours has as many rows. Ours are whole web applications
behind their gate, asked with a token; Orthanc asks for none. One client asks over one connection that stays, see
`bench_web_client`, and each kind of question is put to one server after the other.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table

from deploy.bench_web_client import Client, ConnectionEnded
from deploy.bench_web_rows import DAYS, FIRST_DAY, INSTANCES_A_STUDY, day_of, fill, patient_of
from deploy.rig import Program, free_port
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.access import Scope
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake
from dicom_node.node import SWITCH_SECONDS
from dicom_node.web.application import build_application
from dicom_node.web.dicomweb.service import PREFIX
from dicom_node.web.server import WebServer

ORTHANC, PLUGIN = "/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"

#: The series whose frames are fetched: 400 slices of 512 by 512, 16 bits.
SIZE = 512
SERIES, STUDY = "1.2.826.0.1.3680043.10.998.1.1", "1.2.826.0.1.3680043.10.998.1"

_ASSOCIATION = "00000000-0000-4000-8000-000000000000"

#: What each kind of question asks for.
_JSON, _FRAME = "application/dicom+json", 'multipart/related; type="application/octet-stream"'


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that is measured."""

    name: str
    port: int
    prefix: str
    #: Instances that its searches look among.
    instances: int
    token: str = ""

    @property
    def studies(self) -> int:
        """Of the drawn instances."""
        return max(1, self.instances // INSTANCES_A_STUDY)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of one kind of question to one server."""

    #: Seconds, of each request.
    times: Sequence[float]
    #: Bytes of all answers.
    size: int
    #: Studies that a search found, on average.
    found: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when it ran, whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000, metavar="N", help="rows of our index")
    parser.add_argument("--orthanc", type=int, default=10_000, metavar="N", help="instances in Orthanc; 0: without it")
    parser.add_argument("--slices", type=int, default=400, metavar="N", help="of the series whose frames are fetched")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="searches of each kind")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep what is filled there, for the next time")
    parser.add_argument("--fill", action="store_true", help="only fill --data")
    parser.add_argument("--serve", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        return _serve(options.serve, options.port)
    console = Console(width=None if sys.stdout.isatty() else 120)
    place = nullcontext(str(options.data)) if options.data else tempfile.TemporaryDirectory()
    with place as folder, ExitStack() as stack:
        servers = [stack.enter_context(server) for server in _servers(Path(folder), options, console)]
        if not options.fill:
            console.print(_measured(servers, options.rounds, options.slices))
    return 0


def _servers(folder: Path, options: argparse.Namespace, console: Console) -> Iterator[AbstractContextManager[Server]]:
    yield _ours(folder / "node", options.instances, options.slices)
    if options.orthanc and Path(ORTHANC).exists() and Path(PLUGIN).exists():
        yield _ours(folder / "little-node", options.orthanc, 1)
        yield _orthanc(folder / "orthanc", options.orthanc, options.slices)
    elif options.orthanc:
        console.print("not measured beside Orthanc: it, or its plug-in (Debian: orthanc-dicomweb), is not installed")


def _measured(servers: Sequence[Server], rounds: int, slices: int) -> Table:
    table = Table(title=f"one client, {rounds} searches of each kind, {slices} frames one after the other")
    for column in ("measured", "server", "instances", "found", "median ms", "p95 ms", "total s", "MB/s"):
        table.add_column(column, justify="left" if column in ("server", "measured") else "right")
    for title, paths in (("a patient's studies", _by_patient), ("a week's studies", _by_date)):
        for server in servers:
            asked = _asked(server, _first(paths(server), rounds), _JSON)
            table.add_row(title, server.name, f"{server.instances:,}", f"{asked.found:.1f}", *_times(asked), "")
    frames = [f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{n}/frames/1" for n in range(1, slices + 1)]
    for title in ("frames, the first time", "frames, again", "frames, once more"):
        for server in (servers[0], *servers[2:]):
            asked = _asked(server, frames, _FRAME)
            table.add_row(title, server.name, "", "", *_times(asked), f"{asked.size / sum(asked.times) / 1e6:.0f}")
    return table


def _first(paths: Iterator[str], count: int) -> list[str]:
    return [next(paths) for _ in range(count)]


def _times(asked: Asked) -> tuple[str, str, str]:
    ordered = sorted(asked.times)
    median, p95 = statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.95)] * 1e3
    return f"{median:.2f}", f"{p95:.2f}", f"{sum(ordered):.2f}"


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


def _asked(server: Server, paths: Sequence[str], accept: str) -> Asked:
    """Ask all of it; whoever answers with a failure is not measured."""
    times, size, found = [], 0, 0
    least = SIZE * SIZE * 2 if accept == _FRAME else 0
    with closing(Client(server.port, server.token)) as client:
        for path in paths:
            began = time.perf_counter()
            try:
                status, length = client.ask(server.prefix + path, accept)
            except ConnectionEnded:
                # Orthanc closes a connection now and then; a client would ask again, and so its time counts.
                status, length = client.ask(server.prefix + path, accept)
            times.append(time.perf_counter() - began)
            size += length
            if status not in (200, 204) or length < least:
                raise RuntimeError(f"{server.name} answered {status} with {length} bytes")
            found += client.body(length).count(b'"0020000D"') if accept == _JSON else 0
    return Asked(times=times, size=size, found=found / len(paths))


@contextmanager
def _ours(folder: Path, instances: int, slices: int) -> Iterator[Server]:
    _unless_filled(folder, lambda: _fill_ours(folder, instances, slices))
    index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
    names = [row.name for row in index.tokens.rows()]
    token = index.tokens.add(f"bench-{len(names)}", scopes=[Scope.DICOMWEB_READ], at=time.time())
    index.close()
    port = free_port()
    command = [sys.executable, "-m", "deploy.bench_web", "--serve", str(folder), "--port", str(port)]
    program = Program(command, folder / "node.log")
    server = Server(name="this node", port=port, prefix=PREFIX, instances=instances, token=token)
    with _running(program, server):
        yield server


def _unless_filled(folder: Path, deed: Callable[[], None]) -> None:
    if (folder / "filled").exists():
        return
    folder.mkdir(parents=True)
    deed()
    (folder / "filled").touch()


def _fill_ours(folder: Path, instances: int, slices: int) -> None:
    index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
    intake = Intake(archive=Archive(folder / "archive"), studies=index.studies)
    intake.association_opened(_ASSOCIATION, "BENCH")
    for number in range(1, slices + 1):
        intake.store(_received(_slice(number, SIZE, STUDY, SERIES, "P-series", "20300101")))
    index.close()
    fill(folder / "index.sqlite", instances)


@contextmanager
def _orthanc(folder: Path, instances: int, slices: int) -> Iterator[Server]:
    is_filled = (folder / "filled").exists()
    folder.mkdir(parents=True, exist_ok=True)
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
        for data in () if is_filled else _files(instances, slices):
            # Orthanc closes a connection after some hundred requests.
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/instances", data, timeout=600) as answer:
                answer.read()
        (folder / "filled").touch()
        yield server


@contextmanager
def _running(program: Program, server: Server) -> Iterator[None]:
    def answers() -> bool:
        try:
            _asked(server, ["/studies?PatientID=none"], _JSON)
        except (OSError, RuntimeError):
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
    application = build_application(index, dict, dict, time.time, archive=Archive(folder / "archive"))
    server = WebServer(application, "127.0.0.1", port)
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
