"""The application entity that others call: storage, verification, commitment and notifications on one port."""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom import AE, _config, register_uid
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_node.core.errors import SettingsError
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.reception.storage import Reception
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.scp.accepted_association import StorageServer
from dicom_node.scp.admission import Admission
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scp.handlers import Handlers
from dicom_node.scp.notifications import Notifications
from dicom_node.scp.open_associations import OpenAssociations
from dicom_node.scp.presentation_contexts import (
    SupportedContext,
    storage_sop_classes,
    supported_presentation_contexts,
)
from dicom_node.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long the SCP waits, in seconds."""

    #: For the association request on a new connection, and for the peer's part of its end.
    acse: float = 30.0
    #: For the rest of a message that has begun.
    dimse: float = 60.0
    #: For anything at all on an open association; scanners pause between series while they reconstruct.
    network: float = 120.0
    #: For running associations to end by themselves when the node stops.
    grace: float = 5.0


class ApplicationEntity:
    """Listens, negotiates, and hands every instance to the reception."""

    def __init__(
        self,
        settings: Settings,
        reception: Reception,
        *,
        timeouts: Timeouts | None = None,
        commitments: CommitmentEvents | None = None,
        notifications: Notifications | None = None,
        count_refusal: Callable[[str, str], None] = lambda _what, _reason: None,
        watermark: DiskWatermark | None = None,
    ) -> None:
        """`commitments` takes what peers ask and answer about storage commitment, `notifications` what they tell.

        Without them the SOP classes are not accepted. `count_refusal` hears of what is refused, and why;
        `watermark` is shared with whoever else takes instances.
        """
        self._settings = settings
        self._timeouts = timeouts or Timeouts()
        self._admission = Admission.from_settings(settings.admission)
        watermark = watermark or DiskWatermark(settings.node.minimum_free_megabytes)
        self._handlers = Handlers(reception, watermark, count_refusal)
        self._commitments = commitments
        self._notifications = notifications
        self._open_associations = OpenAssociations(
            maximum=self._admission.maximum_associations, maximum_per_peer=self._admission.maximum_associations_per_peer
        )
        self._ae = self._build()
        self._server: StorageServer | None = None

    def start(self) -> None:
        """Accept associations from now on; SettingsError where the port cannot be had."""
        node = self._settings.node
        bindings = self._handlers.bindings()
        contexts = list(map(_context_of, supported_presentation_contexts()))
        if self._commitments is not None:
            bindings += self._commitments.bindings()
            contexts.append(self._commitments.context())
        if self._notifications is not None:
            bindings += self._notifications.bindings()
            contexts += map(_context_of, self._notifications.contexts())
        try:
            self._server = self._listen(bindings, contexts)
        except OSError as error:
            where = f"{node.host}:{node.port}"
            raise SettingsError(f"cannot listen on {where}: {error.strerror}; set port or host of [node]") from error
        log.info("listening for associations", extra={"ae_title": node.ae_title, "port": self.port})
        if self._admission.warning is not None:
            log.warning(self._admission.warning)

    def stop(self) -> None:
        """Accept no more, let running associations end for a few seconds, then abort them."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server = None
        until = time.monotonic() + self._timeouts.grace
        # A connection that has not come to an association yet is not waited for.
        while any(a.is_established for a in self._ae.active_associations) and time.monotonic() < until:
            time.sleep(0.05)
        for association in self._ae.active_associations:
            association.abort()
        log.info("stopped listening", extra={"ae_title": self._settings.node.ae_title})

    @property
    def alive(self) -> bool:
        """Whether associations are accepted."""
        return self._server is not None and self._server.socket is not None and self._server.socket.fileno() >= 0

    @property
    def port(self) -> int:
        """The port in use, also where the settings left the choice open (0)."""
        return self._settings.node.port if self._server is None else int(self._server.server_address[1])

    def _listen(self, bindings: list[EventHandlerType], contexts: list[PresentationContext]) -> StorageServer:
        node = self._settings.node
        server = StorageServer(
            self._ae, (node.host, node.port), self._handlers.storage, self._open_associations, bindings, contexts
        )
        threading.Thread(target=server.serve_forever, name="listening", daemon=True).start()
        return server

    def _build(self) -> AE:
        _configure_libraries()
        ae = AE(ae_title=self._settings.node.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = self._settings.node.maximum_pdu_bytes
        # They are counted in [open_associations]: here silent connections would count, too.
        ae.maximum_associations = sys.maxsize
        ae.require_calling_aet = list(self._admission.calling_ae_titles)
        ae.require_called_aet = self._admission.called_ae_title_must_match
        ae.acse_timeout = self._timeouts.acse
        ae.dimse_timeout = self._timeouts.dimse
        ae.network_timeout = self._timeouts.network
        return ae


def _context_of(supported: SupportedContext) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(supported.sop_class_uid)
    context.transfer_syntax = [UID(uid) for uid in supported.transfer_syntax_uids]
    return context


def _configure_libraries() -> None:
    """What pynetdicom and pydicom keep for the whole process; the same at every call."""
    # The event log formats every PDU and message, also when nobody reads it.
    _config.LOG_HANDLER_LEVEL = "none"
    # Data sets stay in memory on their way to the archive: temporary files would be written twice and outlive aborts.
    _config.STORE_RECV_CHUNKED_DATASET = False
    # Their warnings quote values that break a rule, and such a value may be a name in the wrong place.
    for library in ("pydicom", "pynetdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=UserWarning, module=rf"{library}(\.|$)")
    for number, uid in enumerate(storage_sop_classes()):
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, f"FurtherStorage{number}", StorageServiceClass)
