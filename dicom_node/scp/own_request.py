"""A request of ours on an association that a peer opened to us: an N-EVENT-REPORT, from another thread than its own."""

import itertools
import threading
from io import BytesIO
from typing import cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode


class OwnRequests:
    """Sends requests of ours, and gives each the answer that comes for it; what the peer asks meanwhile is served."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lock = threading.Lock()

    def report(
        self, event_type: int, information: Dataset, *, sop_class_uid: str, instance_uid: str, patience_seconds: float
    ) -> int | None:
        """Send an N-EVENT-REPORT and wait for its status; None where the association ended or was silent too long."""
        context = self._context(sop_class_uid)
        if context is None:
            return None
        request = N_EVENT_REPORT()
        # 16 bits; nobody sends so many at a time.
        request.MessageID = next(self._numbers) % 0xFFFF + 1
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class_uid), UID(instance_uid)
        request.EventTypeID = event_type
        context_id, syntax = context
        data = encode(information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        request.EventInformation = BytesIO(cast(bytes, data))
        waiting = _Waiting()
        with self._lock:
            if not self._association.is_established:
                return None
            self._waiting[request.MessageID] = waiting
        self._association.dimse.send_msg(request, context_id)
        waiting.came.wait(patience_seconds)
        with self._lock:
            self._waiting.pop(request.MessageID, None)
        return waiting.status

    def answered(self, response: N_EVENT_REPORT) -> None:
        """An answer came; one that nobody waits for any more means nothing."""
        with self._lock:
            waiting = self._waiting.pop(cast(int, response.MessageIDBeingRespondedTo), None)
        if waiting is not None:
            waiting.status = response.Status
            waiting.came.set()

    def ended(self) -> None:
        """No answer comes any more."""
        with self._lock:
            for waiting in self._waiting.values():
                waiting.came.set()

    def _context(self, sop_class_uid: str) -> tuple[int, UID] | None:
        for context in self._association.accepted_contexts:
            if context.abstract_syntax == sop_class_uid:
                return cast(int, context.context_id), context.transfer_syntax[0]
        return None


class _Waiting:
    """Somebody who waits for an answer."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.status: int | None = None
