"""Asking peers by C-FIND what they hold, against real ones: pynetdicom's SCP and Orthanc."""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from deploy.rig import Orthanc
from dicom_node.core.errors import AssociationRejected, PeerUnreachable, QueryFailed
from dicom_node.scu.query import counting
from dicom_node.scu.storage import FileToSend, store
from dicom_node.settings import Peer
from tests.factories import ct_series, uid_for
from tests.peers import Behaviour, free_port, storage_peer
from tests.query_peers import Catalogue, query_peer

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

STUDY, OTHER = "1.2.3", "1.2.4"
STUDIES = {STUDY: {"1.2.3.1": 120, "1.2.3.2": 2}, OTHER: {"1.2.4.1": 7}}


def asked(peer: Peer, uid: str = STUDY, seconds: float = 30.0) -> dict[str, int]:
    with counting(peer, ae_title="TRIAGE", timeout_seconds=seconds) as count:
        return count(uid)


def test_a_peer_tells_the_counts_of_a_study_and_of_each_series() -> None:
    with query_peer(Catalogue(STUDIES)) as peer:
        assert asked(peer) == {"": 122, "1.2.3.1": 120, "1.2.3.2": 2}


def test_nothing_but_the_study_instance_uid_says_what_is_wanted() -> None:
    catalogue = Catalogue(STUDIES)
    with query_peer(catalogue) as peer:
        asked(peer)
    told = [{element.keyword: element.value for element in keys if element.value} for keys in catalogue.asked]
    assert told == [{"QueryRetrieveLevel": level, "StudyInstanceUID": STUDY} for level in ("STUDY", "SERIES")]
    assert catalogue.associations == 1


def test_several_studies_are_asked_about_on_one_association() -> None:
    catalogue = Catalogue(STUDIES)
    with query_peer(catalogue) as peer, counting(peer, ae_title="TRIAGE", timeout_seconds=30.0) as count:
        assert (count(STUDY)[""], count(OTHER)[""]) == (122, 7)
        with pytest.raises(QueryFailed, match="does not hold the study"):
            count("1.2.5")
        assert count(OTHER) == {"": 7, "1.2.4.1": 7}
    assert catalogue.associations == 1


@pytest.mark.parametrize(
    ("levels", "expected"),
    [(("STUDY",), {"": 122}), (("SERIES",), {"": 122, "1.2.3.1": 120, "1.2.3.2": 2})],
)
def test_a_peer_that_counts_at_one_level_tells_what_it_can(levels: tuple[str, ...], expected: dict[str, int]) -> None:
    with query_peer(Catalogue(STUDIES, counts=levels)) as peer:
        assert asked(peer) == expected


def test_a_peer_that_does_not_count_is_of_no_use() -> None:
    with query_peer(Catalogue(STUDIES, counts=())) as peer, pytest.raises(QueryFailed, match=r"\(0020,1208\)"):
        asked(peer)


def test_a_peer_that_answers_with_other_studies_too_is_not_confused_with_them() -> None:
    with query_peer(Catalogue(STUDIES, heeds_keys=False)) as peer:
        assert asked(peer, OTHER) == {"": 7, "1.2.4.1": 7}


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0x0122, 0xFE00])
def test_a_failure_is_told_with_its_status(status: int) -> None:
    with query_peer(Catalogue(STUDIES, failure=status)) as peer, pytest.raises(QueryFailed, match=f"0x{status:04X}"):
        asked(peer)


def broken_number(value: bytes) -> Callable[[Dataset], None]:
    """Puts these bytes where the count of a series stands."""
    tag = Tag(0x0020, 0x1209)

    def change(ds: Dataset) -> None:
        if tag in ds:
            ds[tag] = RawDataElement(tag, "IS", len(value), value, 0, False, True)

    return change


@pytest.mark.parametrize("value", [b"many", b"-1", b"1.5 ", b"99999999999 "])
def test_a_count_that_is_none_counts_not(value: bytes) -> None:
    with query_peer(Catalogue(STUDIES, change=broken_number(value))) as peer:
        assert asked(peer) == {"": 122}


def test_a_peer_that_takes_too_long_is_left_after_the_time_limit() -> None:
    began = time.monotonic()
    with query_peer(Catalogue(STUDIES, delay_seconds=60.0)) as peer:
        with pytest.raises(PeerUnreachable, match="did not answer a C-FIND to its end in time"):
            asked(peer, seconds=1.0)
        assert time.monotonic() - began < 30.0


def test_a_peer_that_answers_without_end_is_left_after_the_time_limit() -> None:
    class Endless(Catalogue):
        def find(self, event: Any) -> Any:
            """Answer for ever."""
            while not event.is_cancelled:
                time.sleep(0.05)
                yield 0xFF00, event.identifier

    began = time.monotonic()
    with query_peer(Endless()) as peer:
        with pytest.raises(PeerUnreachable, match="to its end in time"):
            asked(peer, seconds=1.0)
        assert time.monotonic() - began < 30.0


def test_a_listener_that_never_speaks_is_left_after_the_time_limit() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(PeerUnreachable):
            asked(peer, seconds=1.0)
        assert time.monotonic() - began < 30.0


def test_why_a_peer_is_not_reached_is_told_with_the_mend() -> None:
    with storage_peer(Behaviour()) as peer, pytest.raises(AssociationRejected, match="none of the proposed"):
        asked(peer)
    with query_peer(Catalogue()) as peer, pytest.raises(AssociationRejected, match="correct the peer's ae_title"):
        asked(replace(peer, ae_title="OTHER"))
    with pytest.raises(PeerUnreachable, match="is it running"):
        asked(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port()))


def test_orthanc_tells_the_counts_of_a_study_and_of_each_series(tmp_path: Path, program: Callable[[str], Path]) -> None:
    program("Orthanc")
    node = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=free_port())
    pacs = Orthanc(tmp_path / "pacs", callers=[node])
    paths = [*ct_series(tmp_path / "a", slices=5), *ct_series(tmp_path / "b", slices=2, seed="other")]
    pacs.start()
    try:
        with pytest.raises(QueryFailed, match="does not hold the study"):
            asked(pacs.peer, uid_for("ct series", "study"))
        files = [FileToSend.read(path) for path in paths]
        assert all(one.error is None for one in store(pacs.peer, files, ae_title="CT1", timeout_seconds=30.0))
        assert asked(pacs.peer, uid_for("ct series", "study")) == {"": 5, uid_for("ct series", "series"): 5}
    finally:
        pacs.stop()
