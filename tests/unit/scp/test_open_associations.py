"""Who may open one more association, and which silent connection goes when there are too many."""

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.association import Association

from dicom_node.scp.open_associations import OpenAssociations


class Side(SimpleNamespace):
    """A stand-in that can be a key, as an association is."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def from_address(address: str) -> Association:
    return cast(Association, Side(requestor=SimpleNamespace(address_info=SimpleNamespace(address=address))))


def nobody(_association: Any) -> None:
    raise AssertionError("nobody is to be hung up")


def test_one_peer_has_its_share_and_another_at_its_address_or_of_its_title_has_its_own() -> None:
    known = OpenAssociations(maximum=4, maximum_per_peer=2)
    first, second, third = (from_address("10.0.0.1") for _ in range(3))
    assert [known.admits(one, "CT1") for one in (first, second, third)] == [True, True, False]
    assert known.admits(from_address("10.0.0.1"), "CT2")
    assert known.admits(from_address("10.0.0.2"), "CT1")
    assert not known.admits(from_address("10.0.0.3"), "MR"), "there are four"
    known.ended(first)
    assert known.admits(third, "CT1")


def test_silent_connections_are_no_associations() -> None:
    known = OpenAssociations(maximum=1, maximum_per_peer=1)
    for _ in range(16):
        known.connected(from_address("10.0.0.1"), nobody)
    assert known.admits(from_address("10.0.0.1"), "CT1")


def test_of_too_many_silent_connections_of_an_address_the_oldest_is_hung_up() -> None:
    known, gone = OpenAssociations(maximum=20, maximum_per_peer=20), list[Association]()
    speaking, *silent = (from_address("10.0.0.1") for _ in range(21))
    for one in (speaking, *silent[:19]):
        known.connected(one, nobody)
    known.connected(from_address("10.0.0.2"), nobody)
    assert known.admits(speaking, "CT1")
    known.connected(silent[19], nobody)
    known.connected(from_address("10.0.0.1"), gone.append)
    assert gone == [silent[0]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.sampled_from(["ask", "end"])), max_size=60))
def test_there_are_never_more_than_there_may_be_and_never_fewer_for_long(
    steps: list[tuple[str, int, str]],
) -> None:
    known = OpenAssociations(maximum=5, maximum_per_peer=2)
    sides = {(title, number): from_address("10.0.0.1") for title in "abc" for number in range(10)}
    is_open: dict[tuple[str, int], bool] = {}
    for title, number, step in steps:
        one = (title, number)
        if step == "end":
            known.ended(sides[one])
            is_open.pop(one, None)
        elif one not in is_open:
            expected = len(is_open) < 5 and sum(other == title for other, _ in is_open) < 2
            assert known.admits(sides[one], title) is expected
            if expected:
                is_open[one] = True
