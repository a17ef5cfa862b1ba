"""Rendered images and thumbnails: what a browser shows as it is (PS3.18 Section 10.4)."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus

from fastapi import Request, Response

from dicom_node.archive.contents import Content
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb import answers
from dicom_node.web.dicomweb.accept import Offer
from dicom_node.web.dicomweb.multipart import Part
from dicom_node.web.dicomweb.pictures import THUMBNAIL, TYPES, Look, parse_look
from dicom_node.web.dicomweb.refusal import Refusal
from dicom_node.web.dicomweb.retrieval import Retrieval, begun, chosen, found, frames_asked, is_part
from dicom_node.web.dicomweb.transcoding import CannotTranscode

#: Instances that a thumbnail is sought in.
_MOST_TRIED = 5


def rendered(retrieval: Retrieval, request: Request) -> Response:
    """Pictures of what the path names."""
    options = request.query_params
    look = parse_look(options.get("window", ""), options.get("viewport", ""), options.get("quality", ""))
    contents = found(retrieval, request)
    several = is_part(request)
    choice = chosen(request, [Offer(media_type=name, multipart=several) for name in TYPES])
    tag = answers.entity_tag(contents, "rendered", str(look), choice.offer.media_type, _frames_text(request))
    headers = answers.caching(contents, tag, whole=several)
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    kind = choice.offer.media_type
    return retrieval.turns.answer(lambda: _pictures(retrieval, request, contents, look, kind, headers))


def thumbnail(retrieval: Retrieval, request: Request) -> Response:
    """One little picture of what the path names."""
    contents = found(retrieval, request)
    # The middle of a series shows more than its ends; what has no pixels, such as a report, shows nothing.
    middle = len(contents) // 2
    places = sorted(range(len(contents)), key=lambda place: abs(place - middle))[:_MOST_TRIED]
    nearest = [contents[place] for place in places]
    choice = chosen(request, [Offer(media_type=name) for name in TYPES])
    tag = answers.entity_tag(nearest, "thumbnail", choice.offer.media_type, _frames_text(request))
    headers = answers.caching(nearest, tag, whole=is_part(request))
    if (answer := answers.unchanged(request, headers)) is not None:
        return answer
    kind = choice.offer.media_type
    return retrieval.turns.answer(lambda: _small(retrieval, request, nearest, kind, headers))


def _pictures(
    retrieval: Retrieval,
    request: Request,
    contents: Sequence[Content],
    look: Look,
    kind: str,
    headers: dict[str, str],
) -> Response:
    if not is_part(request):
        data = _drawn(retrieval, request, contents[0], look, kind)
        return Response(data, headers=headers, media_type=kind)
    parts = _begun_pictures(retrieval, contents, look, kind)
    return answers.multipart(request, parts, kind, headers)


def _begun_pictures(retrieval: Retrieval, contents: Sequence[Content], look: Look, kind: str) -> Iterator[Part]:
    def pictures() -> Iterator[Part]:
        for content in contents:
            try:
                data = retrieval.pictures.draw(content, 1, look, kind)
            except UnreadableInstance:
                # Such as a report: the others have pictures.
                continue
            yield Part(media_type=kind, data=answers.one_piece(data))

    try:
        return begun(pictures())
    except StopIteration:
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, "nothing of it has pixels that can be drawn") from None


def _drawn(retrieval: Retrieval, request: Request, content: Content, look: Look, kind: str) -> bytes:
    number = 1
    if "frames" in request.path_params:
        _, _, numbers = frames_asked(retrieval, request)
        if len(numbers) > 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, "frames are drawn one at a time: ask for each by itself")
        number = numbers[0]
    try:
        return retrieval.pictures.draw(content, number, look, kind)
    except CannotTranscode as error:
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, str(error)) from error


def _frames_text(request: Request) -> str:
    return str(request.path_params.get("frames", ""))


def _small(
    retrieval: Retrieval, request: Request, nearest: Sequence[Content], kind: str, headers: dict[str, str]
) -> Response:
    look, refused = Look(viewport=(THUMBNAIL, THUMBNAIL), quality=80), None
    for content in nearest:
        try:
            data = _drawn(retrieval, request, content, look, kind)
            return Response(data, headers=headers, media_type=kind)
        except Refusal as refusal:
            refused = refusal
    raise refused or Refusal(HTTPStatus.NOT_ACCEPTABLE, "nothing of it has pixels that can be drawn")
