"""The geometry of real series: one whole volume, and one from a tilted gantry with uneven slices."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.multival import MultiValue

from dicom_node.core.geometry import plane_of, stack_slices
from dicom_node.core.study import KEPT_KEYWORDS


def headers_of(folder: Path):
    headers = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "LICENSE"):
        ds = dcmread(path, stop_before_pixels=True)
        values = {keyword: ds[keyword].value for keyword in KEPT_KEYWORDS if keyword in ds}
        headers.append({k: tuple(value) if isinstance(value, MultiValue) else value for k, value in values.items()})
    return headers


def test_a_real_chest_ct_is_one_regular_volume(shared):
    headers = headers_of(shared / "data" / "chest-ct-lidc-0063")
    stack = stack_slices(headers)
    assert (len(stack.order), stack.spacing_mm, stack.problem) == (133, 2.5, None)
    assert plane_of(headers[0]) == "axial"
    lost = stack_slices([header for k, header in enumerate(headers) if k != stack.order[60]])
    assert lost.missing is not None
    assert lost.missing.startswith("slices are missing between")


def test_a_real_head_ct_with_tilt_and_uneven_slices_is_refused_for_both(shared):
    stack = stack_slices(headers_of(shared / "data" / "head-ct-ge"))
    assert stack.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert stack.problem is not None
    assert "stacked 18.5 degrees off their normal, as by a tilted gantry" in stack.problem
    assert stack.missing is not None
    assert "the distances between slices vary from" in stack.missing
