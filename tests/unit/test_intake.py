import errno
import logging
import math
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.kept_instance import read_kept_instance
from dicom_node.archive.studies import Added
from dicom_node.core.errors import CannotUnderstand, DatasetMismatch, DuplicateInstance, IntakeError
from dicom_node.core.geometry import stack_slices
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.routing import route_study
from dicom_node.core.study import FRAME_POSITIONS
from dicom_node.intake import Intake, IntakeRules
from dicom_node.settings import AdmissionSettings, Peer, Settings
from tests.factories import enhanced_ct
from tests.instances import STUDY_UID, ct_instance, data_set_of, encoded, files_below, received, sop_uid
from workers.volume import load_volume

ASSOCIATION = "00000000-0000-4000-8000-000000000000"
NOW = 1_700_000_000.0


class Room:
    """An intake over a real archive and a real index."""

    def __init__(self, root: Path, rules: IntakeRules | None = None) -> None:
        self.root = root / "archive"
        self.index = Index.open(f"sqlite:///{root / 'index.sqlite'}")
        self.archive = Archive(self.root)
        self.intake = Intake(archive=self.archive, studies=self.index.studies, clock=lambda: NOW, rules=rules)
        self.intake.association_opened(ASSOCIATION, "SCANNER")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.index.close()


def test_an_instance_becomes_a_file_and_a_row(room: Room) -> None:
    assert room.intake.store(received(ct_instance())) is Added.NEW
    (row,) = room.index.studies.find(sop_uid(1))
    assert data_set_of(room.archive.path_of(row.path)) == encoded(ct_instance())
    assert (row.study_instance_uid, row.calling_ae_title, row.received_at) == (STUDY_UID, "SCANNER", NOW)
    assert row.attributes["SliceThickness"] == 2.5
    assert row.size_bytes == len(encoded(ct_instance()))
    room.archive.verify(row.path, row.sha256)


def test_a_second_identical_instance_changes_nothing(room: Room) -> None:
    room.intake.store(received(ct_instance()))
    before = room.index.studies.rows(), files_below(room.root)
    assert room.intake.store(received(ct_instance())) is Added.IDENTICAL
    assert (room.index.studies.rows(), files_below(room.root)) == before


def test_other_content_under_the_same_uid_is_kept_beside_and_flagged(room: Room) -> None:
    room.intake.store(received(ct_instance()))
    assert room.intake.store(received(ct_instance(SeriesDescription="OTHER"))) is Added.CONFLICT
    evidence, beside = room.index.studies.find(sop_uid(1))
    assert data_set_of(room.archive.path_of(evidence.path)) == encoded(ct_instance())
    assert data_set_of(room.archive.path_of(beside.path)) == encoded(ct_instance(SeriesDescription="OTHER"))
    assert room.index.studies.rows()[0].conflicts == 1


def test_other_content_is_refused_where_the_settings_say_so_and_nothing_of_the_first_changes(tmp_path: Path) -> None:
    admission = AdmissionSettings(differing_content="refuse")
    room = Room(tmp_path, IntakeRules.from_settings(Settings(admission=admission)))
    room.intake.store(received(ct_instance()))
    before = room.index.studies.rows(), room.index.studies.find(sop_uid(1)), files_below(room.root)
    with pytest.raises(DuplicateInstance, match="another content of this UID") as refused:
        room.intake.store(received(ct_instance(SeriesDescription="OTHER")))
    assert refused.value.status == 0x0111
    assert (room.index.studies.rows(), room.index.studies.find(sop_uid(1)), files_below(room.root)) == before
    assert room.intake.store(received(ct_instance())) is Added.IDENTICAL
    assert room.intake.store(received(ct_instance(2))) is Added.NEW
    room.index.close()


def test_a_content_that_was_kept_beside_another_stays_when_a_second_is_refused_from_now_on(tmp_path: Path) -> None:
    room = Room(tmp_path)
    other = ct_instance(SeriesDescription="OTHER")
    for ds in (ct_instance(), other):
        room.intake.store(received(ds))
    before = files_below(room.root)
    room.intake._rules = IntakeRules(refuses_conflicts=True)
    assert room.intake.store(received(other)) is Added.IDENTICAL
    with pytest.raises(DuplicateInstance):
        room.intake.store(received(ct_instance(SeriesDescription="A THIRD")))
    assert files_below(room.root) == before
    room.index.close()


