"""Retention: studies leave the disk when their results are safe elsewhere, they are old, and room is wanted.

The rules are in `core.retention`. The index says first that a study is gone, then the files of its instances go: where
that breaks off, by a crash or by the disk, files stay that nobody counts on, and the next step or start removes them.
Results stay: they are small, and later reports refer to them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_node.archive.faults import tell_faults
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.stock import Stock
from dicom_node.core.retention import HeldStudy, RetentionPolicy, leaving
from dicom_node.settings import RetentionSettings

log = logging.getLogger(__name__)

ACTOR = "retention"

#: The name among the index's conditions of what is wrong.
CONDITION = "disk"

#: Studies that are looked at together: their sizes are summed up from their instances' rows.
_AT_ONCE = 25

_SECONDS_A_DAY = 86400.0

#: Room is wanted this much before the node refuses instances, so that it never does while a study may leave.
_AHEAD = 1.1


class Retention:
    """Lets studies leave; `free_bytes` of the disk are those of the archive unless given.

    With less than `minimum_free_bytes` nothing is received any more: so much room and a little more is always wanted.
    """

    def __init__(
        self,
        settings: RetentionSettings,
        archive: Archive,
        index: Index,
        clock: Callable[[], float],
        *,
        free_bytes: Callable[[], int] | None = None,
        minimum_free_bytes: float = 0.0,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._stock = Stock(archive)
        self._index = index
        self._clock = clock
        self._free_bytes = free_bytes or archive.free_bytes
        self._minimum_free_bytes = minimum_free_bytes

    def step(self) -> None:
        """Let as many studies leave as it takes to have the wanted room; none while there is enough."""
        policy = self._policy()
        with self._telling_refusals():
            # Also where nothing leaves any more: what left is not to fill the disk.
            self._index.evictions.finish(self._archive, actor=ACTOR, at=self._clock())
            if policy.is_on and self._free_bytes() < policy.wanted_free_bytes:
                self._make_room(policy)
        if policy.is_on and self._free_bytes() < policy.wanted_free_bytes:
            reason = (
                f"less than {policy.wanted_free_bytes / 1e9:.1f} GB free, and no study may leave: see that results are "
                "committed, make room, or lower the watermark or days of [retention]"
            )
            self._index.conditions.began(CONDITION, reason=reason, at=self._clock())
        else:
            self._index.conditions.ended(CONDITION)

    @contextmanager
    def _telling_refusals(self) -> Iterator[None]:
        """Let people see that the disk refuses to remove a file; no other study leaves until it does so again."""
        try:
            yield
        except OSError as error:
            reason = f"files of a study that left cannot be removed ({type(error).__name__}): look at the disk"
            self._index.conditions.began(CONDITION, reason=reason, at=self._clock())
            raise

    def _make_room(self, policy: RetentionPolicy) -> None:
        """Let studies leave, some at a time, until there is room or none may."""
        before = self._clock() - policy.days * _SECONDS_A_DAY
        any_left = True
        while any_left:
            any_left = False
            held = self._index.evictions.candidates(policy.states, before, _AT_ONCE)
            for study in leaving(held, policy, free_bytes=self._free_bytes(), now=self._clock()):
                # Measured anew: others write to and delete from the same disk.
                if self._free_bytes() >= policy.wanted_free_bytes:
                    return
                any_left |= self._let_go(study, policy)

    def _policy(self) -> RetentionPolicy:
        wanted = self._settings.watermark_gigabytes * 1e9
        share = self._archive.total_bytes() * self._settings.free_percent / 100
        wanted_free_bytes = max(wanted, share, self._minimum_free_bytes * _AHEAD)
        return RetentionPolicy(
            days=self._settings.days, wanted_free_bytes=wanted_free_bytes, states=self._settings.states
        )

    def _let_go(self, study: HeldStudy, policy: RetentionPolicy) -> bool:
        """Whether the study left."""
        uid, now = study.study_instance_uid, self._clock()
        cause = (
            f"left the disk: {study.state}, unchanged for more than {policy.days:g} days, and less than "
            f"{policy.wanted_free_bytes / 1e9:.1f} GB were free"
        )
        with self._archive.emptying(uid) as may_be_emptied:
            # An instance of it is just arriving: it is not as old as it seemed.
            if not may_be_emptied:
                return False
            paths = self._index.evictions.evict(uid, policy, cause=cause, at=now)
            if paths is None:
                return False
            tell_faults(self._index.faults, self._index.conditions, now)
            self._stock.remove(paths)
            self._index.evictions.removed(uid)
        facts = {"study_instance_uid": uid, "files": len(paths), "size_bytes": study.size_bytes}
        log.info("a study left the disk", extra=facts)
        return True
