"""The soak's judge finds what is lost, altered, doubled or left over; its senders say what the receiver said."""

import hashlib
import random
import time
from io import BytesIO
from pathlib import Path

import pytest

from deploy import soak
from deploy.bench_index import fill
from deploy.soak import Course, Ledger, _data_set, judge
from dicom_node.archive.files import Archive
from dicom_node.archive.header import read_header
from dicom_node.archive.index import Index
from dicom_node.intake import Intake
from tests.instances import ct_instance, encoded, received, sop_uid


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, str]:
    """Three instances in a data folder, and what their senders know of them."""
    index, archive = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive")
    intake = Intake(archive=archive, studies=index.studies)
    intake.association_opened("00000000-0000-4000-8000-000000000000", "SOAK")
    ledger = Ledger()
    for number in (1, 2, 3):
        intake.store(received(ct_instance(number)))
        ledger.keep(sop_uid(number), encoded(ct_instance(number)))
    index.close()
    return ledger.kept


def file_of(folder: Path, number: int) -> Path:
    (found,) = (folder / "archive" / "studies").rglob(f"{sop_uid(number)}.dcm")
    return found


def test_what_is_there_whole_with_one_row_is_no_fault(tmp_path: Path, kept: dict[str, str]) -> None:
    assert len(kept) == 3
    assert list(judge(tmp_path, kept)) == []


@pytest.mark.parametrize("harm", ["lost", "altered", "no row", "another checksum", "unknown file", "left over"])
def test_each_harm_is_found(tmp_path: Path, kept: dict[str, str], harm: str) -> None:
    path = file_of(tmp_path, 2)
    if harm == "lost":
        path.unlink()
    elif harm == "altered":
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif harm == "no row":
        kept["1.2.3.4"] = "00"
    elif harm == "another checksum":
        kept[sop_uid(2)] = hashlib.sha256(b"").hexdigest()
    elif harm == "unknown file":
        path.with_name("1.2.99.dcm").write_bytes(path.read_bytes())
    else:
        (tmp_path / "archive" / "incoming" / "half").write_bytes(b"half")
    assert len(list(judge(tmp_path, kept))) == 1


def test_a_sender_that_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_port: int) -> None:
        raise ValueError("no status in the answer")

    monkeypatch.setattr(soak, "ct_sender", unreadable)
    ledger, course = Ledger(), Course(began=time.monotonic(), seconds=9.0, most_bytes=1e9)
    with pytest.raises(ValueError, match="no status"):
        soak._send(0, course, random.Random(1), ledger)
    assert ledger.counts[soak.FAILED] == 1


def test_what_is_sent_is_a_data_set() -> None:
    data = _data_set(random.Random(1), "1.2", "1.2.3", "1.2.3.4")
    header = read_header(BytesIO(data), "1.2.840.10008.1.2.1")
    assert (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid) == (
        *("1.2", "1.2.3", "1.2.3.4"),
    )


def test_a_full_index_has_the_rows_that_were_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "full" / "index.sqlite", 700)
    index = Index.open(f"sqlite:///{tmp_path / 'full' / 'index.sqlite'}")
    assert [row.instances for row in index.studies.rows()] == [100, 300, 300]
    (row,) = index.studies.find("1.2.826.0.1.3680043.10.9.4.100000301")
    assert row.attributes["Modality"] == "CT"
    assert row.path.startswith("studies/00/1.2.826.0.1.3680043.10.9.2.1/")
    index.close()


def test_no_more_goes_to_the_disk_than_may_be_there_by_now() -> None:
    course = Course(began=100.0, seconds=10.0, most_bytes=1000.0)
    assert [course.is_ahead(500, now) for now in (104.0, 106.0)] == [True, False]
    assert not course.is_ahead(0, course.began)
    ledger = Ledger()
    for uid in ("1.2", "1.2", "1.3"):
        ledger.keep(uid, bytes(400))
    assert ledger.size_bytes == 800
