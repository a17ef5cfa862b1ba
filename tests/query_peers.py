"""Peers of the node for tests that are asked by C-FIND: real SCPs on free ports that answer as a test wants."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_node.scu.query import STUDY_ROOT_FIND
from dicom_node.settings import Peer

#: Study Instance UID to Series Instance UID to number of instances.
Studies = Mapping[str, Mapping[str, int]]
Answers = Iterator[tuple[int, Dataset | None]]


@dataclass
class Catalogue:
    """What a peer holds, how it answers, and what it was asked."""

    studies: Studies = field(default_factory=dict)
    #: Levels at which it counts.
    counts: tuple[str, ...] = ("STUDY", "SERIES")
    #: Answers other than the matches and a success.
    failure: int | None = None
    #: Seconds before the first answer, unless it is to hurry.
    delay_seconds: float = 0.0
    hurry: threading.Event = field(default_factory=threading.Event)
    #: Answers with all it holds, whatever the key.
    heeds_keys: bool = True
    #: Changes a match before it goes out.
    change: Callable[[Dataset], None] = lambda ds: None
    asked: list[Dataset] = field(default_factory=list)
    associations: int = 0

    def find(self, event: evt.Event) -> Answers:
        """Answer a C-FIND."""
        keys = event.identifier
        self.asked.append(keys)
        self.hurry.wait(self.delay_seconds)
        if self.failure is not None:
            yield self.failure, None
            return
        for uid, series in self.studies.items():
            if self.heeds_keys and uid != keys.StudyInstanceUID:
                continue
            for ds in self._matches(str(keys.QueryRetrieveLevel), uid, series):
                self.change(ds)
                yield 0xFF00, ds

    def accepted(self, _event: evt.Event) -> None:
        """Count an association."""
        self.associations += 1

    def _matches(self, level: str, uid: str, series: Mapping[str, int]) -> Iterator[Dataset]:
        counted = level in self.counts
        if level == "STUDY":
            yield _match(level, uid, NumberOfStudyRelatedInstances=sum(series.values()) if counted else None)
            return
        for series_uid, count in series.items():
            number = count if counted else None
            yield _match(level, uid, SeriesInstanceUID=series_uid, NumberOfSeriesRelatedInstances=number)


def _match(level: str, uid: str, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.StudyInstanceUID = level, uid
    # A peer is free to tell more than it was asked for.
    ds.PatientName = "Secret^Sam"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@contextmanager
def query_peer(catalogue: Catalogue, *, name: str = "pacs", ae_title: str = "PACS", port: int = 0) -> Iterator[Peer]:
    """A peer that runs until the end of the block."""
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = True
    ae.add_supported_context(STUDY_ROOT_FIND, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    handlers = [(evt.EVT_C_FIND, catalogue.find), (evt.EVT_ACCEPTED, catalogue.accepted)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its types want one kind of handler
    try:
        yield Peer(name=name, ae_title=ae_title, host="127.0.0.1", port=int(server.server_address[1]), query=True)
    finally:
        catalogue.hurry.set()
        ae.shutdown()
