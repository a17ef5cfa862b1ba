"""The web application: the gate, the login, pages, deeds, `/metrics` and `/healthz`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from threading import Event

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview
from dicom_node.audit import AuditTrail
from dicom_node.credentials import Passwords
from dicom_node.reception.storage import Storage
from dicom_node.settings import Settings
from dicom_node.telemetry import Metrics
from dicom_node.web.accounts_page import AccountsPage, build_accounts_page
from dicom_node.web.alerts import Alerts
from dicom_node.web.audit_lines import AuditLines
from dicom_node.web.audit_page import AuditTrailPage, build_audit_page
from dicom_node.web.deeds import Deeds, build_deeds
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.service import Dicomweb, build_dicomweb
from dicom_node.web.dicomweb.viewer import build_viewer
from dicom_node.web.doorkeeper import Doorkeeper
from dicom_node.web.gate import Gate, visitor_of
from dicom_node.web.line_limits import LineLimits
from dicom_node.web.login import Login, build_router
from dicom_node.web.login_limits import LoginLimits
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.needs import SECURITY_HEADERS
from dicom_node.web.oidc import IdentityProvider
from dicom_node.web.pages import Pages
from dicom_node.web.picture_cache import PictureCache
from dicom_node.web.probes import build_probes
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


@dataclass(frozen=True, kw_only=True)
class _House:
    """What the parts of the application are built of."""

    index: Index
    archive: Archive | None
    storage: Storage | None
    transfer_syntaxes: Collection[str]
    settings: Settings
    pages: Pages
    doorkeeper: Doorkeeper
    audit: AuditTrail
    #: Of the audit trail, about what is refused.
    lines: LineLimits
    #: One for login and users' page: so many are hashed at a time, whoever asks.
    passwords: Passwords
    clock: Callable[[], float]
    key: bytes
    metrics: Metrics
    queue_lengths: Callable[[], Mapping[str, int] | None]
    health: Callable[[], Mapping[str, bool]]
    dispensable: frozenset[str]
    echo: Callable[[str], float] | None
    free_bytes: Callable[[], int] | None
    #: Pages and DICOMweb draw within the same bound of memory.
    readings: Readings | None
    pictures: StudyPictures | None
    #: Whoever serves the application sets it: streams must not hold up its end.
    ending: Event

    @property
    def total_bytes(self) -> Callable[[], int] | None:
        """The size of the archive's disk."""
        return None if self.archive is None else self.archive.total_bytes


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
    readings = None if archive is None else Readings(archive)
    house = _House(
        index=index,
        archive=archive,
        storage=storage,
        transfer_syntaxes=transfer_syntaxes,
        settings=settings,
        pages=Pages(title),
        doorkeeper=Doorkeeper(index=index, settings=settings.access, clock=clock),
        audit=AuditTrail((), source=settings.node.ae_title) if audit is None else audit,
        lines=LineLimits(clock=clock),
        passwords=Passwords(),
        clock=clock,
        key=key,
        metrics=Metrics() if metrics is None else metrics,
        queue_lengths=queue_lengths,
        health=health,
        dispensable=dispensable,
        echo=echo,
        free_bytes=free_bytes,
        readings=readings,
        pictures=_pictures(index, archive, settings, readings),
        ending=Event(),
    )
    return _built(house, title)


def _built(house: _House, title: str) -> FastAPI:
    application = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    application.state.ending = house.ending
    for build in _PARTS:
        if (router := build(house)) is not None:
            application.include_router(router)
    dicomweb = _dicomweb(house)
    if dicomweb is not None:
        dicomweb.join(application)
    _add_manners(application, house.pages, house.clock)
    static = resources.files("dicom_node.web") / "static"
    application.mount("/static", StaticFiles(directory=str(static)))
    application.add_middleware(
        Gate,
        doorkeeper=house.doorkeeper,
        words=lambda status, text, visitor: house.pages.message(HTTPStatus(status), text, house.clock(), visitor),
        short=None if dicomweb is None else dicomweb.short,
        alerts=Alerts(trail=house.audit, metrics=house.metrics, limits=house.lines, clock=house.clock),
    )
    return application


