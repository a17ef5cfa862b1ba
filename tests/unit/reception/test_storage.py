"""A disk that is full is told once an association, and not for each of a thousand images."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.core.errors import DatasetMismatch
from dicom_node.core.status import SUCCESS
from dicom_node.reception.storage import Announcement, Sender, Storage
from dicom_node.reception.watermark import DiskWatermark


class Failing:
    """A reception that keeps nothing, for one reason after the other."""

    def __init__(self, *errors: Exception) -> None:
        self._errors: Iterator[Exception] = iter(errors)

    def store(self, _received: Any) -> None:
        raise next(self._errors)

    def association_opened(self, *_args: str) -> None:
        pass

    def association_ended(self, *_args: str) -> None:
        pass

    def free_bytes(self) -> int:
        return 1 << 40


def sender() -> Sender:
    return Sender(object(), "CT1", "TRIAGE")


def send(storage: Storage, one: Sender, number: int) -> int:
    return storage.begin(one, Announcement(CTImageStorage, f"1.2.{number}", ExplicitVRLittleEndian)).finish().status


def test_a_thousand_refusals_are_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    storage, one = Storage(Failing(*[OSError(28, "No space left on device")] * 1000), DiskWatermark(0)), sender()  # type: ignore[arg-type]  # a stand-in
    with caplog.at_level(logging.INFO, "dicom_node"):
        assert {send(storage, one, number) for number in range(1000)} == {0xA700}
        storage.association_is_over(one)
        storage.association_is_over(one)
    first, last = caplog.records
    assert (first.message, first.__dict__["status"]) == ("instance refused", "0xA700")
    assert "No space left on device" in first.__dict__["reason"]
    assert (last.message, last.__dict__["instances"]) == ("instances refused on one association", 1000)


def test_each_status_and_each_association_is_told_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    errors = [OSError(28, "full"), DatasetMismatch("other"), OSError(28, "full"), RuntimeError("ours"), RuntimeError()]
    storage, one, other = Storage(Failing(*errors), DiskWatermark(0)), sender(), sender()  # type: ignore[arg-type]  # a stand-in
    with caplog.at_level(logging.INFO, "dicom_node"):
        senders = (one, one, other, one, one)
        assert [send(storage, each, 1) for each in senders] == [0xA700, 0xA900, 0xA700, 0xC0FF, 0xC0FF]
        for each in (one, other):
            storage.association_is_over(each)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "WARNING", "WARNING", "ERROR", "WARNING"]
    assert caplog.records[-1].__dict__["status"] == "0xC0FF"


def test_a_thousand_instances_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Keeping(Failing):
        def store(self, _received: Any) -> None:
            pass

    storage, one = Storage(Keeping(), DiskWatermark(0)), sender()  # type: ignore[arg-type]  # a stand-in
    with caplog.at_level(logging.INFO, "dicom_node"):
        assert {send(storage, one, number) for number in range(1000)} == {SUCCESS}
        storage.association_ended(one.association, "released")
        storage.association_is_over(one)
    (line,) = caplog.records
    assert (line.message, line.__dict__["instances"], line.__dict__["ending"]) == ("instances stored", 1000, "released")
    assert line.__dict__["calling_ae_title"] == "CT1"
    # Of an association that is over nothing is kept.
    assert not storage._stored
