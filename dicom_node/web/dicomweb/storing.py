"""STOW-RS: instances that arrive over HTTP, kept as those of a C-STORE are (PS3.18 Section 10.5).

The body is taken apart while it comes: of each part the first bytes in memory, the rest on the disk. An instance is
answered with success when its bytes and its row are on the disk. The request is an association to the index, so that a
study is complete when its sender has finished.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from dicom_node.audit import CHANGED
from dicom_node.reception.pace import Pace
from dicom_node.reception.storage import Sender, Storage
from dicom_node.web.dicomweb.answers import json_answer
from dicom_node.web.dicomweb.auditing import Auditing
from dicom_node.web.dicomweb.budget import Places
from dicom_node.web.dicomweb.json_model import Model, attribute, hex_tag
from dicom_node.web.dicomweb.metadata import encoded
from dicom_node.web.dicomweb.multipart_reader import Malformed, MultipartReader, boundary_of
from dicom_node.web.dicomweb.refusal import Refusal, checked_uids
from dicom_node.web.dicomweb.stored_parts import Keepers, PartOutcome, StoredParts
from dicom_node.web.gate import visitor_of

#: Who sent it, to the index: a request has no AE title.
SENDER = "STOW-RS"

#: A body of which nothing comes for so long, or hardly anything, is given up.
SILENCE_SECONDS = 60.0

#: Taken from the network before the thread that writes is called.
_FEED_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Storing:
    """What takes instances."""

    storage: Storage
    #: Instances in others are refused.
    transfer_syntaxes: Collection[str]
    ae_title: str
    auditing: Auditing
    root: Callable[[Request], str]
    keepers: Keepers = field(default_factory=Keepers)
    places: Places = field(default_factory=Places)


def add_storing(router: APIRouter, storing: Storing) -> None:
    """The routes that write."""
    for path in ("/studies", "/studies/{study}"):
        _add(router, path, storing)


def _add(router: APIRouter, path: str, storing: Storing) -> None:
    async def store(request: Request) -> Response:
        return await _store(storing, request)

    names = ["study"] if path.endswith("}") else []
    described = {
        "parameters": [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names],
        "requestBody": {
            "required": True,
            "content": {"multipart/related": {"schema": {"type": "string", "format": "binary"}}},
        },
    }
    router.add_api_route(
        path, store, methods=["POST"], name=f"store {path}", response_class=Response, openapi_extra=described
    )


async def _store(storing: Storing, request: Request) -> Response:
    study = request.path_params.get("study", "")
    checked_uids(study=study)
    boundary, visitor = _boundary(request), visitor_of(request.scope)
    with storing.places.taken(visitor.name or visitor.address):
        return await _stored(storing, request, study, boundary)


async def _stored(storing: Storing, request: Request, study: str, boundary: str) -> Response:
    sender = Sender(str(uuid.uuid4()), SENDER, storing.ae_title)
    parts = StoredParts(storing.storage, storing.transfer_syntaxes, sender, study, storing.keepers)
    ending = "aborted"
    try:
        try:
            await _take(request, MultipartReader(boundary, parts))
        except Malformed as error:
            await run_in_threadpool(parts.break_off)
            if not parts.outcomes:
                raise Refusal(HTTPStatus.BAD_REQUEST, f"this is no multipart body: {error}") from error
            return _response(storing, request, parts.outcomes, broken=True)
        outcomes = await run_in_threadpool(parts.finish)
        ending = "released"
    finally:
        # Whatever happened: nothing that was begun is left, and the study does not wait for this sender.
        await run_in_threadpool(parts.break_off)
        await run_in_threadpool(storing.storage.association_is_over, sender, ending)
        kept = sorted({outcome.study_instance_uid for outcome in parts.outcomes if not outcome.failure})
        if kept:
            await run_in_threadpool(storing.auditing.note, request, CHANGED, "stored over DICOMweb", kept)
    if not outcomes:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body has no parts")
    return _response(storing, request, outcomes)


def _boundary(request: Request) -> str:
    kind = request.headers.get("content-type", "")
    lowered = kind.lower().replace(" ", "")
    if not lowered.startswith("multipart/related") or request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'send multipart/related; type="application/dicom"')
    if "type=" in lowered and 'type="application/dicom"' not in lowered and "type=application/dicom" not in lowered:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only application/dicom is stored, not metadata and bulk data")
    if any(wrong in lowered for wrong in ("application/dicom+json", "application/dicom+xml")):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only application/dicom is stored, not metadata and bulk data")
    boundary = boundary_of(kind)
    if not boundary:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Content-Type names no boundary")
    return boundary


async def _take(request: Request, reader: MultipartReader) -> None:
    """Read the body to its end; Malformed where a client goes away, falls silent, trickles or sends half."""
    pace = Pace()
    stream, held, broken = request.stream().__aiter__(), bytearray(), ""
    while not broken:
        try:
            piece = await asyncio.wait_for(anext(stream), SILENCE_SECONDS)
            held += piece
            pace.came(len(piece))
            if pace.is_slow(SILENCE_SECONDS):
                broken = "it comes too slowly"
        except StopAsyncIteration:
            break
        except TimeoutError:
            broken = f"nothing came for {SILENCE_SECONDS:.0f} s"
        except ClientDisconnect:
            broken = "the client went away"
        if len(held) >= _FEED_BYTES:
            await run_in_threadpool(reader.feed, bytes(held))
            held.clear()
            # That took our own time.
            pace.rest()
    # Also what came before it broke off: a part that is whole is kept.
    await run_in_threadpool(reader.feed, bytes(held))
    if broken:
        raise Malformed(broken)
    reader.close()


def _response(storing: Storing, request: Request, outcomes: list[PartOutcome], *, broken: bool = False) -> Response:
    """PS3.18 Table 10.5.3-1 and Annex I.2."""
    root = storing.root(request)
    kept = [outcome for outcome in outcomes if not outcome.failure]
    failed = [outcome for outcome in outcomes if outcome.failure]
    model: Model = {}
    studies = {outcome.study_instance_uid for outcome in kept}
    if len(studies) == 1:
        model[hex_tag("RetrieveURL")] = attribute("UR", f"{root}/studies/{studies.pop()}")
    items = [(outcome, _item(outcome)) for outcome in outcomes]
    _sequence(
        model,
        "ReferencedSOPSequence",
        [{**item, **_where(outcome, root)} for outcome, item in items if not outcome.failure],
    )
    named = [item for outcome, item in items if outcome.failure and outcome.sop_instance_uid]
    _sequence(model, "FailedSOPSequence", named)
    _sequence(
        model,
        "OtherFailuresSequence",
        [item for outcome, item in items if outcome.failure and not outcome.sop_instance_uid],
    )
    status = HTTPStatus.OK if not failed else HTTPStatus.ACCEPTED if kept else HTTPStatus.CONFLICT
    headers = {"Cache-Control": "no-store"}
    if broken:
        status = HTTPStatus.ACCEPTED if kept else HTTPStatus.BAD_REQUEST
        headers["Warning"] = '299 dicom-node "The body ended too soon: only what is named here was looked at"'
    return json_answer(request, encoded([model])[1:-1], headers, status=status)


def _item(outcome: PartOutcome) -> dict[str, Any]:
    item = {}
    if outcome.sop_instance_uid:
        item[hex_tag("ReferencedSOPClassUID")] = attribute("UI", outcome.sop_class_uid)
        item[hex_tag("ReferencedSOPInstanceUID")] = attribute("UI", outcome.sop_instance_uid)
    if outcome.failure:
        item[hex_tag("FailureReason")] = attribute("US", outcome.failure)
        item[hex_tag("ErrorComment")] = attribute("LO", outcome.comment[:64])
    return item


def _where(outcome: PartOutcome, root: str) -> Mapping[str, Any]:
    address = f"{root}/studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
    return {hex_tag("RetrieveURL"): attribute("UR", f"{address}/instances/{outcome.sop_instance_uid}")}


def _sequence(model: Model, keyword: str, items: list[dict[str, Any]]) -> None:
    if items:
        model[hex_tag(keyword)] = {"vr": "SQ", "Value": items}