def _pictures(
    index: Index, archive: Archive | None, settings: Settings, readings: Readings | None
) -> StudyPictures | None:
    if archive is None or readings is None:
        return None
    cache = PictureCache(settings.node.data_dir / "pictures", settings.web.picture_megabytes * 2**20)
    return StudyPictures(index, archive, cache, readings)


def _login(house: _House) -> APIRouter:
    access, clock = house.settings.access, house.clock
    login = Login(
        index=house.index,
        doorkeeper=house.doorkeeper,
        passwords=house.passwords,
        limits=LoginLimits(attempts=access.login_attempts, wait_seconds=access.login_wait_minutes * 60, clock=clock),
        audit=house.audit,
        lines=house.lines,
        pages=house.pages,
        clock=clock,
        provider=IdentityProvider(access, key=house.key, clock=clock) if access.oidc_issuer else None,
    )
    return build_router(login)


def _overview(house: _House) -> APIRouter:
    router = APIRouter()

    # A plain function: the framework runs it in a thread, where waiting for the database holds nobody up.
    @router.api_route("/overview", methods=["GET", "HEAD"])
    def overview(request: Request) -> HTMLResponse:
        found = read_overview(house.index, house.clock())
        visitor = visitor_of(request.scope)
        return HTMLResponse(house.pages.overview(found, house.queue_lengths(), house.health(), visitor))

    return router


def _study_pages(house: _House) -> APIRouter:
    study_pages = StudyPages(
        index=house.index,
        archive=house.archive,
        pages=house.pages,
        pictures=house.pictures,
        settings=house.settings.web,
        routes=house.settings.routes,
        audit=house.audit,
        clock=house.clock,
        data_dir=house.settings.node.data_dir,
    )
    return build_study_pages(study_pages)


def _reading(house: _House) -> APIRouter:
    reading = Reading(
        index=house.index,
        pages=house.pages,
        pictures=house.pictures,
        settings=house.settings.web,
        audit=house.audit,
        clock=house.clock,
        key=house.key,
        ending=house.ending,
        watch=Watch(index=house.index),
    )
    return build_reading(reading)


def _queue(house: _House) -> APIRouter:
    queue_page = QueuePage(
        index=house.index,
        pages=house.pages,
        settings=house.settings,
        audit=house.audit,
        clock=house.clock,
        free_bytes=house.free_bytes,
        total_bytes=house.total_bytes,
        queue_lengths=house.queue_lengths,
        echo=house.echo,
    )
    return build_queue_page(queue_page)


def _rules(house: _House) -> APIRouter:
    return build_rule_tester(house.index, house.pages, house.settings.routes, house.clock)


def _accounts(house: _House) -> APIRouter:
    return build_accounts_page(
        AccountsPage(
            index=house.index, pages=house.pages, passwords=house.passwords, audit=house.audit, clock=house.clock
        )
    )


def _audit(house: _House) -> APIRouter:
    lines = AuditLines(folder=house.settings.node.data_dir / "audit")
    return build_audit_page(AuditTrailPage(lines=lines, pages=house.pages, audit=house.audit, clock=house.clock))


def _deeds(house: _House) -> APIRouter:
    return build_deeds(Deeds(index=house.index, clock=house.clock, audit=house.audit))


def _dicomweb(house: _House) -> Dicomweb | None:
    if house.archive is None:
        return None
    return build_dicomweb(
        house.index,
        house.archive,
        house.storage,
        transfer_syntaxes=house.transfer_syntaxes,
        ae_title=house.settings.node.ae_title,
        audit=house.audit,
        readings=house.readings,
        clock=house.clock,
    )


def _viewer(house: _House) -> APIRouter | None:
    return None if house.archive is None else build_viewer(house.settings.web.viewer_dir)


def _probes(house: _House) -> APIRouter:
    registry = house.metrics.registry
    registry.register(
        IndexCollector(house.index, house.queue_lengths, house.clock, house.free_bytes, house.total_bytes)
    )
    return build_probes(registry, house.health, house.dispensable)


#: In the order in which their addresses are looked through.
_PARTS: Sequence[Callable[[_House], APIRouter | None]] = (
    _login,
    _overview,
    _study_pages,
    _reading,
    _queue,
    _rules,
    _accounts,
    _audit,
    _deeds,
    _viewer,
    _probes,
)


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
