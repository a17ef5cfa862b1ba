"""Searches of the index: what is prepared for them is bounded by number and by length."""

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.search import _Questions

#: What a statement would be.
Made = list[tuple[int, int]]


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 2100)), max_size=300))
def test_what_is_prepared_is_bounded_and_each_search_gets_its_own(asked: list[tuple[int, int]]) -> None:
    """Measured: a statement holds some 40 kB, and 0.7 kB more a value; a hundred of the longest would hold 137 MB."""
    questions = _Questions()
    made: Made = []
    for key in asked:

        def make(key: tuple[int, int] = key) -> tuple[int, int]:
            made.append(key)
            return key

        assert questions.get(key, key[1], make) == key  # type: ignore[arg-type, comparison-overlap]  # a statement's twin
        kept = [values for _, values in questions._made.values()]
        assert len(kept) <= 100
        assert sum(kept) == questions._values <= 8000


def test_what_was_asked_last_is_not_prepared_again() -> None:
    questions, made = _Questions(), Made()
    for key in [(number, 10) for number in range(90)] * 3:
        questions.get(key, key[1], lambda key=key: made.append(key))  # type: ignore[arg-type, misc]  # a statement's twin
    assert len(made) == 90
    # A very long one pushes others out, and is gone itself when one more comes.
    for key in ((1000, 7990), (1001, 7990)):
        questions.get(key, key[1], lambda key=key: made.append(key))  # type: ignore[arg-type, misc]  # a statement's twin
    assert list(questions._made) == [(1001, 7990)]
