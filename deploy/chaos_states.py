"""What the node's index says of every study while a chaos run goes on, without being in the node's way."""

import threading
from contextlib import suppress

from dicom_node.archive.index import Index
from dicom_node.core.errors import NodeError
from dicom_node.core.lifecycle import StudyState

#: A small study is read in little more than a second: what is to meet it there must see it begin.
_LOOK_SECONDS = 0.3
_MOST_STUDIES = 100_000


class States:
    """What the node's index says of every study, looked up by a thread that opens it for a moment at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._states: dict[str, StudyState] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="states", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def of(self, study_instance_uid: str) -> StudyState | None:
        """A study's state of a moment ago."""
        return self._states.get(study_instance_uid)

    def count(self, states: frozenset[StudyState]) -> int:
        """How many studies are in one of these states."""
        return sum(state in states for state in list(self._states.values()))

    def _run(self) -> None:
        index = Index.open(self._url)
        while not self._ending.wait(_LOOK_SECONDS):
            # A full disk, or a node that was stopped while it wrote: what was known stays known.
            with suppress(NodeError):
                self._states = {row.study_instance_uid: row.state for row in index.studies.rows(limit=_MOST_STUDIES)}
            # No connection outlives a look: the node that starts again must be the one that mends the index.
            index.close()
