"""The index's performed steps: whatever comes in whatever order, the study is told the sums of what was taken."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.core.errors import NotificationRefused
from dicom_node.core.performed_step import PerformedStep, StepChange, StepState, changed, counts_of
from tests.populated_index import NOW, receive, study_uid

STUDY, OTHER = study_uid("a"), study_uid("b")

series = st.dictionaries(st.sampled_from(["1.1", "1.2"]), st.integers(0, 4), max_size=2)
messages = st.tuples(
    st.sampled_from(["create", "set"]),
    st.sampled_from(["9.1", "9.2", "9.3"]),
    st.sampled_from(StepState),
    series,
    st.sampled_from([(STUDY,), (OTHER,), (STUDY, OTHER)]),
)


def told_of(index: Index, study: str) -> dict[str, tuple[int, str, bool]]:
    facts = index.arrivals.facts([study])[study]
    return {one.series_instance_uid: (one.count, one.source, one.final) for one in facts.told}


@settings(max_examples=40)
@given(st.lists(messages, max_size=10))
def test_any_order_of_messages_leaves_what_the_taken_ones_say(
    these: list[tuple[str, str, StepState, dict[str, int], tuple[str, ...]]],
) -> None:
    index = Index.open("sqlite://")
    for study in ("a", "b"):
        receive(index, study, at=NOW)
    model: dict[str, PerformedStep] = {}
    told: dict[str, dict[str, tuple[int, str, bool]]] = {STUDY: {}, OTHER: {}}
    for number, (kind, uid, state, counts, studies) in enumerate(these):
        step = PerformedStep(sop_instance_uid=uid, study_instance_uids=studies, series=counts)
        change = StepChange(state=state, series=counts)
        status = taken(index, kind, step, change, NOW + number)
        expected = 0
        if kind == "create":
            expected = 0x0111 if uid in model else 0
            model.setdefault(uid, step)
        elif uid not in model:
            expected = 0x0112
        else:
            try:
                model[uid] = changed(model[uid], change)
            except NotificationRefused as refused:
                expected = refused.status
        assert status == expected
        for study in (STUDY, OTHER):
            said = counts_of(step for step in model.values() if study in step.study_instance_uids)
            if said is not None:
                told[study] = {uid: (count, said.source, said.final) for uid, count in said.counts.items()}
            assert told_of(index, study) == told[study]
    index.close()


def taken(index: Index, kind: str, step: PerformedStep, change: StepChange, at: float) -> int:
    try:
        if kind == "create":
            index.performed_steps.create(step, calling_ae_title="CT1", at=at)
        else:
            index.performed_steps.change(step.sop_instance_uid, change, at=at)
    except NotificationRefused as refused:
        return refused.status
    return 0


def test_what_peers_and_other_callers_told_stays_beside_it() -> None:
    index = Index.open("sqlite://")
    receive(index, "a", at=NOW)
    index.arrivals.tell(STUDY, {"": 9}, source="peer MPPS", at=NOW)
    index.arrivals.available(STUDY, {"1.1": 3}, source="availability by CT10", at=NOW)
    index.arrivals.available(STUDY, {"1.1": 2}, source="availability by CT1", at=NOW)
    step = PerformedStep(sop_instance_uid="9.1", study_instance_uids=(STUDY,))
    index.performed_steps.create(step, calling_ae_title="CT1", at=NOW)
    index.performed_steps.change("9.1", StepChange(state=StepState.COMPLETED, series={"1.1": 4}), at=NOW)
    sources = {one.source for one in index.arrivals.facts([STUDY])[STUDY].told}
    assert sources == {"peer MPPS", "availability by CT10", "availability by CT1", "MPPS"}
    index.close()
