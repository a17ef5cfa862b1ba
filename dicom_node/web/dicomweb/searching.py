"""QIDO-RS: studies, series and instances by their attributes (PS3.18 Section 10.6)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from pydicom.dataset import Dataset

from dicom_node.archive.catalogue import Catalogue
from dicom_node.archive.contents import Contents
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.archive.search import Found, Searches
from dicom_node.audit import QUERIED
from dicom_node.core.errors import QueryInvalid, UnreadableInstance
from dicom_node.core.searchable import SEARCHABLE, Level, Searchable
from dicom_node.web.dicomweb import answers
from dicom_node.web.dicomweb.accept import Choice, Offer, choose
from dicom_node.web.dicomweb.auditing import Auditing
from dicom_node.web.dicomweb.budget import Turns
from dicom_node.web.dicomweb.json_model import Model, attribute, hex_tag, model_of
from dicom_node.web.dicomweb.metadata import encoded
from dicom_node.web.dicomweb.multipart import Part
from dicom_node.web.dicomweb.query import USUAL, Asked, Query, parse_query, returned
from dicom_node.web.dicomweb.reading import Readings
from dicom_node.web.dicomweb.refusal import Refusal, checked_uids
from dicom_node.web.dicomweb.xml_model import xml_of

_JSON, _XML = "application/dicom+json", "application/dicom+xml"
_OFFERS = (Offer(media_type=_JSON), Offer(media_type="application/json"), Offer(media_type=_XML, multipart=True))

#: The searches and their paths (PS3.18 Table 10.6.1-1).
PATHS: Mapping[str, Level] = {
    "/studies": Level.STUDY,
    "/series": Level.SERIES,
    "/studies/{study}/series": Level.SERIES,
    "/instances": Level.INSTANCE,
    "/studies/{study}/instances": Level.INSTANCE,
    "/studies/{study}/series/{series}/instances": Level.INSTANCE,
}

#: What an answer counts, and at which levels.
_COUNTS: Mapping[str, Level] = {
    "NumberOfStudyRelatedSeries": Level.STUDY,
    "NumberOfStudyRelatedInstances": Level.STUDY,
    "NumberOfSeriesRelatedInstances": Level.SERIES,
}

#: Left out where there is none; the others are there all the same, empty (PS3.18 Tables 10.6.3-3 to 10.6.3-5).
_IF_KNOWN = frozenset(
    {
        *("TimezoneOffsetFromUTC", "StudyDescription", "SeriesDescription", "Rows", "Columns", "BitsAllocated"),
        *("NumberOfFrames", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
    }
)

#: PS3.18 Section 8.3.4.4
_MORE = '299 dicom-node "There are more results: ask again with offset, or narrow the search"'
_INCOMPLETE = '299 dicom-node "Studies received by an earlier version are still being read: some may be missing"'

_PLURALS = {Level.STUDY: "studies", Level.SERIES: "series", Level.INSTANCE: "instances"}

#: What no file need be opened for.
_INDEXED = frozenset(int(hex_tag(one.keyword), 16) for one in SEARCHABLE)

#: Results of one answer whose files are opened for a field.
_MOST_FILES = 100

#: Of queries for so many what is told is not remembered.
_FEW_FIELDS = 20

_OPTIONS = ("limit", "offset", "fuzzymatching", "includefield")


@dataclass(frozen=True, kw_only=True)
class Searching:
    """What answers are made of."""

    searches: Searches
    catalogue: Catalogue
    contents: Contents
    readings: Readings
    turns: Turns
    auditing: Auditing
    root: Callable[[Request], str]


def add_searching(router: APIRouter, searching: Searching) -> None:
    """The routes that search."""
    for path, level in PATHS.items():
        _add(router, path, level, searching)


def _add(router: APIRouter, path: str, level: Level, searching: Searching) -> None:
    def search(request: Request) -> Response:
        return _answer(searching, request, level)

    router.add_api_route(
        path, search, methods=["GET"], name=path, response_class=Response, openapi_extra=_described(path, level)
    )


def _described(path: str, level: Level) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    matched = [a.keyword for a in SEARCHABLE if a.level.rank <= level.rank]
    return {
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names),
            *({"name": n, "in": "query", "required": False, "schema": {"type": "string"}} for n in matched),
            *({"name": n, "in": "query", "required": False, "schema": {"type": "string"}} for n in _OPTIONS),
        ]
    }


def _answer(searching: Searching, request: Request, level: Level) -> Response:
    uids = {name: request.path_params.get(name, "") for name in ("study", "series")}
    checked_uids(**uids)
    pairs = request.query_params.multi_items()
    query = parse_query(level, pairs, StudyInstanceUID=uids["study"], SeriesInstanceUID=uids["series"])
    choice = choose(request.query_params.get("accept") or request.headers.get("accept", ""), _OFFERS)
    if choice is None:
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, f"this can be had as {_JSON}, or as {_XML} in multipart/related")
    searching.auditing.note(request, QUERIED, f"searched for {_PLURALS[level]} over DICOMweb", [uids["study"]])
    heavy = query.search.limit >= USUAL or query.fields
    if heavy:
        return searching.turns.answer(lambda: _found(searching, request, query, choice))
    return _found(searching, request, query, choice)


def _found(searching: Searching, request: Request, query: Query, choice: Choice) -> Response:
    searching.catalogue.step()
    page = searching.searches.find(query.search)
    # Searches tell of patients, and change with everything that is received.
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
    warnings = [
        words for words, holds in ((_MORE, page.more), (_INCOMPLETE, not searching.catalogue.is_complete)) if holds
    ]
    if warnings:
        headers["Warning"] = ", ".join(warnings)
    if not page.found:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    _check_fields(query, len(page.found))
    root = searching.root(request)
    asked = Asked.by(query)
    told = (_known if len(asked.fields) < _FEW_FIELDS else _Told.by)(asked)
    models = [_model(searching, found, query, told, root) for found in page.found]
    if choice.offer.multipart:
        parts = (Part(media_type=_XML, data=answers.one_piece(xml_of(model))) for model in models)
        return answers.short_multipart(parts, _XML, headers)
    return answers.json_answer(request, encoded(models), headers)


def _check_fields(query: Query, count: int) -> None:
    """What the index does not hold is read from files, one for each result."""
    unindexed = [path for path in query.fields if path[0] not in _INDEXED]
    if unindexed and count > _MOST_FILES:
        words = f"a field that is asked for is not in the index: ask with a limit of {_MOST_FILES}, or without it"
        raise QueryInvalid(words)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What of the index each result of a query is told by: found out once, for there may be thousands."""

    #: Attributes, with their tags as eight hex digits.
    attributes: Sequence[tuple[str, Searchable]]
    #: Keywords of counts, with their tags.
    counts: Sequence[tuple[str, str]]
    available: bool

    @classmethod
    def by(cls, asked: Asked) -> "_Told":
        """Of the attributes at the query's level and above it those that are answered."""
        level = asked.level
        above = [one for one in Level if one.rank < level.rank and _is_relational(one, asked)]
        told = [
            (hex_tag(one.keyword), one)
            for one in SEARCHABLE
            if one.level.rank <= level.rank
            and (not one.computed or level is Level.STUDY)
            and (one.level in (level, *above) or one.vr == "UI" or asked.everything)
            and returned(one, asked)
        ]
        counts = [(hex_tag(keyword), keyword) for keyword, of in _COUNTS.items() if of.rank <= level.rank]
        return cls(attributes=told, counts=counts, available=level is Level.STUDY or asked.everything)


