"""Notices: what modalities and PACS tell of what was made and what can be had goes into the index, as facts."""

import logging
from collections.abc import Callable, Mapping

from dicom_node.archive.index import Index
from dicom_node.core.performed_step import PerformedStep, StepChange

log = logging.getLogger(__name__)


class Notices:
    """Takes notifications into the index; safe to call from many associations' threads."""

    def __init__(self, index: Index, clock: Callable[[], float]) -> None:
        self._index, self._clock = index, clock

    def create_step(self, step: PerformedStep, calling_ae_title: str) -> None:
        """A step has begun; NotificationRefused where there is one of its UID."""
        self._index.performed_steps.create(step, calling_ae_title=calling_ae_title, at=self._clock())
        self._tell(step, calling_ae_title)

    def change_step(self, sop_instance_uid: str, change: StepChange, calling_ae_title: str) -> None:
        """A step goes on, or has ended; NotificationRefused where it is unknown or has ended before."""
        step = self._index.performed_steps.change(sop_instance_uid, change, at=self._clock())
        self._tell(step, calling_ae_title)

    def available(self, study_instance_uid: str, counts: Mapping[str, int], calling_ae_title: str) -> None:
        """A peer has so many instances of these series."""
        source = f"availability by {calling_ae_title}"
        self._index.arrivals.available(study_instance_uid, counts, source=source, at=self._clock())
        facts = {"study_instance_uid": study_instance_uid, "calling_ae_title": calling_ae_title}
        log.info("instances are available elsewhere", extra={**facts, "instances": sum(counts.values())})

    def _tell(self, step: PerformedStep, calling_ae_title: str) -> None:
        facts: dict[str, object] = {"sop_instance_uid": step.sop_instance_uid, "calling_ae_title": calling_ae_title}
        facts |= {"state": step.state.value}
        studies = step.study_instance_uids
        log.info("a performed procedure step", extra={**facts, "instances": sum(step.series.values())})
        if step.is_final and len(studies) > 1:
            facts |= {"studies": len(studies)}
            log.warning("a step of several studies: its series are counted for none", extra=facts)
