"""What a page can change: a study is read again, or its result withdrawn."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dicom_node.archive.index import Index
from dicom_node.audit import CHANGED, AuditTrail, Happening
from dicom_node.core.access import Visitor
from dicom_node.core.errors import IllegalTransition, UnknownStudy
from dicom_node.core.priority import Priority
from dicom_node.core.uid import is_uid
from dicom_node.web.gate import visitor_of

log = logging.getLogger(__name__)

#: The letters of a reason that are kept.
_LONGEST_REASON = 200


@contextmanager
def answering_for(study_instance_uid: str) -> Iterator[None]:
    """Say in words what is wrong with a study's UID, or with what was asked of it."""
    if not is_uid(study_instance_uid):
        raise HTTPException(HTTPStatus.NOT_FOUND, "That is no Study Instance UID.")
    try:
        yield
    except UnknownStudy as error:
        words = f"Study {study_instance_uid} is not in the index. The overview lists those that are."
        raise HTTPException(HTTPStatus.NOT_FOUND, words) from error
    except IllegalTransition as error:
        words = f"That cannot be done with study {study_instance_uid} now: {error}."
        raise HTTPException(HTTPStatus.CONFLICT, words) from error


async def form_of(request: Request) -> dict[str, str]:
    """The first value of each field; the gate has seen to its size."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


def back_to(study_instance_uid: str) -> RedirectResponse:
    """To the study's page."""
    return RedirectResponse(f"/studies/{study_instance_uid}", status_code=HTTPStatus.SEE_OTHER)


@dataclass(frozen=True, kw_only=True)
class Deeds:
    """What changes studies, each time with a line in the audit trail."""

    index: Index
    clock: Callable[[], float]
    audit: AuditTrail

    def requeue(self, request: Request, study_instance_uid: str) -> Response:
        """Have it read again."""
        visitor = visitor_of(request.scope)
        with self._deed(visitor, study_instance_uid, "read again"):
            self.index.jobs.ask_again(study_instance_uid, actor=visitor.actor, at=self.clock())
        log.info("a study was asked for again", extra=_facts(visitor, study_instance_uid))
        return back_to(study_instance_uid)

    def resend(self, request: Request, study_instance_uid: str) -> Response:
        """Have its results sent again."""
        visitor = visitor_of(request.scope)
        with self._deed(visitor, study_instance_uid, "sent again"):
            self.index.resending.send_again(study_instance_uid, actor=visitor.actor, at=self.clock())
        log.info("a study's results were asked to be sent again", extra=_facts(visitor, study_instance_uid))
        return back_to(study_instance_uid)

    async def change_priority(self, request: Request, study_instance_uid: str) -> Response:
        """Have it read earlier or later."""
        visitor, given = visitor_of(request.scope), (await form_of(request)).get("priority", "")
        if given not in list(Priority):
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"There is no such priority; there are {', '.join(Priority)}.")

        def change() -> None:
            with self._deed(visitor, study_instance_uid, f"priority {given}"):
                self.index.priorities.change(study_instance_uid, Priority(given), actor=visitor.actor, at=self.clock())

        await run_in_threadpool(change)
        return RedirectResponse("/queue", status_code=HTTPStatus.SEE_OTHER)

    async def withdraw(self, request: Request, study_instance_uid: str) -> Response:
        """Take its result back."""
        visitor, given = visitor_of(request.scope), await form_of(request)
        reason, safety = given.get("reason", "")[:_LONGEST_REASON], "safety" in given

        def take_back() -> None:
            kind = "for the safety of the patient" if safety else "for its quality"
            with self._deed(visitor, study_instance_uid, f"withdrawn {kind}"):
                self.index.withdrawals.withdraw(
                    study_instance_uid, safety=safety, reason=reason, actor=visitor.actor, at=self.clock()
                )

        # In a thread: the database may let it wait.
        await run_in_threadpool(take_back)
        log.warning("a result was withdrawn", extra=_facts(visitor, study_instance_uid))
        return back_to(study_instance_uid)

    @contextmanager
    def _deed(self, visitor: Visitor, study: str, what: str) -> Iterator[None]:
        """Done or not, it is in the audit trail."""
        try:
            with answering_for(study):
                yield
        except HTTPException:
            if is_uid(study):
                self._note(visitor, study, what, succeeded=False)
            raise
        self._note(visitor, study, what, succeeded=True)

    def _note(self, visitor: Visitor, study: str, what: str, *, succeeded: bool) -> None:
        self.audit.note(
            Happening(
                event=CHANGED,
                at=self.clock(),
                user=visitor.name,
                address=visitor.address,
                description=what,
                studies=[study],
                succeeded=succeeded,
            )
        )


def build_deeds(deeds: Deeds) -> APIRouter:
    """The addresses of what can be changed."""
    router = APIRouter()
    for word, deed in (
        ("requeue", deeds.requeue),
        ("resend", deeds.resend),
        ("priority", deeds.change_priority),
        ("withdraw", deeds.withdraw),
    ):
        router.add_api_route(f"/studies/{{study_instance_uid}}/{word}", deed, methods=["POST"], response_class=Response)
    return router


def _facts(visitor: Visitor, study: str) -> dict[str, str]:
    return {"study_instance_uid": study, "actor": visitor.actor}
