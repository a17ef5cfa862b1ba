"""The DICOMweb service: the routers over an index and an archive, to be mounted under one prefix.

Each route carries the scope that it needs as a tag of its own, `dicomweb:read` or `dicomweb:write`: data for whoever
keeps the door, and no check by itself.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Request
from starlette.routing import BaseRoute

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
from dicom_node.web.dicomweb.short_way import ShortWay
from dicom_node.web.dicomweb.shown_frame import ShownFrames
from dicom_node.web.dicomweb.storing import Storing, add_storing
from dicom_node.web.dicomweb.transcoding import Transcoder

#: The scopes of the routes.
READ, WRITE = "dicomweb:read", "dicomweb:write"

#: Where the routes are found.
PREFIX = "/dicomweb"


@dataclass(frozen=True, kw_only=True)
class Dicomweb:
    """The service, as it is added to an application."""

    router: APIRouter
    prefix: str
    #: The routes that only read, without the prefix.
    short: Sequence[BaseRoute]

    def join(self, application: FastAPI) -> None:
        """Serve it; of what is added to the application afterwards, a gate stands before it."""
        application.include_router(self.router)
        application.add_middleware(ShortWay, prefix=self.prefix, routes=self.short)


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
) -> "Dicomweb":
    """The service below `prefix`; `storage` takes instances in these transfer syntaxes, without it nobody does."""

    def root(request: Request) -> str:
        return f"{_called(request)}{prefix}"

    auditing = Auditing(trail=AuditTrail((), source=ae_title) if audit is None else audit, clock=clock)
    readings, turns = readings or Readings(archive), Turns()
    reading = APIRouter(route_class=RefusingRoute, tags=[READ])
    catalogue = Catalogue(index.transactions, archive)
    searching = Searching(
        searches=index.searches,
        catalogue=catalogue,
        contents=index.contents,
        readings=readings,
        turns=turns,
        auditing=auditing,
        root=root,
    )
    retrieval = Retrieval(
        contents=index.contents,
        readings=readings,
        transcoder=Transcoder(readings),
        frames=Frames(readings),
        pictures=Pictures(ShownFrames(readings)),
        metadata=Metadata(readings),
        bulk_data=BulkData(readings),
        turns=turns,
        auditing=auditing,
        root=root,
    )
    add_frames(reading, retrieval)
    add_searching(reading, searching)
    add_retrieving(reading, retrieval)
    whole = APIRouter(prefix=prefix, route_class=RefusingRoute)
    whole.include_router(reading)
    if storage is not None:
        writing = APIRouter(route_class=RefusingRoute, tags=[WRITE])
        storing = Storing(
            storage=storage,
            transfer_syntaxes=frozenset(transfer_syntaxes),
            ae_title=ae_title,
            auditing=auditing,
            root=root,
        )
        add_storing(writing, storing)
        whole.include_router(writing)
    return Dicomweb(router=whole, prefix=prefix, short=tuple(reading.routes))


def _called(request: Request) -> str:
    """Scheme, host and port by which the client called this node."""
    url, server = request.base_url, request.scope.get("server")
    is_forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-proto", "x-forwarded-host"))
    if url.port is None and url.scheme == "http" and server and server[1] not in (None, 80) and not is_forwarded:
        # Some clients, dicomweb-client among them, leave the port out of Host; what we answer must lead back here.
        url = url.replace(port=server[1])
    return str(url).rstrip("/")


def build_application_alone(index: Index, archive: Archive) -> FastAPI:
    """An application of nothing else, and without a door: for measurements on a machine of one's own."""
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    build_dicomweb(index, archive).join(application)
    return application
