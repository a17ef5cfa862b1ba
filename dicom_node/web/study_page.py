"""The study page: what was found, slice by slice, what became of it, and the report as text."""

from collections.abc import Callable, Mapping
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
from dicom_node.web.reading import picture, study_links
from dicom_node.web.report_order import arranged
from dicom_node.web.report_text import ReportText, read_report_text
from dicom_node.web.study_pictures import StudyPictures
from dicom_node.work_log import excerpts

#: Windows that can be chosen: the presets, and the image's own.
CHOICES = (*WINDOWS, "own")

#: Of the log, where something failed.
LOG_LINES = 40


#: What a job has done with its series so far.
_WORDS: Mapping[JobState, str] = {
    JobState.QUEUED: "to be read by",
    JobState.READING: "being read by",
    JobState.REPORTED: "read by",
    JobState.NOT_APPLICABLE: "not one for",
    JobState.FAILED: "could not be read by",
    JobState.SUPERSEDED: "was to be read by",
}


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
        # Of several the first that was read.
        shown = next((job for job in jobs if job.state is JobState.REPORTED), next(iter(jobs), None))
        findings = [(job.algorithm, finding) for job in jobs for finding in job.findings]
        decision = route_study(self.index.studies.study(study), self.routes)
        not_read: dict[str, list[str]] = {}
        for rejection in decision.not_chosen:
            not_read.setdefault(rejection.series_instance_uid, []).append(f"{rejection.route}: {rejection.reason}")
        return {
            "findings": findings if stands else [],
            "read_series": {job.series_instance_uid: f"{_WORDS[job.state]} {job.algorithm}" for job in jobs},
            "shown": shown.series_instance_uid if shown else "",
            "was_read": shown is not None and shown.state is JobState.REPORTED,
            "not_read": not_read,
            "windows": CHOICES,
            "can_draw": self.pictures is not None,
            "reports": self._reports(study),
            "elsewhere": study_links(self.settings)(study),
            "log": self._log(detail),
        }

    def study(self, request: Request, study_instance_uid: str) -> Response:
        """Its page."""
        with answering_for(study_instance_uid):
            detail = read_study(self.index, study_instance_uid, self.clock())
            facts = self.facts(detail)
        self._seen(request, study_instance_uid, "study page")
        return HTMLResponse(self.pages.study(detail, visitor_of(request.scope), **facts))

    def slices(self, study_instance_uid: str, series_instance_uid: str) -> Response:
        """The slices of a series, with what is outlined on each."""
        if self.pictures is None or not is_uid(study_instance_uid) or not is_uid(series_instance_uid):
            return JSONResponse([], HTTPStatus.NOT_FOUND)
        try:
            return JSONResponse(self.pictures.slices(study_instance_uid, series_instance_uid))
        except UnknownStudy:
            return JSONResponse([], HTTPStatus.NOT_FOUND)
        except UnreadableInstance:
            # Without its outlines a series is not shown: somebody would take it for one without findings.
            return JSONResponse([])

    def slice_picture(self, study_instance_uid: str, sop_instance_uid: str, window: str = "lung") -> Response:
        """A slice, drawn."""
        pictures, uids = self.pictures, (study_instance_uid, sop_instance_uid)
        if pictures is None or not all(map(is_uid, uids)) or window not in CHOICES:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        try:
            return picture(pictures.slice(*uids, window))
        except UnknownStudy:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        except (UnreadableInstance, OSError) as error:
            words = str(error) if isinstance(error, UnreadableInstance) else "the file is not here"
            return picture(missing(words, 512))

    def report(self, request: Request, study_instance_uid: str, sop_instance_uid: str) -> Response:
        """A structured report as text, also one that stands no more."""
        with answering_for(study_instance_uid):
            detail = read_study(self.index, study_instance_uid, self.clock())
        reports = self._reports(study_instance_uid)
        kept = next((one for one in reports if one.sop_instance_uid == sop_instance_uid), None)
        if kept is None or self.archive is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such report of this study.")
        text = _text_of(self.archive.path_of(kept.path))
        self._seen(request, study_instance_uid, "structured report")
        facts = {
            "study": study_instance_uid,
            "kept": kept,
            "withdrawal": self.withdrawal(detail, kept),
            "arranged": arranged(text),
        }
        return HTMLResponse(self.pages.report(visitor_of(request.scope), self.clock(), report=text, **facts))

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

    def _seen(self, request: Request, study: str, what: str) -> None:
        visitor, at = visitor_of(request.scope), self.clock()
        user, address = visitor.name, visitor.address
        self.audit.note(Happening(event=SEEN, at=at, user=user, address=address, description=what, studies=[study]))

    def _reports(self, study: str) -> list[KeptReport]:
        return [] if self.archive is None else self.index.reports.kept(study)


def build_study_pages(study_pages: StudyPages) -> APIRouter:
    """The addresses of one study."""
    router = APIRouter()
    for below, answer, methods in (
        ("", study_pages.study, ["GET", "HEAD"]),
        ("/series/{series_instance_uid}/slices", study_pages.slices, ["GET"]),
        ("/slices/{sop_instance_uid}", study_pages.slice_picture, ["GET"]),
        ("/report/{sop_instance_uid}", study_pages.report, ["GET"]),
    ):
        path = f"/studies/{{study_instance_uid}}{below}"
        router.add_api_route(path, answer, methods=methods, response_class=Response)
    return router


def _text_of(path: Path) -> ReportText:
    """What a report says; said in words where it cannot be read."""
    try:
        return read_report_text(path)
    except OSError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, "The report's file is not here.") from error
    except UnreadableInstance as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, "The report's file cannot be read; it is damaged.") from error
