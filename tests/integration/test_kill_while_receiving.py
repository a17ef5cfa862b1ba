"""kill -9 of a process that receives, again and again: nothing that was answered is lost, nothing half stays.

A kill leaves the disk's cache alive, a power cut does not; that every step is on the disk before the next is what
tests/unit/test_recovery.py looks at.
"""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from tests.instances import data_set_of, encoded, files_below
from tests.room import Room
from tests.storing import STUDIES, store_until_killed

KILLS = 30


def killed(folder: Path, first: int, seconds: float) -> set[tuple[str, int]]:
    """Let a process store for so long after its first answer, kill it; the instances that it answered with success."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.storing"])
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=store_until_killed, args=(folder, first, writing))
    process.start()
    writing.close()
    assert reading.poll(60), "the process stored nothing"
    time.sleep(seconds)
    process.kill()
    process.join()
    assert process.exitcode == -9
    answered = set()
    while True:
        try:
            answered.add(reading.recv())
        except EOFError:
            break
    reading.close()
    process.close()
    return answered


@pytest.mark.parametrize("seed", [20240229])
def test_nothing_that_was_answered_is_lost_and_nothing_half_stays(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    answered: set[tuple[str, int]] = set()
    indexed = removed = 0
    for kill in range(KILLS):
        new = killed(tmp_path, first=1 + 1000 * kill, seconds=chance.uniform(0, 0.06))
        answered |= new
        room = Room(tmp_path)
        began = time.monotonic()
        recovered = room.recovery.run()
        indexed, removed = indexed + recovered.instances_indexed, removed + recovered.unfinished_removed
        assert time.monotonic() - began < 60
        held = {(study, int(path.stem.rpartition(".")[2])): path for study in STUDIES for path in room.paths(study)}
        assert answered <= set(held), f"seed {seed}, kill {kill}: lost {sorted(answered - set(held))}"
        paths = sorted(str(path.relative_to(room.root)) for path in held.values())
        assert files_below(room.root) == paths, f"seed {seed}, kill {kill}: files and rows differ"
        assert all(data_set_of(held[key]) == encoded(room.slice(key[1], key[0])) for key in new)
        room.index.close()
    print(f"{KILLS} kills, {len(answered)} answered, {indexed} indexed at a start, {removed} not whole and removed")
    assert indexed, "no kill came between a file and its row"
    assert len(answered) > KILLS
