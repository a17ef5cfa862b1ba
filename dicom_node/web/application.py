"""The web application: pages, `/metrics`, `/healthz`; a page can have a study read again, or its result withdrawn."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview, read_study
from dicom_node.core.errors import IllegalTransition, UnknownStudy
from dicom_node.core.uid import is_uid
from dicom_node.telemetry import Metrics
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.pages import Pages

log = logging.getLogger(__name__)

#: Nothing from elsewhere, no scripts at all, in no frame; UIDs stay out of caches and of other sites' logs.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then hide the Origin of our own forms, too.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: Bytes of a form that are looked at, and the letters of a reason that are kept.
_LONGEST_FORM, _LONGEST_REASON = 4000, 200

#: Who the history says asked for a study from here.
ACTOR = "page"

_WORDS: Mapping[int, str] = {
    404: "There is no such page. The overview lists the studies that this node holds.",
    405: "This page can only be read.",
    500: "The node failed to make this page; its log says where. The studies are not touched by this.",
}


def build_application(
    index: Index,
    queue_lengths: Callable[[], Mapping[str, int] | None],
    health: Callable[[], Mapping[str, bool]],
    clock: Callable[[], float],
    *,
    metrics: Metrics | None = None,
    free_bytes: Callable[[], int] | None = None,
    title: str = "DICOM node",
    dispensable: frozenset[str] = frozenset(),
) -> FastAPI:
    """The application over an index.

    `queue_lengths` answers None when the broker does not; `health` tells of each part whether it lives; `clock` gives
    seconds since 1970 UTC; `free_bytes` the archive's free room; `metrics` are this process's own counts, and are
    extended by what the index knows; `dispensable` names the parts without which the node still does its work.
    """
    application = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(title)
    own = Metrics() if metrics is None else metrics
    own.registry.register(IndexCollector(index, queue_lengths, clock, free_bytes))
    _add_pages(application, pages, index, queue_lengths, health, clock)
    _add_deeds(application, index, clock)
    _add_machine_readables(application, own, health, dispensable)
    _add_manners(application, pages, clock)
    static = resources.files("dicom_node.web") / "static"
    application.mount("/static", StaticFiles(directory=str(static)))
    return application


def _add_pages(
    application: FastAPI,
    pages: Pages,
    index: Index,
    queue_lengths: Callable[[], Mapping[str, int] | None],
    health: Callable[[], Mapping[str, bool]],
    clock: Callable[[], float],
) -> None:
    # Plain functions: the framework runs them in threads, where waiting for the database holds nobody up.
    @application.api_route("/", methods=["GET", "HEAD"])
    def overview() -> HTMLResponse:
        return HTMLResponse(pages.overview(read_overview(index, clock()), queue_lengths(), health()))

    @application.api_route("/studies/{study_instance_uid}", methods=["GET", "HEAD"])
    def study(study_instance_uid: str) -> HTMLResponse:
        with _answering_for(study_instance_uid):
            return HTMLResponse(pages.study(read_study(index, study_instance_uid, clock())))


def _add_deeds(application: FastAPI, index: Index, clock: Callable[[], float]) -> None:
    @application.post("/studies/{study_instance_uid}/requeue")
    def requeue(request: Request, study_instance_uid: str) -> RedirectResponse:
        if not _is_from_our_page(request.headers):
            raise HTTPException(
                HTTPStatus.FORBIDDEN, "This can only be asked for by the button of the node's own page."
            )
        with _answering_for(study_instance_uid):
            index.jobs.ask_again(study_instance_uid, actor=ACTOR, at=clock())
        log.info("a study was asked for again", extra={"study_instance_uid": study_instance_uid, "actor": ACTOR})
        return RedirectResponse(f"/studies/{study_instance_uid}", status_code=HTTPStatus.SEE_OTHER)

    @application.post("/studies/{study_instance_uid}/withdraw")
    async def withdraw(request: Request, study_instance_uid: str) -> RedirectResponse:
        if not _is_from_our_page(request.headers):
            raise HTTPException(
                HTTPStatus.FORBIDDEN, "This can only be asked for by the button of the node's own page."
            )
        given = parse_qs((await request.body())[:_LONGEST_FORM].decode("utf-8", "replace"))
        reason, safety = "".join(given.get("reason", []))[:_LONGEST_REASON], "safety" in given
        with _answering_for(study_instance_uid):
            # In a thread: the database may let it wait.
            await run_in_threadpool(
                index.withdrawals.withdraw, study_instance_uid, safety=safety, reason=reason, actor=ACTOR, at=clock()
            )
        log.warning("a result was withdrawn", extra={"study_instance_uid": study_instance_uid, "actor": ACTOR})
        return RedirectResponse(f"/studies/{study_instance_uid}", status_code=HTTPStatus.SEE_OTHER)


@contextmanager
def _answering_for(study_instance_uid: str) -> Iterator[None]:
    """Say in words what is wrong with a study's UID, or with what was asked of it."""
    if not is_uid(study_instance_uid):
        raise HTTPException(HTTPStatus.NOT_FOUND, "That is no Study Instance UID.")
    try:
        yield
    except UnknownStudy as error:
        words = f"Study {study_instance_uid} is not in the index. The overview lists those that are."
        raise HTTPException(HTTPStatus.NOT_FOUND, words) from error
    except IllegalTransition as error:
        words = f"That cannot be done with study {study_instance_uid} now: {error}."
        raise HTTPException(HTTPStatus.CONFLICT, words) from error


def _is_from_our_page(headers: Headers) -> bool:
    """Whether a form of this very origin was sent: another site's must not be able to ask in a visitor's name.

    Browsers say so in Sec-Fetch-Site over TLS and on this machine, else in Origin; no site can forge either.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "") != ""


def _add_machine_readables(
    application: FastAPI, metrics: Metrics, health: Callable[[], Mapping[str, bool]], dispensable: frozenset[str]
) -> None:
    @application.get("/metrics")
    def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @application.api_route("/healthz", methods=["GET", "HEAD"])
    def healthz() -> JSONResponse:
        parts = dict(health())
        # Whoever starts a node again that is not well must not do so for what it works on without.
        ok = all(alive for name, alive in parts.items() if name not in dispensable)
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        missed = sorted(name for name, alive in parts.items() if not alive)
        return JSONResponse({"ok": ok, "missed": missed, "parts": parts}, status_code=status)


def _add_manners(application: FastAPI, pages: Pages, clock: Callable[[], float]) -> None:
    @application.middleware("http")
    async def secure(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.update(SECURITY_HEADERS)
        return response

    def page(status: int, text: str) -> HTMLResponse:
        html = pages.message(HTTPStatus(status), text, clock())
        return HTMLResponse(html, status_code=status, headers=dict(SECURITY_HEADERS))

    @application.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> HTMLResponse:
        is_ours = error.detail != HTTPStatus(error.status_code).phrase
        return page(error.status_code, error.detail if is_ours else _WORDS.get(error.status_code, error.detail))

    @application.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> HTMLResponse:
        # The server logs the exception itself.
        return page(HTTPStatus.INTERNAL_SERVER_ERROR, _WORDS[500])
