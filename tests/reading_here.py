"""Readings without a process of their own: the desk of a reading process, asked in this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import Pipe

from dicom_node.archive.files import Archive
from dicom_node.core.errors import BundleInvalid
from workers.desk import Desk
from workers.pipe import Drop, Explain, Failed, Prepare, Read, Reject, Reported
from workers.reading import Reader
from workers.readings import Pulse, Stopped, error_of
from workers.requests import Requests


@dataclass
class ReadersHere:
    """Readers of no bundle."""

    readers: Mapping[str, Reader]
    titles: tuple[str, ...] = ()

    def reader(self, algorithm: str) -> Reader:
        if algorithm not in self.readers:
            raise BundleInvalid(f"this worker has no algorithm {algorithm}")
        return self.readers[algorithm]

    @property
    def algorithms(self) -> tuple[str, ...]:
        return tuple(self.readers)

    @property
    def broken(self) -> tuple[str, ...]:
        return ()

    def refresh(self) -> None:
        """Nothing changes."""


@dataclass
class ReadingsHere:
    """What a triage asks of readings, done by a desk at once."""

    archive: Archive
    readers: Mapping[str, Reader]
    #: How often the process would have been replaced.
    replaced: int = 0
    #: The algorithms whose bundle cannot be used.
    broken: tuple[str, ...] = ()
    pulse: Pulse = field(default_factory=lambda: Pulse(step="reading", silent_seconds=0.0))

    def __post_init__(self) -> None:
        self.worker, ours = Pipe()
        self.desk = Desk(Requests(ours, end_process=lambda: None), self.archive, ReadersHere(self.readers))

    @property
    def algorithms(self) -> tuple[str, ...]:
        return tuple(self.readers)

    def ready(self, stopping: Callable[[], bool]) -> bool:
        return not stopping()

    def read(
        self, request: Read | Explain | Reject, *, stopped: Callable[[], bool], unwanted: Callable[[], bool]
    ) -> Reported:
        if unwanted():
            self.worker.send(Drop(job_uid=request.job_uid))
        answer = self.desk.answer(request)
        if stopped():
            raise Stopped("the worker was asked to stop and could not wait for the reading")
        if isinstance(answer, Failed):
            self.replaced += answer.last
            raise error_of(answer)
        return answer

    def prepare(self, request: Prepare) -> None:
        self.desk.prepare(request)
