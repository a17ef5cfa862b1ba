"""Auditing: who searched, retrieved and stored over DICOMweb, once a minute for each visitor, study and deed."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastapi import Request

from dicom_node.audit import AuditTrail, Event, Happening
from dicom_node.web.gate import visitor_of

#: A viewer asks for each frame of a study by itself.
_QUIET_SECONDS = 60.0

_REMEMBERED = 10_000


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """Notes what happened."""

    trail: AuditTrail
    clock: Callable[[], float]
    _noted: OrderedDict[tuple[str, str, str, str], float] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def note(self, request: Request, event: Event, what: str, studies: Sequence[str] = ()) -> None:
        """`what`: in words without names; of many studies each is noted for itself."""
        visitor, now = visitor_of(request.scope), self.clock()
        fresh = [study for study in studies or [""] if self._is_new((visitor.name, visitor.address, study, what), now)]
        if not fresh:
            return
        named = [study for study in fresh if study]
        facts = {"user": visitor.name, "address": visitor.address, "description": what, "studies": named}
        self.trail.note(Happening(event=event, at=now, **facts))  # type: ignore[arg-type]  # by name

    def _is_new(self, key: tuple[str, str, str, str], now: float) -> bool:
        with self._lock:
            before = self._noted.get(key)
            if before is not None and 0 <= now - before < _QUIET_SECONDS:
                return False
            self._noted[key] = now
            self._noted.move_to_end(key)
            while len(self._noted) > _REMEMBERED:
                self._noted.popitem(last=False)
            return True
