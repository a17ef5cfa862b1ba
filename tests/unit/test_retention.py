import errno
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from itertools import chain, repeat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dicom_node.archive.overview import read_study
from dicom_node.archive.stock import Stock
from dicom_node.archive.studies import Added
from dicom_node.core.errors import EvictedStudy, SettingsError
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.uid import derived_uid
from dicom_node.retention import Retention
from dicom_node.settings import ArchiveSettings, RetentionSettings
from dicom_node.settings_loading import load_settings
from dicom_node.stocktaking import Stocktaking
from dicom_node.terminal import print_study
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.pages import Pages
from tests.instances import STUDY_UID, data_set_of, encoded, files_below
from tests.room import NOW, Room

DAY = 86400.0
OTHER = "1.2.3"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.index.close()


def retention(room: Room, *, free_gigabytes: float = 1.0, **settings: object) -> Retention:
    """A study goes after thirty days while less than two gigabytes are free."""
    values = {"days": 30.0, "watermark_gigabytes": 2.0} | settings
    return Retention(
        RetentionSettings(**values),  # type: ignore[arg-type]  # a test's own keywords
        room.archive,
        room.index,
        room.clock,
        free_bytes=lambda: int(free_gigabytes * 1e9),
    )


def committed(room: Room, study: str = STUDY_UID, state: StudyState = StudyState.COMMITTED) -> None:
    """A study of two instances whose results went this far, 31 days ago."""
    room.now = NOW
    room.receive(1, 2, study=study)
    room.reach(state, study)
    room.now = NOW + 31 * DAY


def instances(room: Room) -> list[str]:
    """The files that were received and are there."""
    return files_below(room.root / "studies")


def faults(room: Room) -> tuple[dict[str, int], list[str]]:
    """What is wrong with the archive after every file was looked at, and what people are told."""
    Stocktaking(ArchiveSettings(check_files_per_second=10_000), room.archive, room.index, room.clock).step()
    counts = {str(kind): count for kind, count in room.index.faults.counts().items() if count}
    return counts, [row.reason for row in room.index.conditions.rows()]


def test_an_old_committed_study_leaves_but_for_its_results_and_its_history_says_so(room: Room) -> None:
    committed(room)
    results = files_below(room.root / "results")
    retention(room).step()
    assert instances(room) == []
    assert len(results) == 1
    assert files_below(room.root / "results") == results
    assert list((room.root / "studies").glob("*/*")) == []
    assert room.state() is StudyState.COMMITTED
    assert room.said_by("retention") == [
        "left the disk: COMMITTED, unchanged for more than 30 days, and less than 2.0 GB were free"
    ]
    assert room.index.evictions.count() == 1
    assert room.index.evictions.unfinished() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"free_gigabytes": 2.0},
        {"days": 0.0},
        {"days": 32.0},
        {"watermark_gigabytes": 0.0},
    ],
)
def test_it_stays_while_there_is_room_or_it_is_young_or_nobody_asked(room: Room, settings: dict[str, float]) -> None:
    committed(room)
    before = files_below(room.root)
    retention(room, **settings).step()
    assert files_below(room.root) == before
    assert room.said_by("retention") == []


@pytest.mark.parametrize(("after", "leaves"), [("committed", False), ("delivered", True)])
def test_a_merely_delivered_study_leaves_only_where_the_settings_say_so(room: Room, after: str, leaves: bool) -> None:
    committed(room, state=StudyState.DELIVERED)
    retention(room, after=after).step()
    assert (instances(room) == []) is leaves


@pytest.mark.parametrize(("not_routed", "leaves"), [(False, False), (True, True)])
def test_a_study_without_results_leaves_only_where_the_settings_say_so(
    room: Room, not_routed: bool, leaves: bool
) -> None:
    room.receive(1)
    for state in (StudyState.COMPLETE, StudyState.NOT_ROUTED):
        room.index.studies.move(STUDY_UID, state, cause="", actor="test", at=NOW)
    room.now += 31 * DAY
    retention(room, not_routed=not_routed).step()
    assert (instances(room) == []) is leaves


def test_the_watermark_may_be_a_part_of_the_disk(room: Room) -> None:
    committed(room)
    total = room.archive.total_bytes() / 1e9
    retention(room, watermark_gigabytes=0.0, free_percent=10.0, free_gigabytes=total * 0.11).step()
    assert instances(room) != []
    retention(room, watermark_gigabytes=0.0, free_percent=10.0, free_gigabytes=total * 0.09).step()
    assert instances(room) == []


def test_no_more_leave_once_there_is_room_again(room: Room) -> None:
    for study in (STUDY_UID, OTHER):
        committed(room, study)
    # Asked once whether there is enough, then before each study.
    room_left = chain([1.0, 1.0, 1.0], repeat(3.0))
    settings = RetentionSettings(days=30, watermark_gigabytes=2)

    def free() -> int:
        return int(next(room_left) * 1e9)

    Retention(settings, room.archive, room.index, room.clock, free_bytes=free).step()
    assert room.index.evictions.count() == 1


