"""What next for deliveries: laws over any rows, and the cases that people ask about."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.delivery_plan import growing_wait, is_document, plan_sending, study_state_after_deliveries
from dicom_node.core.form import Form, form_of
from dicom_node.core.lifecycle import DeliveryState, StudyState
from tests.populated_index import SEG, SR

W, A, C, F = DeliveryState.WAITING, DeliveryState.ACCEPTED, DeliveryState.COMMITTED, DeliveryState.FAILED
NOW = 100.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A delivery, as far as the plan knows one."""

    sop_instance_uid: str = "1.1"
    sop_class_uid: str = SEG
    job_uid: str = "1"
    peer: str = "pacs"
    state: DeliveryState = W
    next_try_at: float = NOW
    reason: str = ""
    commitment: bool = False
    instead: str = ""
    alternative: bool = False

    @property
    def form(self) -> Form:
        """By its class."""
        return form_of("", self.sop_class_uid)


@st.composite
def rows_at_one_peer(draw: st.DrawFn) -> list[Row]:
    """Some jobs' objects at one peer, in any states."""
    count = draw(st.integers(0, 7))
    return [
        Row(
            sop_instance_uid=f"1.{number}",
            sop_class_uid=draw(st.sampled_from([SEG, SR])),
            job_uid=draw(st.sampled_from("12")),
            state=draw(st.sampled_from(DeliveryState)),
            next_try_at=draw(st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 9])),
        )
        for number in range(count)
    ]


@given(rows_at_one_peer())
def test_nothing_is_sent_but_what_waits_and_is_due_and_nothing_both_sent_and_held(rows: list[Row]) -> None:
    plan = plan_sending(rows, NOW)
    assert all(row.state is W and row.next_try_at <= NOW for row in plan.send)
    assert all(held.row.state is W for held in plan.held)
    held = {held.row.sop_instance_uid for held in plan.held}
    assert not held & {row.sop_instance_uid for row in plan.send}


@given(rows_at_one_peer())
def test_a_document_is_sent_only_with_or_after_everything_of_its_report(rows: list[Row]) -> None:
    send = plan_sending(rows, NOW).send
    for place, row in enumerate(send):
        if is_document(row):
            parts = [part for part in rows if part.job_uid == row.job_uid and not is_document(part)]
            assert all(part.state in (A, C) or part in send[:place] for part in parts)


@given(rows_at_one_peer())
def test_what_waits_and_is_due_is_sent_or_told_why_not_and_until_when(rows: list[Row]) -> None:
    plan = plan_sending(rows, NOW)
    decided = {row.sop_instance_uid for row in plan.send} | {held.row.sop_instance_uid for held in plan.held}
    assert {row.sop_instance_uid for row in rows if row.state is W and row.next_try_at <= NOW} <= decided
    assert all(held.until is None or held.until > NOW for held in plan.held)
    assert all(held.reason for held in plan.held)


def test_a_document_fails_with_the_segmentation_that_the_peer_refused_and_not_with_another_jobs() -> None:
    refused = Row(state=F, reason="0xA700")
    document = Row(sop_instance_uid="1.2", sop_class_uid=SR)
    (held,) = plan_sending([refused, document], NOW).held
    assert (held.row, held.until) == (document, None)
    assert held.reason == "not sent without object 1.1 of its report, which failed: 0xA700"
    other = replace(document, job_uid="2")
    assert plan_sending([refused, other], NOW).send == (other,)


@st.composite
def rows_of_one_study(draw: st.DrawFn) -> list[Row]:
    """Objects at peers in any states, some of them with alternatives, also in a circle."""
    peers = ["a", "b", "c"]
    rows = []
    for uid in ("1.1", "1.2")[: draw(st.integers(1, 2))]:
        for peer in draw(st.lists(st.sampled_from(peers), unique=True, min_size=1)):
            state = draw(st.sampled_from(DeliveryState))
            rows.append(
                Row(
                    sop_instance_uid=uid,
                    peer=peer,
                    state=state,
                    commitment=state is C or (state is A and draw(st.booleans())),
                    instead=draw(st.sampled_from(["", *peers])),
                    alternative=draw(st.booleans()),
                )
            )
    return rows


@given(rows_of_one_study())
def test_delivered_and_committed_are_never_claimed_without_an_acceptance_for_every_object(rows: list[Row]) -> None:
    state, reason = study_state_after_deliveries(rows)
    assert reason
    uids = {row.sop_instance_uid for row in rows if not row.alternative}
    if state in (StudyState.DELIVERED, StudyState.COMMITTED):
        assert uids
        assert all(any(row.sop_instance_uid == uid and row.state in (A, C) for row in rows) for uid in uids)
    if state is StudyState.COMMITTED:
        required = [row for row in rows if not row.alternative]
        assert not any(row.state is A and row.commitment and not row.instead for row in required)
        assert any(row.state is C for row in rows)


@given(rows_of_one_study(), st.integers(0, 5))
def test_an_acceptance_more_never_leads_back(rows: list[Row], number: int) -> None:
    order = [StudyState.FAILED, StudyState.REPORTED, StudyState.DELIVERED]
    before, _ = study_state_after_deliveries(rows)
    row = rows[number % len(rows)]
    if row.state in (W, F) and before is not StudyState.COMMITTED:
        others = [other for other in rows if other is not row]
        after, _ = study_state_after_deliveries([replace(row, state=A, commitment=True), *others])
        assert after in order[order.index(before) :]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], StudyState.REPORTED),
        ([Row(state=A)], StudyState.DELIVERED),
        ([Row(state=A, commitment=True)], StudyState.DELIVERED),
        ([Row(state=C, commitment=True)], StudyState.COMMITTED),
        ([Row(state=C, commitment=True), Row(state=A, peer="archive")], StudyState.COMMITTED),
        ([Row(state=C, commitment=True), Row(state=A, peer="archive", commitment=True)], StudyState.DELIVERED),
        ([Row(state=C, commitment=True), Row(peer="archive")], StudyState.REPORTED),
        ([Row(state=A), Row(peer="archive", state=F)], StudyState.FAILED),
        ([Row(instead="archive"), Row(peer="archive", state=A, alternative=True)], StudyState.DELIVERED),
        ([Row(instead="archive"), Row(peer="archive", state=C, alternative=True)], StudyState.COMMITTED),
        ([Row(instead="archive"), Row(peer="archive", state=F, alternative=True)], StudyState.REPORTED),
        ([Row(instead="archive", state=F), Row(peer="archive", alternative=True)], StudyState.FAILED),
        ([Row(instead="archive", state=F), Row(peer="archive", state=A, alternative=True)], StudyState.DELIVERED),
    ],
)
def test_where_a_study_stands_by_its_deliveries(rows: list[Row], expected: StudyState) -> None:
    assert study_state_after_deliveries(rows)[0] is expected


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.text(max_size=8))
def test_waits_grow_up_to_the_longest_and_are_spread_by_a_fifth(attempts: int, first: float, text: str) -> None:
    wait = growing_wait(attempts, first=first, longest=1000, spread_by=text)
    middle = min(first * 2.0 ** min(attempts, 30), 1000)
    assert 0.8 * middle <= wait <= 1.2 * middle
    assert growing_wait(attempts, first=first, longest=1000, spread_by=text) == wait
