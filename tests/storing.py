"""A process that stores instances until it is killed, and tells of each one that was answered with success."""

import threading
from multiprocessing.connection import Connection
from pathlib import Path

from tests.room import Room

#: One study a thread: associations come side by side.
STUDIES = ("1.2.826.0.1.3680043.10.7", "1.2.826.0.1.3680043.10.8")


def store_until_killed(folder: Path, first: int, answered: Connection) -> None:
    """Store instances from this number on in every study, each of them sent twice."""
    room = Room(folder)
    telling = threading.Lock()
    threads = [threading.Thread(target=_store, args=(room, study, first, answered, telling)) for study in STUDIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _store(room: Room, study: str, first: int, answered: Connection, telling: threading.Lock) -> None:
    number = first
    while True:
        for _ in range(2):
            room.receive(number, study=study)
            with telling:
                answered.send((study, number))
        number += 1
