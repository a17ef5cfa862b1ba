"""What a peer asks of us on an association of ours, and its end."""

import threading
from types import SimpleNamespace
from typing import cast

from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event

from dicom_node.scu.peer_requests import PeerRequests

SECONDS = 10.0


class Served:
    """What an association is to its requests: it serves one when it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.served: list[object] = []

    def _serve_request(self, msg: object, _context_id: int) -> None:
        self.served.append(msg)
        assert self.may.wait(SECONDS)


def watched() -> tuple[Served, PeerRequests]:
    served, requests = Served(), PeerRequests()
    requests.watch(cast(Association, served))
    return served, requests


def come(served: Served, requests: PeerRequests) -> threading.Thread:
    """As pynetdicom does: it is told, then it begins a thread."""
    requests.came(cast(Event, SimpleNamespace(message=N_EVENT_REPORT_RQ())))
    thread = threading.Thread(target=lambda: served._serve_request(N_EVENT_REPORT(), 1))
    thread.start()
    return thread


def test_the_end_waits_for_what_is_served_and_no_longer_than_it_may() -> None:
    served, requests = watched()
    thread = come(served, requests)
    assert not requests.close(0.1)
    served.may.set()
    assert requests.close(SECONDS)
    thread.join(SECONDS)


def test_what_came_but_has_not_begun_is_waited_for() -> None:
    _, requests = watched()
    requests.came(cast(Event, SimpleNamespace(message=N_EVENT_REPORT_RQ())))
    assert not requests.close(0.1)


def test_nothing_is_served_after_the_end() -> None:
    served, requests = watched()
    served.may.set()
    assert requests.close(SECONDS)
    come(served, requests).join(SECONDS)
    assert served.served == []
    assert requests.close(SECONDS)
