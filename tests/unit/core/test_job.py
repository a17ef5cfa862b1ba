from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.job import evidence_digest
from dicom_node.core.study import Instance
from tests.strategies import instances_of, slices_at

INSTANCES = instances_of("1.2", slices_at(*map(float, range(6))))


@given(st.permutations(INSTANCES))
def test_the_order_of_arrival_has_no_part_in_the_evidence(instances: list[Instance]) -> None:
    assert evidence_digest(instances) == evidence_digest(INSTANCES)


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_other_instances_are_other_evidence(first: set[int], second: set[int]) -> None:
    digests = [evidence_digest(INSTANCES[number] for number in numbers) for numbers in (first, second)]
    assert (digests[0] == digests[1]) == (first == second)


def test_the_same_uid_with_other_bytes_is_other_evidence() -> None:
    altered = [replace(INSTANCES[0], sha256="f" * 64), *INSTANCES[1:]]
    assert evidence_digest(altered) != evidence_digest(INSTANCES)


def test_when_and_whence_an_instance_came_is_no_part_of_the_evidence() -> None:
    moved = [replace(i, received_at=7.0, calling_ae_title="OTHER", path="elsewhere.dcm") for i in INSTANCES]
    assert evidence_digest(moved) == evidence_digest(INSTANCES)
