"""A whole node whose broker is not there: it starts, says so everywhere, and goes on when the broker comes."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_node.archive.index import Index
from dicom_node.broker import redis_program
from tests.conftest import ROOT
from tests.peers import free_port
from tests.visitors import Person, session

PATIENCE_SECONDS = 60.0

#: Stands for a worker, which these tests need not wait for.
_IDLE_WORKER = "import time\nwhile True:\n    time.sleep(1)\n"


@contextmanager
def serving(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """`dicom-node serve` as people start it; the address of its page."""
    options = ["--port", "0", "--web-port", "0", "--data-dir", str(folder / "data")]
    stub = folder / "stub" / "workers"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(_IDLE_WORKER, encoding="ascii")
    paths = f"{stub.parent}{os.pathsep}{ROOT}"
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", *options],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": paths, "DICOM_NODE_NODE__MINIMUM_FREE_MEGABYTES": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = [process.stdout.readline(), process.stdout.readline()]
            page = re.search(r"web page on (http://\S+)/", said[1])
            assert page is not None, (said, (folder / "log").read_text(encoding="utf-8"))
            yield page[1]
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def read(address: str) -> str:
    """What is there, whatever its status."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def overview(address: str, folder: Path) -> str:
    """The node's page, as somebody sees it who is logged in."""
    index = Index.open(f"sqlite:///{folder / 'data' / 'index.sqlite'}")
    try:
        secret = session(index, at=time.time())
    finally:
        index.close()
    return Person(int(address.rpartition(":")[2]), secret).get("/overview").text


def parts(address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(f"{address}/healthz"))["parts"]
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


def status(folder: Path) -> str:
    command = [sys.executable, "-m", "dicom_node", "status", "--data-dir", str(folder / "data")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_node_whose_broker_is_elsewhere_and_away_starts_and_says_so(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with serving(tmp_path, {"DICOM_NODE_BROKER__URL": url}) as page:
        wait_until(lambda: not parts(page)["broker"])
        assert {name for name, lives in parts(page).items() if not lives} == {"broker"}
        text = overview(page, tmp_path)
        assert "Broker away" in text
        assert "jobs wait in the index, and workers look there by themselves" in text
        assert "BROKER AWAY for" in status(tmp_path)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log.count("the broker is away; jobs wait in the index") == 1
    assert "Traceback" not in log


def test_a_node_whose_own_redis_dies_at_once_starts_and_rings_when_there_is_one(tmp_path: Path) -> None:
    real = redis_program()
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "redis-server"
    program.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    program.chmod(0o755)
    with serving(tmp_path, {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}) as page:
        wait_until(lambda: not parts(page)["broker"])
        assert {name for name, lives in parts(page).items() if not lives} == {"broker", "redis"}
        program.unlink()
        program.symlink_to(real)
        wait_until(lambda: all(parts(page).values()))
        assert "Broker away" not in overview(page, tmp_path)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "a part cannot start; the others go on without it" in log
    assert log.count("the broker is back") == 1
    assert "Traceback" not in log
