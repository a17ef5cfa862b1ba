"""Whether a rate was sustained is told by what was delivered, how late, and at what price in memory."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from deploy.nothing import NAME, write_bundle
from deploy.throughput import Sample, faults_of
from deploy.throughput_studies import INSTANCES, Template
from workers.bundles import load_bundle

MIB = 1 << 20


def sample(at: float, delivered: int, *, megabytes: float = 100.0) -> Sample:
    return Sample(
        at=at,
        accepted=delivered,
        complete=delivered,
        read=delivered,
        delivered=delivered,
        failed=0,
        resident_bytes={"node": int(megabytes * MIB)},
        cpu_seconds={"node": at / 2},
    )


#: Ten studies a second for a minute, each two seconds late.
STEADY = [sample(at, max(0, 10 * (at - 2))) for at in range(0, 60, 5)] + [sample(63.0, 600)]


def test_a_steady_run_has_no_faults() -> None:
    assert faults_of(STEADY, 10.0, 60.0) == []


def test_what_is_not_delivered_in_the_end_is_a_fault() -> None:
    (fault,) = faults_of([*STEADY[:-1], sample(120.0, 598)], 10.0, 60.0)
    assert fault.startswith("2 of 600 studies were not delivered")


def test_a_backlog_that_grows_is_a_fault_even_if_it_is_worked_off_later() -> None:
    slow = [sample(at, 5 * at) for at in range(0, 60, 5)] + [sample(90.0, 600)]
    (fault,) = faults_of(slow, 10.0, 60.0)
    assert "behind the rate" in fault


def test_memory_that_grows_is_a_fault() -> None:
    growing = [replace(one, resident_bytes={"node": int((100 + one.at) * MIB)}) for one in STEADY]
    (fault,) = faults_of(growing, 10.0, 60.0)
    assert fault == "node grew from 115 to 163 MiB"


def test_each_study_has_uids_of_its_own_and_is_whole(tmp_path: Path) -> None:
    template = Template(tmp_path / "template")
    studies = [[dcmread(path) for path in template.write(tmp_path / name, number)] for number, name in enumerate("ab")]
    for slices in studies:
        assert len(slices) == INSTANCES
        assert len({ds.StudyInstanceUID for ds in slices}) == len({ds.SeriesInstanceUID for ds in slices}) == 1
        assert all(ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID for ds in slices)
    assert len({ds.SOPInstanceUID for slices in studies for ds in slices}) == 2 * INSTANCES
    assert studies[0][0].StudyInstanceUID != studies[1][0].StudyInstanceUID


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's own, when its first bundle is loaded
def test_the_bundle_that_does_nothing_is_a_bundle(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path))
    assert (bundle.name, bundle.verified) == (NAME, True)
    assert not list(bundle.network().parameters())
