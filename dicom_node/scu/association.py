"""An association that we ask a peer for, and its end."""

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.core.errors import AssociationRejected, ContextsRejected, PeerUnreachable
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.scu.connection import acknowledge_at_once, limit_sending, send_at_once
from dicom_node.scu.peer_requests import PeerRequests
from dicom_node.scu.requested_association import Requester
from dicom_node.settings import Peer

#: PS3.8 Section 9.3.2.2: context identifiers are the odd numbers from 1 to 255.
MAXIMUM_CONTEXTS = 128

#: PS3.8 Table 9-21, the reasons that a person can mend.
_REJECTIONS = {
    (1, 3): "it does not know our AE title; enter {ours} there, or correct node.ae_title",
    (1, 7): "it is not called {theirs}; correct the peer's ae_title",
    (3, 1): "it is busy for the moment",
    (3, 2): "it has as many associations as it allows",
}


class ProposedContext(NamedTuple):
    """What one presentation context asks for."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@contextmanager
def association(
    peer: Peer,
    contexts: Iterable[ProposedContext],
    *,
    ae_title: str,
    timeout_seconds: float,
    handlers: Sequence[EventHandlerType] = (),
    as_provider: Sequence[str] = (),
) -> Iterator[Association]:
    """An established association, released at the end; raises PeerUnreachable or AssociationRejected.

    `handlers` take what the peer asks of us on it; the release waits until they have answered, for `timeout_seconds` at
    most, and then becomes an abort. Of SOP classes `as_provider` we propose to be the SCP, by role selection (PS3.7
    Annex D.3.3.4).
    """
    ae = Requester(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_seconds
    for context in contexts:
        ae.add_requested_context(context.abstract_syntax, list(context.transfer_syntaxes))
    requests = PeerRequests()
    own = [(evt.EVT_CONN_OPEN, _opened), (evt.EVT_PDU_SENT, _sent), (evt.EVT_ABORTED, _aborted)]
    watching = [(evt.EVT_CONN_OPEN, lambda event: requests.watch(event.assoc)), (evt.EVT_DIMSE_RECV, requests.came)]
    events: list[EventHandlerType] = [*own, *watching, *handlers]
    roles = [build_role(sop_class_uid, scp_role=True) for sop_class_uid in as_provider]
    try:
        assoc = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, evt_handlers=events, ext_neg=[*roles])
    except OSError as error:  # the host's name leads nowhere; a refused connection is no exception
        raise PeerUnreachable(f"{_named(peer)} is not found ({error.strerror}); correct the peer's host") from error
    if not assoc.is_established:
        raise _refusal(peer, assoc, ae_title)
    threading.Thread(target=_watch, args=(assoc,), name="association watch", daemon=True).start()
    try:
        yield assoc
    finally:
        _end(assoc, requests, timeout_seconds)


def _end(assoc: Association, requests: PeerRequests, patience_seconds: float) -> None:
    if assoc.is_established and not requests.close(patience_seconds):
        assoc.abort()
    elif assoc.is_established:
        assoc.release()


def _watch(assoc: Association) -> None:
    """Free whoever waits for an association whose thread has ended.

    pynetdicom lets those who send or release wait, without a limit, until that thread pauses; one that just ended by an
    abort of the peer's never does.
    """
    assoc.join()
    assoc._is_paused = True


def _opened(event: evt.Event) -> None:
    """Neither side waits for the other's acknowledgements, and we wait for nobody who takes nothing of what we send."""
    if (connection := _socket_of(event.assoc)) is not None:
        send_at_once(connection)
        limit_sending(connection, float(event.assoc.dimse_timeout or 0.0))


def _sent(event: evt.Event) -> None:
    if (connection := _socket_of(event.assoc)) is not None:
        acknowledge_at_once(connection)


def _aborted(event: evt.Event) -> None:
    """Whoever aborts waits until all is sent that was to be sent before: to a peer that trickles it in, for hours."""
    # By the time it is looked at, the queue may be empty, and the connection closed.
    with suppress(IndexError, OSError):
        is_sending = isinstance(event.assoc.dul.to_provider_queue.queue[0], P_DATA)
        if is_sending and (connection := _socket_of(event.assoc)) is not None:
            connection.shutdown(socket.SHUT_RDWR)


def _socket_of(assoc: Association) -> socket.socket | None:
    connection = assoc.dul.socket
    return None if connection is None else connection.socket


def _refusal(peer: Peer, assoc: Association, ae_title: str) -> PeerUnreachable | AssociationRejected:
    where = _named(peer)
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        source = answer.result_source if answer else None
        reason = (source, answer.diagnostic if answer else None)
        why = _REJECTIONS.get(reason, f"source {reason[0]}, diagnostic {reason[1]}")  # type: ignore[arg-type]  # either may be absent
        return AssociationRejected(
            f"{where} rejected the association: {why.format(ours=ae_title, theirs=peer.ae_title)}"
        )
    if assoc.acceptor.primitive is not None and not assoc.accepted_contexts:
        return ContextsRejected(f"{where} accepted none of the proposed presentation contexts")
    return PeerUnreachable(f"{where} does not answer; is it running, and is nothing in between?")


def _named(peer: Peer) -> str:
    return f"peer {peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
