"""An association that a peer opened to us, and what makes one of each connection."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_RELEASE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.reception.storage import Sender, Storage
from dicom_node.scp.open_associations import OpenAssociations
from dicom_node.scp.own_request import OwnRequests
from dicom_node.scp.transport import LOOK_SECONDS, Connection, Server
from dicom_node.scp.upper_layer import UpperLayer
from dicom_node.scp.whole_messages import WholeMessages

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity

log = logging.getLogger(__name__)


class AssociationMaker(RequestHandler):
    """Makes an association of an accepted connection."""

    def handle(self) -> None:
        """Begin to serve the connection."""
        known = cast(StorageServer, self.server).open_associations
        association = self._create_association()
        known.connected(association, _cut)
        try:
            association.start()
        except BaseException:  # no thread of it runs that would say so
            known.ended(association)
            raise

    def _create_association(self) -> Association:
        server, ae = cast(StorageServer, self.server), self.ae
        association = AcceptedAssociation(ae, server.storage, server.open_associations)
        association._server = server
        # pynetdicom knows its acceptors by this name.
        association.name = f"AcceptorThread {self.client_address[1]}"
        connection = Connection(association, self.request, patience_seconds=ae.dimse_timeout or 60.0)
        association.set_socket(connection)
        acceptor = association.acceptor
        acceptor.maximum_length = ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = ae.implementation_class_uid
        acceptor.implementation_version_name = ae.implementation_version_name
        # All associations share them: nothing changes them, and copies of some hundred would take 0.1 s of CPU time.
        acceptor.supported_contexts = list(server.contexts)
        association.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            for handler, arguments in bound if isinstance(bound, list) else [bound]:
                association.bind(event, handler, arguments)
        association.bind(evt.EVT_REQUESTED, server.requested)
        return association


class StorageServer(Server):
    """A server whose associations store."""

    def __init__(
        self,
        ae: "ApplicationEntity",
        address: tuple[str, int],
        storage: Storage,
        open_associations: OpenAssociations,
        handlers: list[EventHandlerType],
        contexts: list[PresentationContext],
    ) -> None:
        """Listen from here on; OSError where the port cannot be had."""
        self.storage, self.open_associations = storage, open_associations
        super().__init__(ae, address, ae.ae_title, contexts, evt_handlers=handlers, request_handler=AssociationMaker)
        # Where it looks for itself when it is shut down.
        ae._servers.append(cast(ThreadedAssociationServer, self))

    def requested(self, event: Event) -> None:
        """An association is asked for: one too many is rejected for now, since a place may soon be free."""
        association = event.assoc
        request = cast(A_ASSOCIATE, association.requestor.primitive)
        if not self.open_associations.admits(association, request.calling_ae_title):
            # PS3.8 Section 9.3.4: transient, by the provider's presentation part, local limit exceeded.
            association.acse.send_reject(2, 3, 2)
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.kill()


class AcceptedAssociation(Association):
    """An association that a peer opened to us; its thread rests while there is nothing to do."""

    def __init__(self, ae: "ApplicationEntity", storage: Storage, known: OpenAssociations) -> None:
        """`known` is told when it has ended."""
        super().__init__(ae, MODE_ACCEPTOR)
        self._storage, self._known = storage, known
        self._reactor_checkpoint = checkpoint = _Checkpoint(self._has_work)
        self.dul = upper_layer = UpperLayer(self, storage, checkpoint.notice)
        # They are passed on to the upper layer, which is a new one.
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout
        self.acse = _LastWords(self)
        self.dimse = WholeMessages(self, upper_layer.send_message)
        self.own_requests = OwnRequests(self)
        #: What is to be done after the answer to the request that a thread serves, its own for each thread.
        self._serving = threading.local()

    def after_answer(self, deed: Callable[[], None]) -> None:
        """Do something when the request that is being served is answered; from its handler."""
        self._serving.deeds.append(deed)

    def run_reactor(self) -> None:
        """Serve the association to its end, which is always noted; what nobody foresaw ends this one alone."""
        try:
            super().run_reactor()
        except Exception as error:  # the rim of the thread, as the upper layer's own
            log.warning("an association broke off", extra={"error": type(error).__name__})
            log.debug("where it broke off", exc_info=True)
            self.abort()
        finally:
            self._known.ended(self)
            self._storage.association_is_over(Sender(self, self.requestor.ae_title, self.acceptor.ae_title))
            self.own_requests.ended()
            if not self.dul.is_alive():
                # Its thread may never have begun.
                cast(UpperLayer, self.dul).connection.hang_up()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is not None:
            self.own_requests.answered(msg)
            return
        # pynetdicom serves N-EVENT-REPORTs in threads beside this association's own.
        deeds: list[Callable[[], None]] = []
        self._serving.deeds = deeds
        super()._serve_request(msg, context_id)
        for deed in deeds:
            deed()

    def _has_work(self) -> bool:
        waiting = self.dimse.msg_queue.queue or self.dul.to_user_queue.queue
        return bool(waiting) or self._kill or not self.dul.is_alive()


def _cut(association: Association) -> None:
    cast(UpperLayer, association.dul).connection.cut()


class _LastWords(ACSE):
    """Takes a release request when all that was asked before it is answered; pynetdicom's takes it after one answer."""

    def is_release_requested(self) -> bool:
        """Whether the association is to be released now."""
        # In this order: what came before the release is in the queue by the time that the release can be seen.
        if not isinstance(self.dul.peek_next_pdu(), A_RELEASE) or self.assoc.dimse.msg_queue.queue:
            return False
        return super().is_release_requested()


class _Checkpoint(threading.Event):
    """Where pynetdicom holds up an association's thread; here the thread also waits until there is work."""

    def __init__(self, has_work: Callable[[], bool]) -> None:
        super().__init__()
        self._has_work = has_work
        self._work = threading.Event()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for work, or for a moment; then as any event does."""
        if not self._has_work():
            self._work.wait(LOOK_SECONDS)
        self._work.clear()
        return super().wait(timeout)

    def set(self) -> None:
        """Let the thread go on."""
        super().set()
        self._work.set()

    def notice(self) -> None:
        """There may be work."""
        self._work.set()
