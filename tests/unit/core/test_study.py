"""Studies, evidence and identifiers: the same instances always give the same values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import keyword_dict
from pydicom.uid import UID

from dicom_node.core.job import evidence_digest
from dicom_node.core.priority import QUEUES, Priority, more_urgent, queue_of
from dicom_node.core.study import KEPT_KEYWORDS, Study
from dicom_node.core.uid import derived_uid, is_uid
from tests.strategies import instances_of, slices_at

INSTANCES = [*instances_of("1.10", slices_at(0, 1, 2)), *instances_of("1.9", slices_at(0, 1))]


@given(st.permutations(INSTANCES))
def test_any_order_of_arrival_gives_the_same_study_and_evidence(order):
    assert Study.from_instances("1", order) == Study.from_instances("1", INSTANCES)
    assert evidence_digest(order) == evidence_digest(INSTANCES)


def test_a_study_keeps_every_instance_in_its_own_series():
    study = Study.from_instances("1", INSTANCES)
    assert {s.series_instance_uid: len(s.instances) for s in study.series} == {"1.10": 3, "1.9": 2}
    assert study.series[0].modality == "CT"


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"sop_instance_uid": "1.10.99"}])
def test_evidence_changes_with_any_identifier_or_content(change):
    assert evidence_digest([replace(INSTANCES[0], **change), *INSTANCES[1:]]) != evidence_digest(INSTANCES)


@pytest.mark.parametrize("change", [{"path": "elsewhere"}, {"received_at": 1.0}, {"calling_ae_title": "CT2"}])
def test_evidence_does_not_change_with_how_an_instance_came(change):
    assert evidence_digest([replace(INSTANCES[0], **change), *INSTANCES[1:]]) == evidence_digest(INSTANCES)


def test_kept_keywords_are_of_the_dictionary_and_none_is_of_the_patient():
    assert set(KEPT_KEYWORDS) <= set(keyword_dict)
    # Group 0010 is the patient's (PS3.6).
    assert not [keyword for keyword in KEPT_KEYWORDS if keyword_dict[keyword] >> 16 == 0x0010]


@pytest.mark.parametrize("text", ["1", "1.2.840.10008.1.2", "2.25." + "9" * 59, "1.02.3"])
def test_these_may_stand_in_a_path(text):
    assert is_uid(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "1..2", ".1", "1.", "1/2", "../1", "1.2\n", "1.2\x00", " 1", "1.a", "1" * 65, "١.٢", "1.-2"]
)
def test_these_may_not(text):
    assert not is_uid(text)


@given(st.lists(st.text(max_size=10), min_size=1, max_size=4))
def test_a_derived_uid_is_a_valid_one_and_always_the_same(parts):
    uid = derived_uid(*parts)
    assert UID(uid).is_valid
    assert is_uid(uid)
    assert derived_uid(*parts) == uid


def test_derived_uids_differ_when_the_parts_are_cut_elsewhere():
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_each_priority_waits_in_a_queue_no_later_than_a_less_urgent_one():
    places = [QUEUES.index(queue_of(priority)) for priority in Priority]
    assert places == sorted(places)
    assert set(map(queue_of, Priority)) == set(QUEUES)


@given(st.sampled_from(Priority), st.sampled_from(Priority))
def test_the_more_urgent_of_two_is_one_of_them_and_in_either_order(first, second):
    assert more_urgent(first, second) is more_urgent(second, first)
    assert more_urgent(first, second) in (first, second)
    assert more_urgent(Priority.STAT, first) is Priority.STAT
