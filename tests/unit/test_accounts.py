"""The commands on users and tokens, and the first admin of a new node."""

import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.accounts import FIRST_ADMIN, first_admin
from dicom_node.archive.holdings import Holdings
from dicom_node.archive.index import Index
from dicom_node.cli import main
from dicom_node.core.access import Role
from dicom_node.core.errors import AccountError
from dicom_node.credentials import Passwords
from dicom_node.settings import NodeSettings, Settings

PASSWORD = "correct-horse-battery"
Command = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("process")


@pytest.fixture
def process() -> Iterator[None]:
    """What a command changes for its whole process is put back."""
    import logging
    import os

    root, mask = logging.getLogger(), os.umask(0o022)
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    os.umask(mask)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(data_dir=tmp_path))


@pytest.fixture
def index(settings: Settings) -> Iterator[Index]:
    index = Holdings.open(settings).index
    yield index
    index.close()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with something on standard input; exit status, output, errors."""

    def run(*words: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        status = main([*words, "--data-dir", str(tmp_path)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_users_are_added_listed_changed_and_removed(command: Command, index: Index, tmp_path: Path) -> None:
    assert command("users", "add", "ann", "--role", "operator", typed=f"{PASSWORD}\n")[0] == 0
    row = index.users.find("ann")
    assert row is not None
    assert (row.role, Passwords().fits(PASSWORD, row.password)) == (Role.OPERATOR, True)
    assert row.password.startswith("$argon2id$")
    assert re.match(r"ann +operator +since \d{4}-", command("users", "list")[1])
    assert command("users", "role", "ann", "--role", "admin")[0] == 0
    assert command("users", "password", "ann", typed="another-long-one\n")[0] == 0
    row = index.users.find("ann")
    assert row is not None
    assert (row.role, Passwords().fits("another-long-one", row.password)) == (Role.ADMIN, True)
    assert command("users", "disable", "ann")[0] == 0
    assert command("users", "list")[1].rstrip().endswith("disabled")
    status, _, errors = command("users", "link", "ann")
    assert (status, "is disabled" in errors) == (1, True)
    assert command("users", "enable", "ann")[0] == 0
    assert "disabled" not in command("users", "list")[1]
    assert command("users", "remove", "ann")[0] == 0
    assert index.users.find("ann") is None
    (trail,) = (tmp_path / "audit").glob("*.xml")
    assert trail.read_text().count("User Security Attributes Changed") == 6
    assert PASSWORD not in trail.read_text()


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (("add", "ann"), "short\n", "12 to 512"),
        (("add", "a b"), f"{PASSWORD}\n", "no name of a user"),
        (("add", ""), f"{PASSWORD}\n", "name whom"),
        (("remove", "nobody"), "", "there is no user nobody"),
        (("password", "nobody"), f"{PASSWORD}\n", "there is no user nobody"),
        (("role", "nobody"), "", "say which"),
        (("link", "nobody"), "", "there is no user nobody"),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, words: tuple[str, ...], typed: str, said: str) -> None:
    status, _, errors = command("users", *words, typed=typed)
    assert status == 1
    assert said in errors
    assert PASSWORD not in errors


def test_a_link_is_an_address_that_a_browser_takes_as_it_stands(command: Command) -> None:
    command("users", "add", "ann", "--no-password")
    _, output, _ = command("users", "link", "ann")
    first, second = output.splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:8080/enter/[A-Za-z0-9_-]{20,}", first)
    assert second.startswith("lets ann in once, for 15 min")


def test_a_name_is_given_once(index: Index) -> None:
    index.users.add("ann", role=Role.READER, password="", at=0)
    with pytest.raises(AccountError, match="already"):
        index.users.add("ann", role=Role.ADMIN, password="", at=0)


def test_a_token_is_shown_once_and_kept_as_a_hash(command: Command, index: Index) -> None:
    status, said, _ = command("tokens", "add", "prometheus", "--scope", "metrics", "--days", "1")
    secret = said.splitlines()[0]
    assert (status, secret.startswith("dn_")) == (0, True)
    assert index.tokens.find(secret, at=time.time()) is not None
    assert index.tokens.find(secret, at=time.time() + 2 * 86400) is None
    listed = command("tokens", "list")[1]
    assert "prometheus" in listed
    assert secret not in listed
    assert command("tokens", "remove", "prometheus")[0] == 0
    assert index.tokens.rows() == []
    assert command("tokens", "remove", "prometheus")[0] == 1
    assert "say what for" in command("tokens", "add", "x")[2]


def test_at_the_first_start_an_admins_password_is_shown_once_on_a_terminal(settings: Settings, index: Index) -> None:
    said: list[str] = []
    first_admin(settings, said.append, is_terminal=True)
    first_admin(settings, said.append, is_terminal=True)
    (line,) = said
    found = re.search(r"log in as admin with the password (\S+)", line)
    assert found is not None
    row = index.users.find(FIRST_ADMIN)
    assert row is not None
    assert (row.role, Passwords().fits(found[1], row.password)) == (Role.ADMIN, True)


def test_what_is_no_terminal_gets_no_password(settings: Settings, index: Index) -> None:
    said: list[str] = []
    first_admin(settings, said.append, is_terminal=False)
    assert said == ["dicom-node: nobody can log in yet; make a user: dicom-node users add NAME --role admin"]
    assert index.users.rows() == []
