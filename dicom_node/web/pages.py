"""The pages: an overview or a study's detail as HTML, rendered here and readable without scripts."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dicom_node.archive.lines import (
    DONE,
    IN_HAND,
    NEED_A_PERSON,
    Overview,
    StudyDetail,
    duration_in_words,
    time_in_words,
)
from dicom_node.archive.worklist import Worklist
from dicom_node.core.access import NOBODY, Visitor
from dicom_node.web.delivery_groups import grouped
from dicom_node.web.gate import RENEWAL_PARAMETER
from dicom_node.web.report_text import ReportText

#: How often an open overview asks again.
REFRESH_SECONDS = 10

#: The short names of what a report consists of (PS3.6 Table A-1).
OBJECTS: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.11.1": "GSPS",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.88.59": "KOS",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
}

#: Of a study page without the archive beside it.
_NO_FACTS: Mapping[str, Any] = {
    "findings": (),
    "read_series": {},
    "shown": "",
    "was_read": False,
    "not_read": {},
    "windows": (),
    "can_draw": False,
    "reports": (),
    "elsewhere": "",
    "log": (),
}


class Pages:
    """Renders pages; templates are read when they are first used."""

    def __init__(self, title: str) -> None:
        environment = Environment(
            loader=PackageLoader("dicom_node.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            time=_time,
            duration=duration_in_words,
            object=_object,
            size=_size,
            plain_time=time_in_words,
            grouped=grouped,
        )
        environment.globals.update(title=title, renewal=RENEWAL_PARAMETER)
        self._environment = environment

    def overview(
        self,
        overview: Overview,
        messages: Mapping[str, int] | None,
        health: Mapping[str, bool],
        visitor: Visitor = NOBODY,
    ) -> str:
        """The first page; `messages` are the broker's queue lengths, None when it does not answer."""
        groups = {
            "Need a person": overview.group(NEED_A_PERSON),
            "In hand": overview.group(IN_HAND),
            "Done": overview.group(DONE),
        }
        totals = {
            "Need a person": sum(map(overview.count, NEED_A_PERSON)),
            "In hand": sum(map(overview.count, IN_HAND)),
            "Done": sum(map(overview.count, DONE)),
        }
        facts = {"overview": overview, "messages": messages, "health": health, "groups": groups, "totals": totals}
        return self._render("overview.html", visitor, refresh=REFRESH_SECONDS, now=overview.now, **facts)

    def worklist(self, visitor: Visitor, *, whole: bool, worklist: Worklist, **facts: Any) -> str:
        """The reading worklist: the whole page, or only the list itself."""
        template = "worklist.html" if whole else "worklist_rows.html"
        return self._render(template, visitor, refresh=None, now=worklist.now, worklist=worklist, **facts)

    def study(self, detail: StudyDetail, visitor: Visitor = NOBODY, **facts: Any) -> str:
        """One study's whole story; `facts` as `study_page` gathers them."""
        return self._render(
            "study.html", visitor, refresh=REFRESH_SECONDS, now=detail.now, detail=detail, **{**_NO_FACTS, **facts}
        )

    def queue(self, visitor: Visitor, now: float, **facts: Any) -> str:
        """The queue page; `facts` as `queue_page` gathers them."""
        return self._render("queue.html", visitor, refresh=REFRESH_SECONDS, now=now, **facts)

    def rules(self, visitor: Visitor, now: float, **facts: Any) -> str:
        """The rule tester; `facts` are the routes and what was tested."""
        return self._render("rules.html", visitor, refresh=None, now=now, **facts)

    def accounts(self, visitor: Visitor, now: float, **facts: Any) -> str:
        """Users and tokens; `facts` as `accounts_page` gathers them."""
        return self._render("accounts.html", visitor, refresh=None, now=now, **facts)

    def audit(self, visitor: Visitor, now: float, **facts: Any) -> str:
        """Lines of the audit trail; `facts` as `audit_page` gathers them."""
        return self._render("audit.html", visitor, refresh=None, now=now, **facts)

    def report(self, visitor: Visitor, now: float, *, report: ReportText, **facts: Any) -> str:
        """A structured report as text; `facts` are whose it is, and what became of it."""
        return self._render("report.html", visitor, refresh=None, now=now, report=report, **facts)

    def message(self, status: HTTPStatus, text: str, now: float, visitor: Visitor = NOBODY) -> str:
        """A page that says in words why there is no other."""
        return self._render("message.html", visitor, refresh=None, now=now, heading=status.phrase, text=text)

    def login(self, now: float, *, after: str, words: str = "", with_provider: bool = False) -> str:
        """The page to log in on; `after` is where to go then, `words` say what was wrong."""
        facts = {"after": after, "words": words, "with_provider": with_provider}
        return self._render("login.html", NOBODY, refresh=None, now=now, **facts)

    def _render(self, template: str, visitor: Visitor, **facts: Any) -> str:
        return self._environment.get_template(template).render(visitor=visitor, **facts)


def _time(at: float) -> Markup:
    """A moment that people and machines read."""
    text = time_in_words(at)
    words = text.replace("T", " ").replace("Z", " UTC")
    return Markup('<time datetime="{}">{}</time>').format(escape(text), escape(words))


def _object(sop_class_uid: str) -> str:
    return OBJECTS.get(sop_class_uid, sop_class_uid)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
