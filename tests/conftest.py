"""What tests find around them: real data, Debian's DICOM tools, and one Hypothesis profile."""

import gc
import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]

# Several processes share the processors, and threads that wait for each other's turns burn them. Before NumPy and
# torch are imported, here and in what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

#: Where Debian puts programs. Not PATH: pynetdicom installs scripts of the same names as DCMTK's programs.
_PROGRAM_FOLDERS = (Path("/usr/bin"), Path("/usr/sbin"))

#: Set by .ci/run: a program that is not installed there is a failure and no reason to skip.
_NOTHING_MAY_BE_ABSENT = "TESTS_SKIP_NOTHING"

# No deadline, however slowly examples come: a busy machine is no defect. Derandomized: the same code gives the same
# verdict.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    print_blob=True,
)
settings.load_profile("default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be absent, a test that skips for want of a program fails."""
    report = yield
    if report.skipped and os.environ.get(_NOTHING_MAY_BE_ABSENT) and "is not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report


class Floors(LoadFileScheduling):
    """Gives each process whole files, and all of acceptance to one: there the tests share a running node."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/acceptance" if nodeid.startswith("tests/acceptance/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Floors:
    """How several processes share the tests."""
    return Floors(config, log)


#: Where files take long: they begin first, so that none of them is left alone at the end.
_LONG = ("tests/acceptance/", "tests/integration/", "tests/unit/workers/", "tests/unit/training/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, and else as they were found."""
    items.sort(key=lambda item: next((n for n, room in enumerate(_LONG) if item.nodeid.startswith(room)), len(_LONG)))


def pytest_collection_finish() -> None:
    """What is imported stays: looking through a million objects of it again and again is a twelfth of all work."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, beside the repository; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("not checked: the real data, ../shared/data, is not here")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """Finds a program of Debian's orthanc, dcmtk, dicom3tools or chromium by name; skips where it is not installed."""

    def find(name: str) -> Path:
        for folder in _PROGRAM_FOLDERS:
            if os.access(folder / name, os.X_OK):
                return folder / name
        pytest.skip(f"not checked: {name} is not installed")

    return find
