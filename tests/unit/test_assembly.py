from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dicom_node import assembly as assembly_module
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.studies import Added, StudyRow
from dicom_node.assembly import Assembly
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.expression import parse_expression
from dicom_node.core.job import Job, Lease, evidence_digest
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.routing import Route
from dicom_node.core.study import Study
from dicom_node.settings import Peer, Settings
from tests.populated_index import NOW, instance, objects, study_uid, summary, uid
from tests.strategies import slice_at

STUDY = study_uid("a")
CT_ROUTE = Route(name="chest", algorithm="lung_nodule", when=parse_expression('Modality == "CT"'), minimum_instances=3)


@dataclass
class Room:
    """An assembly over a real index, and a clock that a test turns."""

    index: Index
    now: float = NOW
    announced: list[Job] = field(default_factory=list)

    def assembly(self, *routes: Route) -> Assembly:
        settings = Settings(routes=routes or (CT_ROUTE,))
        return Assembly(settings, self.index, lambda: self.now, self.announced.append)

    def receive(self, *numbers: int, series: int = 2, **attributes: Any) -> None:
        """Slices of 2.5 mm of the study arrive now."""
        for number in numbers:
            header = slice_at(2.5 * number, SeriesNumber=series, InstanceNumber=number, **attributes)
            self.index.studies.add_instance(instance("a", number, at=self.now, series=series, attributes=header))

    def quiet(self, assembly: Assembly, seconds: float = 2.5) -> None:
        """Nothing comes for a while, then there is a round."""
        self.now += seconds
        assembly.step()

    def claim(self) -> Lease:
        claimed = self.index.jobs.claim(self.jobs[0].job.job_uid, worker="gpu1:1", lease_seconds=30, at=self.now)
        assert claimed is not None
        return claimed[1]

    @property
    def row(self) -> StudyRow:
        return self.index.studies.rows(STUDY)[0]

    @property
    def jobs(self) -> list[JobRow]:
        return self.index.jobs.of_study(STUDY)


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room(Index.open("sqlite://"))
    yield room
    room.index.close()


def test_a_whole_quiet_study_is_complete_routed_and_queued_in_one_round(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3, 4)
    assembly.step()
    assert (room.row.state, room.jobs) == (StudyState.RECEIVING, [])
    room.quiet(assembly)
    (row,) = room.jobs
    study = room.index.studies.study(STUDY)
    assert room.row.state is StudyState.QUEUED
    assert (row.job.algorithm, row.job.route, row.job.state) == ("lung_nodule", "chest", JobState.QUEUED)
    assert row.job.evidence == evidence_digest(study.series[0].instances)
    states = [line.after for line in room.index.studies.history(STUDY) if not line.subject]
    assert states == [StudyState.RECEIVING, StudyState.COMPLETE, StudyState.QUEUED]


def test_the_job_is_announced_once_while_only_the_quiet_time_is_waited_for(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3, 4)
    assembly.step()
    assert room.announced == []
    for _ in range(3):
        room.quiet(assembly, 0.6)
    assert len(room.announced) == 1
    room.quiet(assembly, 0.6)
    assert room.row.state is StudyState.QUEUED
    assert [room.jobs[0].job] == room.announced


def test_nothing_is_announced_while_nobody_has_time_to_prepare(room: Room) -> None:
    idle = False
    settings = Settings(routes=(CT_ROUTE,))
    assembly = Assembly(settings, room.index, lambda: room.now, room.announced.append, announcing=lambda: idle)
    room.receive(1, 2, 3, 4)
    room.quiet(assembly, 0.6)
    assert room.announced == []
    idle = True
    room.quiet(assembly, 0.6)
    assert len(room.announced) == 1


def test_who_rings_for_jobs_is_told_of_each_job_that_waits(room: Room) -> None:
    told: list[StudyState] = []
    settings = Settings(routes=(CT_ROUTE,))
    assembly = Assembly(settings, room.index, lambda: room.now, on_jobs=lambda: told.append(room.row.state))
    room.receive(1, 2, 3, 4)
    room.quiet(assembly)
    assert told == [StudyState.QUEUED]


