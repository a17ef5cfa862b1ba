"""Nothing leaves whose outlines, axes or numbers are not those of its segment; and what is, is never held."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from scipy import ndimage
from skimage.measure import points_in_poly

from dicom_node.core import codes
from dicom_node.core.finding import Border, Finding
from dicom_node.core.form import Form
from tests.factories import OBLIQUE, ct_series
from tests.unit.workers.reporting.conftest import CENTRES, Reading, evidence_of, reading_of
from tests.unit.workers.reporting.test_structured_report import child, groups_of, name_of, walk
from workers.measurement import measure
from workers.reporting.encoding import as_file
from workers.reporting.extent import surrounded
from workers.reporting.forms import Part
from workers.reporting.gate import find_faults
from workers.reporting.report import Report, build_report
from workers.reporting.segments import segments_of
from workers.volume import Region, Volume, load_volume

FORMS = {Form.SEG, Form.SR, Form.SR_OHIF, Form.SR_IMAGES, Form.SR_OHIF_IMAGES, Form.LABEL_MAP, Form.PRESENTATION_STATE}


#: A shape by a number: one that is told voxel by voxel is too long to be shown.
numbers = st.integers(0, 10**6)

#: Shapes that are made up beside those of every kind; `make test SHAPES=100` takes a longer look.
SHAPES = int(os.environ.get("SHAPES", "5"))
#: The numbers of shapes that are odd in a way of their own.
KINDS = {
    "a single voxel": 11,
    "two lines on one slice": 160,
    "a ring": 24,
    "one part, with holes, that hangs together by corners": 17,
    "48 parts": 197,
    "22 parts on one slice": 398,
    "a tenth of the volume, with crumbs": 208,
}


@pytest.fixture(scope="module")
def written(reading: Reading) -> dict[Part, bytes]:
    """Every form that draws or measures, as files."""
    report = build_report(reading.evidence, reading.findings, reading.labels, forms=FORMS)
    return {part: as_file(dataset) for part, dataset in report.objects.items()}


def judged(files: dict[Part, bytes], reading: Reading) -> dict[Form, str]:
    """What the rule finds, by form."""
    segmentation = dcmread(BytesIO(files[Part(Form.SEG)]))
    report = dcmread(BytesIO(files[Part(Form.SR)]))
    whole = Report(structured_report=report, segmentation=segmentation)
    found = find_faults(whole, files, reading.evidence)
    return {part.form: "; ".join(fault for rule, fault in faults if rule == "extent") for part, faults in found.items()}


def broken(files: dict[Part, bytes], form: Form, break_it: Callable[[Dataset], None], reading: Reading) -> str:
    """What the rule says of an object that was changed."""
    dataset = dcmread(BytesIO(files[Part(form)]))
    break_it(dataset)
    judges_need = {Part(always): files[Part(always)] for always in (Form.SEG, Form.SR)}
    return judged({**judges_need, Part(form): as_file(dataset)}, reading)[form]


def set_number(code: codes.Code, factor: float, derivation: codes.Code | None = None) -> Callable[[Dataset], None]:
    """Multiplies a number of the first finding that has it."""

    def change(dataset: Dataset) -> None:
        groups = [item for item in walk(dataset) if name_of(item) == "125007"]
        group = next(g for g in groups if any(name_of(i) == code.value for i in g.ContentSequence))
        value = child(group, code.value, derivation).MeasuredValueSequence[0]
        value.NumericValue = f"{float(value.NumericValue) * factor:.1f}"

    return change


def lines(dataset: Dataset) -> list[Dataset]:
    return [item for item in walk(dataset) if "GraphicData" in item]


def move(pixels: float) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        line = lines(dataset)[0]
        line.GraphicData = [float(value) + pixels for value in line.GraphicData]

    return change


def scale(factor: float) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        line = lines(dataset)[0]
        points = np.reshape([float(value) for value in line.GraphicData], (-1, 2))
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        line.GraphicData = ((points - middle) * factor + middle).ravel().tolist()

    return change


def draw_on_anothers_slice(dataset: Dataset) -> None:
    first, *others = lines(dataset)
    own = first.ContentSequence[0].ReferencedSOPSequence[0]
    places = [line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for line in others]
    own.ReferencedSOPInstanceUID = next(uid for uid in reversed(places) if uid != own.ReferencedSOPInstanceUID)


def forget_a_slice(dataset: Dataset) -> None:
    group = next(g for g in groups_of(dataset, "1411"))
    drawn = [item for item in group.ContentSequence if "GraphicData" in item]
    group.ContentSequence.remove(drawn[-1])


def swap_the_outlines(dataset: Dataset) -> None:
    first, second = lines(dataset)[:2]
    first.GraphicData, second.GraphicData = second.GraphicData, first.GraphicData


def not_a_number(dataset: Dataset) -> None:
    child(groups_of(dataset, "1411")[0], codes.LONG_AXIS.value).MeasuredValueSequence[0].NumericValue = "1e9"


def move_the_state(dataset: Dataset) -> None:
    graphic = next(g for a in dataset.GraphicAnnotationSequence for g in a.get("GraphicObjectSequence", []))
    graphic.GraphicData = [float(value) + 5 for value in graphic.GraphicData]


def erase_a_voxel(dataset: Dataset) -> None:
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8).copy()
    stored[np.flatnonzero(stored)[0]] = 0
    dataset.PixelData = stored.tobytes()


def swap_the_segments(dataset: Dataset) -> None:
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    dataset.PixelData = np.choose(stored, (0, 2, 1, *range(3, 8))).astype(np.uint8).tobytes()


FAULTS: list[tuple[Form, Callable[[Dataset], None], str]] = [
    (Form.SR, set_number(codes.LONG_AXIS, 1.5), "a long axis of"),
    (Form.SR, set_number(codes.LONG_AXIS, 0.4), "a long axis of"),
    (Form.SR, not_a_number, "a long axis of"),
    (Form.SR, set_number(codes.SHORT_AXIS, 1.5), "is not the shorter one"),
    (Form.SR, set_number(codes.SHORT_AXIS, 0.2), "do not span"),
    (Form.SR, set_number(codes.DIAMETER, 1.1, codes.MEAN), "is not the mean of"),
    (Form.SR, set_number(codes.MAXIMUM_3D_DIAMETER, 1.9), "a largest diameter of"),
    (Form.SR, set_number(codes.MAXIMUM_3D_DIAMETER, 0.5), "a largest diameter of"),
    (Form.SR, set_number(codes.VOLUME, 1.02), "a volume of"),
    (Form.SR, set_number(codes.VOLUME, 0.98), "a volume of"),
    (Form.SR, set_number(codes.ATTENUATION_COEFFICIENT, 1.2, codes.MEAN), "a mean of attenuation"),
    (Form.SR, set_number(codes.ATTENUATION_COEFFICIENT, 0.9, codes.STANDARD_DEVIATION), "a standard deviation of"),
    (Form.SR, move(4.0), "lies more than 1 pixel(s) beside"),
    (Form.SR, scale(2.0), "lies more than 1 pixel(s) beside"),
    (Form.SR, scale(0.2), "leaves out a part"),
    (Form.SR, draw_on_anothers_slice, "has no voxel"),
    (Form.SR, swap_the_outlines, "has no voxel|beside its segment"),
    (Form.SR_OHIF, move(5.0), "an axis lies more than 2 pixel(s) beside"),
    (Form.SR_OHIF, scale(3.0), "an axis lies more than 2 pixel(s) beside"),
    (Form.SR_OHIF, draw_on_anothers_slice, "has no voxel"),
    (Form.SR_OHIF, set_number(codes.VOLUME, 1.02), "a volume of"),
    (Form.SR_IMAGES, forget_a_slice, "slices, and its segment lies on"),
    (Form.SR_IMAGES, move(4.0), "lies more than 1 pixel(s) beside"),
    (Form.SR_OHIF_IMAGES, set_number(codes.VOLUME, 0.98), "a volume of"),
    (Form.PRESENTATION_STATE, move_the_state, "an outline lies more than 1 pixel(s) beside"),
    (Form.LABEL_MAP, erase_a_voxel, "are not those of the segmentation"),
    (Form.LABEL_MAP, swap_the_segments, "are not those of the segmentation"),
]


def test_what_is_of_its_segment_is_not_held_in_any_form(reading: Reading, written: dict[Part, bytes]) -> None:
    assert {part.form for part in written} >= FORMS
    assert set(judged(written, reading).values()) == {""}


@pytest.mark.parametrize(("form", "break_it", "words"), FAULTS)
def test_what_is_not_is_held_with_its_reason(
    reading: Reading, written: dict[Part, bytes], form: Form, break_it: Callable[[Dataset], None], words: str
) -> None:
    said = broken(written, form, break_it, reading)
    assert any(one in said for one in words.split("|")), said


def lobe(volume: Volume, number: int, rows: slice) -> tuple[NDArray[np.bool_], Finding]:
    """A part of the lung that lies on every slice, with a hole in it, and a finding of it."""
    mask = np.zeros(volume.voxels.shape, dtype=bool)
    mask[1:-1, rows, 20:130] = True
    mask[:, rows.start + 20 : rows.start + 30, 50:70] = False
    volume.voxels[mask] = -860.0 + number + np.arange(mask.sum()) % 40
    measured = measure(Region(box=tuple(slice(0, n) for n in mask.shape), mask=mask), volume)  # type: ignore[arg-type]  # three axes
    return mask, replace(of_finding(volume, mask, **vars(measured)).findings[0], number=number)


@pytest.fixture(scope="module")
def lobes(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """Two lobes of the same shape on the same slices, of half a million voxels together."""
    folder = tmp_path_factory.mktemp("lobes")
    volume = load_volume(ct_series(folder, voxels=np.full((30, 180, 150), -850), spacing=(1.5, 0.9, 0.8)))
    marked = [lobe(volume, 1, slice(10, 85)), lobe(volume, 2, slice(90, 165))]
    labels = sum((number * mask.astype(np.uint8) for number, (mask, _) in enumerate(marked, start=1)), np.uint8(0))
    return Reading(
        folder=folder, evidence=evidence_of(volume), findings=tuple(found for _, found in marked), labels=labels
    )


@pytest.fixture(scope="module")
def written_lobes(lobes: Reading) -> dict[Part, bytes]:
    report = build_report(lobes.evidence, lobes.findings, lobes.labels, forms=FORMS)
    return {part: as_file(dataset) for part, dataset in report.objects.items()}


def test_large_segments_of_one_shape_are_not_held(lobes: Reading, written_lobes: dict[Part, bytes]) -> None:
    assert set(judged(written_lobes, lobes).values()) == {""}


@pytest.mark.parametrize(
    ("form", "break_it", "words"),
    [
        (Form.SR, move(4.0), "an outline lies more than 1 pixel(s) beside"),
        (Form.SR, swap_the_outlines, "an outline lies more than 1 pixel(s) beside"),
        (Form.SR, scale(0.8), "leaves out a part"),
        (Form.SR, set_number(codes.LONG_AXIS, 1.1), "a long axis of"),
        (Form.SR, set_number(codes.SHORT_AXIS, 0.3), "do not span"),
        (Form.SR, set_number(codes.MAXIMUM_3D_DIAMETER, 1.1), "a largest diameter of"),
        (Form.SR, set_number(codes.VOLUME, 1.001), "a volume of"),
        (Form.SR, set_number(codes.VOLUME, 0.999), "a volume of"),
        (Form.SR, set_number(codes.ATTENUATION_COEFFICIENT, 1.01, codes.MEAN), "a mean of attenuation"),
        (Form.SR, set_number(codes.ATTENUATION_COEFFICIENT, 1.2, codes.STANDARD_DEVIATION), "a standard deviation of"),
        (Form.SR_OHIF, move(5.0), "an axis lies more than 2 pixel(s) beside"),
        (Form.SR_IMAGES, forget_a_slice, "slices, and its segment lies on"),
        (Form.PRESENTATION_STATE, move_the_state, "an outline lies more than 1 pixel(s) beside"),
        (Form.LABEL_MAP, erase_a_voxel, "are not those of the segmentation"),
        (Form.LABEL_MAP, swap_the_segments, "are not those of the segmentation"),
    ],
)
def test_of_large_segments_the_same_is_held(
    lobes: Reading, written_lobes: dict[Part, bytes], form: Form, break_it: Callable[[Dataset], None], words: str
) -> None:
    said = broken(written_lobes, form, break_it, lobes)
    assert words in said, said


@settings(max_examples=60, deadline=None)
@given(number=numbers, corners=st.integers(3, 40))
def test_what_a_line_surrounds_are_the_pixels_whose_centres_lie_in_it(number: int, corners: int) -> None:
    """Law: as a general test of points in polygons says, whichever way the line runs and wherever it crosses itself."""
    line = np.random.default_rng(number).uniform(-4.0, 24.0, (corners, 2))
    inside = surrounded(line, (18, 21))
    np.testing.assert_array_equal(inside, points_in_poly(np.argwhere(np.ones((18, 21))), line).reshape(18, 21))


def test_a_solid_part_larger_than_its_nodule_is_held(reading: Reading) -> None:
    first = replace(reading.findings[0], solid_diameter_mm=30.0)
    report = build_report(reading.evidence, (first, *reading.findings[1:]), reading.labels)
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}
    assert "a solid part of 30 mm does not fit" in judged(files, reading)[Form.SR]


SHAPE = (9, 26, 24)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """An oblique series without anything."""
    folder = tmp_path_factory.mktemp("empty")
    return load_volume(ct_series(folder, voxels=np.full(SHAPE, -850), spacing=(2.0, 0.9, 0.8), directions=OBLIQUE))


def shape_of(number: int) -> NDArray[np.bool_]:
    """Something between a ball and a handful of crumbs: balls run together, lines, plates, holes, noise, many parts."""
    random = np.random.default_rng(number)
    mask = np.zeros(SHAPE, dtype=bool)
    k, j, i = np.indices(SHAPE)
    for _ in range(random.integers(0, 5)):
        ck, cj, ci = (random.uniform(2, size - 3) for size in SHAPE)
        radius = random.uniform(0.5, 4.5)
        mask |= ((k - ck) * 2.0) ** 2 + (j - cj) ** 2 + (i - ci) ** 2 <= radius**2
    for _ in range(random.integers(0, 41) if random.random() < 0.3 else 0):
        start, sides = [random.integers(0, size) for size in SHAPE], random.choice((1, 1, 2, 3, 8), 3)
        mask[tuple(slice(first, first + side) for first, side in zip(start, sides, strict=True))] = True
    if random.random() < 0.5:
        mask[random.integers(0, SHAPE[0]), random.integers(0, SHAPE[1]), 2 : random.integers(4, SHAPE[2])] = True
    if random.random() < 0.5:
        mask &= random.random(SHAPE) > 0.3
    if random.random() < 0.5:
        mask ^= ndimage.binary_erosion(mask, iterations=2)
    mask[4, 12, 12] = True
    return mask


def every_kind(test: Callable[..., None]) -> Callable[..., None]:
    """Asks for a shape of each kind, one by its mask and the next by attenuation."""
    for place, number in enumerate(KINDS.values()):
        test = example(number=number, by_attenuation=bool(place % 2))(test)
    return test


@settings(max_examples=SHAPES, deadline=None)
@given(number=numbers, by_attenuation=st.booleans())
@every_kind
def test_no_measured_shape_is_held_however_odd(empty: Volume, number: int, by_attenuation: bool) -> None:
    mask = shape_of(number)
    hu = np.where(mask, 30.0, -850.0).astype(np.float32) + np.random.default_rng(2).normal(0, 20, SHAPE)
    volume = replace(empty, voxels=hu.astype(np.float32))
    measured = measure(Region(box=tuple(slice(0, n) for n in SHAPE), mask=mask), volume, by_attenuation=by_attenuation)  # type: ignore[arg-type]  # three axes
    reading = of_finding(volume, mask, **vars(measured))
    report = build_report(reading.evidence, reading.findings, reading.labels, forms=FORMS)
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}

    assert set(judged(files, reading).values()) == {""}


def of_finding(volume: Volume, mask: NDArray[np.bool_], **measured: Any) -> Reading:
    finding = Finding(
        number=1,
        concept=codes.NODULE,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=codes.LUNG,
        laterality=None,
        score=0.9,
        **measured,
    )
    labels = mask.astype(np.uint8)
    return Reading(folder=Path(), evidence=evidence_of(volume), findings=(finding,), labels=labels)


@settings(max_examples=2 * SHAPES, deadline=None)
@given(number=numbers)
def test_a_segments_voxels_are_read_back_as_they_were_marked(empty: Volume, number: int) -> None:
    mask = shape_of(number)
    measured = measure(Region(box=tuple(slice(0, n) for n in SHAPE), mask=mask), empty)  # type: ignore[arg-type]  # three axes
    reading = of_finding(empty, mask, **vars(measured))
    report = build_report(reading.evidence, reading.findings, reading.labels, forms={Form.SEG, Form.LABEL_MAP})
    for form in (Form.SEG, Form.LABEL_MAP):
        read_back = dcmread(BytesIO(as_file(report.objects[Part(form)])))
        (segment,) = segments_of(read_back, empty).values()
        again = np.zeros(SHAPE, dtype=bool)
        for k, plane in segment.planes.items():
            rows, columns = plane.mask.shape
            again[k, plane.top : plane.top + rows, plane.left : plane.left + columns] = plane.mask
        np.testing.assert_array_equal(again, mask)
        voxels = np.argwhere(mask) * empty.spacing_mm
        farthest = max(float(np.linalg.norm(voxels - voxel, axis=1).max()) for voxel in voxels)
        assert farthest <= segment.largest_extent_mm <= 1.03 * (farthest + math.hypot(*empty.spacing_mm))


def test_a_volume_by_attenuation_may_differ_from_its_mask_by_half_of_its_border(reading: Reading) -> None:
    first = replace(reading.findings[0], border=Border.ATTENUATION)
    for factor, is_held in ((1.08, False), (0.92, False), (1.8, True), (0.3, True)):
        changed = replace(first, volume_mm3=first.volume_mm3 * factor)
        report = build_report(reading.evidence, (changed, *reading.findings[1:]), reading.labels)
        files = {part: as_file(dataset) for part, dataset in report.objects.items()}
        assert ("a volume of" in judged(files, reading)[Form.SR]) is is_held, factor


def test_the_segment_of_one_finding_is_judged_too(tmp_path: Path) -> None:
    """What is the same of all frames stands once for them, as the number of the only segment."""
    reading = reading_of(tmp_path, CENTRES[:1])
    report = build_report(reading.evidence, reading.findings, reading.labels)
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}
    assert set(judged(files, reading).values()) == {""}
    assert "a long axis of" in broken(files, Form.SR, set_number(codes.LONG_AXIS, 1.5), reading)


def test_a_segmentation_whose_voxels_cannot_be_read_is_held(reading: Reading, written: dict[Part, bytes]) -> None:
    def forget_the_numbers(dataset: Dataset) -> None:
        for groups in (*dataset.PerFrameFunctionalGroupsSequence, *dataset.SharedFunctionalGroupsSequence):
            groups.pop("SegmentIdentificationSequence", None)

    dataset = dcmread(BytesIO(written[Part(Form.SEG)]))
    forget_the_numbers(dataset)
    said = judged({**written, Part(Form.SEG): as_file(dataset)}, reading)
    assert said[Form.SR] == said[Form.PRESENTATION_STATE] == "the voxels of its segmentation cannot be read"


def test_a_report_without_findings_has_no_extent(tmp_path_factory: pytest.TempPathFactory) -> None:
    reading = reading_of(tmp_path_factory.mktemp("none"), ())
    report = build_report(reading.evidence, (), reading.labels)
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}
    assert all(not faults for faults in find_faults(report, files, reading.evidence).values())
