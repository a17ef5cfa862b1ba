"""Delivery of reports: every object to every peer that takes results, tried until each has it."""

import logging
import random
from collections.abc import Callable, Sequence

from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import (
    AssociationRejected,
    DeliveryError,
    IndexUnavailable,
    PeerUnreachable,
    StoreFailed,
    UnreadableInstance,
)
from dicom_node.scu.storage import FileToSend, Sent, store
from dicom_node.settings import Settings

log = logging.getLogger(__name__)


class Delivery:
    """Sends what the index says is due; all memory is in the index, so a restart loses nothing."""

    def __init__(self, settings: Settings, index: Index, archive: Archive, clock: Callable[[], float]) -> None:
        self._index = index
        self._archive = archive
        self._clock = clock
        self._ae_title = settings.node.ae_title
        self._waits = settings.delivery
        self._peers = {peer.name: peer for peer in settings.peers}
        self._takers = tuple(peer.name for peer in settings.peers if peer.results)
        if not self._takers and any(not route.send_to for route in settings.routes):
            log.warning("no peer takes results; reports stay in the archive; set results = true for a peer")

    def step(self) -> None:
        """Plan what is new, send what is due, and settle studies that have everything accepted."""
        for sop_instance_uid, named in self._index.deliveries.unplanned():
            if peers := named or self._takers:
                self._index.deliveries.plan(sop_instance_uid, peers, self._clock())
        # A peer that did not answer once is not waited for again in this round: others must not wait with it.
        away: dict[str, DeliveryError] = {}
        for (peer_name, _study), rows in _by_association(self._index.deliveries.due(self._clock())).items():
            error = away.get(peer_name)
            if error is None:
                error = self._send(peer_name, rows)
            else:
                self._postpone_all(rows, error)
            if error is not None:
                away[peer_name] = error
        for study in self._index.deliveries.settled():
            self._index.deliveries.settle(study, self._clock())

    def _send(self, peer_name: str, rows: Sequence[DeliveryRow]) -> DeliveryError | None:
        """Send one study's objects over one association; the error, when the peer could not be reached."""
        waiting = {row.sop_instance_uid: row for row in rows}
        try:
            return self._try(peer_name, waiting)
        except IndexUnavailable:
            raise
        # The rim of one study's delivery: what nobody foresaw must not hold up the others'.
        except Exception as error:
            reason = f"an unexpected {type(error).__name__} while it was sent; the log has the place"
            log.error(
                "a delivery met something unexpected",
                extra={"study_instance_uid": rows[0].study_instance_uid, "peer": peer_name},
                exc_info=True,
            )
            for row in waiting.values():
                self._postpone(row, reason, refused=False)
            return None

    def _try(self, peer_name: str, waiting: dict[str, DeliveryRow]) -> DeliveryError | None:
        """As `_send`; every row whose fate is in the index is taken out of those that wait."""
        peer = self._peers.get(peer_name)
        if peer is None:
            for uid in list(waiting):
                reason = f"no peer is named {peer_name} in the settings"
                self._index.deliveries.failed(waiting[uid], reason=reason, at=self._clock())
                del waiting[uid]
            return None
        files = self._files(waiting)
        gone: DeliveryError | None = None
        try:
            for sent in store(
                peer, files.values(), ae_title=self._ae_title, timeout_seconds=self._waits.timeout_seconds
            ):
                self._record(waiting[sent.file.sop_instance_uid], sent)
                del waiting[sent.file.sop_instance_uid]
                if isinstance(sent.error, PeerUnreachable):
                    gone = sent.error
        except (PeerUnreachable, AssociationRejected) as error:
            gone = error
            self._postpone_all(list(waiting.values()), error)
            waiting.clear()
        return gone

    def _files(self, waiting: dict[str, DeliveryRow]) -> dict[str, FileToSend]:
        """What can be sent, by SOP Instance UID, in the order of the rows; what cannot has failed and waits no more."""
        files = {}
        for uid, row in list(waiting.items()):
            try:
                files[uid] = FileToSend.read(self._archive.path_of(row.path))
            except UnreadableInstance:
                del waiting[uid]
                reason = "the report's file in the archive is missing or damaged; requeue the study to write it again"
                self._index.deliveries.failed(row, reason=reason, at=self._clock())
        return files

    def _record(self, row: DeliveryRow, sent: Sent) -> None:
        facts = {
            "study_instance_uid": row.study_instance_uid,
            "sop_instance_uid": row.sop_instance_uid,
            "peer": row.peer,
        }
        if sent.error is None:
            self._index.deliveries.accepted(row, reason=sent.answer, at=self._clock())
            log.info("object delivered", extra=facts)
        elif isinstance(sent.error, StoreFailed) and row.refusals + 1 >= self._waits.maximum_refusals:
            self._index.deliveries.failed(row, reason=str(sent.error), at=self._clock())
            log.error("object refused for good", extra={**facts, "reason": str(sent.error)})
        else:
            self._postpone(row, str(sent.error), refused=isinstance(sent.error, StoreFailed))

    def _postpone_all(self, rows: Sequence[DeliveryRow], error: DeliveryError) -> None:
        for row in rows:
            self._postpone(row, str(error), refused=False)

    def _postpone(self, row: DeliveryRow, reason: str, *, refused: bool) -> None:
        wait = min(self._waits.first_wait_seconds * 2.0 ** min(row.attempts, 30), self._waits.maximum_wait_seconds)
        # A peer that returns is not met by all studies at once; one study's objects wait alike and keep their order.
        wait *= random.Random(f"{row.study_instance_uid} {row.peer} {row.attempts}").uniform(0.8, 1.2)
        next_try_at = self._clock() + wait
        self._index.deliveries.postponed(row, reason=reason, refused=refused, next_try_at=next_try_at)
        facts = {"study_instance_uid": row.study_instance_uid, "peer": row.peer, "attempts": row.attempts + 1}
        log.warning("object not delivered, will be tried again", extra={**facts, "reason": reason})


def _by_association(due: Sequence[DeliveryRow]) -> dict[tuple[str, str], list[DeliveryRow]]:
    """The rows of each peer and study together, the groups in the order of their first rows."""
    groups: dict[tuple[str, str], list[DeliveryRow]] = {}
    for row in due:
        groups.setdefault((row.peer, row.study_instance_uid), []).append(row)
    # Segmentation (66.4) goes before the report (88.34) that refers to it.
    for rows in groups.values():
        rows.sort(key=lambda row: (row.sop_class_uid, row.sop_instance_uid))
    return groups
