"""Real sockets: what a library leaves of broken connections must not be blamed on the next test."""

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_of_broken_associations() -> Iterator[None]:
    """Collect after each test what pynetdicom leaves to the garbage collector: sockets of associations that broke off.

    Left to chance they are collected in a later test, where their ResourceWarning would be an error.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
