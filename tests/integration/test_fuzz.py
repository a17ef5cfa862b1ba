"""Some hundred mutated associations, and every one that was once found to break something; `make fuzz` plays more."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fuzz import _is_fault, is_served, play
from deploy.fuzz_mutation import mutated, pdus_of, seeds
from deploy.fuzz_target import target

FOUND = sorted((Path(__file__).parents[1] / "fuzz_found").glob("*.bin"))

# pydicom says what is odd about a data set; odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with target(tmp_path_factory.mktemp("fuzz")) as port:
        yield port


def test_the_seeds_are_whole_associations_that_are_served(port: int) -> None:
    known = seeds()
    assert len(known) >= 6
    for pdus in known:
        assert [pdu[0] for pdu in (pdus[0], pdus[-1])] == [1, 5], "from a request to a release"
        assert play(port, b"".join(pdus)) > 150


def test_a_mutation_follows_from_its_seed_and_changes_something() -> None:
    known = seeds()
    whole = {b"".join(pdus) for pdus in known}
    made = [mutated(random.Random(number), known) for number in range(300)]
    assert made == [mutated(random.Random(number), known) for number in range(300)]
    assert sum(mutant.data not in whole for mutant in made) > 280
    assert all((mutant.mutations > 0) >= (mutant.data not in whole) for mutant in made)
    assert sum(mutant.mutations for mutant in made) > 500
    assert all(b"".join(pdus_of(mutant.data)) == mutant.data for mutant in made)


def test_mutated_associations_end_in_time_and_the_next_one_is_served(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    known = seeds()
    for number in range(300):
        play(port, mutated(random.Random(f"suite {number}"), known).data)
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    assert is_served(port)


def test_what_was_found_once_is_found_no_more(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for path in FOUND:
        play(port, path.read_bytes())
        time.sleep(0.1)
        told = [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
        assert told == [], path.name
    assert is_served(port)


def test_only_faults_of_ours_are_faults() -> None:
    broke = '{"level": "DEBUG", "event": "where it broke off", "traceback": ["/x/%s.py:1 f", "/x/%s.py:2 g"]}'
    theirs, ours = broke % ("dicom_node/a", "pynetdicom/b"), broke % ("pynetdicom/b", "dicom_node/a")
    refused = '{"level": "WARNING", "event": "instance refused"}'
    error = '{"level": "ERROR", "event": "instance could not be kept"}'
    assert [_is_fault(line) for line in (theirs, ours, refused, error, "Traceback (most recent call last):")] == [
        *(False, True, False, True, True)
    ]
