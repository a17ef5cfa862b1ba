from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.attempts import Attempts


def test_the_wait_doubles_up_to_the_longest_and_ends_with_the_last_attempt() -> None:
    attempts = Attempts(maximum=6, first_wait_seconds=2, maximum_wait_seconds=10)
    assert [attempts.wait_after(number) for number in range(1, 8)] == [2, 4, 8, 10, 10, None, None]


def test_a_single_attempt_has_no_wait_after_it() -> None:
    assert Attempts(maximum=1).wait_after(1) is None


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 86400), st.floats(0, 86400))
def test_no_wait_is_longer_than_the_longest_or_shorter_than_the_one_before(
    attempt: int, maximum: int, first: float, longest: float
) -> None:
    attempts = Attempts(maximum=maximum, first_wait_seconds=min(first, longest), maximum_wait_seconds=longest)
    wait, following = attempts.wait_after(attempt), attempts.wait_after(attempt + 1)
    assert (wait is None) == (attempt >= maximum)
    if wait is not None:
        assert 0 <= wait <= longest
        assert following is None or following >= wait