#: Clients ask the same few ways.
_known = lru_cache(maxsize=128)(_Told.by)


def _model(searching: Searching, found: Found, query: Query, told: _Told, root: str) -> Model:
    model: Model = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
    for tag, one in told.attributes:
        if (value := found.get(one.keyword)) is not None:
            model[tag] = attribute(one.vr, value)
        elif one.keyword not in _IF_KNOWN:
            model[tag] = {"vr": one.vr}
    for tag, keyword in told.counts:
        if keyword in found:
            model[tag] = attribute("IS", found[keyword])
    model[hex_tag("RetrieveURL")] = attribute("UR", _address(found, root))
    if told.available:
        model[hex_tag("InstanceAvailability")] = attribute("CS", "ONLINE")
    if query.fields:
        _add_fields(searching, found, query, model)
    return dict(sorted(model.items()))


def _is_relational(level: Level, asked: Asked) -> bool:
    """Whether the search spans all studies or series, so that an answer names what it belongs to (Table 10.6.3-4)."""
    keyword = "StudyInstanceUID" if level is Level.STUDY else "SeriesInstanceUID"
    return keyword not in asked.matched


def _address(found: Found, root: str) -> str:
    names = (("studies", "StudyInstanceUID"), ("series", "SeriesInstanceUID"), ("instances", "SOPInstanceUID"))
    return root + "".join(f"/{name}/{found[keyword]}" for name, keyword in names if keyword in found)


def _add_fields(searching: Searching, found: Found, query: Query, model: Model) -> None:
    """What was asked for and the index does not hold, from the file of an instance that stands for the rest."""
    missing = [path for path in query.fields if f"{path[0]:08X}" not in model]
    if not missing:
        return
    uids = (found.get(keyword, "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    content = searching.contents.first(*uids)
    if content is None:
        return
    try:
        with searching.readings.opened(content) as opened:
            wanted = _only(opened.ds, [path[0] for path in missing])
    except UnreadableInstance:
        return
    model.update({tag: value for tag, value in wanted.items() if tag not in model})


def _only(ds: Dataset, tags: list[int]) -> Model:
    kept = Dataset()
    for tag in tags:
        try:
            if tag in ds:
                kept[tag] = ds[tag]
        except BROKEN_BYTES:
            continue
    model = model_of(kept, lambda _path, _length: None)
    model.pop("00080005", None)
    return model
