import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.uid import derived_uid, is_uid

PARTS = st.lists(st.text(alphabet=st.characters(exclude_characters="\x1f", codec="utf-8")), min_size=1, max_size=4)


@pytest.mark.parametrize("text", ["1", "1.2.840.10008.1.1", "2.25." + "9" * 59, "0.0", "1.02.3"])
def test_digits_and_dots_are_a_uid(text: str) -> None:
    assert is_uid(text)


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.2\n", " 1.2", "1.2a", "../1", "1/2", "1\\2", "١.٢", "2.25." + "9" * 60]
)
def test_what_could_lead_astray_in_a_path_is_none(text: str) -> None:
    assert not is_uid(text)


@given(st.text(alphabet="0123456789./\\.\n\0-x", max_size=70))
def test_a_uid_never_holds_more_than_digits_and_single_dots(text: str) -> None:
    if is_uid(text):
        assert re.fullmatch(r"[0-9.]{1,64}", text)
        assert not text.startswith(".")
        assert not text.endswith(".")
        assert ".." not in text


@given(PARTS)
def test_the_same_parts_always_give_the_same_valid_uid(parts: list[str]) -> None:
    uid = derived_uid(*parts)
    assert uid == derived_uid(*parts)
    assert is_uid(uid)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)


@given(PARTS, PARTS)
def test_other_parts_give_another_uid_also_when_they_join_to_the_same_text(first: list[str], second: list[str]) -> None:
    assert (derived_uid(*first) == derived_uid(*second)) == (first == second)


def test_where_one_part_ends_and_the_next_begins_matters() -> None:
    assert len({derived_uid("ab", "c"), derived_uid("a", "bc"), derived_uid("abc"), derived_uid("abc", "")}) == 4
