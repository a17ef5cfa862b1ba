"""The layouts of data sets that are read, by name: how each is told from the others, and what reads it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.cases import datalist, decathlon, dicom_seg, lidc, luna16
from training.cases.case import Case, DatasetInvalid


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which data sets are laid out."""

    #: What a person looks for in such a folder.
    signs: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Case]]


#: In the order in which they are looked for.
LAYOUTS: Mapping[str, Layout] = {
    "luna16": Layout(signs="annotations.csv and .mhd files", recognises=luna16.recognises, read=luna16.read),
    "msd": Layout(signs="dataset.json and imagesTr", recognises=decathlon.recognises, read=decathlon.read),
    "datalist": Layout(signs="a JSON file with a list `training`", recognises=datalist.recognises, read=datalist.read),
    "lidc-idri": Layout(
        signs="XML files of LidcReadMessage beside DICOM files", recognises=lidc.recognises, read=lidc.read
    ),
    "dicom-seg": Layout(
        signs="DICOM files with Segmentation objects", recognises=dicom_seg.recognises, read=dicom_seg.read
    ),
}


def layout_of(folder: Path) -> str:
    """The name of the layout that a folder has."""
    if not folder.is_dir():
        raise DatasetInvalid(f"{folder} is no folder: give the one that holds the data set")
    for name, layout in LAYOUTS.items():
        if layout.recognises(folder):
            return name
    signs = "; ".join(f"{name}: {layout.signs}" for name, layout in LAYOUTS.items())
    raise DatasetInvalid(f"{folder} has no layout that is known ({signs})")


def read_cases(folder: Path, layout: str = "auto") -> Iterator[Case]:
    """The cases of a data set, one in memory at a time."""
    chosen = layout_of(folder) if layout == "auto" else layout
    if chosen not in LAYOUTS:
        raise DatasetInvalid(f"unknown layout {layout!r}: data.layout is auto, {', '.join(LAYOUTS)}")
    return LAYOUTS[chosen].read(folder)
