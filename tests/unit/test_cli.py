import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node import __version__
from dicom_node.archive.index import Index
from dicom_node.cli import main
from dicom_node.core.lifecycle import StudyState
from tests.instances import ct_instance, sop_uid, write_instance
from tests.peers import CT, Behaviour, free_port, storage_peer
from tests.populated_index import NOW, deliver, queue, report, study_uid
from tests.room import Room

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """What a command changes for its whole process is put back."""
    root, mask = logging.getLogger(), os.umask(0o022)
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    os.umask(mask)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command and returns its exit status, standard output and standard error."""
    monkeypatch.setenv("DICOM_NODE_NODE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DICOM_NODE_DELIVERY__TIMEOUT_SECONDS", "5")

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    (tmp_path / "data").mkdir()
    index = Index.open(f"sqlite:///{tmp_path / 'data' / 'index.sqlite'}")
    yield index
    index.close()


def settings_file(folder: Path, port: int, **peer: object) -> Path:
    """Settings with one peer called pacs."""
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port} | peer
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path = folder / "node.toml"
    path.write_text("\n".join(["[[peers]]", *lines]), encoding="utf-8")
    return path


@pytest.mark.parametrize("words", [[], ["no-such-command"], ["send"], ["status", "--no-such-option"]])
def test_a_wrong_command_line_ends_with_two_and_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage: dicom-node" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


def test_wrong_settings_are_named_with_line_and_mend_and_nothing_starts(command: Command, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("[node]\nprot = 11112\nae_title = 7\n", encoding="utf-8")
    status, out, err = command("receive", "--config", config)
    assert (status, out) == (1, "")
    assert "line 2" in err
    assert "line 3" in err
    assert "port" in err
    assert "Traceback" not in err
    assert not (tmp_path / "data").exists()


def test_a_settings_file_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    status, _, err = command("status", "--config", tmp_path / "none.toml")
    assert status == 1
    assert "none.toml" in err
    assert "Traceback" not in err


def test_the_status_of_an_empty_node_is_that_nothing_is_there(command: Command) -> None:
    status, out, err = command("status")
    assert (status, err) == (0, "")
    assert "none" in out
    status, out, _ = command("status", "--json")
    assert status == 0
    assert json.loads(out)["studies"] == []


def test_the_status_of_a_study_is_its_history(command: Command, index: Index) -> None:
    report(index, "a", at=NOW)
    status, out, _ = command("status", "--study", study_uid("a"))
    assert status == 0
    assert study_uid("a") in out
    assert "REPORTED" in out
    status, out, _ = command("status", "--study", study_uid("a"), "--json")
    assert status == 0
    assert [line["after"] for line in json.loads(out)["history"]][-1] == "REPORTED"


@pytest.mark.parametrize("words", [("status", "--study", "1.2.3"), ("requeue", "1.2.3")])
def test_a_study_that_is_not_there_is_named_with_the_mend(command: Command, words: tuple[str, ...]) -> None:
    status, out, err = command(*words)
    assert (status, out) == (1, "")
    assert "1.2.3 is not in the index" in err
    assert "Traceback" not in err


def test_a_study_can_be_asked_for_again(command: Command, index: Index) -> None:
    report(index, "a", at=NOW)
    status, out, _ = command("requeue", study_uid("a"))
    assert (status, out) == (0, f"study {study_uid('a')} will be routed and read again\n")
    assert index.studies.rows()[0].state is StudyState.COMPLETE
    assert index.studies.history(study_uid("a"))[-1].actor == "command line"


def test_a_result_is_withdrawn_with_its_reason_and_its_peers_are_named(command: Command, index: Index) -> None:
    report(index, "a", at=NOW)
    deliver(index, "a", at=NOW + 1)
    status, out, _ = command("withdraw", study_uid("a"), "--reason", "another patient's lungs", "--safety")
    assert (status, out) == (0, f"the result of study {study_uid('a')} is withdrawn; a rejection note goes to pacs\n")
    assert index.studies.rows()[0].state is StudyState.WITHDRAWN
    (withdrawal,) = index.withdrawals.of_study(study_uid("a"))
    assert (withdrawal.safety, withdrawal.actor) == (True, "command line")


def test_a_result_that_nobody_has_is_withdrawn_in_silence(command: Command, index: Index) -> None:
    report(index, "a", at=NOW)
    status, out, _ = command("withdraw", study_uid("a"), "--reason", "noise")
    assert (status, "no peer had anything of it" in out) == (0, True)


def test_a_study_that_is_being_read_has_nothing_to_withdraw(command: Command, index: Index) -> None:
    queue(index, "a", at=NOW)
    status, _, err = command("withdraw", study_uid("a"), "--reason", "noise")
    assert (status, "no result that" in err) == (1, True), err


def test_a_study_that_is_on_its_way_cannot_be_asked_for_again(command: Command, index: Index) -> None:
    queue(index, "a", at=NOW)
    status, _, err = command("requeue", study_uid("a"))
    assert status == 1
    assert "COMPLETE cannot follow QUEUED" in err


def test_an_echo_tells_who_answered(command: Command, tmp_path: Path) -> None:
    with storage_peer(Behaviour()) as peer:
        status, out, _ = command("echo", "pacs", "--config", settings_file(tmp_path, peer.port))
    assert status == 0
    assert out.startswith(f"pacs (PACS at 127.0.0.1:{peer.port}) answered in ")


def test_an_echo_to_a_peer_that_is_away_names_it_and_the_mend(command: Command, tmp_path: Path) -> None:
    port = free_port()
    status, out, err = command("echo", "pacs", "--config", settings_file(tmp_path, port))
    assert (status, out) == (1, "")
    assert f"peer pacs (PACS at 127.0.0.1:{port}) does not answer; is it running" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("echo", "nobody"), ("send", "nobody", ".")])
def test_a_peer_that_is_not_in_the_settings_is_named_with_those_that_are(
    command: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    status, _, err = command(*words, "--config", settings_file(tmp_path, 104))
    assert (status, "no peer is named nobody; known: pacs" in err) == (1, True)
    status, _, err = command(*words)
    assert (status, "add [[peers]] to the settings file" in err) == (1, True)


def test_files_and_folders_are_sent_and_counted(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "series" / "deeper"
    folder.mkdir(parents=True)
    paths = [write_instance(folder / f"{number}.dcm", ct_instance(number)) for number in (1, 2, 3)]
    single = paths[2].rename(tmp_path / "single.dcm")
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        config = settings_file(tmp_path, peer.port)
        status, out, err = command("send", "pacs", tmp_path / "series", single, "--config", config)
    assert (status, out) == (0, "3 of 3 file(s) stored at pacs\n"), err
    assert pacs.arrived == [sop_uid(1), sop_uid(2), sop_uid(3)]


def test_what_is_no_dicom_file_or_is_refused_is_named_and_the_rest_is_sent(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    write_instance(folder / "1.dcm", ct_instance(1))
    (folder / "notes.txt").write_text("hello", encoding="ascii")
    with storage_peer(Behaviour()) as peer:
        status, out, err = command("send", "pacs", folder, "--config", settings_file(tmp_path, peer.port))
    assert (status, out) == (1, "1 of 2 file(s) stored at pacs\n")
    assert "notes.txt is no DICOM file" in err
    with storage_peer(Behaviour(statuses={CT: 0xA700})) as peer:
        status, out, err = command("send", "pacs", folder / "1.dcm", "--config", settings_file(tmp_path, peer.port))
    assert (status, out) == (1, "0 of 1 file(s) stored at pacs\n")
    assert "0xA700, out of resources" in err
    assert "the disk is full" not in err, "a peer may quote a patient in its comment"


def test_nothing_to_send_and_no_such_path_are_errors_with_a_mend(command: Command, tmp_path: Path) -> None:
    config = settings_file(tmp_path, 104)
    status, _, err = command("send", "pacs", tmp_path / "none", "--config", config)
    assert (status, f"{tmp_path / 'none'} does not exist" in err) == (1, True)
    empty = tmp_path / "empty"
    empty.mkdir()
    status, _, err = command("send", "pacs", empty, "--config", config)
    assert (status, "nothing to send: no DICOM file was found there" in err) == (1, True)


def test_a_data_folder_that_cannot_be_made_is_named_with_the_setting(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file stands in the way", encoding="ascii")
    status, _, err = command("status")
    assert status == 1
    assert "set data_dir of [node]" in err
    assert "Traceback" not in err


def test_an_index_that_cannot_be_opened_is_named_without_its_password(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOM_NODE_INDEX__URL", "nonsense://node:secret@db/triage")
    status, _, err = command("status")
    assert status == 1
    assert "correct url of [index]" in err
    assert "secret" not in err


def test_an_index_is_made_again_from_the_archive(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    room = Room(tmp_path / "data")
    room.receive(1, 2)
    room.index.close()
    (tmp_path / "data" / "index.sqlite").write_bytes(b"no database" * 1000)
    status, out, err = command("status")
    assert (status, out) == (1, "")
    assert "is damaged" in err
    status, out, _ = command("reindex", "--read-days", 1)
    assert status == 0
    assert f"the damaged index is now {tmp_path / 'data'}/index.sqlite.damaged-" in out
    assert "2 instance(s) taken in, 1 of their studies new to the index\n" in out
    assert "1 RECEIVING" in command("status")[1]
