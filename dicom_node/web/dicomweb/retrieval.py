"""What a request for stored objects names, what it accepts, and what its answers are made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request

from dicom_node.archive.contents import Content, Contents
from dicom_node.audit import SEEN
from dicom_node.web.dicomweb.accept import Choice, Offer, choose
from dicom_node.web.dicomweb.auditing import Auditing
from dicom_node.web.dicomweb.budget import Turns
from dicom_node.web.dicomweb.bulk_data import BulkData
from dicom_node.web.dicomweb.frames import Frames, NoSuchFrame, parse_frames
from dicom_node.web.dicomweb.metadata import Metadata
from dicom_node.web.dicomweb.multipart import Part
from dicom_node.web.dicomweb.pictures import Pictures
from dicom_node.web.dicomweb.pixel_place import PixelPlace
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.refusal import Refusal, checked_uids
from dicom_node.web.dicomweb.transcoding import Transcoder


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What answers are made of."""

    contents: Contents
    readings: Readings
    transcoder: Transcoder
    frames: Frames
    pictures: Pictures
    metadata: Metadata
    bulk_data: BulkData
    turns: Turns
    auditing: Auditing
    #: The address of the service, as the client called it.
    root: Callable[[Request], str]


def found(retrieval: Retrieval, request: Request) -> list[Content]:
    """What the path names; refused where the index does not hold it."""
    uids = {name: request.path_params.get(name, "") for name in ("study", "series", "instance")}
    checked_uids(**uids)
    contents = retrieval.contents.of(*uids.values())
    if not contents:
        raise Refusal(HTTPStatus.NOT_FOUND, "the node does not hold this, or does not hold it any more")
    retrieval.auditing.note(request, SEEN, "retrieved over DICOMweb", [uids["study"]])
    return contents


def chosen(request: Request, offers: Sequence[Offer]) -> Choice:
    """The offer that the client likes best; refused with what there is where it takes none."""
    # To look for nothing in an address takes as long as to look up what it names.
    asked = request.query_params.get("accept") if request.scope["query_string"] else ""
    header = asked or request.headers.get("accept", "")
    choice = choose(header, offers)
    if choice is None:
        types = ", ".join(
            f'multipart/related; type="{offer.media_type}"' if offer.multipart else offer.media_type for offer in offers
        )
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, f"this can be had as {types}")
    return choice


def is_part(request: Request) -> bool:
    """Whether a study or series is asked for, which may grow."""
    return "instance" not in request.path_params


def begun(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, the first of them made: what is wrong with it can still be answered by a status."""
    first = next(parts)

    def all_of_them() -> Iterator[Part]:
        yield first
        yield from parts

    return all_of_them()


def frames_asked(retrieval: Retrieval, request: Request) -> tuple[Content, PixelPlace, list[int]]:
    """The instance, its pixels' place and the frames' numbers from 1; refused where it has no such frames."""
    content = found(retrieval, request)[0]
    place = retrieval.readings.pixel_place(content)
    try:
        numbers = parse_frames(request.path_params["frames"])
        retrieval.frames.check(place, numbers)
    except NoSuchFrame:
        words = "the instance has no pixels" if place.start < 0 else f"the instance has frames 1 to {place.frames}"
        raise Refusal(HTTPStatus.NOT_FOUND, words) from None
    return content, place, numbers
