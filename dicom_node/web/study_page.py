"""The study page: what was found, slice by slice, what became of it, and the report as text."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.lines import StudyDetail, WithdrawalLine
from dicom_node.archive.overview import read_study
from dicom_node.archive.reports import KeptReport
from dicom_node.audit import SEEN, AuditTrail, Happening
from dicom_node.core.errors import UnknownStudy, UnreadableInstance
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.routing import Route, route_study
from dicom_node.core.uid import is_uid
from dicom_node.settings import WebSettings
from dicom_node.web.deeds import answering_for
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages
from dicom_node.web.picture import WINDOWS, missing
from dicom_node.web.reading import picture, study_link
from dicom_node.web.report_text import read_report_text
from dicom_node.web.study_pictures import StudyPictures
from dicom_node.work_log import excerpts

#: Windows that can be chosen: the presets, and the image's own.
CHOICES = (*WINDOWS, "own")

#: Of the log, where something failed.
LOG_LINES = 40


@dataclass(frozen=True, kw_only=True)
class StudyPages:
    """What the pages of one study need."""

    index: Index
    archive: Archive | None
    pages: Pages
    pictures: StudyPictures | None
    settings: WebSettings
    routes: tuple[Route, ...]
    audit: AuditTrail
    clock: Callable[[], float]
    #: Where the work log lies.
    data_dir: Path

    def facts(self, detail: StudyDetail) -> dict[str, Any]:
        """What the page shows beside the index's detail."""
        jobs = [job for job in detail.jobs if job.current]
        study = detail.study.study_instance_uid
        stands = detail.study.state is not StudyState.WITHDRAWN
        findings = [(job.algorithm, finding) for job in jobs for finding in job.findings]
        decision = route_study(self.index.studies.study(study), self.routes)
        not_read: dict[str, list[str]] = {}
        for rejection in decision.not_chosen:
            not_read.setdefault(rejection.series_instance_uid, []).append(f"{rejection.route}: {rejection.reason}")
        return {
            "findings": findings if stands else [],
            "read_series": {job.series_instance_uid: job.algorithm for job in jobs},
            "not_read": not_read,
            "windows": CHOICES,
            "can_draw": self.pictures is not None,
            "reports": self._reports(study),
            "elsewhere": study_link(self.settings.study_link, study),
            "log": self._log(detail),
        }

    def report(self, study: str, sop: str) -> KeptReport | None:
        """A structured report of the study, also one that stands no more."""
        return next((kept for kept in self._reports(study) if kept.sop_instance_uid == sop), None)

    def withdrawal(self, detail: StudyDetail, kept: KeptReport) -> WithdrawalLine | None:
        """What took the report back."""
        return next((line for line in detail.withdrawals if line.asked_at == kept.withdrawn_at), None)

    def _log(self, detail: StudyDetail) -> list[str]:
        """The log's last lines on it, where a reading or a delivery failed, or is tried again."""
        study = detail.study
        reading = any(job.state is JobState.FAILED or job.next_try_at is not None for job in detail.jobs)
        sending = any(one.state is DeliveryState.FAILED or one.next_try_at is not None for one in detail.deliveries)
        if not (reading or sending or study.state is StudyState.FAILED):
            return []
        return list(excerpts(self.data_dir, [study.study_instance_uid], LOG_LINES).get(study.study_instance_uid, ()))

    def _reports(self, study: str) -> list[KeptReport]:
        return [] if self.archive is None else self.index.reports.kept(study)


def build_study_pages(study_pages: StudyPages) -> APIRouter:
    """The addresses of one study."""
    router = APIRouter()
    clock, pictures = study_pages.clock, study_pages.pictures

    def seen(request: Request, study: str, what: str) -> None:
        visitor = visitor_of(request.scope)
        facts = {"user": visitor.name, "address": visitor.address, "description": what}
        study_pages.audit.note(Happening(event=SEEN, at=clock(), studies=[study], **facts))  # type: ignore[arg-type]  # by name

    @router.api_route("/studies/{study_instance_uid}", methods=["GET", "HEAD"])
    def study(request: Request, study_instance_uid: str) -> HTMLResponse:
        with answering_for(study_instance_uid):
            detail = read_study(study_pages.index, study_instance_uid, clock())
            facts = study_pages.facts(detail)
        seen(request, study_instance_uid, "study page")
        return HTMLResponse(study_pages.pages.study(detail, visitor_of(request.scope), **facts))

    @router.get("/studies/{study_instance_uid}/series/{series_instance_uid}/slices")
    def slices(study_instance_uid: str, series_instance_uid: str) -> Response:
        if pictures is None or not is_uid(study_instance_uid) or not is_uid(series_instance_uid):
            return JSONResponse([], HTTPStatus.NOT_FOUND)
        try:
            return JSONResponse(pictures.slices(study_instance_uid, series_instance_uid))
        except UnknownStudy:
            return JSONResponse([], HTTPStatus.NOT_FOUND)
        except UnreadableInstance:
            # Without its outlines a series is not shown: somebody would take it for one without findings.
            return JSONResponse([])

    @router.get("/studies/{study_instance_uid}/slices/{sop_instance_uid}")
    def slice_picture(study_instance_uid: str, sop_instance_uid: str, window: str = "lung") -> Response:
        if pictures is None or not is_uid(study_instance_uid) or not is_uid(sop_instance_uid) or window not in CHOICES:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        try:
            return picture(pictures.slice(study_instance_uid, sop_instance_uid, window))
        except UnknownStudy:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        except (UnreadableInstance, OSError) as error:
            words = str(error) if isinstance(error, UnreadableInstance) else "the file is not here"
            return picture(missing(words, 512))

    @router.get("/studies/{study_instance_uid}/report/{sop_instance_uid}")
    def report(request: Request, study_instance_uid: str, sop_instance_uid: str) -> HTMLResponse:
        archive = study_pages.archive
        with answering_for(study_instance_uid):
            detail = read_study(study_pages.index, study_instance_uid, clock())
            kept = study_pages.report(study_instance_uid, sop_instance_uid)
        if kept is None or archive is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such report of this study.")
        try:
            text = read_report_text(archive.path_of(kept.path))
        except OSError as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, "The report's file is not here.") from error
        except UnreadableInstance as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, "The report's file cannot be read; it is damaged.") from error
        seen(request, study_instance_uid, "structured report")
        facts = {"study": study_instance_uid, "kept": kept, "withdrawal": study_pages.withdrawal(detail, kept)}
        return HTMLResponse(study_pages.pages.report(visitor_of(request.scope), clock(), report=text, **facts))

    return router
