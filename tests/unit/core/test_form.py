"""Which peer gets which forms: nothing that it gets refers to what it does not get, whatever the peers ask for."""

from itertools import combinations
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.form import (
    FOR_OHIF,
    STRUCTURED_REPORTS,
    TRAITS,
    Form,
    FormChoice,
    SRForm,
    forms_of,
    nearest_report,
)

CHOICES: tuple[FormChoice, ...] = get_args(FormChoice)
ASKED = [
    (choices, sr_form)
    for count in range(len(CHOICES) + 1)
    for choices in combinations(CHOICES, count)
    for sr_form in get_args(SRForm)
]


def test_of_every_combination_of_forms_nothing_refers_to_what_the_peer_does_not_get() -> None:
    assert len(ASKED) == 512
    for choices, sr_form in ASKED:
        wanted = forms_of(choices, sr_form)
        named = {TRAITS[form].refers_to for form in wanted} - {None}
        assert named <= wanted, (choices, sr_form)


def test_who_asks_for_a_structured_report_gets_one_in_its_form_that_names_the_segments_it_gets() -> None:
    for choices, sr_form in ASKED:
        wanted = forms_of(choices, sr_form)
        reports = wanted & set(STRUCTURED_REPORTS)
        assert len(reports) == ("SR" in choices)
        for report in reports:
            assert (report in FOR_OHIF) is (sr_form == "ohif")
            first = Form.SEG if Form.SEG in wanted else Form.LABEL_MAP if Form.LABEL_MAP in wanted else None
            assert TRAITS[report].refers_to is first


def test_what_is_referred_to_goes_out_before_what_refers_to_it() -> None:
    for traits in TRAITS.values():
        assert traits.refers_to is None or TRAITS[traits.refers_to].rank < traits.rank
    assert set(TRAITS) == set(Form)


peers = st.lists(st.sampled_from(ASKED), min_size=1, max_size=4)


@given(peers, st.sampled_from(ASKED))
def test_a_peer_gets_its_own_report_and_after_a_change_of_settings_the_one_that_lacks_least(
    then: list[tuple[tuple[FormChoice, ...], SRForm]], now: tuple[tuple[FormChoice, ...], SRForm]
) -> None:
    written = frozenset().union(*(forms_of(*asked) for asked in then))
    for asked in then:
        wanted = forms_of(*asked)
        assert {nearest_report(wanted, written)} - {None} == wanted & set(STRUCTURED_REPORTS)
    wanted = forms_of(*now)
    given_one = nearest_report(wanted, written)
    possible = written & set(STRUCTURED_REPORTS) if "SR" in now[0] else frozenset()
    assert (given_one is None) is (not possible)
    whole = {form for form in possible if TRAITS[form].refers_to in (None, *wanted)}
    assert not whole or given_one in whole
