"""The queue page, for those who run the node: what waits, what hangs and what failed, and the mend beside it."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from dicom_node.archive.index import Index
from dicom_node.archive.lines import Overview
from dicom_node.archive.overview import read_overview
from dicom_node.archive.workload import (
    Bucket,
    read_buckets,
    read_failed,
    read_last_accepted,
    read_service_seconds,
    read_waiting,
)
from dicom_node.audit import NODE_CHANGED, AuditTrail, Happening
from dicom_node.core.errors import NodeError
from dicom_node.core.priority import QUEUES, Priority
from dicom_node.settings import Settings
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages
from dicom_node.work_log import excerpts

#: Name, seconds of one bar, and how many bars.
PERIODS = (("the last hour", 300.0, 12), ("the last day", 3600.0, 24), ("the last week", 21600.0, 28))

#: Of the log, beside each failure.
LOG_LINES = 12

_DAY_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a chart, its height from 0 to 1."""

    height: float
    words: str
    begins_at: float


@dataclass(frozen=True, kw_only=True)
class Echo:
    """What came of a peer's last C-ECHO."""

    at: float
    #: None: it did not answer.
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class QueuePage:
    """What the page needs."""

    index: Index
    pages: Pages
    settings: Settings
    audit: AuditTrail
    clock: Callable[[], float]
    free_bytes: Callable[[], int] | None
    total_bytes: Callable[[], int] | None
    queue_lengths: Callable[[], Any]
    #: C-ECHO to a peer by name: seconds it took; NodeError where it does not answer.
    echo: Callable[[str], float] | None = None
    #: By peer, since this process began.
    echoes: dict[str, Echo] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the page shows."""
        now = self.clock()
        overview = read_overview(self.index, now, limit=0)
        failed = read_failed(self.index)
        service = read_service_seconds(self.index, now - _DAY_SECONDS)
        away = {line.peer: line for line in overview.peers}
        return {
            "overview": overview,
            "messages": self.queue_lengths(),
            "waiting": read_waiting(self.index, now, self.settings.queue.maximum_waiting_seconds),
            "overdue": self.settings.queue.maximum_waiting_seconds,
            "failed": failed,
            "excerpts": excerpts(self.settings.node.data_dir, {job.study_instance_uid for job in failed}, LOG_LINES),
            "service": service,
            "estimates": estimates(overview, service),
            "peers": [(peer, away.get(peer.name)) for peer in self.settings.peers],
            "accepted": read_last_accepted(self.index),
            "echoes": self.echoes,
            "free": None if self.free_bytes is None else self.free_bytes(),
            "total": None if self.total_bytes is None else self.total_bytes(),
            "watermark": self.settings.node.minimum_free_megabytes * 2**20,
            "priorities": list(Priority),
            "charts": [(name, seconds, *self._charts(now, seconds, count)) for name, seconds, count in PERIODS],
            "can_echo": self.echo is not None,
        }

    def _charts(self, now: float, seconds: float, count: int) -> tuple[list[Bar], list[Bar], int, float]:
        buckets = read_buckets(self.index, now, stretch_seconds=seconds, count=count)
        most = max((bucket.count for bucket in buckets), default=0)
        longest = max((bucket.median_seconds or 0.0 for bucket in buckets), default=0.0)
        return _counts(buckets, most), _medians(buckets, longest), most, longest


def estimates(overview: Overview, service: dict[str, float]) -> dict[str, float | None]:
    """Seconds until a study that came now would have its report, by queue; None where nobody reads or nothing is known.

    Whatever is in an equal or more urgent queue is read before, by the workers that serve it and were heard, each
    taking the median time of the last day. What waits too long and overtakes others is not in it.
    """
    found: dict[str, float | None] = {}
    for number, queue in enumerate(QUEUES):
        workers = [worker for worker in overview.workers if not worker.silent and queue in worker.queues]
        lines = [line for line in overview.queues if line.queue in QUEUES[: number + 1]]
        if not workers or queue not in service:
            found[queue] = None
            continue
        before = sum((line.waiting + line.reading / 2) * service.get(line.queue, service[queue]) for line in lines)
        found[queue] = before / len(workers) + service[queue]
    return found


def build_queue_page(queue_page: QueuePage) -> APIRouter:
    """The address of the page, and what can be asked for on it."""
    router = APIRouter()

    @router.api_route("/queue", methods=["GET", "HEAD"])
    def page(request: Request) -> HTMLResponse:
        said = request.query_params.get("echo", "")
        names = {peer.name for peer in queue_page.settings.peers}
        asked = said if said in names else ""
        seconds = request.query_params.get("seconds", "")
        facts = queue_page.facts()
        answered = float(seconds) if _is_number(seconds) else None
        said_of = {"asked": asked, "answered": answered}
        return HTMLResponse(queue_page.pages.queue(visitor_of(request.scope), queue_page.clock(), **said_of, **facts))

    @router.post("/peers/{name}/echo")
    async def echo(request: Request, name: str) -> RedirectResponse:
        visitor = visitor_of(request.scope)
        if queue_page.echo is None or name not in {peer.name for peer in queue_page.settings.peers}:
            return RedirectResponse("/queue", 303)
        facts = {"user": visitor.name, "address": visitor.address, "description": f"C-ECHO to {name}"}
        happening = Happening(event=NODE_CHANGED, at=queue_page.clock(), **facts)  # type: ignore[arg-type]  # by name
        await run_in_threadpool(queue_page.audit.note, happening)
        seconds: float | None = None
        with suppress(NodeError):
            seconds = await run_in_threadpool(queue_page.echo, name)
        queue_page.echoes[name] = Echo(at=queue_page.clock(), seconds=seconds)
        asked = {"echo": name} | ({} if seconds is None else {"seconds": f"{seconds:.3f}"})
        return RedirectResponse(f"/queue?{urlencode(asked)}", 303)

    return router


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and len(text) < 12 and math.isfinite(float(text))


def _counts(buckets: Sequence[Bucket], most: int) -> list[Bar]:
    return [
        Bar(
            height=bucket.count / most if most else 0.0,
            words=f"{bucket.count} {'study' if bucket.count == 1 else 'studies'} reported",
            begins_at=bucket.begins_at,
        )
        for bucket in buckets
    ]


def _medians(buckets: Sequence[Bucket], longest: float) -> list[Bar]:
    return [
        Bar(
            height=(bucket.median_seconds or 0.0) / longest if longest else 0.0,
            words="nothing reported"
            if bucket.median_seconds is None
            else f"median {bucket.median_seconds:.0f} s, longest {bucket.longest_seconds:.0f} s",
            begins_at=bucket.begins_at,
        )
        for bucket in buckets
    ]
