"""The web application: the gate, the login, pages, deeds, `/metrics` and `/healthz`."""

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from importlib import resources
from threading import Event

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview
from dicom_node.audit import AuditTrail
from dicom_node.credentials import Passwords
from dicom_node.reception.storage import Storage
from dicom_node.settings import Settings
from dicom_node.telemetry import Metrics
from dicom_node.web.deeds import build_deeds
from dicom_node.web.dicomweb.service import build_dicomweb
from dicom_node.web.dicomweb.viewer import build_viewer
from dicom_node.web.gate import Doorkeeper, Gate, visitor_of
from dicom_node.web.login import Login, build_router
from dicom_node.web.login_limits import LoginLimits
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.needs import SECURITY_HEADERS
from dicom_node.web.oidc import IdentityProvider
from dicom_node.web.pages import Pages
from dicom_node.web.picture_cache import PictureCache
from dicom_node.web.queue_page import QueuePage, build_queue_page
from dicom_node.web.reading import Reading, Watch, build_reading
from dicom_node.web.rule_tester import build_rule_tester
from dicom_node.web.study_page import StudyPages, build_study_pages
from dicom_node.web.study_pictures import StudyPictures

__all__ = ["SECURITY_HEADERS", "build_application"]

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
    settings: Settings | None = None,
    archive: Archive | None = None,
    storage: Storage | None = None,
    transfer_syntaxes: Collection[str] = (),
    audit: AuditTrail | None = None,
    key: bytes = b"",
    echo: Callable[[str], float] | None = None,
    metrics: Metrics | None = None,
    free_bytes: Callable[[], int] | None = None,
    title: str = "DICOM node",
    dispensable: frozenset[str] = frozenset(),
) -> FastAPI:
    """The application over an index.

    `queue_lengths` answers None when the broker does not; `health` tells of each part whether it lives; `clock` gives
    seconds since 1970 UTC; `free_bytes` the archive's free room; `metrics` are this process's own counts, and are
    extended by what the index knows; without `archive` there are no pictures and no DICOMweb, without `storage`,
    which takes instances in `transfer_syntaxes`, nothing can be stored; `key` is that of the study keys, `echo` asks a
    peer by name whether it is there, and `dispensable` names the parts without which the node still does its work.
    """
    settings = Settings() if settings is None else settings
    audit = AuditTrail((), source=settings.node.ae_title) if audit is None else audit
    application = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    # Whoever serves the application sets it: streams must not hold up its end.
    application.state.ending = Event()
    pages = Pages(title)
    own = Metrics() if metrics is None else metrics
    total_bytes = None if archive is None else archive.total_bytes
    own.registry.register(IndexCollector(index, queue_lengths, clock, free_bytes, total_bytes))
    doorkeeper = Doorkeeper(index=index, settings=settings.access, clock=clock)
    login = _login(index, doorkeeper, audit, pages, clock, key)
    application.include_router(build_router(login))
    _add_pages(application, pages, index, queue_lengths, health, clock)
    pictures = _pictures(index, archive, settings)
    study_pages = StudyPages(
        index=index,
        archive=archive,
        pages=pages,
        pictures=pictures,
        settings=settings.web,
        routes=settings.routes,
        audit=audit,
        clock=clock,
        data_dir=settings.node.data_dir,
    )
    application.include_router(build_study_pages(study_pages))
    reading = Reading(
        index=index,
        pages=pages,
        pictures=pictures,
        settings=settings.web,
        audit=audit,
        clock=clock,
        key=key,
        ending=application.state.ending,
        watch=Watch(index=index),
    )
    application.include_router(build_reading(reading))
    queue_page = QueuePage(
        index=index,
        pages=pages,
        settings=settings,
        audit=audit,
        clock=clock,
        free_bytes=free_bytes,
        total_bytes=total_bytes,
        queue_lengths=queue_lengths,
        echo=echo,
    )
    application.include_router(build_queue_page(queue_page))
    application.include_router(build_rule_tester(index, pages, settings.routes, clock))
    application.include_router(build_deeds(index, clock, audit))
    if archive is not None:
        title_here = settings.node.ae_title
        application.include_router(
            build_dicomweb(
                index,
                archive,
                storage,
                transfer_syntaxes=transfer_syntaxes,
                ae_title=title_here,
                audit=audit,
                clock=clock,
            )
        )
        application.include_router(build_viewer(settings.web.viewer_dir))
    _add_machine_readables(application, own, health, dispensable)
    _add_manners(application, pages, clock)
    static = resources.files("dicom_node.web") / "static"
    application.mount("/static", StaticFiles(directory=str(static)))
    application.add_middleware(
        Gate,
        doorkeeper=doorkeeper,
        words=lambda status, text, visitor: pages.message(HTTPStatus(status), text, clock(), visitor),
    )
    return application


