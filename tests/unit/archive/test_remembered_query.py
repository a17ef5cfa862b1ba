"""What is remembered of an index is never older than its last commit, whoever committed it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.core.access import Role, Scope
from tests.populated_index import NOW

READ = [Scope.DICOMWEB_READ]
NAMES = ("a", "b", "c")


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    """Of two programs, in one file."""
    address = f"sqlite:///{tmp_path / 'index.sqlite'}"
    both = Index.open(address), Index.open(address)
    yield both
    for index in both:
        index.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that are put to the database."""
    seen: list[str] = []
    whole = PreparedQuery.tuples

    def told(self: PreparedQuery, *given: object, **values: object) -> object:
        seen.append(type(self).__name__)
        return whole(self, *given, **values)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(PreparedQuery, "tuples", told)
    return seen


def test_what_nobody_changed_is_looked_up_once(indexes: tuple[Index, Index], asked: list[str]) -> None:
    index, _ = indexes
    secret = index.tokens.add("viewer", scopes=READ, at=NOW)
    for _ in range(5):
        found = index.tokens.find(secret, at=NOW)
        assert found is not None
        assert found.name == "viewer"
    assert len(asked) == 1


@pytest.mark.parametrize("other", [0, 1], ids=["the same program", "another program"])
def test_a_token_that_was_withdrawn_holds_no_more_at_once(indexes: tuple[Index, Index], other: int) -> None:
    index = indexes[0]
    secret = index.tokens.add("viewer", scopes=READ, at=NOW)
    assert index.tokens.find(secret, at=NOW) is not None
    indexes[other].tokens.remove("viewer")
    assert index.tokens.find(secret, at=NOW) is None


def test_a_session_ends_at_once_with_its_users_role(indexes: tuple[Index, Index]) -> None:
    index, other = indexes
    index.users.add("ann", role=Role.ADMIN, password="", at=NOW)
    secret = index.sessions.begin("ann", at=NOW)
    limits = {"idle_seconds": 60.0, "longest_seconds": 600.0}
    found = index.sessions.find(secret, at=NOW, **limits)
    assert found is not None
    assert found.role is Role.ADMIN
    other.users.change("ann", disabled=True, at=NOW)
    assert index.sessions.find(secret, at=NOW, **limits) is None


def test_a_token_that_expires_expires_though_nothing_is_written(indexes: tuple[Index, Index]) -> None:
    index, _ = indexes
    secret = index.tokens.add("viewer", scopes=READ, at=NOW, expires_at=NOW + 5)
    assert index.tokens.find(secret, at=NOW) is not None
    assert index.tokens.find(secret, at=NOW + 6) is None


def test_names_that_are_tried_in_vain_are_not_kept(indexes: tuple[Index, Index], asked: list[str]) -> None:
    index, _ = indexes
    for _ in range(3):
        assert index.tokens.find("guess", at=NOW) is None
    assert len(asked) == 3


_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "find", "find"]), st.sampled_from(NAMES), st.integers(0, 1)),
    max_size=40,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_whatever_two_programs_do_the_answer_is_what_holds_now(
    indexes: tuple[Index, Index], steps: list[tuple[str, str, int]]
) -> None:
    """Each with threads of its own, so that connections are taken in turn."""
    secrets: dict[str, str] = {}
    old: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        for what, name, which in [*steps, *(("remove", name, 0) for name in NAMES)]:
            index = indexes[which]
            if what == "add" and name not in secrets:
                secrets[name] = index.tokens.add(name, scopes=READ, at=NOW)
            elif what == "remove" and name in secrets:
                index.tokens.remove(name)
                old.append(secrets.pop(name))
            finds = [(key, threads.submit(index.tokens.find, secret, at=NOW)) for key, secret in secrets.items()]
            gone = [threads.submit(index.tokens.find, secret, at=NOW) for secret in old]
            assert {key: row.name for key, find in finds if (row := find.result())} == {key: key for key in secrets}
            assert [find.result() for find in gone] == [None] * len(old)
