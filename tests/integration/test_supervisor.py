"""A running node of real processes: parts that are killed come back, and `receive` starts, announces and stops."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.broker import answers, own_redis, socket_path
from dicom_node.core.errors import SettingsError
from dicom_node.node import sole_owner
from dicom_node.parts import Supervisor
from dicom_node.scu.storage import FileToSend, store
from dicom_node.scu.verification import echo
from dicom_node.settings import Peer
from tests.conftest import ROOT
from tests.instances import ct_instance, files_below, write_instance

PATIENCE_SECONDS = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def command(folder: Path) -> list[str]:
    options = ["--any-peer", "--port", "0", "--data-dir", str(folder)]
    return [sys.executable, "-m", "dicom_node", "receive", *options]


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Peer]]:
    """`dicom-node receive` as people start it, and itself as a peer."""
    environment = os.environ | {"DICOM_NODE_NODE__MINIMUM_FREE_MEGABYTES": "0"}
    with subprocess.Popen(
        command(folder), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            port = re.fullmatch(r"dicom-node: Storage SCP on port (\d+)\n", said)
            assert port is not None, said
            yield process, Peer(name="node", ae_title="ANY", host="127.0.0.1", port=int(port[1]))
        finally:
            process.kill()


def test_a_redis_that_is_killed_is_there_again_under_the_same_path() -> None:
    path = socket_path(Path("x" * 120))
    redis = own_redis(path)
    supervisor = Supervisor([redis])
    try:
        supervisor.start()
        first = redis.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not supervisor.health()["redis"])
        assert not answers(path)
        supervisor.watch()
        assert (supervisor.health(), answers(path)) == ({"redis": True}, True)
        assert redis.pid != first
    finally:
        supervisor.stop()
        shutil.rmtree(path.parent)


def test_receive_announces_its_port_stores_what_is_sent_and_ends_well_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with receiver(folder) as (process, peer):
        assert echo(peer, ae_title="SCANNER", timeout_seconds=30) > 0
        sent = FileToSend.read(write_instance(tmp_path / "1.dcm", ct_instance(1)))
        (outcome,) = store(peer, [sent], ae_title="SCANNER", timeout_seconds=30)
        assert outcome.error is None
        assert len(files_below(folder / "archive" / "studies")) == 1
        again = subprocess.run(command(folder), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert again.returncode == 1
        assert f"another node uses {folder}: stop it" in again.stderr
        assert "Traceback" not in again.stderr
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "Secret" not in said


def test_a_data_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    second = sole_owner(tmp_path / "data")
    with sole_owner(tmp_path / "data"), pytest.raises(SettingsError, match=r"another node uses .*--data-dir"):
        second.__enter__()
    with sole_owner(tmp_path / "data"):
        pass
