"""Vessel trees: connected, tapering, and where they may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.lung_trees import PIECES, Points, Segments, Tree, grow, joined, pruned, radii_of, relaxed, tubes_of

ROOT = np.zeros((1, 3))


def free(_: Points, ends: Points) -> Points:
    """No way costs more than its length."""
    return np.zeros(len(ends))


def grown(seed: int, count: int) -> Tree:
    """A tree to random places."""
    return grow(ROOT, np.random.default_rng(seed).uniform(-50, 50, size=(count, 3)), free)


trees = st.builds(grown, seed=st.integers(0, 1000), count=st.integers(1, 40))


@given(trees)
def test_a_parent_comes_before_its_children(tree: Tree) -> None:
    assert tree.parents[0] == -1
    assert (tree.parents[1:] >= 0).all()
    assert (tree.parents[1:] < np.arange(1, len(tree.points))).all()


@given(seed=st.integers(0, 1000), count=st.integers(1, 40))
def test_a_tree_reaches_every_target(seed: int, count: int) -> None:
    targets = np.random.default_rng(seed).uniform(-50, 50, size=(count, 3))
    tree = grow(ROOT, targets, free)
    assert sorted(map(tuple, tree.points[1:])) == sorted(map(tuple, targets))


@given(trees)
def test_no_vessel_is_wider_than_the_one_that_feeds_it(tree: Tree) -> None:
    radii = radii_of(tree.leaves_beyond(), 0.5)
    assert (radii[1:] <= radii[tree.parents[1:]]).all()
    assert radii.min() == pytest.approx(0.5)


@given(trees)
def test_tubes_run_on_without_a_gap_and_begin_and_end_where_the_tree_branches(tree: Tree) -> None:
    tubes = tubes_of(relaxed(tree), 0.5)
    starts, ends = (ends.reshape(-1, PIECES, 3) for ends in (tubes.starts, tubes.ends))
    assert np.allclose(starts[:, 1:], ends[:, :-1])
    points = relaxed(tree).points
    assert np.allclose(starts[:, 0], points[tree.parents[1:]])
    assert np.allclose(ends[:, -1], points[1:])
    assert np.allclose(tubes.start_radii.reshape(-1, PIECES)[:, 1:], tubes.end_radii.reshape(-1, PIECES)[:, :-1])


@given(trees)
def test_relaxing_leaves_root_and_ends_where_they_are(tree: Tree) -> None:
    fixed = np.setdiff1d(np.arange(len(tree.points)), tree.parents)
    moved = relaxed(tree)
    assert np.array_equal(moved.points[fixed], tree.points[fixed])
    assert np.array_equal(moved.points[0], tree.points[0])


@given(trees)
def test_pruning_takes_a_forbidden_branch_with_all_that_hangs_on_it(tree: Tree) -> None:
    kept = pruned(tree, lambda points: points[:, 0] > 10)
    assert (kept.points[1:, 0] <= 10).all()
    known = set(map(tuple, tree.points))
    assert all(tuple(point) in known for point in kept.points)
    assert (kept.parents[1:] < np.arange(1, len(kept.points))).all()


def test_a_toll_sends_a_branch_another_way() -> None:
    targets = np.array([[10.0, 0, 0], [20.0, 0, 0]])

    def barred(start: Points, ends: Points) -> Points:
        return np.where((start[0] == 10) & (ends[:, 0] == 20), 1000.0, 0.0)

    assert grow(ROOT, targets, free).parents.tolist() == [-1, 0, 1]
    assert grow(ROOT, targets, barred).parents.tolist() == [-1, 0, 0]


def test_joined_trees_hold_all_their_pieces() -> None:
    first, second = (tubes_of(grown(seed, 5), 0.5) for seed in (1, 2))
    both: Segments = joined([first, second])
    assert len(both) == len(first) + len(second)
    assert np.array_equal(both.starts[: len(first)], first.starts)
