"""The rule tester: which route takes a study, or a described series, which series it reads, and why no other."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, tag_for_keyword
from starlette.concurrency import run_in_threadpool

from dicom_node.archive.index import Index
from dicom_node.core.errors import ExpressionError
from dicom_node.core.expression import parse_expression
from dicom_node.core.routing import Route, RoutingDecision, route_study
from dicom_node.core.study import KEPT_KEYWORDS, Instance, Study
from dicom_node.core.uid import is_uid
from dicom_node.web.deeds import form_of
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages

#: Slices that a described series has where nothing is said.
_SLICES = 100
_MOST_SLICES = 2000
_LINE = re.compile(r"\s*([A-Za-z]+)\s*[=:]\s*(.*?)\s*")
_NUMBERS = ("DS", "IS", "US", "SS", "FD", "FL", "UL", "SL")

EXAMPLE = r"""Modality = CT
SliceThickness = 1.0
StudyDescription = CT CHEST
ImageType = ORIGINAL\PRIMARY\AXIAL
Instances = 300"""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What was asked, and what came of it."""

    study: str = ""
    attributes: str = EXAMPLE
    when: str = ""
    decision: RoutingDecision | None = None
    faults: Sequence[str] = ()


def build_rule_tester(index: Index, pages: Pages, routes: tuple[Route, ...], clock: Callable[[], float]) -> APIRouter:
    """The address of the tester; nothing that is tested is kept."""
    router = APIRouter()

    @router.api_route("/rules", methods=["GET", "HEAD"])
    def page(request: Request) -> HTMLResponse:
        tested = Tested(study=request.query_params.get("study", "")[:64])
        return HTMLResponse(pages.rules(visitor_of(request.scope), clock(), routes=routes, tested=tested))

    @router.post("/rules")
    async def tested(request: Request) -> HTMLResponse:
        found = await run_in_threadpool(judge, index, routes, await form_of(request))
        return HTMLResponse(pages.rules(visitor_of(request.scope), clock(), routes=routes, tested=found))

    return router


def judge(index: Index, routes: tuple[Route, ...], given: Mapping[str, str]) -> Tested:
    """Route a study by the settings' routes, or by an expression that is tried in place of theirs."""
    study, text, when = (given.get(name, "").strip() for name in ("study", "attributes", "when"))
    facts: dict[str, Any] = {"study": study[:64], "attributes": text, "when": when}
    faults: list[str] = []
    if when:
        try:
            tried = parse_expression(when, known=keyword_dict)
            routes = (Route(name="tried here", algorithm="the one to be tried", when=tried),)
        except (ExpressionError, RecursionError) as error:
            return Tested(**facts, faults=[f"The expression cannot be used: {error}"])
    if study:
        found = index.studies.study(study) if is_uid(study) else None
        if found is None or not found.series:
            return Tested(**facts, faults=["This study is not in the index."])
        return Tested(**facts, decision=route_study(found, routes))
    described = described_study(text, faults)
    return Tested(**facts, decision=None if faults else route_study(described, routes), faults=faults)


def described_study(text: str, faults: list[str]) -> Study:
    """One series as its lines say, `Keyword = value`; `Instances` is how many slices it has, evenly spaced."""
    attributes: dict[str, Any] = {}
    slices = _SLICES
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            faults.append(f"Line {number} is not written as Keyword = value.")
        elif found[1] == "Instances":
            slices = min(int(found[2]), _MOST_SLICES) if found[2].isdecimal() and len(found[2]) < 9 else slices
        elif found[1] not in KEPT_KEYWORDS:
            faults.append(f"Line {number}: {found[1]} is nothing that the index keeps of a header.")
        else:
            attributes[found[1]] = _value(found[1], found[2].strip('"'), faults, number)
    return Study.from_instances("1.2.3", [_instance(k, attributes) for k in range(slices)])


def _value(keyword: str, text: str, faults: list[str], number: int) -> Any:
    tag = tag_for_keyword(keyword)
    parts: list[Any] = text.split("\\")
    if tag is not None and dictionary_VR(tag).split(" ")[0] in _NUMBERS:
        try:
            parts = [float(part) if "." in part else int(part) for part in parts]
        except ValueError:
            faults.append(f"Line {number}: {keyword} must be a number.")
    return parts[0] if len(parts) == 1 and (tag is None or dictionary_VM(tag) == "1") else tuple(parts)


def _instance(k: int, attributes: Mapping[str, Any]) -> Instance:
    """A slice of the described series; where it lies is made up unless it is said."""
    thickness = attributes.get("SliceThickness")
    apart = float(thickness) if isinstance(thickness, int | float) and thickness > 0 else 1.0
    made_up = {
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "PixelSpacing": (0.7, 0.7),
        "Rows": 512,
        "Columns": 512,
        "FrameOfReferenceUID": "1.2.3.4",
    }
    return Instance(
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        sop_instance_uid=f"1.2.3.1.{k + 1}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path="",
        size_bytes=0,
        sha256="",
        received_at=0.0,
        calling_ae_title="",
        attributes={
            **made_up,
            "ImagePositionPatient": (0.0, 0.0, k * apart),
            "InstanceNumber": k + 1,
            **attributes,
        },
    )
