"""Morphology: the quick ways give exactly what the slow ones of SciPy give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import ndimage

from workers.morphology import box_around, filled, grown, within

Mask = NDArray[np.bool_]

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9))


@given(mask=masks, distance=st.one_of(st.floats(0.0, 8.0), st.sampled_from([1.0, math.sqrt(2.0), math.sqrt(3.0), 5.0])))
def test_what_lies_within_a_distance_is_what_a_distance_transform_says(mask: Mask, distance: float) -> None:
    result = within(mask, distance)
    if not mask.any():
        assert not result.any()
    else:
        squared = ndimage.distance_transform_edt(~mask) ** 2
        assert (result == (np.rint(squared) <= math.floor(distance * distance + 1e-9))).all()


@settings(max_examples=20)
@given(
    mask=arrays(np.bool_, (40, 3, 3), elements=st.sampled_from([False] * 50 + [True])), distance=st.floats(12.0, 30.0)
)
def test_long_distances_do_not_run_over(mask: Mask, distance: float) -> None:
    if mask.any():
        expected = ndimage.distance_transform_edt(~mask) <= distance
        assert (within(mask, distance) == expected).all()


@given(mask=masks)
def test_filling_is_scipys(mask: Mask) -> None:
    assert (filled(mask) == ndimage.binary_fill_holes(mask)).all()


@given(mask=masks, data=st.data())
def test_growing_is_a_propagation_within_the_mask(mask: Mask, data: st.DataObject) -> None:
    seed = mask & data.draw(arrays(np.bool_, mask.shape))
    assert (grown(seed, mask) == ndimage.binary_propagation(seed, mask=mask)).all()


@given(mask=masks, margin=st.integers(0, 3))
def test_a_box_holds_its_mask_and_the_margin_and_no_more(mask: Mask, margin: int) -> None:
    box = box_around(mask, margin)
    if box is None:
        assert not mask.any()
        return
    outside = mask.copy()
    outside[box] = False
    assert not outside.any()
    for axis, where in enumerate(box):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        assert where == slice(max(0, there[0] - margin), min(mask.shape[axis], there[-1] + 1 + margin))


def test_the_arguments_are_left_as_they_are() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[2, 2] = True
    for change in (lambda: within(mask, 1.0), lambda: filled(mask), lambda: grown(mask, mask)):
        change()
        assert mask.sum() == 1
    assert within(mask, 1.0).sum() == pytest.approx(5)
