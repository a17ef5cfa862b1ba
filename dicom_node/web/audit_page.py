"""The page of the audit trail, for admins: who did what, when, from where, and whether it succeeded."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dicom_node.audit import LOG_USED, AuditTrail, Happening
from dicom_node.core.uid import is_uid
from dicom_node.web.audit_lines import KINDS, AuditLines, AuditWish, Spot
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages

_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2}(T\d{2}:\d{2})?)?")
_SPOT = re.compile(r"(\d{4}-\d{2}-\d{2})\.(\d{1,15})")
_LONGEST_NAME = 60

#: What a field for a moment shows where a day was asked for.
_WHOLE_DAY = {"from": "T00:00", "until": "T23:59"}

#: What of an address stays when another page is asked for.
_FILTERS = ("from", "until", "who", "what", "study", "failed")


@dataclass(frozen=True, kw_only=True)
class AuditTrailPage:
    """What the page needs."""

    lines: AuditLines
    pages: Pages
    audit: AuditTrail
    clock: Callable[[], float]

    def page(self, request: Request) -> HTMLResponse:
        """The lines that the address asks for; that somebody reads them is one, too (PS3.15 Section A.5.3.2)."""
        visitor, given = visitor_of(request.scope), request.query_params
        wish, faults = _wish(given)
        found = None if faults else self.lines.page(wish)
        self.audit.note(
            Happening(event=LOG_USED, at=self.clock(), user=visitor.name, address=visitor.address, description="read")
        )
        kept = {name: given[name] for name in _FILTERS if given.get(name)}
        older = found.older if found else None
        facts = {
            "found": found,
            "faults": faults,
            "given": {
                name: given.get(name, "") + _WHOLE_DAY.get(name, "") * _is_day(given.get(name, "")) for name in _FILTERS
            },
            "kinds": {word: words for word, (words, _) in KINDS.items()},
            "older": "/audit?" + urlencode({**kept, "before": f"{older.day}.{older.offset}"}) if older else "",
            "newest": "/audit?" + urlencode(kept) if wish.before else "",
        }
        status = HTTPStatus.BAD_REQUEST if faults else HTTPStatus.OK
        return HTMLResponse(self.pages.audit(visitor, self.clock(), **facts), status)


def build_audit_page(page: AuditTrailPage) -> APIRouter:
    """The address of the page."""
    router = APIRouter()
    router.add_api_route("/audit", page.page, methods=["GET", "HEAD"], response_class=HTMLResponse)
    return router


def _is_day(text: str) -> bool:
    return len(text) == 10 and _MOMENT.fullmatch(text) is not None


def _wish(given: Mapping[str, str]) -> tuple[AuditWish, list[str]]:
    """What is asked for, and what of it cannot be."""
    first, last, who = given.get("from", ""), given.get("until", ""), given.get("who", "").strip()
    kind, study = given.get("what", ""), given.get("study", "").strip()
    wrong = {
        "From and until are days or minutes, such as 2026-01-31T13:05.": not all(
            _MOMENT.fullmatch(text) and text.isascii() for text in (first, last)
        ),
        f"A name has up to {_LONGEST_NAME} signs.": len(who) > _LONGEST_NAME or not who.isprintable(),
        "There is no such kind of event.": kind != "" and kind not in KINDS,
        "That is no Study Instance UID.": study != "" and not is_uid(study),
    }
    faults = [words for words, is_wrong in wrong.items() if is_wrong]
    if faults:
        return AuditWish(), faults
    spot = _SPOT.fullmatch(given.get("before", ""))
    before = Spot(day=spot[1], offset=int(spot[2])) if spot else None
    failed = given.get("failed", "") != ""
    return AuditWish(first=first, last=last, who=who, kind=kind, study=study, failed=failed, before=before), []
