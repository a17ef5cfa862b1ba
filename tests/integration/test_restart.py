"""A node that starts over what an earlier run left: all is mended before the first instance can come."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.composition_root import build_receiver
from dicom_node.core.errors import SettingsError
from dicom_node.node import Node
from dicom_node.scu.verification import echo
from dicom_node.settings import NodeSettings, Peer, Settings
from tests.room import Room


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A node takes the process's signals; they are put back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def receiver(folder: Path) -> Node:
    return build_receiver(
        Settings(node=NodeSettings(host="127.0.0.1", port=0, data_dir=folder, minimum_free_megabytes=0))
    )


def test_a_start_mends_before_anything_can_be_received(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.receive(1, 2)
    room.paths()[0].unlink()
    (room.root / "incoming" / "half").write_bytes(b"half")
    seen = []

    def look(node: Node) -> None:
        port = node.application_entity.port
        peer = Peer(name="ourselves", ae_title="TRIAGE", host="127.0.0.1", port=port)
        seen.append(
            (list((room.root / "incoming").iterdir()), room.state(), echo(peer, ae_title="X", timeout_seconds=5))
        )
        signal.raise_signal(signal.SIGTERM)

    receiver(tmp_path).run(look)
    ((names, state, _),) = seen
    assert (names, state) == ([], "FAILED")
    room.index.close()


def test_a_node_whose_archive_is_not_mounted_does_not_start(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.receive(1)
    room.index.close()
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    node = receiver(tmp_path)
    with pytest.raises(SettingsError, match="mount its disk"):
        node.run(lambda _: pytest.fail("it serves"))
    assert not node.application_entity.alive