def test_texts_without_a_character_set_are_read_in_the_one_of_their_sender_and_kept_as_they_came(
    tmp_path: Path,
) -> None:
    peers = (Peer(name="ct", ae_title="CT1", host="x", port=1, sends_as=("CT2",), character_set="ISO_IR 192"),)
    room = Room(tmp_path, IntakeRules.from_settings(Settings(peers=peers)))
    data = encoded(ct_instance(SeriesDescription="ae")).replace(b"\x02\x00ae", "\x02\x00ä".encode())
    assert "ä".encode() in data
    for number, title in enumerate(("CT1", "CT2", "MR")):
        uid = sop_uid(1)[:-1] + str(number + 1)
        own = data.replace(sop_uid(1).encode(), uid.encode())
        request = received(ct_instance(), sop_instance_uid=uid, calling_ae_title=title, data_set=BytesIO(own))
        room.intake.store(request)
        (row,) = room.index.studies.find(uid)
        assert row.attributes["SeriesDescription"] == ("Ã¤" if title == "MR" else "ä")
        assert data_set_of(room.archive.path_of(row.path)) == own
        again = read_kept_instance(room.archive.path_of(row.path), row.path, Settings(peers=peers).character_sets)
        assert again.attributes == row.attributes, "an index that is made again says the same"
    named = ct_instance(4, SeriesDescription="ä", SpecificCharacterSet="ISO_IR 100")
    room.intake.store(received(named, calling_ae_title="CT1"))
    assert room.index.studies.find(sop_uid(4))[0].attributes["SeriesDescription"] == "ä"
    room.index.close()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sop_instance_uid": sop_uid(2)}, DatasetMismatch, "SOP Instance UID"),
        ({"sop_class_uid": str(MRImageStorage)}, DatasetMismatch, "SOP Class UID"),
        ({"sop_instance_uid": "../../etc/passwd"}, CannotUnderstand, "Affected SOP Instance UID is no UID"),
        ({"sop_class_uid": "CT"}, CannotUnderstand, "Affected SOP Class UID is no UID"),
    ],
)
def test_a_command_that_is_not_the_data_sets_is_refused(
    room: Room, changes: dict[str, Any], error: type[IntakeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        room.intake.store(received(ct_instance(), **changes))
    assert files_below(room.root) == []
    assert room.index.studies.rows() == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # that is what is tested
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "..", "../x", "1.2/3", "Secret^Patient"])
def test_a_data_set_without_a_place_is_refused_without_quoting_it(room: Room, keyword: str, value: str | None) -> None:
    with pytest.raises(CannotUnderstand, match=f"{keyword[:-11]} Instance UID is") as caught:
        room.intake.store(received(ct_instance(**{keyword: value})))
    assert "Secret" not in str(caught.value)
    assert files_below(room.root) == []


def test_a_missing_sop_instance_uid_is_a_mismatch(room: Room) -> None:
    with pytest.raises(DatasetMismatch):
        room.intake.store(received(ct_instance(SOPInstanceUID=None)))


def test_a_disk_that_refuses_the_file_leaves_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dicom_node.archive.directories.wait_for", full)
    with pytest.raises(OSError, match="No space left on device"):
        room.intake.store(received(ct_instance(StudyInstanceUID="1.2.3")))
    monkeypatch.undo()
    assert files_below(room.root) == []
    assert room.intake.store(received(ct_instance(StudyInstanceUID="1.2.3"))) is Added.NEW


def test_a_crash_between_file_and_row_is_mended_by_sending_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        """The process is gone at this moment."""

    def crash(*_args: object, **_kwargs: object) -> None:
        raise Crash

    monkeypatch.setattr(room.index.studies, "add_instance", crash)
    with pytest.raises(Crash):
        room.intake.store(received(ct_instance()))
    monkeypatch.undo()
    second_name, orphan = files_below(room.root)
    assert second_name.startswith("incoming/")
    assert room.index.studies.rows() == []

    assert room.intake.store(received(ct_instance())) is Added.NEW
    assert files_below(room.root) == [second_name, orphan]
    assert room.index.studies.find(sop_uid(1))[0].path == orphan


