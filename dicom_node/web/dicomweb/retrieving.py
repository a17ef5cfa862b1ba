"""WADO-RS: studies, series, instances, their metadata, frames, bulk data and pictures (PS3.18 Section 10.4)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from dicom_node.archive.contents import Content
from dicom_node.web.dicomweb import answers
from dicom_node.web.dicomweb.accept import Choice, Offer
from dicom_node.web.dicomweb.bulk_data import NoSuchValue
from dicom_node.web.dicomweb.metadata import instance_address
from dicom_node.web.dicomweb.multipart import Extent, Part, read_file
from dicom_node.web.dicomweb.negotiation import NATIVE, Target, frame_type, target_of
from dicom_node.web.dicomweb.pixel_place import PixelPlace
from dicom_node.web.dicomweb.reading import EXPLICIT
from dicom_node.web.dicomweb.refusal import Refusal
from dicom_node.web.dicomweb.rendering import rendered, thumbnail
from dicom_node.web.dicomweb.retrieval import Retrieval, begun, chosen, found, frames_asked, is_part
from dicom_node.web.dicomweb.transcoding import CannotTranscode
from dicom_node.web.dicomweb.xml_model import xml_of

DICOM, JSON, XML, OCTETS = (
    "application/dicom",
    "application/dicom+json",
    "application/dicom+xml",
    "application/octet-stream",
)

#: Frames of up to so many bytes together are answered at once.
_AT_ONCE_BYTES = 8 << 20

#: How every frame can be had.
_OF_OCTETS = (Offer(media_type=OCTETS, multipart=True), Offer(media_type=OCTETS))

#: The paths of a study, a series and an instance.
STUDY = "/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"


def add_frames(router: APIRouter, retrieval: Retrieval) -> None:
    """The route of frames: a viewer asks for hundreds, and routes are looked through in their order."""
    _add(router, f"{INSTANCE}/frames/{{frames}}", lambda request: _frames(retrieval, request))


def add_retrieving(router: APIRouter, retrieval: Retrieval) -> None:
    """The other routes that read."""
    # A path's parameters are taken from the request: so one function serves all three levels.
    for path in (STUDY, SERIES, INSTANCE):
        _add(router, path, lambda request: _instances(retrieval, request))
        _add(router, f"{path}/metadata", lambda request: _metadata(retrieval, request))
        _add(router, f"{path}/rendered", lambda request: rendered(retrieval, request))
        _add(router, f"{path}/thumbnail", lambda request: thumbnail(retrieval, request))
    _add(router, f"{INSTANCE}/frames/{{frames}}/rendered", lambda request: rendered(retrieval, request))
    _add(router, f"{INSTANCE}/frames/{{frames}}/thumbnail", lambda request: thumbnail(retrieval, request))
    _add(router, f"{INSTANCE}/bulkdata/{{path:path}}", lambda request: _bulk_data(retrieval, request))


def _add(router: APIRouter, path: str, answer: Callable[[Request], Response]) -> None:
    def route(request: Request) -> Response:
        return answer(request)

    router.add_api_route(
        path, route, methods=["GET"], name=path, response_class=Response, openapi_extra=_described(path)
    )
    router.add_api_route(path, route, methods=["HEAD"], response_class=Response, include_in_schema=False)


def _described(path: str) -> dict[str, Any]:
    names = [part[1:-1].split(":")[0] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    if path.endswith("/rendered"):
        options = ("window", "viewport", "quality")
        parameters += [{"name": n, "in": "query", "required": False, "schema": {"type": "string"}} for n in options]
    return {"parameters": parameters}


def _instances(retrieval: Retrieval, request: Request) -> Response:
    contents = found(retrieval, request)
    offers = [Offer(media_type=DICOM, multipart=True)]
    if len(contents) == 1:
        offers.append(Offer(media_type=DICOM))
    choice = chosen(request, offers)
    tag = answers.entity_tag(contents, "instances", choice.transfer_syntax, str(choice.offer.multipart))
    headers = answers.caching(contents, tag, whole=is_part(request))
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    pairs = [(content, target_of(_syntax(retrieval, content), choice.transfer_syntax)) for content in contents]
    targets = [(content, target) for content, target in pairs if target is not None]
    if not targets:
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, "no transcoding into this transfer syntax; ask for transfer-syntax=*")
    if all(target.as_stored for _, target in targets):
        return _instances_to(retrieval, request, targets, choice, headers)
    return retrieval.turns.answer(lambda: _instances_to(retrieval, request, targets, choice, headers))


def _instances_to(
    retrieval: Retrieval,
    request: Request,
    targets: Sequence[tuple[Content, Target]],
    choice: Choice,
    headers: dict[str, str],
) -> Response:
    if not choice.offer.multipart:
        return _single(retrieval, request, *targets[0], headers)
    for content, _ in targets:
        retrieval.readings.path_of(content)
    root = retrieval.root(request)
    alone = len(targets) == 1
    parts: Iterator[Part] = (_part_of(retrieval, content, target, root, alone=alone) for content, target in targets)
    if alone:
        # It is made before the status is sent: what cannot be had is refused, and no answer breaks off.
        parts = begun(parts)
    return answers.multipart(request, parts, DICOM, headers)


def _syntax(retrieval: Retrieval, content: Content) -> str:
    return content.transfer_syntax_uid or retrieval.readings.pixel_place(content).transfer_syntax_uid


def _single(
    retrieval: Retrieval, request: Request, content: Content, target: Target, headers: dict[str, str]
) -> Response:
    media_type = _dicom(target.transfer_syntax_uid)
    if target.as_stored:
        path = retrieval.readings.path_of(content)
        return answers.from_file(request, path, 0, path.stat().st_size, media_type, headers)
    return Response(_transcoded(retrieval, content, target), headers=headers, media_type=media_type)


def _part_of(retrieval: Retrieval, content: Content, target: Target, root: str, *, alone: bool) -> Part:
    """One of several that cannot be transcoded comes as it is stored, and says so: none is left out in silence."""
    address = instance_address(root, content)
    if not target.as_stored:
        try:
            data = answers.one_piece(_transcoded(retrieval, content, target))
            return Part(media_type=_dicom(target.transfer_syntax_uid), data=data, location=address)
        except Refusal:
            if alone:
                raise
    stored = read_file(retrieval.readings.path_of(content))
    return Part(media_type=_dicom(_syntax(retrieval, content)), data=stored, location=address)


def _dicom(transfer_syntax_uid: str) -> str:
    return f"{DICOM}; transfer-syntax={transfer_syntax_uid}"


def _transcoded(retrieval: Retrieval, content: Content, target: Target) -> bytes:
    try:
        return retrieval.transcoder.transcoded(content, target.transfer_syntax_uid)
    except CannotTranscode as error:
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, f"{error}; ask for transfer-syntax=*") from error


def _metadata(retrieval: Retrieval, request: Request) -> Response:
    contents = found(retrieval, request)
    choice = chosen(
        request, [Offer(media_type=JSON), Offer(media_type="application/json"), Offer(media_type=XML, multipart=True)]
    )
    root = retrieval.root(request)
    tag = answers.entity_tag(contents, "metadata", root, choice.offer.media_type)
    headers = answers.caching(contents, tag, whole=True)
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    return retrieval.turns.answer(lambda: _metadata_as(retrieval, request, contents, choice, headers))


def _metadata_as(
    retrieval: Retrieval, request: Request, contents: Sequence[Content], choice: Choice, headers: dict[str, str]
) -> Response:
    root = retrieval.root(request)
    if choice.offer.multipart:
        models = (retrieval.metadata.model(content, root) for content in contents)
        parts = begun(Part(media_type=XML, data=answers.one_piece(xml_of(model))) for model in models)
        return answers.multipart(request, parts, XML, headers)
    return _json_metadata(retrieval, request, contents, headers)


def _json_metadata(
    retrieval: Retrieval, request: Request, contents: Sequence[Content], headers: dict[str, str]
) -> Response:
    root, series = retrieval.root(request), dict[str, list[Content]]()
    for content in contents:
        series.setdefault(content.series_instance_uid, []).append(content)
    pieces = [
        retrieval.metadata.compressed(some, root, answers.entity_tag(some, "series metadata", root))
        for some in series.values()
    ]
    data, packed = answers.joined(pieces, packed=answers.accepts_gzip(request))
    if packed:
        headers = {**headers, "Content-Encoding": "gzip"}
    return Response(data, headers=headers, media_type=JSON)


def _frames(retrieval: Retrieval, request: Request) -> Response:
    content, place, numbers = frames_asked(retrieval, request)
    stored = frame_type(place.transfer_syntax_uid)
    offers: tuple[Offer, ...] = _OF_OCTETS
    if stored != OCTETS:
        offers = (*offers, Offer(media_type=stored, multipart=True), Offer(media_type=stored))
    if len(numbers) > 1:
        offers = tuple(offer for offer in offers if offer.multipart)
    choice = chosen(request, offers)
    as_stored = _as_stored(place, choice)
    offer = choice.offer
    form = (offer.media_type, str(offer.multipart), choice.transfer_syntax, str(as_stored))
    tag = answers.entity_tag([content], "frames", str(numbers), *form)
    headers = answers.caching([content], tag)
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    read = retrieval.frames.stored if as_stored else retrieval.frames.decoded
    syntax = place.transfer_syntax_uid if as_stored and place.length is None else EXPLICIT
    media_type = f"{frame_type(syntax)}; transfer-syntax={syntax}"

    def data(number: int) -> bytes:
        try:
            return read(content, place, number)
        except CannotTranscode as error:
            raise Refusal(HTTPStatus.NOT_ACCEPTABLE, f"{error}; ask for transfer-syntax=*") from error

    if as_stored or place.length is not None:
        return _frames_as(retrieval, request, content, place, numbers, data, choice, media_type, headers)
    make = partial(_frames_as, retrieval, request, content, place, numbers, data, choice, media_type, headers)
    return retrieval.turns.answer(make)


def _frames_as(
    retrieval: Retrieval,
    request: Request,
    content: Content,
    place: PixelPlace,
    numbers: list[int],
    data: Callable[[int], bytes],
    choice: Choice,
    media_type: str,
    headers: dict[str, str],
) -> Response:
    if not choice.offer.multipart:
        return Response(data(numbers[0]), headers=headers, media_type=media_type)
    inner = media_type.split(";")[0]
    address = f"{instance_address(retrieval.root(request), content)}/frames"
    is_short = place.frame_bits // 8 * len(numbers) <= _AT_ONCE_BYTES
    if is_short and (extents := _extents(retrieval, place, numbers, media_type, address)):
        return answers.pieces_of_file(retrieval.readings.name_of(content), extents, inner, headers)
    parts = begun(
        Part(media_type=media_type, data=answers.one_piece(data(n)), location=f"{address}/{n}") for n in numbers
    )
    if is_short:
        return answers.short_multipart(parts, inner, headers)
    return answers.multipart(request, parts, inner, headers)


def _extents(
    retrieval: Retrieval, place: PixelPlace, numbers: Sequence[int], media_type: str, address: str
) -> list[Extent]:
    """Where the frames lie as they are given; none where any does not."""
    places = [(number, retrieval.frames.extent(place, number)) for number in numbers]
    extents = [
        Extent(media_type=media_type, location=f"{address}/{number}", start=at[0], length=at[1])
        for number, at in places
        if at is not None
    ]
    return extents if len(extents) == len(numbers) else []


def _as_stored(place: PixelPlace, choice: Choice) -> bool:
    """Whether the frames are given as they lie on the disk; refused where what is asked for cannot be had."""
    if place.length is not None:
        if choice.transfer_syntax in ("", "*", *NATIVE, place.transfer_syntax_uid):
            return True
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, "frames are not compressed; ask for transfer-syntax=*")
    if choice.offer.media_type != OCTETS and not choice.transfer_syntax:
        return True
    target = target_of(place.transfer_syntax_uid, choice.transfer_syntax)
    if target is None or not (target.as_stored or target.transfer_syntax_uid in NATIVE):
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, "no transcoding of frames into this transfer syntax")
    return target.as_stored


def _bulk_data(retrieval: Retrieval, request: Request) -> Response:
    content = found(retrieval, request)[0]
    path = request.path_params["path"]
    choice = chosen(request, [Offer(media_type=OCTETS, multipart=True), Offer(media_type=OCTETS)])
    headers = answers.caching([content], answers.entity_tag([content], "bulkdata", path, str(choice.offer.multipart)))
    try:
        value = retrieval.bulk_data.find(content, path)
    except NoSuchValue:
        raise Refusal(HTTPStatus.NOT_FOUND, "the instance has no such value") from None
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    address = f"{instance_address(retrieval.root(request), content)}/bulkdata/{path}"
    media_type = f"{OCTETS}; transfer-syntax={value.transfer_syntax_uid}"
    if choice.offer.multipart:
        part = Part(media_type=media_type, data=value.read(), location=address)
        return answers.multipart(request, [part], OCTETS, headers)
    if value.path is None:
        return Response(b"".join(value.read()), headers=headers, media_type=media_type)
    return answers.from_file(request, value.path, value.start, value.length, media_type, headers)
