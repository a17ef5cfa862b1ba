"""What is written and looked through at the pace of its bytes is what the library would write and read."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

from tests.unit.workers.reporting.conftest import Reading, every_object
from tests.unit.workers.reporting.hard_values import HARD, TEXTS, in_character_set
from workers.reporting.encoding import as_file, elements

#: By keyword: values of every kind that our objects have, and of some that they have not.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "ImageType": st.sampled_from([["DERIVED", "PRIMARY"], "DERIVED", [], None]),
    "PatientName": st.sampled_from(["", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Bench^Evidence"]),
    "StudyDescription": st.sampled_from(["", "odd", "even", "Люкceмбypг", None]),
    "ImageComments": st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=30),
    "SmallestImagePixelValue": st.integers(0, 100),
    "PixelSpacing": st.lists(st.floats(0.1, 9).map(lambda mm: f"{mm:.4f}"), min_size=2, max_size=2),
    "DimensionIndexValues": st.lists(st.integers(0, 2**32 - 1), max_size=4),
    "RecommendedDisplayCIELabValue": st.lists(st.integers(0, 65535), min_size=3, max_size=3),
    "InstanceNumber": st.integers(-5, 5000),
    "FrameOfReferenceUID": st.sampled_from(["2.25.1", "2.25.12", ["2.25.1", "2.25.2"], None]),
    "TextValue": st.sampled_from(["x" * 70000, "x", ""]),
    "StudyDate": st.sampled_from(["20240101", "", None]),
}

FILLED = st.fixed_dictionaries({}, optional=VALUES)


def dataset_of(values: dict[str, Any], items: list[dict[str, Any]]) -> Dataset:
    """An object with these values, and with items that have them, nested one in the other."""
    ds, inner = Dataset(), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SpecificCharacterSet = CTImageStorage, "2.25.7", "ISO_IR 192"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.ContentSequence = []
    for item in items:
        outer = Dataset()
        for keyword, value in item.items():
            setattr(outer, keyword, value)
        outer.ContentSequence = [inner] if inner else []
        ds.ContentSequence.append(outer)
        inner = outer
    return ds


def by_the_library(ds: Dataset) -> bytes:
    with BytesIO() as file:
        dcmwrite(file, ds, enforce_file_format=True)
        return file.getvalue()


@given(FILLED, st.lists(FILLED, max_size=3))
def test_it_writes_what_the_library_writes(values: dict[str, Any], items: list[dict[str, Any]]) -> None:
    ds = dataset_of(values, items)
    assert as_file(ds) == by_the_library(ds)


def as_object(ds: Dataset, **attributes: Any) -> Dataset:
    """A data set with what makes it an object."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "2.25.7"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def outcome_of(write: Callable[[Dataset], bytes], ds: Dataset) -> bytes | str:
    """What was written, or that it cannot be."""
    try:
        return write(ds)
    except ValueError:
        return "it cannot be written"


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom sees that many of these values are faulty as well
@pytest.mark.parametrize("name", HARD)
def test_what_is_hard_to_write_it_writes_as_the_library_does(name: str) -> None:
    ours = outcome_of(as_file, as_object(HARD[name](), SpecificCharacterSet="ISO_IR 192"))
    assert ours == outcome_of(by_the_library, as_object(HARD[name](), SpecificCharacterSet="ISO_IR 192"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # a text that an item's character set has no letters for
@pytest.mark.parametrize(("character_set", "text"), TEXTS)
def test_in_every_character_set_it_writes_what_the_library_writes(
    character_set: str | list[str] | None, text: str
) -> None:
    ours, theirs = (as_object(in_character_set(character_set, text)) for _ in range(2))
    assert outcome_of(as_file, ours) == outcome_of(by_the_library, theirs)


@pytest.mark.parametrize(("tag", "vr", "value"), [(0x00000002, "UI", "1.2"), (0x00020010, "UI", "1.2")])
def test_elements_of_commands_and_of_meta_information_are_refused(tag: int, vr: str, value: str) -> None:
    ds = dataset_of({}, [])
    ds.add(DataElement(tag, vr, value))
    with pytest.raises(ValueError, match="of a command or of a file's meta information"):
        as_file(ds)


def test_it_writes_every_object_of_a_report_as_the_library_does(reading: Reading) -> None:
    for name, dataset in every_object(reading).items():
        assert as_file(dataset) == by_the_library(dataset), name


def test_it_finds_every_uid_that_the_library_finds(reading: Reading) -> None:
    for dataset in every_object(reading).values():
        file, expected = as_file(dataset), []
        dcmread(BytesIO(file)).walk(
            lambda _ds, element, to=expected: to.append(element) if element.VR == "UI" else None
        )
        found = [
            value.rstrip(b"\0").decode() for within, _, vr, value in elements(file) if vr == b"UI" and within > 0x3FFFF
        ]
        assert found == [str(element.value) for element in expected]


def test_an_element_knows_the_sequence_that_it_is_a_part_of(reading: Reading) -> None:
    file = as_file(reading.report().structured_report)
    places = {within for within, tag, _, _ in elements(file) if tag == 0x00081155}
    assert places == {0x0040A375, 0x0040A730}


@pytest.mark.parametrize("end", [-1, -7, 200])
def test_a_file_that_was_cut_is_no_object(reading: Reading, end: int) -> None:
    with pytest.raises(ValueError, match="breaks off"):
        list(elements(as_file(reading.report().structured_report)[:end]))


def test_another_transfer_syntax_is_refused() -> None:
    ds = dataset_of({}, [])
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    with pytest.raises(ValueError, match="is to be written as"):
        as_file(ds)
