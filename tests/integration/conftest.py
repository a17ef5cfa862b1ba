"""Real sockets: what a library leaves of broken connections must not be blamed on the next test."""

import gc
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.receivers import Dcmtk, Receiver, receiving


@pytest.fixture(autouse=True)
def nothing_is_left_of_broken_associations() -> Iterator[None]:
    """Collect after each test what pynetdicom leaves to the garbage collector: sockets of associations that broke off.

    Left to chance they are collected in a later test, where their ResourceWarning would be an error.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path) as receiver:
        yield receiver


@pytest.fixture
def dcmtk(program: Callable[[str], Path]) -> Dcmtk:
    """Runs one of DCMTK's programs."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(program(tool)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run
