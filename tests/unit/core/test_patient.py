"""Whether two headers are of one patient: whatever contradicts, parts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.patient import Patient

TESS = Patient(patient_id="T1", issuer="HOSPITAL", birth_date="19610412", sex="F")

patients = st.builds(
    Patient,
    patient_id=st.sampled_from(["", "T1", "T2"]),
    issuer=st.sampled_from(["", "HOSPITAL", "ELSEWHERE"]),
    birth_date=st.sampled_from(["", "19610412", "19610413"]),
    sex=st.sampled_from(["", "F", "M", "O"]),
)


def changed(**changes: str) -> Patient:
    return Patient(**{**vars(TESS), **changes})


def test_the_same_identification_is_the_same_patient() -> None:
    assert TESS.is_same(changed())


@pytest.mark.parametrize(
    "other",
    [
        changed(patient_id="T2"),
        changed(issuer="ELSEWHERE"),
        changed(birth_date="19610413"),
        changed(sex="M"),
        changed(issuer="", birth_date=""),
    ],
)
def test_whatever_contradicts_parts_two_patients(other: Patient) -> None:
    assert not TESS.is_same(other)


@pytest.mark.parametrize("other", [changed(birth_date=""), changed(sex=""), changed(sex="O"), changed(issuer="")])
def test_what_is_merely_not_told_does_not(other: Patient) -> None:
    assert TESS.is_same(other)


@pytest.mark.parametrize("patient_id", ["UNKNOWN", "0", "ANON"])
def test_an_id_alone_is_nobodys(patient_id: str) -> None:
    assert not Patient(patient_id=patient_id).is_same(Patient(patient_id=patient_id))
    told = Patient(patient_id=patient_id, birth_date="19610412", sex="M")
    assert not told.is_same(Patient(patient_id=patient_id))
    assert told.is_same(told)


def test_nobody_without_an_id_is_anybody() -> None:
    assert not changed(patient_id="").is_same(changed(patient_id=""))


@given(patients, patients)
def test_it_is_the_same_from_either_side(one: Patient, other: Patient) -> None:
    assert one.is_same(other) == other.is_same(one)


@given(patients, patients)
def test_nobody_is_the_same_where_two_birth_dates_differ(one: Patient, other: Patient) -> None:
    if one.is_same(other) and one.birth_date and other.birth_date:
        assert one.birth_date == other.birth_date