def test_as_many_leave_in_one_round_as_it_takes(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.retention._AT_ONCE", 1)
    for study in (STUDY_UID, OTHER, "1.2.4"):
        committed(room, study)
    retention(room).step()
    assert instances(room) == []


def test_people_are_told_while_room_is_wanted_and_nothing_may_leave(room: Room) -> None:
    committed(room, state=StudyState.DELIVERED)
    retention(room).step()
    (condition,) = room.index.conditions.rows()
    assert (condition.condition, condition.since) == ("disk", room.now)
    assert condition.reason.startswith("less than 2.0 GB free, and no study may leave: see that results are committed")
    retention(room, days=0).step()
    assert room.index.conditions.rows() == []


def test_a_study_with_a_delivery_still_to_come_stays(room: Room) -> None:
    committed(room)
    room.index.deliveries.plan(derived_uid("sr", STUDY_UID), ["pacs"], NOW)
    before = files_below(room.root)
    retention(room).step()
    assert files_below(room.root) == before
    (row,) = room.index.deliveries.of_study(STUDY_UID)
    room.index.deliveries.accepted(row, reason="0x0000", at=NOW)
    retention(room).step()
    assert instances(room) == []


def test_a_delivered_study_whose_commitment_is_awaited_stays(room: Room) -> None:
    committed(room, state=StudyState.DELIVERED)
    room.index.deliveries.plan(derived_uid("sr", STUDY_UID), ["pacs"], NOW)
    (row,) = room.index.deliveries.of_study(STUDY_UID)
    room.index.deliveries.accepted(row, reason="0x0000", at=NOW, commitment=True)
    retention(room, after="delivered").step()
    assert instances(room) != []


def test_a_study_that_just_comes_again_stays(room: Room) -> None:
    committed(room)
    with room.archive.filing(STUDY_UID):
        retention(room).step()
    assert len(files_below(room.root)) == 3
    room.receive(1)
    assert room.index.evictions.count() == 0


def test_what_is_sent_again_after_it_left_is_received_as_new_and_not_read_twice(room: Room) -> None:
    committed(room)
    retention(room).step()
    assert room.receive(1) == [Added.NEW]
    assert room.state() is StudyState.RECEIVING
    assert (
        room.said_by("retention")[1] == "it had left the disk and comes again; its instances are received as new ones"
    )
    assert room.index.evictions.count() == 0
    # Only what is there is evidence.
    (path,) = room.paths()
    assert data_set_of(path) == encoded(room.slice(1))
    assert room.receive(2) == [Added.NEW]
    assert room.receive(1, 2) == [Added.IDENTICAL] * 2
    room.queue()
    assert room.state() is StudyState.REPORTED
    assert room.reason() == "the evidence is what was already read"


def test_a_study_that_left_cannot_be_read_again_until_it_is_sent_again(room: Room) -> None:
    committed(room)
    retention(room).step()
    with pytest.raises(EvictedStudy, match="left the disk on 2023-12-15; send it again from the PACS"):
        room.index.jobs.ask_again(STUDY_UID, actor="page", at=room.now)
    assert room.state() is StudyState.COMMITTED
    room.receive(1, 2)
    room.queue()
    room.index.jobs.ask_again(STUDY_UID, actor="page", at=room.now)
    assert room.state() is StudyState.COMPLETE


def test_other_content_of_a_study_that_left_is_no_conflict(room: Room) -> None:
    committed(room)
    retention(room).step()
    assert room.receive(1, SeriesDescription="OTHER") == [Added.NEW]
    assert room.index.studies.rows(STUDY_UID)[0].conflicts == 0


def test_people_and_programs_see_that_a_study_left(room: Room) -> None:
    committed(room)
    retention(room).step()
    detail = read_study(room.index, STUDY_UID, room.now)
    assert detail.study.evicted_at == room.now
    page = Pages("node").study(detail)
    assert 'left the disk <time datetime="2023-12-15T22:13:20Z">' in page
    said = StringIO()
    print_study(detail, said)
    assert "Its files left the disk at 2023-12-15T22:13:20Z" in said.getvalue()
    registry = CollectorRegistry()
    registry.register(IndexCollector(room.index, lambda: None, room.clock))
    assert registry.get_sample_value("dicom_node_evicted_studies") == 1
    assert registry.get_sample_value("dicom_node_archive_faults", {"kind": "missing"}) == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"DAYS": "30"}, "days deletes nothing without watermark_gigabytes or free_percent"),
        ({"WATERMARK_GIGABYTES": "0.5"}, "watermark_gigabytes is less than minimum_free_megabytes of"),
        ({"AFTER": "reported"}, "must be one of committed, delivered"),
    ],
)
def test_settings_by_which_nothing_leaves_in_time_are_named(wrong: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(None, {f"DICOM_NODE_RETENTION__{key}": value for key, value in wrong.items()})


def test_the_results_of_a_study_that_left_are_still_looked_at(room: Room) -> None:
    committed(room)
    retention(room).step()
    assert faults(room)[0] == {}
    (result,) = files_below(room.root / "results")
    (room.root / "results" / result).write_bytes(b"altered")
    room.now += 8 * DAY
    assert faults(room)[0] == {"altered": 1}


def test_a_study_that_comes_again_lacks_nothing_and_a_later_report_finds_the_one_before(room: Room) -> None:
    committed(room)
    room.index.reports.offered(derived_uid("sr", STUDY_UID), NOW)
    retention(room).step()
    room.receive(1, 2, 3)
    assert faults(room)[0] == {}
    job = room.index.jobs.of_study(STUDY_UID)[0].job
    (before,) = room.index.reports.earlier(replace(job, job_uid="1.2.3", evidence="f" * 64))
    assert room.archive.path_of(before.path).exists()


def test_what_was_wrong_with_a_study_that_left_is_told_no_more(room: Room) -> None:
    committed(room)
    room.paths()[0].write_bytes(b"altered")
    counts, told = faults(room)
    assert (counts, len(told)) == ({"altered": 1}, 1)
    retention(room).step()
    assert instances(room) == []
    # Of retention itself is what the disk's condition says: room is wanted still.
    assert [row.condition for row in room.index.conditions.rows()] == ["disk"]
    assert not any(room.index.faults.counts().values())


def fail_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk removes one file more, then none."""
    remove = Stock.remove

    def failing(stock: Stock, paths: Iterable[str]) -> None:
        remove(stock, list(paths)[:1])
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(Stock, "remove", failing)


def test_a_removal_that_the_disk_refuses_is_told_and_finished_by_a_later_step(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in (STUDY_UID, OTHER):
        committed(room, study)
    fail_after_the_first(monkeypatch)
    for _ in range(2):
        with pytest.raises(OSError, match="input/output"):
            retention(room).step()
    # No other study is marked as gone while nothing can be removed.
    assert room.index.evictions.count() == 1
    assert [row.reason for row in room.index.conditions.rows()] == [
        "files of a study that left cannot be removed (OSError): look at the disk"
    ]
    monkeypatch.undo()
    retention(room, days=0).step()
    assert room.index.evictions.unfinished() == []
    assert len(instances(room)) == 2
    assert room.index.conditions.rows() == []


def test_a_broken_off_removal_of_a_study_that_comes_again_removes_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(room)
    fail_after_the_first(monkeypatch)
    with pytest.raises(OSError, match="input/output"):
        retention(room).step()
    monkeypatch.undo()
    with room.archive.filing(STUDY_UID):
        retention(room, days=0).step()
    assert room.index.evictions.unfinished() == [STUDY_UID]
    # Seen as unfinished, it came again before its turn.
    seen = room.index.evictions.unfinished()
    room.receive(1, 2)
    monkeypatch.setattr(room.index.evictions, "unfinished", lambda: seen)
    retention(room, days=0).step()
    assert len(instances(room)) == len(room.paths()) == 2
    assert all(path.exists() for path in room.paths())


def test_room_is_made_before_the_node_refuses_instances(room: Room) -> None:
    committed(room)

    def step(free: float) -> None:
        settings = RetentionSettings(days=30, watermark_gigabytes=0.1)
        Retention(
            settings, room.archive, room.index, room.clock, free_bytes=lambda: int(free), minimum_free_bytes=1e9
        ).step()

    step(1.11e9)
    assert len(instances(room)) == 2
    step(1.09e9)
    assert instances(room) == []


PEER = """[[peers]]
name = "pacs"
ae_title = "PACS"
host = "pacs"
port = 104
"""


@pytest.mark.parametrize(
    ("retention", "peer", "fault"),
    [
        ("", "results = true", True),
        ("", "commitment = true", True),
        ("", "results = true\ncommitment = true", False),
        ('after = "delivered"', "results = true", False),
        ("not_routed = true", "results = true", False),
    ],
)
def test_retention_after_commitment_wants_a_peer_that_commits(
    tmp_path: Path, retention: str, peer: str, fault: bool
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"[retention]\ndays = 30\nfree_percent = 10\n{retention}\n{PEER}{peer}\n")
    with pytest.raises(SettingsError, match="commitment = true") if fault else nullcontext():
        load_settings(path, {})


def test_by_default_nothing_ever_leaves() -> None:
    assert load_settings(None, {}).retention == RetentionSettings(days=0, after="committed", not_routed=False)
