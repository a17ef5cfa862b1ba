"""Only what was answered with 0x0000 counts as accepted, and a study's time begins with its last new image."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from deploy.chaos_plan import Kind, PlannedStudy
from deploy.chaos_senders import Content, Ledger, Scanner, Sent, content_of, successes
from deploy.chaos_studies import (
    LATE_SLICES,
    SECOND_SERIES_SLICES,
    SHAPE,
    Templates,
    WrittenStudy,
    draw_templates,
    write_study,
)
from tests.peers import Behaviour, storage_peer

CT = "1.2.840.10008.5.1.4.1.1.2"
#: As DCMTK 3.6.7 prints them.
SAID = """\
I: Requesting Association
I: Association Accepted (Max Send PDV: 131054)
I: Sending file: /studies/00001.dcm
I: Sending Store Request (MsgID 1, CT)
XMIT: .
I: Received Store Response (Success)
I: Sending file: /studies/00002.dcm
I: Received Store Response (Warning: CoercionOfDataElements)
I: Sending file: /studies/00003.dcm
I: Received Store Response (Refused: OutOfResources)
E: Store Failed, file: /studies/00003.dcm:
"""


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return draw_templates(tmp_path_factory.mktemp("templates"))


def written(kind: Kind, templates: Templates, folder: Path, seed: int = 3) -> WrittenStudy:
    planned = PlannedStudy(
        number=7, kind=kind, template=0, at=0.0, uid_seed="12345678-1234-5678-1234-567812345678", seed=seed
    )
    return write_study(planned, templates, folder)


def test_only_a_success_counts_as_accepted() -> None:
    assert list(successes(SAID.splitlines(keepends=True))) == [Path("/studies/00001.dcm")]


def test_a_duplicate_or_a_second_series_that_is_accepted_later_does_not_move_the_time(
    templates: Templates, tmp_path: Path
) -> None:
    sent = Sent(
        study=replace(written(Kind.CHEST, templates, tmp_path / "study"), evidence=frozenset({"1", "2"})),
        accepted={
            Content(sop_instance_uid="1", sha256="a"): 10.0,
            Content(sop_instance_uid="2", sha256="b"): 12.0,
            Content(sop_instance_uid="1", sha256="conflict"): 15.0,
            Content(sop_instance_uid="of a second series", sha256="c"): 20.0,
        },
    )
    assert sent.evidence_complete_at == 12.0


@pytest.mark.parametrize("kind", Kind)
def test_a_study_is_what_its_kind_says(kind: Kind, templates: Templates, tmp_path: Path) -> None:
    study = written(kind, templates, tmp_path / "study")
    images = {content_of(path).sop_instance_uid for path in {*study.files, *study.late}}
    further = SECOND_SERIES_SLICES if kind is Kind.SECOND_SERIES else 0
    assert images >= study.evidence
    assert len(images) == len(study.evidence) + further
    assert len(study.evidence) == SHAPE[0] - (kind is Kind.GAP)
    assert len(study.late) == (LATE_SLICES if kind in (Kind.LATE, Kind.LATE_READING) else further)
    assert len(study.files) > len(set(study.files)) or kind is not Kind.DUPLICATES
    contents = {content_of(path) for path in {*study.files, *study.late}}
    assert len(contents) == len(images) + (kind is Kind.CONFLICT)


def test_the_second_series_is_one_of_the_same_study_that_says_it_is_a_localizer(
    templates: Templates, tmp_path: Path
) -> None:
    study = written(Kind.SECOND_SERIES, templates, tmp_path / "study")
    late, chest = [dcmread(path) for path in study.late], [dcmread(path) for path in study.files]
    assert {ds.StudyInstanceUID for ds in late} == {study.study_instance_uid} == {ds.StudyInstanceUID for ds in chest}
    assert len({ds.SeriesInstanceUID for ds in late}) == 1
    assert not {ds.SeriesInstanceUID for ds in late} & {ds.SeriesInstanceUID for ds in chest}
    assert {ds.ImageType[2] for ds in late} == {"LOCALIZER"}


@pytest.mark.parametrize(
    ("kind", "seed", "meets_reading"),
    [
        (Kind.LATE, 3, False),
        (Kind.LATE_READING, 2, True),
        (Kind.SECOND_SERIES, 3, True),
        (Kind.SECOND_SERIES, 2, False),
    ],
)
def test_what_comes_late_comes_while_the_study_is_read_or_only_after_its_report(
    kind: Kind, seed: int, meets_reading: bool, templates: Templates, tmp_path: Path
) -> None:
    study = written(kind, templates, tmp_path / "study", seed)
    behaviour, ledger, ending, reported = Behaviour(), Ledger(), threading.Event(), threading.Event()
    waited = threading.Event()

    def is_reported(_uid: str) -> bool:
        waited.set()
        return reported.is_set()

    with storage_peer(behaviour) as peer:
        scanner = Scanner(peer, ledger, at_once=1, reported=is_reported, being_read=lambda _uid: True, ending=ending)
        sending = threading.Thread(target=scanner.bring, args=(study,))
        sending.start()
        assert waited.wait(10)
        if not meets_reading:
            assert not ledger.studies()[study.study_instance_uid].finished
            reported.set()
        sending.join(timeout=20)
    sent = ledger.studies()[study.study_instance_uid]
    assert sent.finished
    assert {content.sop_instance_uid for content in sent.accepted} >= {
        content_of(p).sop_instance_uid for p in study.late
    }


def test_the_same_plan_writes_the_same_bytes(templates: Templates, tmp_path: Path) -> None:
    one = written(Kind.CONFLICT, templates, tmp_path / "one")
    other = written(Kind.CONFLICT, templates, tmp_path / "other")
    assert [path.read_bytes() for path in one.files] == [path.read_bytes() for path in other.files]


@pytest.mark.parametrize("program", ["storescu", "our own"])
def test_a_study_whose_sending_breaks_is_sent_again_until_all_is_accepted(
    program: str, templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "our own":
        monkeypatch.setattr("deploy.chaos_senders.STORESCU", "/there/is/no/storescu")
    elif shutil.which("/usr/bin/storescu") is None:
        pytest.skip("not checked: storescu is not installed")
    study = written(Kind.CHEST, templates, tmp_path / "study")
    behaviour, ledger, ending = Behaviour(aborts_after=5), Ledger(), threading.Event()

    def mended(*_: object) -> bool:
        return True

    with storage_peer(behaviour) as peer:
        scanner = Scanner(peer, ledger, at_once=1, reported=mended, being_read=mended, ending=ending)
        sending = threading.Thread(target=scanner.bring, args=(study,))
        sending.start()
        while not (sent := ledger.studies().get(study.study_instance_uid)) or not sent.broken:
            ending.wait(0.02)
        assert not sent.finished
        behaviour.aborts_after = None
        sending.join(timeout=20)
    sent = ledger.studies()[study.study_instance_uid]
    assert sent.finished
    assert {content.sop_instance_uid for content in sent.accepted} == study.evidence
