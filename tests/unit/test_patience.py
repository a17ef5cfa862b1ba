"""Waits after a clock was set back: each ends by then at the latest when it would have ended without that."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.core.attempts import Attempts
from dicom_node.core.commitment import PromiseRequest
from dicom_node.core.delivery_plan import growing_wait, longest_wait
from dicom_node.core.lifecycle import DeliveryState
from dicom_node.patience import Patience
from dicom_node.settings import DeliverySettings, Peer, QueueSettings, Settings
from tests.populated_index import NOW, claim, queue, report, study_uid

HOUR = 3600.0
SETTINGS = Settings(
    queue=QueueSettings(first_wait_seconds=100, maximum_wait_seconds=100),
    delivery=DeliverySettings(maximum_wait_seconds=300, commitment_maximum_wait_seconds=600),
    peers=(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, results=True),),
)
PROMISE = PromiseRequest(transaction_uid="2.25.1", calling_ae_title="CT", objects=(("1.2", "1.2.3"),))


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def step(index: Index, at: float) -> None:
    Patience(SETTINGS, index, lambda: at).step()


def job_that_failed(index: Index) -> Callable[[float], bool]:
    job = queue(index, "a", at=NOW)
    lease = claim(index, job, at=NOW)
    attempts = Attempts(maximum=3, first_wait_seconds=100, maximum_wait_seconds=100)
    index.jobs.retry(lease, reason="", attempts=attempts, error="", at=NOW)
    return lambda at: index.jobs.of_study(study_uid("a"))[0].next_try_at in (None, at)


def job_of_a_silent_worker(index: Index) -> Callable[[float], bool]:
    claim(index, queue(index, "a", at=NOW), at=NOW)
    again = Attempts(maximum=3, first_wait_seconds=0.0)
    return lambda at: bool(index.jobs.expire(now=at + 91.0, attempts=again, actor="test"))


def object_that_a_peer_refused(index: Index) -> Callable[[float], bool]:
    report(index, "a", at=NOW)
    index.deliveries.plan_all(
        [(sop_instance_uid, ["pacs"]) for sop_instance_uid, *_ in index.deliveries.unplanned()], NOW
    )
    for row in index.deliveries.at_peer(study_uid("a"), "pacs"):
        index.deliveries.postponed(row, reason="", refused=True, next_try_at=NOW + 300, at=NOW)
    return lambda at: {row.next_try_at for row in index.deliveries.at_peer(study_uid("a"), "pacs")} == {at}


def object_that_a_peer_was_asked_to_keep(index: Index) -> Callable[[float], bool]:
    report(index, "a", at=NOW)
    index.deliveries.plan_all(
        [(sop_instance_uid, ["pacs"]) for sop_instance_uid, *_ in index.deliveries.unplanned()], NOW
    )
    for row in index.deliveries.at_peer(study_uid("a"), "pacs"):
        if row.state is DeliveryState.WAITING:
            index.deliveries.accepted(row, reason="", at=NOW, commitment=True)
    (due,) = index.commitments.due("pacs", NOW, 9)
    assert index.commitments.begin(due, "2.25.9", next_try_at=NOW + 600, at=NOW)
    return lambda at: len(index.commitments.due("pacs", at, 9)) == 1


def answer_that_a_peer_did_not_take(index: Index) -> Callable[[float], bool]:
    index.promises.ask(PROMISE, NOW)
    (row,) = index.promises.due(NOW, 9)
    index.promises.missed(row, reason="", next_try_at=NOW + 300)
    return lambda at: len(index.promises.due(at, 9)) == 1


ALL = [
    job_that_failed,
    job_of_a_silent_worker,
    object_that_a_peer_refused,
    object_that_a_peer_was_asked_to_keep,
    answer_that_a_peer_did_not_take,
]


@pytest.mark.parametrize("waits", ALL)
def test_what_waits_longer_than_it_may_waits_no_more(
    index: Index, waits: Callable[[Index], Callable[[float], bool]]
) -> None:
    is_over = waits(index)
    assert not is_over(NOW - HOUR)
    step(index, NOW - HOUR)
    assert is_over(NOW - HOUR)


@pytest.mark.parametrize("waits", ALL)
def test_what_waits_as_long_as_it_may_goes_on_waiting(
    index: Index, waits: Callable[[Index], Callable[[float], bool]]
) -> None:
    is_over = waits(index)
    for at in (NOW, NOW + 1, NOW - 5):
        step(index, at)
        if waits is not job_of_a_silent_worker:
            assert not is_over(at)
    if waits is job_of_a_silent_worker:
        assert not is_over(NOW - 89)


@given(st.integers(0, 200), st.floats(0.01, 1e5), st.floats(0.01, 1e5), st.text(max_size=8))
def test_no_wait_that_grows_is_longer_than_the_longest(attempts: int, first: float, longest: float, name: str) -> None:
    assert growing_wait(attempts, first=first, longest=longest, spread_by=name) <= longest_wait(longest)
