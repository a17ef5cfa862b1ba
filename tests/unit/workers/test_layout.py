"""What a scan leaves for later ones: how its lungs lie, what it covered, and nothing that cannot be read again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.core.change import NOT_KNOWN
from tests.factories import ct_series
from tests.follow_ups import FIRST, SPACING, Drawn, chest
from workers.correspondence import BOTH, LEFT, RIGHT, Place
from workers.layout import Layout, Named, layout_of
from workers.volume import Volume, load_volume

PLACE = Place(centre=(1.0, 2.0, 3.5), side=RIGHT, diameter_mm=8.1)


def read(folder: Path, hu: NDArray[Any], **attributes: Any) -> Volume:
    return load_volume(ct_series(folder, voxels=hu, spacing=SPACING, **attributes))


def told(volume: Volume) -> Layout:
    layout = layout_of(volume, Drawn().prepare(volume).where)
    assert layout is not None
    return layout


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """A chest with two lungs."""
    return read(tmp_path_factory.mktemp("chest"), chest((FIRST,)))


@pytest.fixture(scope="module")
def layout(volume: Volume) -> Layout:
    """What it leaves."""
    return told(volume)


def test_each_lung_is_told_where_it_lies(volume: Volume, layout: Layout) -> None:
    assert layout.lungs.keys() == {RIGHT, LEFT, BOTH}
    middle = volume.to_patient(*((n - 1) / 2 for n in volume.voxels.shape[::-1]))
    assert layout.lungs[LEFT].centre == pytest.approx(np.add(middle, (42, 0, 0)), abs=2.0)
    assert layout.lungs[RIGHT].centre == pytest.approx(np.add(middle, (-42, 0, 0)), abs=2.0)
    # Of an evenly filled ellipsoid the spread along an axis goes with its half axis.
    assert layout.lungs[LEFT].spread / (28, 44, 50) == pytest.approx(np.full(3, 0.43), abs=0.04)


def test_what_is_kept_can_be_read_again(layout: Layout) -> None:
    kept = replace(layout, findings={"2.25.1": Named(name="Nodule 7", place=PLACE)}, highest=7)
    again = Layout.from_json(json.loads(json.dumps(kept.as_json())))
    assert again is not None
    assert again.findings == kept.findings
    assert (again.highest, again.kernel, again.is_cut) == (7, kept.kernel, kept.is_cut)
    for name, shape in kept.lungs.items():
        assert again.lungs[name].quantiles == pytest.approx(shape.quantiles, abs=0.5)
    assert again.lungs[LEFT].is_like(kept.lungs[LEFT])


@pytest.mark.parametrize("lost", ["form", "lungs", "box", "slices", "findings", "highest"])
def test_what_lacks_something_is_left_alone(layout: Layout, lost: str) -> None:
    kept = layout.as_json()
    del kept[lost]
    assert Layout.from_json(kept) is None


def test_another_form_is_left_alone(layout: Layout) -> None:
    assert Layout.from_json({**layout.as_json(), "form": 99}) is None
    assert Layout.from_json({}) is None


def test_what_lies_at_the_border_of_a_scan_was_not_seen_well(volume: Volume, layout: Layout) -> None:
    assert layout.covers(volume.to_patient(40, 28, 25))
    assert not layout.covers(volume.to_patient(40, 28, 0))
    assert not layout.covers(volume.to_patient(40, 28, -5))


def test_lungs_that_go_on_beyond_the_scan_are_cut(tmp_path: Path, layout: Layout) -> None:
    assert not layout.is_cut
    assert told(read(tmp_path, chest((FIRST,))[25:])).is_cut


@pytest.mark.parametrize("seen", [np.s_[:, :, 12:], np.s_[:, :, :-12], np.s_[:, 18:], np.s_[:, :-18]])
def test_lungs_that_a_small_field_of_view_cuts_at_a_side_are_cut(tmp_path: Path, seen: Any) -> None:
    assert told(read(tmp_path, chest((FIRST,))[seen])).is_cut


def test_a_kernel_is_told_by_its_kind_or_by_its_name(tmp_path: Path, layout: Layout) -> None:
    assert layout.kernel == "soft"
    assert told(read(tmp_path / "odd", chest(())[::2], ConvolutionKernel="ODD")).kernel == "ODD"


def test_contrast_agent_is_told_and_what_was_left_before_that_tells_nothing_of_it(
    tmp_path: Path, layout: Layout
) -> None:
    enhanced = told(read(tmp_path, chest((FIRST,)), ContrastBolusAgent="IOHEXOL"))
    assert (layout.contrast, enhanced.contrast) == ("", "with")
    kept = enhanced.as_json()
    again = Layout.from_json(kept)
    assert again is not None
    assert again.contrast == "with"
    del kept["contrast"]
    older = Layout.from_json(kept)
    assert older is not None
    assert older.contrast == NOT_KNOWN


def test_without_lungs_there_is_nothing_to_leave(volume: Volume) -> None:
    assert layout_of(volume, None) is None
    assert layout_of(volume, np.zeros((4, 4, 4), dtype=bool)) is None
    speck = np.zeros((4, 4, 4), dtype=bool)
    speck[1, 1, 1] = True
    assert layout_of(volume, speck) is None
