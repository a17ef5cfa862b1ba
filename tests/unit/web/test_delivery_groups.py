"""Deliveries of a study that say the same are one line, and none is left out."""

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.lines import DeliveryLine
from dicom_node.core.lifecycle import DeliveryState
from dicom_node.web.delivery_groups import grouped
from dicom_node.web.pages import OBJECTS

NOW = 1709201700.0


def line(number: int, **changes: object) -> DeliveryLine:
    facts: dict[str, object] = {
        "study_instance_uid": "1.2",
        "sop_instance_uid": f"1.2.{number}",
        "sop_class_uid": next(iter(OBJECTS)),
        "peer": "pacs",
        "state": DeliveryState.WAITING,
        "attempts": 1,
        "next_try_at": NOW + number,
        "reason": "pacs does not answer",
        "accepted_at": None,
    }
    return DeliveryLine(**{**facts, **changes})  # type: ignore[arg-type]  # by name


LINES = st.lists(
    st.builds(
        line,
        st.integers(0, 10_000),
        peer=st.sampled_from(["pacs", "archive"]),
        state=st.sampled_from(list(DeliveryState)),
        reason=st.sampled_from(["", "away", "refused"]),
        next_try_at=st.none() | st.floats(0, 1e9),
        accepted_at=st.none() | st.floats(0, 1e9),
    ),
    max_size=30,
)


@given(LINES)
def test_every_delivery_is_in_one_group_and_a_group_says_one_thing(lines: list[DeliveryLine]) -> None:
    groups = grouped(lines)
    assert sorted(map(repr, lines)) == sorted(repr(one) for group in groups for one in group.lines)
    for group in groups:
        assert len({(one.peer, one.state, one.reason, one.accepted_at is None) for one in group.lines}) == 1
        assert sum(group.classes.values()) == len(group.lines)
        assert group.latest in group.lines


def test_the_same_reason_twelve_times_is_one_line_and_another_is_its_own() -> None:
    groups = grouped([*(line(number, attempts=number) for number in range(1, 13)), line(20, reason="it is refused")])
    assert [(len(group.lines), group.attempts) for group in groups] == [(12, 12), (1, 1)]
    assert groups[0].latest.next_try_at == NOW + 1, "the one that is due first"
    accepted = grouped([line(n, accepted_at=NOW + n, next_try_at=None, state=DeliveryState.ACCEPTED) for n in range(3)])
    assert accepted[0].latest.accepted_at == NOW + 2