def test_another_instance_lets_another_job_be_announced(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.quiet(assembly, 0.6)
    room.receive(4)
    room.quiet(assembly, 0.6)
    first, second = room.announced
    assert first.evidence != second.evidence


def test_nothing_is_announced_of_a_study_that_lacks_slices_or_that_no_route_wants(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 4, 5)
    room.quiet(assembly, 0.6)
    other = room.assembly(replace(CT_ROUTE, minimum_instances=99))
    room.receive(3)
    room.quiet(other, 0.6)
    assert room.announced == []


def test_a_study_that_lacks_a_slice_is_waited_for_longer_and_says_so(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 4, 5)
    room.quiet(assembly, 59)
    assert room.row.state is StudyState.RECEIVING
    room.quiet(assembly, 2)
    assert room.row.state is StudyState.QUEUED
    complete = room.index.studies.history(STUDY)[1]
    assert "missing" in complete.cause


def test_a_study_whose_sender_is_still_there_is_waited_for_longer(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.index.studies.association_opened("open", "CT1", room.now)
    room.index.studies.add_instance(instance("a", 4, at=room.now, attributes=slice_at(10.0)), "open")
    room.quiet(assembly, 10)
    assert room.row.state is StudyState.RECEIVING
    room.index.studies.association_ended("open", "released", room.now)
    room.quiet(assembly, 0.5)
    assert room.row.state is StudyState.QUEUED


def test_an_instance_between_judgement_and_completion_keeps_the_study_open(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    arrived = room.index.studies.arrived

    def overtaken(*args: Any, **kwargs: Any) -> bool:
        room.receive(4)
        return arrived(*args, **kwargs)

    monkeypatch.setattr(room.index.studies, "arrived", overtaken)
    room.quiet(assembly)
    assert room.row.state is StudyState.RECEIVING
    monkeypatch.undo()
    room.quiet(assembly)
    assert room.row.state is StudyState.QUEUED
    assert room.row.instances == 4


def test_an_instance_between_completion_and_routing_opens_the_study_and_harms_no_other(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    for number in (1, 2, 3):
        room.index.studies.add_instance(instance("b", number, at=room.now, attributes=slice_at(2.5 * number)))
    queue = room.index.jobs.queue

    def overtaken(study_instance_uid: str, *args: Any, **kwargs: Any) -> list[Job]:
        if study_instance_uid == STUDY:
            room.receive(4)
        return queue(study_instance_uid, *args, **kwargs)

    monkeypatch.setattr(room.index.jobs, "queue", overtaken)
    room.quiet(assembly)
    assert (room.row.state, room.jobs) == (StudyState.RECEIVING, [])
    assert room.index.studies.rows(study_uid("b"))[0].state is StudyState.QUEUED
    monkeypatch.undo()
    room.quiet(assembly)
    assert room.row.state is StudyState.QUEUED


def test_a_late_slice_makes_new_evidence_and_a_new_job(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.quiet(assembly)
    room.receive(4)
    room.quiet(assembly)
    old, new = room.jobs
    assert (old.job.state, new.job.state) == (JobState.SUPERSEDED, JobState.QUEUED)
    assert old.job.evidence != new.job.evidence


def test_a_late_instance_of_another_series_leads_back_to_the_report_there_is(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.quiet(assembly)
    room.index.jobs.report(room.claim(), objects("a"), summary=summary(1), at=room.now)
    room.receive(1, series=3, Modality="SR")
    room.quiet(assembly)
    assert (room.row.state, room.row.reason) == (StudyState.REPORTED, "the evidence is what was already read")
    assert len(room.jobs) == 1


def test_a_study_that_no_route_reads_says_why_of_every_series(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3, series=2, Modality="MR")
    room.receive(1, 2, series=3)
    room.quiet(assembly)
    assert room.row.state is StudyState.NOT_ROUTED
    assert 'Modality is "MR"' in room.row.reason
    assert "it has 2 slices, fewer than 3" in room.row.reason
    assert room.jobs == []


def test_the_history_tells_which_series_is_read_and_why_no_other(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3, series=2)
    room.receive(1, 2, 3, 4, series=3)
    room.quiet(assembly)
    cause = room.index.studies.history(STUDY)[-1].cause
    assert f"lung_nodule reads series {uid('series', 'a', 3)}: the best of 2 series that fit" in cause
    assert f"not series {uid('series', 'a', 2)}: it has fewer slices: 3 against 4" in cause


def test_two_routes_make_two_jobs_of_their_priorities(room: Room) -> None:
    bones = Route(
        name="bones",
        algorithm="fracture",
        when=CT_ROUTE.when,
        minimum_instances=3,
        priority=Priority.STAT,
        send_to=("er",),
    )
    assembly = room.assembly(CT_ROUTE, bones)
    room.receive(1, 2, 3)
    room.quiet(assembly)
    by_route = {row.job.route: row.job for row in room.jobs}
    assert [by_route[name].priority for name in ("bones", "chest")] == [Priority.STAT, Priority.ROUTINE]
    assert (by_route["bones"].send_to, by_route["chest"].send_to) == (("er",), ())
    assert room.row.priority == "STAT"


def test_a_study_asked_for_again_is_routed_again(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.quiet(assembly)
    room.index.jobs.report(room.claim(), objects("a"), summary=summary(1), at=room.now)
    room.index.jobs.ask_again(STUDY, actor="a person", at=room.now)
    assembly.step()
    (row,) = room.jobs
    assert (room.row.state, row.job.state, row.job.attempts) == (StudyState.QUEUED, JobState.QUEUED, 0)


def test_a_new_assembly_over_the_same_index_goes_on_where_the_old_one_stood(room: Room) -> None:
    room.receive(1, 2, 3)
    room.quiet(room.assembly())
    room.quiet(room.assembly())
    assert (room.row.state, len(room.jobs)) == (StudyState.QUEUED, 1)


@pytest.mark.parametrize("step", ["missing_slices", "route_study"])
def test_what_nobody_foresaw_fails_its_study_with_the_place_in_the_log_and_harms_no_other(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    for number in (1, 2, 3):
        room.index.studies.add_instance(instance("b", number, at=room.now, attributes=slice_at(2.5 * number)))
    innocent = getattr(assembly_module, step)

    def overflow(study: Study, *rest: Any) -> Any:
        if study.study_instance_uid == STUDY:
            raise OverflowError("Secret^Patient")
        return innocent(study, *rest)

    monkeypatch.setattr(assembly_module, step, overflow)
    room.quiet(assembly)
    doing = "judged" if step == "missing_slices" else "routed"
    reason = f"an unexpected OverflowError while the study was {doing}; its log line has the place"
    assert (room.row.state, room.row.reason) == (StudyState.FAILED, reason)
    assert room.index.studies.rows(study_uid("b"))[0].state is StudyState.QUEUED
    (line,) = (record for record in caplog.records if record.exc_info)
    assert (line.levelname, vars(line)["error"]) == ("ERROR", "OverflowError")


def test_a_position_that_is_no_place_in_a_scanner_stops_nobody(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    room.receive(4, ImagePositionPatient=(0.0, 0.0, 1e200))
    room.quiet(assembly)
    assert room.row.state is StudyState.QUEUED
    assert "1 of 4 slices have no position" in room.index.studies.history(STUDY)[-1].cause


def test_an_index_that_does_not_answer_fails_the_round_and_no_study(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)

    def locked(_uid: str) -> Study:
        raise IndexUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(room.index.studies, "study", locked)
        with pytest.raises(IndexUnavailable):
            room.quiet(assembly)
    assert room.row.state is StudyState.RECEIVING
    room.quiet(assembly)
    assert room.row.state is StudyState.QUEUED


def test_the_headers_of_a_study_with_a_gap_are_looked_at_once_for_each_arrival(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = room.assembly()
    looked: list[float] = []
    study = room.index.studies.study

    def counted(uid: str) -> Study:
        looked.append(room.now)
        return study(uid)

    monkeypatch.setattr(room.index.studies, "study", counted)
    room.receive(1, 2, 4, 5)
    for _ in range(4):
        room.quiet(assembly)
    assert len(looked) == 1
    room.receive(3)
    room.quiet(assembly)
    assert len(looked) == 2, "to judge it anew, and to route what was judged"
    assert room.row.state is StudyState.QUEUED


def test_a_study_whose_uids_are_all_another_studys_fails_and_says_so(room: Room) -> None:
    assembly = room.assembly()
    room.receive(1, 2, 3)
    for number in (1, 2):
        moved = replace(instance("a", number, at=room.now, sha256=f"{number:064d}"), study_instance_uid=study_uid("b"))
        assert room.index.studies.add_instance(moved) is Added.CONFLICT
    room.quiet(assembly)
    row = room.index.studies.rows(study_uid("b"))[0]
    assert row.state is StudyState.FAILED
    assert row.reason.startswith("all 2 instances hold UIDs of another study; kept and not read")
    assert room.row.state is StudyState.QUEUED


def test_routes_that_want_the_same_of_a_series_share_one_reading_and_each_gets_its_peers(room: Room) -> None:
    peers = (
        Peer(name="all", ae_title="A", host="a", port=104, results=True),
        *(Peer(name=name, ae_title=name.upper(), host=name, port=104) for name in ("ward", "clinic")),
    )
    routes = (
        replace(CT_ROUTE, name="ward", send_to=("ward",)),
        replace(CT_ROUTE, name="stat", send_to=("clinic", "ward"), priority=Priority.STAT),
        replace(CT_ROUTE, name="everyone"),
    )
    assembly = Assembly(Settings(routes=routes, peers=peers), room.index, lambda: room.now)
    room.receive(1, 2, 3)
    assembly.step()
    room.quiet(assembly)
    (row,) = room.jobs
    assert row.job.send_to == ("ward", "clinic", "all")
    assert (row.job.priority, row.job.route) == (Priority.STAT, "ward + stat + everyone")
