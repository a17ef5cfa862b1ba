"""A patient comes again: one nodule has grown, one is gone, one is new, and the second report says so.

The second study is the first one's images, moved on the table, with other nodules painted into them.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from scipy import ndimage

from dicom_node.core import codes
from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PhantomStudy, Site, by_modality, study_uid
from tests.visitors import Person, session

WEEKS = 12
MOVED_MM = (6.0, -4.0, 11.0)
#: By which a ball has twice the volume and more.
GROWN = 1.5


@dataclass(frozen=True)
class FollowUp:
    """Both studies as they came to the PACS, and what was painted."""

    first: dict[str, list[Dataset]]
    second: dict[str, list[Dataset]]
    #: The first reading's rows of what grew and what is gone.
    grown: dict[str, Any]
    gone: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def first(site: Site, phantom: PhantomStudy) -> str:
    """The phantom, sent by DCMTK, where no other test has sent it yet."""
    uid = site.send_with_dcmtk(phantom.series)
    assert site.end_of(uid).state is StudyState.DELIVERED
    return uid


@pytest.fixture(scope="module")
def follow_up(site: Site, first: str, phantom: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> FollowUp:
    """The same patient twelve weeks later."""
    rows = site.node.index.jobs.of_study(first)[-1].summary["rows"]
    solid = [nodule for nodule in phantom.truth["nodules"] if nodule["texture"] == "solid"]
    grown = min(rows, key=lambda row: away(row["centre_mm"], solid[0]["centre_lps_mm"]))
    others = [row for row in rows if away(row["centre_mm"], grown["centre_mm"]) > 60]
    gone = max(others, key=lambda row: row["score"])
    folder = painted(phantom.series, tmp_path_factory.mktemp("later"), grown, gone)
    second = site.send_with_dcmtk(folder)
    assert site.end_of(second).state is StudyState.DELIVERED
    return FollowUp(at_pacs(site, first), at_pacs(site, second), grown, gone, folder)


def away(one: list[float], other: list[float]) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


def at_pacs(site: Site, uid: str) -> dict[str, list[Dataset]]:
    return by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)])


def painted(series: Path, folder: Path, grown: dict[str, Any], gone: dict[str, Any]) -> Path:
    """The series as a later study of the patient."""
    images = sorted((dcmread(path) for path in series.iterdir()), key=lambda ds: float(ds.ImagePositionPatient[2]))
    hu = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in images])
    places = places_of(images, hu.shape)
    radius = (grown["long_axis_mm"] + grown["short_axis_mm"]) / 4
    paint(hu, places, grown["centre_mm"], GROWN * radius, 40.0)
    paint(hu, places, gone["centre_mm"], gone["long_axis_mm"] / 2 + 4.0, -860.0)
    paint(hu, places, free_place(hu, places, [grown["centre_mm"], gone["centre_mm"]]), 6.0, 40.0)
    fresh = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    moment = datetime.strptime(images[0].StudyDate, "%Y%m%d") + timedelta(weeks=WEEKS)
    for image, plane in zip(images, hu, strict=True):
        ds, ds_meta = copy(image), copy(image.file_meta)
        ds.file_meta = ds_meta
        ds.update(fresh)
        ds.SOPInstanceUID = ds_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{moment:%Y%m%d}"
        ds.ImagePositionPatient = list(np.add([float(v) for v in image.ImagePositionPatient], MOVED_MM))
        stored = np.round((plane - float(ds.RescaleIntercept)) / float(ds.RescaleSlope))
        ds.PixelData = stored.astype(image.pixel_array.dtype).tobytes()
        ds.save_as(folder / f"{ds.SOPInstanceUID}.dcm")
    return folder


def places_of(images: list[Dataset], shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """z, y and x in LPS mm of each slice, row and column of axial images."""
    down, across = (float(value) for value in images[0].PixelSpacing)
    x, y, _ = (float(value) for value in images[0].ImagePositionPatient)
    z = np.array([float(ds.ImagePositionPatient[2]) for ds in images])
    return [z, y + down * np.arange(shape[1]), x + across * np.arange(shape[2])]


def paint(
    hu: NDArray[Any], places: list[NDArray[np.float64]], centre: list[float], radius: float, value: float
) -> None:
    """A ball with a soft border and some noise."""
    near = [
        np.flatnonzero(np.abs(axis - middle) <= radius + 1) for axis, middle in zip(places, centre[::-1], strict=True)
    ]
    box = tuple(slice(found[0], found[-1] + 1) for found in near)
    z, y, x = (axis[part] - middle for axis, part, middle in zip(places, box, centre[::-1], strict=True))
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    share = np.clip(radius - distance + 0.5, 0.0, 1.0)
    noise = np.random.default_rng(3).normal(0.0, 12.0, share.shape)
    hu[box] = share * (value + noise) + (1 - share) * hu[box]


def free_place(hu: NDArray[Any], places: list[NDArray[np.float64]], taken: list[list[float]]) -> list[float]:
    """Where lung lies farthest from anything dense, and from what is there."""
    z, y, x = (axis[::step] for axis, step in zip(places, (1, 4, 4), strict=True))
    air, _ = ndimage.label(hu[:, ::4, ::4] < -700)
    inside = (air > 0) & ~np.isin(air, np.unique(np.concatenate([air[:, 0].ravel(), air[:, -1].ravel()])))
    depth = ndimage.distance_transform_edt(inside, sampling=[float(axis[1] - axis[0]) for axis in (z, y, x)])
    for centre in taken:
        depth[(z - centre[2])[:, None, None] ** 2 + (y - centre[1])[:, None] ** 2 + (x - centre[0]) ** 2 < 50**2] = 0
    k, j, i = np.unravel_index(int(depth.argmax()), depth.shape)
    return [float(x[i]), float(y[j]), float(z[k])]


def items(report: Dataset, code: codes.Code) -> list[Dataset]:
    """The content items of this name."""
    found = [report]
    for item in found:
        found.extend(item.get("ContentSequence", []))
    named = (item for item in found[1:] if "ConceptNameCodeSequence" in item)
    return [item for item in named if item.ConceptNameCodeSequence[0].CodeValue == code.value]


def tracked(objects: dict[str, list[Dataset]]) -> dict[str, str]:
    """Name to Tracking Unique Identifier, as the segmentation has them."""
    (segmentation,) = objects["SEG"]
    return {str(segment.TrackingID): str(segment.TrackingUID) for segment in segmentation.SegmentSequence}


def test_the_first_report_is_compared_with_nothing(site: Site, first: str) -> None:
    (report,) = at_pacs(site, first)["SR"]
    assert not items(report, codes.PRIOR_REPORT)
    assert "PertinentOtherEvidenceSequence" not in report


def test_the_second_report_tells_growth_under_the_name_and_uid_of_the_first(follow_up: FollowUp) -> None:
    then, now = tracked(follow_up.first), tracked(follow_up.second)
    name = f"Nodule {follow_up.grown['number']}"
    assert now[name] == then[name]
    (report,) = follow_up.second["SR"]
    groups = [g for g in items(report, codes.Code("125007", "DCM", "")) if items(g, codes.CHANGE)]
    grew = [
        g for g in groups if items(g, codes.CHANGE)[0].ConceptCodeSequence[0].CodeValue == codes.INCREASE_IN_SIZE.value
    ]
    assert then[name] in {str(items(group, codes.Code("112040", "DCM", ""))[0].UID) for group in grew}
    (study,) = report.PertinentOtherEvidenceSequence
    assert study.StudyInstanceUID == follow_up.first["SR"][0].StudyInstanceUID


def test_what_is_gone_is_told_in_words_and_what_is_new_has_a_name_of_its_own(follow_up: FollowUp) -> None:
    then, now = tracked(follow_up.first), tracked(follow_up.second)
    said = " ".join(str(item.TextValue) for item in items(follow_up.second["SR"][0], codes.COMMENT))
    day = datetime.strptime(follow_up.first["SR"][0].StudyDate, "%Y%m%d").date().isoformat()
    assert f"Nodule {follow_up.gone['number']} of {day} was not found again." in said
    assert f"Nodule {follow_up.gone['number']}" not in now
    new = set(now) - set(then)
    assert new
    assert not {now[name] for name in new} & set(then.values())
    assert all(f"{name} was not marked on {day}" in said for name in new)


def test_the_page_shows_what_became_of_each(site: Site, follow_up: FollowUp) -> None:
    person = Person(site.node.web_port, session(site.node.index, at=time.time()))
    page = person.get(f"/studies/{study_uid(follow_up.folder)}").text
    assert "Mean diameter then, now" in page
    assert f"{WEEKS * 7} days before" in page
    assert "increased" in page


def test_an_integrators_checks_find_no_fault_in_a_follow_up(
    shared: Path, program: Callable[[str], Path], follow_up: FollowUp, tmp_path: Path
) -> None:
    program("dciodvfy")
    results, sources = tmp_path / "results", tmp_path / "sources"
    results.mkdir()
    sources.mkdir()
    for modality, found in follow_up.second.items():
        found[0].save_as(results / f"{modality}.dcm")
    # What a PACS has: the images of the study, and the report on the earlier one.
    follow_up.first["SR"][0].save_as(sources / "prior.dcm")
    for image in follow_up.folder.iterdir():
        (sources / image.name).symlink_to(image)
    check = [sys.executable, str(shared / "tools" / "check-evidence"), str(results), "--sources", str(sources)]
    said = subprocess.run(check, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
