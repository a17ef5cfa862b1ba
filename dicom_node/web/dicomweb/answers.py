"""Answers over HTTP: conditions, ranges, compression and streams, alike for everything that is retrieved."""

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from dicom_node.archive.contents import Content
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.multipart import Extent, Part, collected, content_type, new_boundary, read_file, written
from dicom_node.web.dicomweb.reading import MISSING
from dicom_node.web.dicomweb.refusal import Refusal

#: An instance never changes. A browser may keep it for a day, nobody on the way may.
_FOR_A_DAY = "private, max-age=86400, immutable"

#: A study may grow, and a result may be withdrawn: to be asked for each time, and mostly answered by 304.
_ASK_AGAIN = "private, no-cache"

#: Shorter answers are not worth compressing.
_WORTH_BYTES = 1024

_LEVEL = 4

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def entity_tag(contents: Iterable[Content], *form: str) -> str:
    """Another for each content of these instances, and each form of the answer."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(f"{content.sop_instance_uid}{content.tag}".encode())
    digest.update("\x1f".join(form).encode())
    return f'"{digest.hexdigest()[:32]}"'


def caching(contents: Sequence[Content], tag: str, *, whole: bool = False) -> dict[str, str]:
    """Headers that say how long an answer may be kept; `whole`: it lists what a study or series has."""
    changes = whole or any(content.is_result for content in contents)
    return {"ETag": tag, "Cache-Control": _ASK_AGAIN if changes else _FOR_A_DAY, "Vary": "Accept, Accept-Encoding"}


def unchanged(request: Request, headers: Mapping[str, str]) -> Response | None:
    """304 where the client has it already (RFC 9110 Section 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] not in known and "*" not in known:
        return None
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=dict(headers))


def multipart(request: Request, parts: Iterable[Part], inner: str, headers: Mapping[str, str]) -> Response:
    """The parts as they come from the disk."""
    boundary = new_boundary()
    media_type = content_type(boundary, inner)
    if request.method == "HEAD":
        return Response(headers=dict(headers), media_type=media_type)
    return StreamingResponse(written(parts, boundary), headers=dict(headers), media_type=media_type)


def short_multipart(parts: Iterable[Part], inner: str, headers: Mapping[str, str]) -> Response:
    """The parts at once, where they are few and short."""
    boundary = new_boundary()
    data = b"".join(written(parts, boundary))
    return Response(data, headers=dict(headers), media_type=content_type(boundary, inner))


def pieces_of_file(name: str, extents: Sequence[Extent], inner: str, headers: Mapping[str, str]) -> Response:
    """Pieces of a file as the parts of an answer, copied once; UnreadableInstance where they are not there."""
    boundary = new_boundary()
    try:
        data = collected(name, extents, boundary)
    except EOFError:
        raise UnreadableInstance("the instance has fewer pixels than its header says") from None
    except FileNotFoundError as error:
        raise UnreadableInstance(MISSING) from error
    return Response(data, headers=dict(headers), media_type=content_type(boundary, inner))


def from_file(
    request: Request, path: Path, start: int, length: int, media_type: str, headers: Mapping[str, str]
) -> Response:
    """A piece of a file as a whole answer, or the range of it that is asked for (RFC 9110 Section 14)."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    first, last = 0, length - 1
    status = HTTPStatus.OK
    if wanted := _wanted_range(request, headers["ETag"], length):
        first, last = wanted
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {first}-{last}/{length}"
    headers["Content-Length"] = str(last - first + 1)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    data = read_file(path, start + first, last - first + 1)
    return StreamingResponse(data, status_code=status, headers=headers, media_type=media_type)


def json_answer(request: Request, data: bytes, headers: Mapping[str, str], *, status: int = HTTPStatus.OK) -> Response:
    """DICOM JSON, compressed where the client takes that and it pays."""
    headers = dict(headers)
    if accepts_gzip(request) and len(data) >= _WORTH_BYTES:
        data, headers["Content-Encoding"] = gzip.compress(data, compresslevel=_LEVEL, mtime=0), "gzip"
    return Response(data, status_code=status, headers=headers, media_type="application/dicom+json")


def accepts_gzip(request: Request) -> bool:
    """Whether the client takes gzip."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, parameter = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _wanted_range(request: Request, tag: str, length: int) -> tuple[int, int] | None:
    """First and last byte; None where everything is wanted, or what cannot be understood."""
    header = request.headers.get("range", "")
    if not header or request.headers.get("if-range", tag) != tag:
        return None
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or length - 1), length - 1)
    else:
        first, last = max(0, length - int(found[2])), length - 1
    if first > last:
        headers = {"Content-Range": f"bytes */{length}"}
        raise Refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "the range lies behind the end", headers)
    return first, last


def one_piece(data: bytes) -> Iterator[bytes]:
    """Bytes that are there already, as the data of a part."""
    yield data


def joined(pieces: Sequence[bytes], *, packed: bool) -> tuple[bytes, bool]:
    """Gzipped JSON lists as one, gzipped or not, and whether it is."""
    if len(pieces) == 1:
        return (pieces[0], True) if packed else (gzip.decompress(pieces[0]), False)
    lists = [gzip.decompress(piece)[1:-1] for piece in pieces]
    data = b"[" + b",".join(filter(None, lists)) + b"]"
    return (gzip.compress(data, compresslevel=1, mtime=0), True) if packed else (data, False)
