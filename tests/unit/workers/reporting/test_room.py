"""Texts stand near what they name, and hide nothing where there is room beside it."""

from hypothesis import given
from hypothesis import strategies as st

from workers.reporting.room import Box, area, beside, nearest, overlap, square, wider

WHOLE: Box = (0.0, 0.0, 512.0, 512.0)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes within the whole."""
    left, top = draw(st.floats(0, 470)), draw(st.floats(0, 470))
    return left, top, left + draw(st.floats(1, 40)), top + draw(st.floats(1, 40))


@given(own=boxes())
def test_a_text_beside_one_mark_hides_it_not_and_stays_inside(own: Box) -> None:
    found = beside(own, (120.0, 16.0), marks=[own], texts=[], whole=WHOLE)

    assert overlap(found, own) == 0
    assert overlap(found, WHOLE) == area(found)


@given(marks=st.lists(boxes(), min_size=1, max_size=6))
def test_few_texts_do_not_cover_each_other(marks: list[Box]) -> None:
    """Law: up to six texts find room, however the marks lie."""
    texts: list[Box] = []
    for own in marks:
        texts.append(beside(own, (60.0, 12.0), marks=marks, texts=texts, whole=WHOLE))

    for place, text in enumerate(texts):
        assert sum(overlap(text, other) for other in texts[:place]) < 0.2 * area(text)


@given(one=boxes(), other=boxes())
def test_overlap_is_shared_and_no_more_than_either(one: Box, other: Box) -> None:
    assert overlap(one, other) == overlap(other, one) <= min(area(one), area(other)) + 1e-6
    assert overlap(one, wider(one, 2.0)) <= area(one) + 1e-6


@given(own=boxes(), side=st.floats(50, 512))
def test_a_square_lies_in_the_image_and_shows_the_middle_of_its_box(own: Box, side: float) -> None:
    left, top, right, bottom = square(own, side, (512, 512))

    assert -1e-6 <= left <= right <= 512 + 1e-6
    assert -1e-6 <= top <= bottom <= 512 + 1e-6
    assert left - 1e-6 <= (own[0] + own[2]) / 2 <= right + 1e-6


@given(box=boxes(), other=boxes())
def test_the_nearest_point_is_on_the_box(box: Box, other: Box) -> None:
    column, row = nearest(box, other)

    assert box[0] <= column <= box[2]
    assert box[1] <= row <= box[3]
