"""The reading worklist: what to open next, and why; found by number, filtered, and live without a reload."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Event
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dicom_node.archive.index import Index
from dicom_node.archive.worklist import Wish, Worklist, read_version, read_worklist
from dicom_node.audit import QUERIED, AuditTrail, Happening
from dicom_node.core.errors import IndexUnavailable, UnknownStudy, UnreadableInstance
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.reading_order import Urgency
from dicom_node.core.uid import is_uid
from dicom_node.keying import key_of
from dicom_node.settings import WebSettings
from dicom_node.web.deeds import form_of
from dicom_node.web.dicomweb.viewer import study_template
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages
from dicom_node.web.picture import missing
from dicom_node.web.study_pictures import StudyPictures

#: Hours back that can be chosen; the first is shown where nothing is.
HOURS = (24, 8, 72, 168, 720)

#: How long one stream of events lasts: the next one asks at the gate again.
_STREAM_SECONDS = 120.0
_LOOK_SECONDS = 1.0
_MOST_STREAMS = 200

Term = TypeVar("Term", Urgency, StudyState)

_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the worklist needs."""

    index: Index
    pages: Pages
    pictures: StudyPictures | None
    settings: WebSettings
    audit: AuditTrail
    clock: Callable[[], float]
    #: Of the hashes of accession numbers.
    key: bytes
    #: The server stops, and every stream with it.
    ending: Event
    watch: "Watch"

    def worklist(self, wish: Wish) -> Worklist:
        """The page of the list."""
        wait = self.settings.longest_wait_minutes * 60
        return read_worklist(self.index, wish, self.clock(), longest_wait_seconds=wait)

    def wish(self, request: Request) -> Wish:
        """What the address asks for; what is nothing that can be asked is left out."""
        given = request.query_params
        hours = given.get("hours", "")
        back = next((choice for choice in HOURS if str(choice) == hours), HOURS[0])
        study, accession, page = given.get("study", ""), given.get("accession", ""), given.get("page", "")
        return Wish(
            since=self.clock() - back * 3600,
            urgency=_member(Urgency, given.get("urgency", "")),
            state=_member(StudyState, given.get("state", "")),
            study=study if is_uid(study) else "",
            accession=accession if _HASH.fullmatch(accession) else "",
            page=int(page) - 1 if page.isdecimal() and len(page) < 7 else 0,
        )


@dataclass(kw_only=True)
class Watch:
    """What every open page is told: that something changed. One look a second serves them all."""

    index: Index
    streams: int = 0
    _version: str = ""
    _looked_at: float = field(default=-1.0)

    async def version(self) -> str:
        """Changes with every change of the index; stays where the index does not answer."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            with suppress(IndexUnavailable):
                self._version = await run_in_threadpool(read_version, self.index)
        return self._version


def build_reading(reading: Reading) -> APIRouter:
    """The addresses of the worklist."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    def page(request: Request) -> HTMLResponse:
        return HTMLResponse(_shown(reading, request, whole=True))

    @router.get("/worklist")
    def part(request: Request) -> Response:
        if _is_navigation(request):
            # A part of a page, without style and menu: whoever opens its address by hand means the page.
            query = request.url.query
            return RedirectResponse(f"/?{query}" if query else "/", HTTPStatus.SEE_OTHER)
        return HTMLResponse(_shown(reading, request, whole=False))

    @router.post("/search")
    async def search(request: Request) -> Response:
        number = (await form_of(request)).get("number", "").strip()[:64]
        # In a thread: the database may let it wait.
        return await run_in_threadpool(_searched, reading, request, number)

    @router.get("/events")
    async def events(request: Request) -> Response:
        if reading.watch.streams >= _MOST_STREAMS:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages watch; this one shows what was.")
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(reading, request), media_type="text/event-stream", headers=headers)

    @router.get("/studies/{study_instance_uid}/preview.png")
    def preview(study_instance_uid: str) -> Response:
        if not is_uid(study_instance_uid) or reading.pictures is None:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        try:
            data = reading.pictures.preview(study_instance_uid)
        except (UnreadableInstance, UnknownStudy, OSError):
            data = missing("no picture")
        return picture(data)

    return router


def _is_navigation(request: Request) -> bool:
    """Whether a person opens the address: browsers say so, but over plain HTTP only by what they accept of a page."""
    mode = request.headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "application/xhtml+xml" in request.headers.get("accept", "")


def picture(data: bytes) -> Response:
    """A picture that the browser alone may keep, and asks for anew: it shows a patient, and may be withdrawn."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-cache", "ETag": tag})


def study_links(settings: WebSettings) -> Callable[[str], str]:
    """Where a study opens elsewhere, or in the viewer that is here; empty where there is neither.

    It is looked once whether the viewer is there, for all studies of a page.
    """
    template = settings.study_link or study_template(settings.viewer_dir)
    return lambda study: template.replace("{study}", quote(study, safe="."))


def _shown(reading: Reading, request: Request, *, whole: bool) -> str:
    wish, visitor = reading.wish(request), visitor_of(request.scope)
    given = {name: value for name, value in request.query_params.items() if name in _FILTERS}
    facts: dict[str, Any] = {
        "worklist": reading.worklist(wish),
        "wish": wish,
        "hours": round((reading.clock() - wish.since) / 3600),
        "choices": HOURS,
        "longest_wait": reading.settings.longest_wait_minutes * 60,
        "link": study_links(reading.settings),
        "filtered": lambda **changes: "/?" + urlencode({**given, "page": "1", **changes}),
    }
    return reading.pages.worklist(visitor, whole=whole, **facts)


_FILTERS = ("hours", "urgency", "state", "study", "accession", "page")


def _searched(reading: Reading, request: Request, number: str) -> Response:
    """To what was looked for. An accession number leads to its hash: no address may hold the number itself."""
    visitor = visitor_of(request.scope)
    as_uid = is_uid(number) and "." in number
    kind = "by Study Instance UID" if as_uid else "by Accession Number"
    studies = [number] if as_uid else []
    reading.audit.note(
        Happening(
            event=QUERIED,
            at=reading.clock(),
            user=visitor.name,
            address=visitor.address,
            description=f"worklist searched {kind}",
            studies=studies,
        )
    )
    if not number:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    asked = {"study": number} if as_uid else {"accession": key_of(number, reading.key)}
    return RedirectResponse(f"/?{urlencode(asked)}", HTTPStatus.SEE_OTHER)


async def _stream(reading: Reading, request: Request) -> AsyncIterator[str]:
    """Server-sent events (HTML Standard Section 9.2): the version at first, then each new one."""
    watch, until = reading.watch, time.monotonic() + _STREAM_SECONDS
    watch.streams += 1
    try:
        last, quiet = "", 0
        yield "retry: 2000\n\n"
        while time.monotonic() < until and not reading.ending.is_set() and not await request.is_disconnected():
            version = await watch.version()
            quiet += 1
            if version != last:
                last, quiet = version, 0
                yield f"event: changed\ndata: {version}\n\n"
            elif quiet % 30 == 0:
                yield ": still here\n\n"
            await asyncio.sleep(0.5)
    finally:
        watch.streams -= 1


def _member(kind: type[Term], text: str) -> Term | None:
    return kind(text) if text in [member.value for member in kind] else None
