"""Whether two headers are of one patient: whatever contradicts, parts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.patient import Patient

TESS = Patient(patient_id="T1", issuer="HOSPITAL", birth_date="19610412", sex="F", name="Test^Tess")

patients = st.builds(
    Patient,
    patient_id=st.sampled_from(["", "T1", "T2"]),
    issuer=st.sampled_from(["", "HOSPITAL", "ELSEWHERE"]),
    birth_date=st.sampled_from(["", "19610412", "19610413"]),
    sex=st.sampled_from(["", "F", "M", "O"]),
    name=st.sampled_from(["", "Test^Tess", "Marie^Tess", "Else^Ella"]),
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


@pytest.mark.parametrize("birth_date", ["19000101", "18000101", "00010101", "99991231", "99999999", "0", "1961.04.12"])
def test_a_birth_date_that_stands_for_an_unknown_one_tells_of_nobody(birth_date: str) -> None:
    """Emergencies and anonymised studies have one for all."""
    one = Patient(patient_id="ANON", birth_date=birth_date, sex="M", name="ANON")
    assert not one.is_same(one)
    issued = changed(birth_date=birth_date)
    assert issued.is_same(issued)
    assert not issued.is_same(TESS), "which of both is wrong, nobody knows"


def test_two_hospitals_give_one_id_to_two_people_born_on_one_day() -> None:
    tess = Patient(patient_id="1234", birth_date="19610412", sex="F", name="Test^Tess")
    assert tess.is_same(tess)
    assert not tess.is_same(Patient(**{**vars(tess), "name": "Else^Ella"}))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Smith^John^^Dr", "Miller^Peter^^Dr"),
        ("Smith^John^^^Jr", "Miller^Peter^^^Jr"),
        ("Smith^John^M", "Miller^Peter^M"),
        ("Smith^J^M", "Miller^J"),
        ("S^J", "M^P"),
        ("S^J", "M^J"),
        ("Иванов^И", "Петров^И"),
    ],
)
def test_a_title_a_suffix_or_an_initial_is_no_name(name: str, other: str) -> None:
    one = changed(issuer="", name=name)
    assert one.is_same(one)
    assert not one.is_same(changed(issuer="", name="^^^Dr"))
    assert not one.is_same(changed(issuer="", name=other))


@pytest.mark.parametrize("name", ["", "Marie^Tess", "TEST^TESS=Ideographic", "Tést", "Tess Test"])
def test_who_marries_or_is_written_otherwise_stays_who_she_is(name: str) -> None:
    assert changed(issuer="").is_same(changed(issuer="", name=name))


def test_an_issuer_knows_its_patients_also_by_another_name() -> None:
    assert TESS.is_same(changed(name="Else^Ella"))


def test_nobody_without_an_id_is_anybody() -> None:
    assert not changed(patient_id="").is_same(changed(patient_id=""))


@given(patients, patients)
def test_it_is_the_same_from_either_side(one: Patient, other: Patient) -> None:
    assert one.is_same(other) == other.is_same(one)


@given(patients, patients)
def test_nobody_is_the_same_where_two_birth_dates_differ(one: Patient, other: Patient) -> None:
    if one.is_same(other) and one.birth_date and other.birth_date:
        assert one.birth_date == other.birth_date
