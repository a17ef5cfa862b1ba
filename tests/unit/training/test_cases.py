"""Data sets of every layout: the same nodule is found at the same patient millimetres."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from tests import data_sets
from tests.data_sets import Known, known
from training.cases.case import Case, DatasetInvalid, oriented, patient_hash
from training.cases.layouts import LAYOUTS, layout_of, read_cases
from training.cases.lidc import Mark, _annotated
from workers.volume import Volume

#: Columns are the directions of i, j and k.
STRAIGHT = np.eye(3)
OBLIQUE = Rotation.from_euler("zyx", [14, -9, 6], degrees=True).as_matrix()
PRONE = np.diag([-1.0, -1.0, 1.0])
TURNED = {"straight": STRAIGHT, "oblique": OBLIQUE, "prone": PRONE, "oblique and prone": OBLIQUE @ PRONE}
#: What only a file of its own can hold: left-handed axes, and sagittal slices.
FLIPPED = {"upside down": np.diag([1.0, 1.0, -1.0]), "mirrored": OBLIQUE @ np.diag([-1.0, 1.0, 1.0])}
SAGITTAL = {"sagittal": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])}
ANY = {**TURNED, **FLIPPED, **SAGITTAL}

WRITERS: dict[str, tuple[str, Callable[[Known, Path], None], dict[str, np.ndarray]]] = {
    "LUNA16": ("luna16", data_sets.luna16, ANY),
    "MSD": ("msd", data_sets.decathlon, ANY),
    "datalist of masks": ("datalist", data_sets.datalist_of_masks, ANY),
    "datalist of boxes": ("datalist", data_sets.datalist_of_boxes, ANY),
    "LIDC-IDRI": ("lidc-idri", data_sets.lidc, {**TURNED, **SAGITTAL}),
    "DICOM SEG": ("dicom-seg", data_sets.dicom_seg, {**TURNED, **SAGITTAL}),
}
EACH = [
    pytest.param(layout, write, axes, id=f"{name}, {turn}")
    for name, (layout, write, turns) in WRITERS.items()
    for turn, axes in turns.items()
]


def only(folder: Path, layout: str = "auto") -> Case:
    (case,) = read_cases(folder, layout)
    return case


@pytest.mark.parametrize(("layout", "write", "axes"), EACH)
def test_the_nodule_is_found_at_the_same_patient_millimetres(
    layout: str, write: Callable[[Known, Path], None], axes: np.ndarray, tmp_path: Path
) -> None:
    chest = known(axes)
    write(chest, tmp_path / "set")
    assert layout_of(tmp_path / "set") == layout
    case = only(tmp_path / "set")
    (finding,) = case.findings
    np.testing.assert_allclose(finding.centre_mm, chest.centre_mm, atol=0.5)
    assert finding.diameter_mm == pytest.approx(chest.diameter_mm, abs=0.8)
    i, j, k = (round(index) for index in case.to_voxel(finding.centre_mm))
    assert case.voxels[k, j, i] == data_sets.NODULE_HU
    if finding.region is not None:
        values = case.voxels[finding.region.box][finding.region.mask]
        assert (values == data_sets.NODULE_HU).mean() > 0.95
        assert len(values) == pytest.approx(chest.mask.sum(), rel=0.1)


@pytest.mark.parametrize(("layout", "write", "axes"), EACH)
def test_every_voxel_keeps_its_value_at_its_place(
    layout: str, write: Callable[[Known, Path], None], axes: np.ndarray, tmp_path: Path
) -> None:
    chest = known(axes)
    write(chest, tmp_path / "set")
    case = only(tmp_path / "set", layout)
    assert case.voxels.size == chest.voxels.size
    assert (np.diag(case.affine)[:3] > 0).all(), "i to the left, j to the back, k to the head"
    for kji in [(0, 0, 0), (19, 43, 47), (3, 40, 5), (8, 25, 17)]:
        place = (chest.affine @ (*kji[::-1], 1.0))[:3]
        i, j, k = (round(index) for index in case.to_voxel(tuple(place)))
        assert case.voxels[k, j, i] == chest.voxels[kji]
        np.testing.assert_allclose(case.to_patient(i, j, k), place, atol=0.01)


def test_one_patient_has_one_hash_in_every_layout_that_names_it(tmp_path: Path) -> None:
    chest = known(OBLIQUE)
    data_sets.lidc(chest, tmp_path / "lidc")
    data_sets.dicom_seg(chest, tmp_path / "seg")
    assert {only(tmp_path / name).patient for name in ("lidc", "seg")} == {patient_hash("LIDC-IDRI-0001")}
    assert "LIDC" not in only(tmp_path / "lidc").patient


def test_luna16_gives_irrelevant_findings_and_candidates_apart(tmp_path: Path) -> None:
    data_sets.luna16(known(OBLIQUE), tmp_path / "set")
    case = only(tmp_path / "set")
    assert [finding.diameter_mm for finding in case.irrelevant] == [0.0]
    assert [nodule for _, nodule in case.candidates] == [True, False]


def test_a_nodule_of_two_readers_is_irrelevant_and_so_is_a_point(tmp_path: Path) -> None:
    data_sets.lidc(known(STRAIGHT), tmp_path / "set", readers=2)
    case = only(tmp_path / "set")
    assert case.findings == ()
    assert sorted((finding.label, finding.readers) for finding in case.irrelevant) == [("nodule", 2), ("non-nodule", 1)]


def test_the_marks_of_a_scan_are_kept_as_boxes_and_not_as_volumes() -> None:
    """Forty marks of a volume of 2 MB: the whole of each would take 80 MB."""
    shape = (32, 256, 256)
    volume = Volume(
        voxels=np.zeros(shape, dtype=np.float32),
        affine=np.eye(4),
        spacing_mm=(1.0, 1.0, 1.0),
        headers=tuple(header(k) for k in range(shape[0])),
    )
    case = Case(name="many", patient="1", voxels=volume.voxels, affine=volume.affine, findings=())
    marks = []
    for nodule in range(10):
        x, y = 20 + 22 * nodule, 30 + 20 * nodule
        ring = tuple((x + round(6 * np.cos(a)), y + round(6 * np.sin(a))) for a in np.linspace(0, 6.28, 24))
        rings = tuple((str(k), True, ring) for k in range(4, 9))
        marks += [Mark(reader=reader, label="nodule", rings=rings, ratings={}) for reader in range(4)]
    # What libraries load at their first use is not the marks'.
    _annotated(case, volume, marks[:4], Path("reading.xml"))
    tracemalloc.start()
    found = _annotated(case, volume, marks, Path("reading.xml"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(found.findings) == 10
    assert [finding.centre_mm[0] for finding in found.findings] == pytest.approx(
        [20 + 22 * n for n in range(10)], abs=0.1
    )
    assert peak < 4_000_000
    assert all(np.prod(finding.region.mask.shape) < 2000 for finding in found.findings if finding.region)


def header(k: int) -> Dataset:
    """Of the slice k, which is called so."""
    ds = Dataset()
    ds.SOPInstanceUID = str(k)
    return ds


def test_the_readers_ratings_come_as_means(tmp_path: Path) -> None:
    data_sets.lidc(known(STRAIGHT), tmp_path / "set")
    (finding,) = only(tmp_path / "set").findings
    assert (finding.readers, finding.ratings) == (4, {"malignancy": 4.0, "texture": 5.0})


def test_boxes_that_are_ras_are_turned_when_the_list_says_so(tmp_path: Path) -> None:
    chest = known(OBLIQUE)
    data_sets.datalist_of_boxes(chest, tmp_path / "set", space="RAS")
    np.testing.assert_allclose(only(tmp_path / "set").findings[0].centre_mm, chest.centre_mm, atol=1e-3)


def test_boxes_that_are_ras_unsaid_lie_outside_and_are_refused(tmp_path: Path) -> None:
    data_sets.datalist_of_boxes(known(STRAIGHT), tmp_path / "set", space="RAS")
    path = tmp_path / "set" / "list.json"
    path.write_text(path.read_text().replace('"RAS"', '"LPS"'))
    with pytest.raises(DatasetInvalid, match=r"list\.json.*lies outside scan;.*LPS"):
        only(tmp_path / "set")


def test_a_mask_of_another_grid_is_refused_by_name(tmp_path: Path) -> None:
    chest = known(STRAIGHT)
    data_sets.datalist_of_masks(chest, tmp_path / "set")
    moved = chest.affine.copy()
    moved[0, 3] += 1.0
    data_sets._nifti(tmp_path / "set" / "mask.nii.gz", chest.mask.astype(np.uint8), moved)
    with pytest.raises(DatasetInvalid, match=r"mask\.nii\.gz.*resample"):
        only(tmp_path / "set")


def test_sheared_axes_are_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    with pytest.raises(DatasetInvalid, match="right angles"):
        oriented(np.zeros((2, 2, 2)), affine, tmp_path)


def absent(folder: Path) -> None:
    (folder / "subset0" / f"{data_sets.SERIES_UID}.raw").unlink()


def no_number(folder: Path) -> None:
    path = folder / "annotations.csv"
    path.write_text(path.read_text().replace("coordY", "y"))


def another_scan(folder: Path) -> None:
    path = folder / "annotations.csv"
    path.write_text(path.read_text().replace(data_sets.SERIES_UID, "1.2.3"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [(absent, r"\.mhd cannot be read"), (no_number, r"annotations\.csv: no number coordY"), (another_scan, "no scan")],
)
def test_what_is_damaged_is_named_with_its_mend(damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    data_sets.luna16(known(STRAIGHT), tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(DatasetInvalid, match=said):
        only(tmp_path / "set")


def test_a_slice_that_a_reader_outlined_must_be_there(tmp_path: Path) -> None:
    data_sets.lidc(known(STRAIGHT), tmp_path / "set")
    # The point was marked in the first of them.
    sorted((tmp_path / "set").rglob("*.dcm"))[0].unlink()
    with pytest.raises(DatasetInvalid, match=r"069\.xml outlines 1 slices that are not in its folder"):
        only(tmp_path / "set")


def test_a_folder_of_nothing_known_is_told_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"annotations\.csv.*imagesTr.*LidcReadMessage"):
        list(read_cases(tmp_path))
    with pytest.raises(DatasetInvalid, match="no folder"):
        list(read_cases(tmp_path / "nowhere"))
    with pytest.raises(DatasetInvalid, match=r"data\.layout is auto, luna16"):
        list(read_cases(tmp_path, "luna"))


def test_a_modality_other_than_ct_is_refused(tmp_path: Path) -> None:
    data_sets.decathlon(known(STRAIGHT), tmp_path / "set")
    path = tmp_path / "set" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"modality": {"0": "MRI"}}))
    with pytest.raises(DatasetInvalid, match="only CT"):
        only(tmp_path / "set")


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5.0)] * 3),
)
def test_exchanging_axes_moves_no_voxel(
    angles: tuple[float, ...], signs: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() * np.array(signs) * np.array(spacing)
    affine[:3, 3] = (3.0, -4.0, 5.0)
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    turned, to_patient = oriented(voxels, affine, Path("file"))
    for k, j, i in np.ndindex(*turned.shape):
        back = np.linalg.inv(affine) @ to_patient @ (i, j, k, 1.0)
        at = np.round(back[:3]).astype(int)
        np.testing.assert_allclose(back[:3], at, atol=1e-6)
        assert voxels[tuple(at[::-1])] == turned[k, j, i]
    assert (np.diag(to_patient)[:3] >= 0).all()


def test_every_layout_says_by_which_signs_it_is_known() -> None:
    assert all(layout.signs for layout in LAYOUTS.values())
