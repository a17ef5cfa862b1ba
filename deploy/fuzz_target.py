"""What `make fuzz` talks to: every service that peers may ask for, over a real archive and index."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.commitment import Commitment
from dicom_node.intake import Intake
from dicom_node.notice import Notices
from dicom_node.parts import Periodic
from dicom_node.promise import Promising
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scp.notifications import Notifications
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.settings import AdmissionSettings, NodeSettings, Settings
from dicom_node.telemetry import configure_logging


@contextmanager
def target(folder: Path) -> Iterator[int]:
    """Serve in this process; the port."""
    index, archive = Index.open(f"sqlite:///{folder / 'index.sqlite'}"), Archive(folder / "archive")
    node = NodeSettings(host="127.0.0.1", port=0, data_dir=folder, minimum_free_megabytes=0)
    admission = AdmissionSettings(called_ae_title_must_match=False)
    settings = Settings(node=node, admission=admission)
    promising = Promising(settings, index, archive, time.time)
    telling = Periodic("promises", promising.step, 0.25)
    requests = PromiseRequests(promising.ask, telling.wake, patience_seconds=2.0)
    promising.tell_here = requests.tell_here
    entity = ApplicationEntity(
        settings,
        Intake(archive=archive, studies=index.studies),
        timeouts=Timeouts(acse=5.0, dimse=5.0, network=5.0, grace=0.5),
        commitments=CommitmentEvents(Commitment(settings, index, time.time).take, requests),
        notifications=Notifications(Notices(index, time.time)),
    )
    telling.start()
    entity.start()
    try:
        yield entity.port
    finally:
        entity.stop()
        telling.stop()
        promising.close()
        index.close()


def main() -> int:
    """Serve below the folder that is named until standard input ends; the port is the first line."""
    # What pynetdicom stumbled over is told at that level, with its place.
    configure_logging("DEBUG")
    with target(Path(sys.argv[1])) as port:
        print(port, flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