def test_the_file_is_on_the_disk_before_its_row(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    add = room.index.studies.add_instance

    def check(instance: Any, association_id: str | None = None, **told: Any) -> Added:
        assert data_set_of(room.archive.path_of(instance.path)) == encoded(ct_instance())
        assert [whole for _, whole in room.archive.leftovers(math.inf)] == [True]
        return add(instance, association_id, **told)

    monkeypatch.setattr(room.index.studies, "add_instance", check)
    assert room.intake.store(received(ct_instance())) is Added.NEW
    assert list(room.archive.leftovers(math.inf)) == []


def test_at_a_start_no_association_of_an_earlier_process_is_open(room: Room) -> None:
    room.intake.store(received(ct_instance()))
    assert room.index.studies.receptions()[0].open_associations == 1
    room.intake.start()
    (reception,) = room.index.studies.receptions()
    assert (reception.open_associations, reception.aborted_associations) == (0, 1)


def test_an_ended_association_is_known_to_its_studies(room: Room) -> None:
    room.intake.store(received(ct_instance()))
    room.intake.association_ended(ASSOCIATION, "released")
    (reception,) = room.index.studies.receptions()
    assert (reception.open_associations, reception.last_association_ended_at) == (0, NOW)


def test_logs_name_uids_and_no_patient(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        room.intake.store(received(ct_instance()))
        room.intake.store(received(ct_instance(SeriesDescription="OTHER")))
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]
    assert caplog.records[0].__dict__["study_instance_uid"] == STUDY_UID
    assert "SECRET" not in repr([record.__dict__ for record in caplog.records]).upper()


@settings(max_examples=15, deadline=None)
@given(order=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["CHEST", "OTHER"])), min_size=1, max_size=10))
def test_whatever_comes_in_whatever_order_every_content_is_kept_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, str]]
) -> None:
    room = Room(tmp_path_factory.mktemp("room"))
    for number, description in order:
        room.intake.store(received(ct_instance(number, SeriesDescription=description)))
    rows = [row for number in range(1, 4) for row in room.index.studies.find(sop_uid(number))]
    kept = {(row.sop_instance_uid, data_set_of(room.archive.path_of(row.path))) for row in rows}
    assert kept == {(sop_uid(n), encoded(ct_instance(n, SeriesDescription=d))) for n, d in order}
    assert len(rows) == len(kept) == len(files_below(room.root))
    assert room.index.studies.rows()[0].state is StudyState.RECEIVING
    room.index.close()


def test_an_enhanced_ct_is_routed_as_the_volume_that_its_frames_are(room: Room, tmp_path: Path) -> None:
    """Its plane stands in functional groups, once for all frames or once for each; the index keeps where they lie."""
    for number, shared in enumerate((True, False)):
        (path,) = enhanced_ct(
            tmp_path, voxels=np.full((24, 32, 32), -850), shared=shared, seed=f"enhanced {number}", origin=(1, 2, 3)
        )
        ds = dcmread(path)
        room.intake.store(received(ds))
        instances = room.index.studies.study(ds.StudyInstanceUID)
        (choice,) = route_study(instances, Settings().routes).chosen

        assert choice.reason == "the only series that fits: 24 slices of 2.5 mm"
        assert stack_slices(choice.series.slices).spacing_mm == pytest.approx(2.5)
        (row,) = room.index.studies.find(ds.SOPInstanceUID)
        kept = read_kept_instance(room.archive.path_of(row.path))
        assert kept.attributes[FRAME_POSITIONS] == tuple(row.attributes[FRAME_POSITIONS])
        assert load_volume([room.archive.path_of(row.path)]).spacing_mm[0] == pytest.approx(2.5)


def test_an_enhanced_ct_whose_frames_have_no_place_is_kept_and_not_routed(room: Room, tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, voxels=np.full((24, 32, 32), -850), PerFrameFunctionalGroupsSequence=None)
    ds = dcmread(path)
    assert room.intake.store(received(ds)) is Added.NEW
    decision = route_study(room.index.studies.study(ds.StudyInstanceUID), Settings().routes)
    assert not decision.chosen
    assert "unknown orientation" in decision.reason or "SliceThickness" in decision.reason


def test_several_enhanced_instances_make_no_volume(room: Room, tmp_path: Path) -> None:
    for number in range(2):
        (path,) = enhanced_ct(tmp_path, voxels=np.full((24, 32, 32), -850))
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 7}"
        room.intake.store(received(ds))
    decision = route_study(room.index.studies.study(ds.StudyInstanceUID), Settings().routes)
    assert not decision.chosen
    assert "2 instances, some of many frames; a volume is one of them alone" in decision.reason