def _pictures(index: Index, archive: Archive | None, settings: Settings) -> StudyPictures | None:
    if archive is None:
        return None
    cache = PictureCache(settings.node.data_dir / "pictures", settings.web.picture_megabytes * 2**20)
    return StudyPictures(index, archive, cache)


def _login(
    index: Index, doorkeeper: Doorkeeper, audit: AuditTrail, pages: Pages, clock: Callable[[], float], key: bytes
) -> Login:
    access = doorkeeper.settings
    limits = LoginLimits(attempts=access.login_attempts, wait_seconds=access.login_wait_minutes * 60, clock=clock)
    return Login(
        index=index,
        doorkeeper=doorkeeper,
        passwords=Passwords(),
        limits=limits,
        audit=audit,
        pages=pages,
        clock=clock,
        provider=IdentityProvider(access, key=key, clock=clock) if access.oidc_issuer else None,
    )


def _add_pages(
    application: FastAPI,
    pages: Pages,
    index: Index,
    queue_lengths: Callable[[], Mapping[str, int] | None],
    health: Callable[[], Mapping[str, bool]],
    clock: Callable[[], float],
) -> None:
    # Plain functions: the framework runs them in threads, where waiting for the database holds nobody up.
    @application.api_route("/overview", methods=["GET", "HEAD"])
    def overview(request: Request) -> HTMLResponse:
        visitor = visitor_of(request.scope)
        return HTMLResponse(pages.overview(read_overview(index, clock()), queue_lengths(), health(), visitor))


def _add_machine_readables(
    application: FastAPI, metrics: Metrics, health: Callable[[], Mapping[str, bool]], dispensable: frozenset[str]
) -> None:
    @application.get("/metrics")
    def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @application.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> JSONResponse:
        # No thread: whoever asks must not wait for those that are busy. The parts only say what they know already.
        parts = dict(health())
        # Whoever starts a node again that is not well must not do so for what it works on without.
        ok = all(alive for name, alive in parts.items() if name not in dispensable)
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        missed = sorted(name for name, alive in parts.items() if not alive)
        return JSONResponse({"ok": ok, "missed": missed, "parts": parts}, status_code=status)


def _add_manners(application: FastAPI, pages: Pages, clock: Callable[[], float]) -> None:
    def page(request: Request, status: int, text: str) -> HTMLResponse:
        html = pages.message(HTTPStatus(status), text, clock(), visitor_of(request.scope))
        # What breaks off is answered outside the gate.
        return HTMLResponse(html, status_code=status, headers=dict(SECURITY_HEADERS))

    @application.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> HTMLResponse:
        is_ours = error.detail != HTTPStatus(error.status_code).phrase
        words = error.detail if is_ours else _WORDS.get(error.status_code, error.detail)
        return page(request, error.status_code, words)

    @application.exception_handler(Exception)
    async def failed(request: Request, _error: Exception) -> HTMLResponse:
        # The server logs the exception itself.
        return page(request, HTTPStatus.INTERNAL_SERVER_ERROR, _WORDS[500])
