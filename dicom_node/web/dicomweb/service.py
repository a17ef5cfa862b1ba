"""The DICOMweb service: the routers over an index and an archive, to be mounted under one prefix.

Each route carries the scope that it needs as a tag of its own, `dicomweb:read` or `dicomweb:write`: data for whoever
keeps the door, and no check by itself.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache

from fastapi import APIRouter, FastAPI, Request

from dicom_node.archive.catalogue import Catalogue
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.audit import AuditTrail
from dicom_node.reception.storage import Storage
from dicom_node.web.dicomweb.auditing import Auditing
from dicom_node.web.dicomweb.budget import Turns
from dicom_node.web.dicomweb.bulk_data import BulkData
from dicom_node.web.dicomweb.frames import Frames
from dicom_node.web.dicomweb.metadata import Metadata
from dicom_node.web.dicomweb.pictures import Pictures
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.refusal import RefusingRoute
from dicom_node.web.dicomweb.retrieval import Retrieval
from dicom_node.web.dicomweb.retrieving import add_frames, add_retrieving
from dicom_node.web.dicomweb.searching import Searching, add_searching
from dicom_node.web.dicomweb.short_way import ShortWay, ShortWayFirst
from dicom_node.web.dicomweb.shown_frame import ShownFrames
from dicom_node.web.dicomweb.storing import Storing, add_storing
from dicom_node.web.dicomweb.transcoding import Transcoder

#: The scopes of the routes.
READ, WRITE = "dicomweb:read", "dicomweb:write"

#: Where the routes are found.
PREFIX = "/dicomweb"

#: Of a Host header whose address is remembered.
_LONGEST_HOST = 200


@dataclass(frozen=True, kw_only=True)
class Dicomweb:
    """The service, as it is added to an application."""

    router: APIRouter
    #: Of the routes that only read.
    short: ShortWay

    def join(self, application: FastAPI) -> None:
        """Serve it; of what is added to the application afterwards, a gate stands before it."""
        application.include_router(self.router)
        application.add_middleware(ShortWayFirst, short=self.short)


def build_dicomweb(
    index: Index,
    archive: Archive,
    storage: Storage | None = None,
    *,
    transfer_syntaxes: Collection[str] = (),
    ae_title: str = "",
    prefix: str = PREFIX,
    audit: AuditTrail | None = None,
    readings: Readings | None = None,
    clock: Callable[[], float] = time.time,
) -> Dicomweb:
    """The service below `prefix`; `storage` takes instances in these transfer syntaxes, without it nobody does."""

    def root(request: Request) -> str:
        return f"{_called(request)}{prefix}"

    shared = _Shared(
        index=index,
        auditing=Auditing(trail=AuditTrail((), source=ae_title) if audit is None else audit, clock=clock),
        readings=readings or Readings(archive),
        turns=Turns(),
        root=root,
    )
    reading = APIRouter(route_class=RefusingRoute, tags=[READ])
    retrieval = _retrieval(shared)
    add_frames(reading, retrieval)
    add_searching(reading, _searching(shared, Catalogue(index.transactions, archive)))
    add_retrieving(reading, retrieval)
    whole = APIRouter(prefix=prefix, route_class=RefusingRoute)
    whole.include_router(reading)
    if storage is not None:
        writing = APIRouter(route_class=RefusingRoute, tags=[WRITE])
        add_storing(writing, _storing(shared, storage, frozenset(transfer_syntaxes), ae_title))
        whole.include_router(writing)
    return Dicomweb(router=whole, short=ShortWay(prefix=prefix, routes=reading.routes))


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What services have in common."""

    index: Index
    auditing: Auditing
    readings: Readings
    turns: Turns
    root: Callable[[Request], str]


def _searching(shared: _Shared, catalogue: Catalogue) -> Searching:
    return Searching(
        searches=shared.index.searches,
        catalogue=catalogue,
        contents=shared.index.contents,
        readings=shared.readings,
        turns=shared.turns,
        auditing=shared.auditing,
        root=shared.root,
    )


def _retrieval(shared: _Shared) -> Retrieval:
    readings = shared.readings
    return Retrieval(
        contents=shared.index.contents,
        readings=readings,
        transcoder=Transcoder(readings),
        frames=Frames(readings),
        pictures=Pictures(ShownFrames(readings)),
        metadata=Metadata(readings),
        bulk_data=BulkData(readings),
        turns=shared.turns,
        auditing=shared.auditing,
        root=shared.root,
    )


def _storing(shared: _Shared, storage: Storage, transfer_syntaxes: frozenset[str], ae_title: str) -> Storing:
    return Storing(
        storage=storage,
        transfer_syntaxes=transfer_syntaxes,
        ae_title=ae_title,
        auditing=shared.auditing,
        root=shared.root,
    )


def _called(request: Request) -> str:
    """Scheme, host and port by which the client called this node."""
    headers, server = request.headers, request.scope.get("server")
    is_forwarded = any(name in headers for name in ("forwarded", "x-forwarded-proto", "x-forwarded-host"))
    host, path = headers.get("host", ""), request.scope.get("root_path", "")
    if len(host) > _LONGEST_HOST:
        return str(request.base_url).rstrip("/")
    port = None if is_forwarded or not server else server[1]
    return _address(request.scope.get("scheme", "http"), host, server, path, port)


@lru_cache(maxsize=64)
def _address(scheme: str, host: str, server: tuple[str, int | None] | None, path: str, port: int | None) -> str:
    """It is asked for each frame, by the same client."""
    scope = {"type": "http", "scheme": scheme, "path": "/", "root_path": path, "server": server, "query_string": b""}
    url = Request({**scope, "headers": [(b"host", host.encode("latin-1"))] if host else []}).base_url
    if url.port is None and url.scheme == "http" and port not in (None, 80):
        # Some clients, dicomweb-client among them, leave the port out of Host; what we answer must lead back here.
        url = url.replace(port=port)
    return str(url).rstrip("/")
