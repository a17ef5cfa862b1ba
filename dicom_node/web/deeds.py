"""What a page can change: a study is read again, or its result withdrawn."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
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


def build_deeds(index: Index, clock: Callable[[], float], audit: AuditTrail) -> APIRouter:
    """The addresses of what can be changed."""
    router = APIRouter()

    def noted(visitor: Visitor, study: str, what: str, succeeded: bool = True) -> None:
        facts = {"user": visitor.name, "address": visitor.address, "description": what, "succeeded": succeeded}
        audit.note(Happening(event=CHANGED, at=clock(), studies=[study], **facts))  # type: ignore[arg-type]  # by name

    @contextmanager
    def deed(visitor: Visitor, study: str, what: str) -> Iterator[None]:
        """Done or not, it is in the audit trail."""
        try:
            with answering_for(study):
                yield
        except HTTPException:
            if is_uid(study):
                noted(visitor, study, what, succeeded=False)
            raise
        noted(visitor, study, what)

    @router.post("/studies/{study_instance_uid}/requeue")
    def requeue(request: Request, study_instance_uid: str) -> RedirectResponse:
        visitor = visitor_of(request.scope)
        with deed(visitor, study_instance_uid, "read again"):
            index.jobs.ask_again(study_instance_uid, actor=visitor.actor, at=clock())
        facts = {"study_instance_uid": study_instance_uid, "actor": visitor.actor}
        log.info("a study was asked for again", extra=facts)
        return back_to(study_instance_uid)

    @router.post("/studies/{study_instance_uid}/resend")
    def resend(request: Request, study_instance_uid: str) -> RedirectResponse:
        visitor = visitor_of(request.scope)
        with deed(visitor, study_instance_uid, "sent again"):
            index.resending.send_again(study_instance_uid, actor=visitor.actor, at=clock())
        facts = {"study_instance_uid": study_instance_uid, "actor": visitor.actor}
        log.info("a study's results were asked to be sent again", extra=facts)
        return back_to(study_instance_uid)

    @router.post("/studies/{study_instance_uid}/priority")
    async def change_priority(request: Request, study_instance_uid: str) -> RedirectResponse:
        visitor, given = visitor_of(request.scope), (await form_of(request)).get("priority", "")
        if given not in list(Priority):
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"There is no such priority; there are {', '.join(Priority)}.")

        def change() -> None:
            with deed(visitor, study_instance_uid, f"priority {given}"):
                index.priorities.change(study_instance_uid, Priority(given), actor=visitor.actor, at=clock())

        await run_in_threadpool(change)
        return RedirectResponse("/queue", status_code=HTTPStatus.SEE_OTHER)

    @router.post("/studies/{study_instance_uid}/withdraw")
    async def withdraw(request: Request, study_instance_uid: str) -> RedirectResponse:
        visitor, given = visitor_of(request.scope), await form_of(request)
        reason, safety = given.get("reason", "")[:_LONGEST_REASON], "safety" in given

        def take_back() -> None:
            kind = "for the safety of the patient" if safety else "for its quality"
            with deed(visitor, study_instance_uid, f"withdrawn {kind}"):
                index.withdrawals.withdraw(
                    study_instance_uid, safety=safety, reason=reason, actor=visitor.actor, at=clock()
                )

        # In a thread: the database may let it wait.
        await run_in_threadpool(take_back)
        facts = {"study_instance_uid": study_instance_uid, "actor": visitor.actor}
        log.warning("a result was withdrawn", extra=facts)
        return back_to(study_instance_uid)

    return router
