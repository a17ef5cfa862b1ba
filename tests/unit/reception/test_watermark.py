"""A disk that fills is told of in time, and each time once."""

import logging

import pytest

from dicom_node.core.errors import OutOfResources
from dicom_node.reception.watermark import DiskWatermark

MEGABYTE = 1 << 20


def test_the_watermark_refuses_below_it_and_not_at_it() -> None:
    watermark = DiskWatermark(100)
    watermark.check(100 * MEGABYTE)
    with pytest.raises(OutOfResources, match="99 MB free of 100"):
        watermark.check(100 * MEGABYTE - 1)


def test_a_full_disk_is_named_once_each_time_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    watermark = DiskWatermark(100)
    with caplog.at_level(logging.INFO):
        for free in (200, 50, 40, 30, 200, 300, 10):
            try:
                watermark.check(free * MEGABYTE)
            except OutOfResources:
                assert free < 100
    said = [record.getMessage().split(":")[0] for record in caplog.records]
    assert said == ["disk nearly full", "disk has room again", "disk nearly full"]


def test_a_watermark_of_zero_never_refuses() -> None:
    DiskWatermark(0).check(0)
