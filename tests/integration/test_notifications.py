"""Performed procedure steps and instance availability over real sockets, with pynetdicom as the modality."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
)

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.watch import Watch
from dicom_node.core.completeness import Deciding, verdict
from dicom_node.core.performed_step import StepState
from dicom_node.intake import Intake
from dicom_node.notice import Notices
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.notifications import AT_CREATION, Notifications
from dicom_node.settings import CompletenessSettings, NodeSettings, Settings
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, received, sop_uid
from tests.requesting import Requestor
from tests.rude_peer import (
    ECHO_CONTEXT,
    RELEASE,
    RELEASE_RP,
    STEP_CONTEXT,
    create_command,
    echo_command,
    p_data_tf,
    pdv,
    rude_peer,
)

STEP = "2.25.1"
SECONDS = 30.0


@dataclass
class Site:
    """A node that receives and is told."""

    index: Index
    archive: Archive
    entity: ApplicationEntity
    notices: Notices
    timers: CompletenessSettings = field(default_factory=CompletenessSettings)

    def hold(self, *numbers: int) -> None:
        intake = Intake(archive=self.archive, studies=self.index.studies)
        association = str(uuid.uuid4())
        intake.association_opened(association, "CT1")
        for number in numbers:
            intake.store(received(ct_instance(number), association_id=association))
        intake.association_ended(association, "released")

    def told(self) -> dict[tuple[str, str], tuple[int, bool]]:
        facts = self.index.arrivals.facts([STUDY_UID])[STUDY_UID]
        return {(one.source, one.series_instance_uid): (one.count, one.final) for one in facts.told}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path) as site:
        yield site


@contextmanager
def opened(folder: Path) -> Iterator[Site]:
    index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
    archive = Archive(folder / "archive")
    node = NodeSettings(host="127.0.0.1", port=0, data_dir=folder, minimum_free_megabytes=0)
    intake, notices = Intake(archive=archive, studies=index.studies), Notices(index, time.time)
    entity = ApplicationEntity(
        Settings(node=node), intake, timeouts=Timeouts(grace=1.0), notifications=Notifications(notices)
    )
    entity.start()
    try:
        yield Site(index, archive, entity, notices)
    finally:
        entity.stop()
        index.close()


@contextmanager
def modality(site: Site) -> Iterator[Association]:
    ae = Requestor(ae_title="CT1")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SECONDS
    contexts = [build_context(uid) for uid in (ModalityPerformedProcedureStep, InstanceAvailabilityNotification)]
    association = ae.associate("127.0.0.1", site.entity.port, contexts=contexts, ae_title="TRIAGE")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()
        association.join(SECONDS)


def begun(**changes: Any) -> Dataset:
    """What a modality says when it begins; `changes` by keyword, and None removes."""
    ds, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID, scheduled.AccessionNumber = STUDY_UID, "ACC-1"
    ds.ScheduledStepAttributesSequence = [scheduled]
    ds.PatientName, ds.PatientID = "Secret^Patient", "SECRET-1"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle, ds.Modality = "P1", "CT1", "CT"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20240229", "101500"
    ds.PerformedProcedureStepStatus, ds.PerformedSeriesSequence = "IN PROGRESS", []
    return with_changes(ds, changes)


def ended(state: str = "COMPLETED", series: Mapping[str, list[str]] | None = None, **changes: Any) -> Dataset:
    ds = Dataset()
    ds.PerformedProcedureStepStatus = state
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20240229", "102000"
    ds.PerformedSeriesSequence = []
    for uid, instances in (series or {}).items():
        item = Dataset()
        item.SeriesInstanceUID, item.ProtocolName = uid, "CHEST"
        item.ReferencedImageSequence = [referenced(instance) for instance in instances]
        item.ReferencedNonImageCompositeSOPInstanceSequence = []
        ds.PerformedSeriesSequence.append(item)
    return with_changes(ds, changes)


def referenced(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def with_changes(ds: Dataset, changes: Mapping[str, Any]) -> Dataset:
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def create(association: Association, ds: Dataset, uid: str | None = STEP) -> Dataset:
    status, _ = association.send_n_create(ds, ModalityPerformedProcedureStep, uid)
    return status


def change(association: Association, ds: Dataset, uid: str = STEP) -> Dataset:
    status, _ = association.send_n_set(ds, ModalityPerformedProcedureStep, uid)
    return status


def test_a_completed_step_makes_its_study_complete_as_soon_as_all_is_here(site: Site) -> None:
    with modality(site) as association:
        assert create(association, begun()).Status == 0x0000
        site.hold(1, 2)
        series = {SERIES_UID: [sop_uid(1), sop_uid(2), sop_uid(3)]}
        assert change(association, ended(series=series)).Status == 0x0000
    assert site.told() == {("MPPS", SERIES_UID): (3, True), ("MPPS", ""): (3, True)}
    site.hold(3)
    watch = Watch(site.index.arrivals, site.timers, {})
    now = time.time()
    judged = verdict(watch.due(now)[STUDY_UID], now, site.timers)
    assert (judged.complete, judged.decided_by) == (True, Deciding.COUNTS)
    assert judged.reason.startswith("all 3 instances that MPPS counts are here")


def test_a_modality_that_releases_at_once_hears_that_its_step_is_kept(site: Site) -> None:
    echo = p_data_tf(pdv(echo_command(2), is_command=True, context=ECHO_CONTEXT))
    step = encode(begun(), True, True)
    assert step is not None
    for number in range(1, 21):
        command = pdv(create_command(f"2.25.{number}"), is_command=True, context=STEP_CONTEXT)
        with rude_peer(site.entity.port) as peer:
            peer.send(p_data_tf(command) + p_data_tf(pdv(step, context=STEP_CONTEXT)) + echo + RELEASE)
            said = [peer.pdu() for _ in range(3)]
            if said[1][1][10] == STEP_CONTEXT:
                # The attributes of what was created.
                said.append(peer.pdu())
            assert [kind for kind, _ in said] == [4] * (len(said) - 1) + [RELEASE_RP]


def test_the_counts_are_sums_over_all_steps_and_the_discontinued_one_is_named(site: Site) -> None:
    site.hold(1, 2)
    with modality(site) as association:
        for uid, state, series in (
            ("2.25.1", "COMPLETED", {SERIES_UID: [sop_uid(1)]}),
            ("2.25.2", "DISCONTINUED", {SERIES_UID: [sop_uid(2)], "1.9": ["1.9.1", "1.9.2"]}),
        ):
            assert create(association, begun(), uid).Status == 0x0000
            assert change(association, ended(state, series), uid).Status == 0x0000
    source = "MPPS (1 of 2 steps discontinued)"
    assert site.told() == {(source, SERIES_UID): (2, True), (source, "1.9"): (2, True), (source, ""): (4, True)}
    assert site.index.studies.rows(STUDY_UID)[0].reason == f"{source} counts 4 instances in 2 series"


def test_while_a_step_of_the_study_is_in_progress_nothing_is_final(site: Site) -> None:
    site.hold(1)
    with modality(site) as association:
        assert create(association, begun(), "2.25.1").Status == 0x0000
        assert create(association, begun(), "2.25.2").Status == 0x0000
        assert change(association, ended(series={SERIES_UID: [sop_uid(1)]}), "2.25.1").Status == 0x0000
    assert site.told() == {("MPPS", SERIES_UID): (1, False)}


def test_a_study_of_which_a_step_is_in_progress_gets_the_long_quiet_time_until_the_step_has_ended(site: Site) -> None:
    site.hold(1)
    watch = Watch(site.index.arrivals, site.timers, {})
    with modality(site) as association:
        assert create(association, begun()).Status == 0x0000
        now = time.time()
        judged = verdict(watch.due(now + 1)[STUDY_UID], now + 1, site.timers)
        assert not judged.complete
        assert "1 performed procedure step is still in progress" in judged.reason
        assert change(association, ended(series={SERIES_UID: [sop_uid(1)]})).Status == 0x0000
    assert site.index.arrivals.facts([STUDY_UID])[STUDY_UID].steps_in_progress == 0


def test_a_step_that_has_ended_takes_no_change_and_says_so_by_its_number(site: Site, tmp_path: Path) -> None:
    with modality(site) as association:
        assert create(association, begun()).Status == 0x0000
        assert change(association, ended(series={SERIES_UID: [sop_uid(1)]})).Status == 0x0000
        again = change(association, ended("DISCONTINUED"))
    assert (again.Status, again.ErrorID) == (0x0110, 0xA710)
    assert again.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    (step,) = site.index.performed_steps.of_study(STUDY_UID)
    assert (step.state, dict(step.series)) == (StepState.COMPLETED, {SERIES_UID: 1})


def test_a_step_survives_a_restart_and_nothing_of_the_patient_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as site, modality(site) as association:
        assert create(association, begun()).Status == 0x0000
    with opened(tmp_path) as site, modality(site) as association:
        assert create(association, begun()).Status == 0x0111
        assert change(association, ended(series={SERIES_UID: [sop_uid(1)]})).Status == 0x0000
    assert b"SECRET" not in b"".join(path.read_bytes().upper() for path in tmp_path.glob("index*"))


def test_a_step_without_a_uid_gets_one_of_ours(site: Site) -> None:
    with modality(site) as association:
        assert create(association, begun(), None).Status == 0x0000
    (step,) = site.index.performed_steps.of_study(STUDY_UID)
    assert step.sop_instance_uid.startswith("2.25.")


@pytest.mark.parametrize("keyword", AT_CREATION)
@pytest.mark.parametrize(("value", "status"), [(None, 0x0120), ("", 0x0121)])
def test_what_a_new_step_must_say_is_asked_for(site: Site, keyword: str, value: str | None, status: int) -> None:
    empty: Any = [] if value == "" and keyword.endswith("Sequence") else value
    with modality(site) as association:
        answer = create(association, begun(**{keyword: empty}))
    assert answer.Status == status
    assert answer.ErrorComment.startswith(keyword[:40])
    assert site.index.performed_steps.of_study(STUDY_UID) == []


def test_a_step_begins_in_progress_and_of_a_study(site: Site) -> None:
    nameless = Dataset()
    nameless.AccessionNumber = "ACC-1"
    odd = Dataset()
    odd.StudyInstanceUID = "1.2.a"
    with modality(site) as association:
        assert create(association, begun(PerformedProcedureStepStatus="COMPLETED")).Status == 0x0106
        assert create(association, begun(PerformedProcedureStepStatus="SOON")).Status == 0x0106
        assert create(association, begun(ScheduledStepAttributesSequence=[nameless])).Status == 0x0120
        assert change(association, ended()).Status == 0x0112
    assert site.index.performed_steps.of_study(STUDY_UID) == []


def test_a_completed_step_without_a_series_is_refused_and_can_be_mended(site: Site) -> None:
    with modality(site) as association:
        assert create(association, begun()).Status == 0x0000
        assert change(association, ended()).Status == 0x0121
        assert change(association, ended(series={SERIES_UID: [sop_uid(1)]})).Status == 0x0000


def notified(series: Mapping[str, Mapping[str, str]], **changes: Any) -> Dataset:
    ds = Dataset()
    ds.ReferencedPerformedProcedureStepSequence, ds.StudyInstanceUID = [], STUDY_UID
    ds.ReferencedSeriesSequence = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedSOPSequence = uid, []
        for instance, availability in instances.items():
            reference = referenced(instance)
            reference.InstanceAvailability, reference.RetrieveAETitle = availability, "PACS"
            item.ReferencedSOPSequence.append(reference)
        ds.ReferencedSeriesSequence.append(item)
    return with_changes(ds, changes)


def test_what_is_available_elsewhere_is_a_fact_that_is_not_final(site: Site) -> None:
    site.hold(1)
    with modality(site) as association:

        def notify(ds: Dataset, uid: str | None) -> int:
            return int(association.send_n_create(ds, InstanceAvailabilityNotification, uid)[0].Status)

        first = {"1": "ONLINE", "2": "NEARLINE", "3": "UNAVAILABLE"}
        assert notify(notified({SERIES_UID: first}), "2.25.7") == 0x0000
        assert notify(notified({SERIES_UID: {"1": "ONLINE"}, "1.9": {"4": "ONLINE"}}), None) == 0x0000
        assert notify(notified({}), "2.25.8") == 0x0121
        assert notify(notified({}, StudyInstanceUID=None), "2.25.8") == 0x0120
    source = "availability by CT1"
    assert site.told() == {(source, SERIES_UID): (2, False), (source, "1.9"): (1, False)}


def test_a_defect_of_ours_is_not_blamed_on_the_sender(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_args: object, **_kwargs: object) -> None:
        raise KeyError("our own")

    monkeypatch.setattr(site.notices, "create_step", defect)
    with modality(site) as association, caplog.at_level("WARNING", "dicom_node"):
        status, _ = association.send_n_create(begun(), ModalityPerformedProcedureStep, STEP)
    assert (status.Status, status.ErrorComment) == (0x0110, "the node failed; see its log")
    (record,) = [record for record in caplog.records if record.levelname != "WARNING"]
    assert record.message == "a notification could not be taken"
