"""LIDC-IDRI: folders of a CT series with the XML file of its four readers.

Outlines of different readers are one nodule where they overlap or their centres are nearer than half the larger one's
size. A nodule of at least three readers is to be found, one of fewer, a nodule under 3 mm (a point) and a "non-nodule"
are irrelevant, as LUNA16 has it. The drawn line lies outside the nodule (Armato et al. 2011, doi 10.1118/1.3528204).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
from numpy.typing import NDArray
from skimage.draw import polygon, polygon_perimeter

from training.cases.case import Annotation, Case, DatasetInvalid, in_case, oriented, point
from training.cases.dicom_series import read_series, series_in
from training.cases.label_map import annotation
from workers.volume import Region, Volume

READERS_WANTED = 3
_ROOT = "LidcReadMessage"
_CLOSE_MM = 3.0

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What one reader marked: an outline, or a point."""

    reader: int
    label: str
    #: (SOP Instance UID, whether what is inside belongs to the nodule, corner points (x, y)).
    rings: tuple[tuple[str, bool, tuple[tuple[int, int], ...]], ...]
    ratings: Mapping[str, float]

    @property
    def outlined(self) -> bool:
        """Whether it is more than a point."""
        return any(len(points) > 2 for _, _, points in self.rings)


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    return next(_readings(folder), None) is not None


def read(folder: Path) -> Iterator[Case]:
    """Every series that has a reading, by the place of its XML file; one in memory at a time."""
    for path in sorted(_readings(folder)):
        uid, marks = _marks(path)
        files = series_in(path.parent).get(uid)
        if not files:
            raise DatasetInvalid(f"{path} reads series {uid}, which is not in its folder: put its DICOM files there")
        case, volume = read_series([file for file, _ in files], _patient(files))
        yield _annotated(case, volume, marks, path)


def _readings(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.xml"):
        with path.open("rb") as file:
            if _ROOT.encode() in file.read(1000):
                yield path


def _patient(files: Sequence[tuple[Path, pydicom.Dataset]]) -> str:
    return str(files[0][1].get("PatientID", ""))


def _marks(path: Path) -> tuple[str, list[Mark]]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DatasetInvalid(f"{path} is no XML ({error}): fetch it again") from error
    uid = root.findtext(".//{*}SeriesInstanceUid") or root.findtext(".//{*}CTSeriesInstanceUid")
    if not uid:
        raise DatasetInvalid(f"{path} names no SeriesInstanceUid: fetch it again")
    marks = []
    for reader, session in enumerate(root.findall("{*}readingSession")):
        for tag, label in (("unblindedReadNodule", "nodule"), ("nonNodule", "non-nodule")):
            marks += [_mark(node, reader, label) for node in session.findall(f"{{*}}{tag}")]
    return uid.strip(), marks


def _mark(node: ElementTree.Element, reader: int, label: str) -> Mark:
    rings = []
    for roi in [*node.findall("{*}roi"), *([node] if node.find("{*}locus") is not None else [])]:
        points = tuple(
            (int(edge.findtext("{*}xCoord") or 0), int(edge.findtext("{*}yCoord") or 0))
            for edge in [*roi.findall("{*}edgeMap"), *roi.findall("{*}locus")]
        )
        included = (roi.findtext("{*}inclusion") or "TRUE").strip().upper() != "FALSE"
        rings.append(((roi.findtext("{*}imageSOP_UID") or "").strip(), included, points))
    said = node.find("{*}characteristics")
    ratings = (
        {} if said is None else {child.tag.partition("}")[2] or child.tag: float(child.text or 0) for child in said}
    )
    return Mark(reader=reader, label=label, rings=tuple(rings), ratings=ratings)


def _annotated(case: Case, volume: Volume, marks: Sequence[Mark], path: Path) -> Case:
    slices = {uid: k for k, uid in enumerate(volume.sop_instance_uids)}
    missing = {uid for mark in marks for uid, _, _ in mark.rings} - set(slices)
    if missing:
        raise DatasetInvalid(f"{path} outlines {len(missing)} slices that are not in its folder: fetch them")
    outlined = [(mark, _drawn(mark, slices, volume.voxels.shape)) for mark in marks if mark.outlined]
    found: list[Annotation] = []
    irrelevant = [_dot(mark, slices, volume) for mark in marks if not mark.outlined]
    for group in _nodules(outlined, volume):
        readers = len({mark.reader for mark, _ in group})
        made = _together(group, readers, volume, case, path)
        (found if readers >= READERS_WANTED else irrelevant).append(made)
    placed = in_case(case, tuple(found), path)
    return replace(placed, irrelevant=tuple(irrelevant))


def _drawn(mark: Mark, slices: Mapping[str, int], shape: tuple[int, ...]) -> Region:
    """What lies inside a reader's lines, without the lines themselves unless nothing would be left; the box of both."""
    box = _box(mark, slices, shape)
    inside, lines = np.zeros(_size(box), dtype=bool), np.zeros(_size(box), dtype=bool)
    plane = inside.shape[1:]
    for included in (True, False):
        for uid, belongs, points in mark.rings:
            if belongs is not included:
                continue
            x, y = (np.array(points) - (box[2].start, box[1].start)).T
            k = slices[uid] - box[0].start
            filled, line = np.zeros(plane, dtype=bool), np.zeros(plane, dtype=bool)
            filled[polygon(y, x, plane)] = True
            line[polygon_perimeter(y, x, plane, clip=True)] = True
            if included:
                inside[k] |= filled & ~line
                lines[k] |= line
            else:
                # The line around a hole lies outside the hole: it belongs to the nodule.
                inside[k] &= ~(filled & ~line)
    return Region(box=box, mask=inside if inside.any() else lines)


def _box(mark: Mark, slices: Mapping[str, int], shape: tuple[int, ...]) -> Box:
    """The box of all that a reader drew, within the volume: a scan has many marks, and they are small."""
    drawn = np.array([(slices[uid], y, x) for uid, _, points in mark.rings for x, y in points])
    last = np.array(shape) - 1
    low, high = np.clip(drawn.min(axis=0), 0, last), np.clip(drawn.max(axis=0), 0, last) + 1
    k, j, i = (slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    return k, j, i


def _size(box: Box) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in box)


def _nodules(drawn: Sequence[tuple[Mark, Region]], volume: Volume) -> Iterator[list[tuple[Mark, Region]]]:
    left = list(drawn)
    while left:
        group = [left.pop(0)]
        grew = True
        while grew:
            near = [n for n, other in enumerate(left) if any(_same(one[1], other[1], volume) for one in group)]
            group += [left[n] for n in near]
            left = [other for n, other in enumerate(left) if n not in near]
            grew = bool(near)
        yield group


def _same(one: Region, other: Region, volume: Volume) -> bool:
    both = _around((one, other))
    if (_within(both, one) & _within(both, other)).any():
        return True
    spacing = np.array(volume.spacing_mm)
    places = [(np.argwhere(region.mask) + [side.start for side in region.box]) * spacing for region in (one, other)]
    apart = float(np.linalg.norm(places[0].mean(axis=0) - places[1].mean(axis=0)))
    return apart < max(_CLOSE_MM, *(float(np.ptp(place, axis=0).max()) / 2 for place in places))


def _around(regions: Sequence[Region]) -> Box:
    """The box of several regions."""
    sides = zip(*(region.box for region in regions), strict=True)
    k, j, i = (slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)
    return k, j, i


def _within(box: Box, region: Region) -> Mask:
    """A region in a box that holds it."""
    mask = np.zeros(_size(box), dtype=bool)
    where = zip(region.box, box, strict=True)
    mask[tuple(slice(own.start - all_.start, own.stop - all_.start) for own, all_ in where)] = region.mask
    return mask


def _together(group: Sequence[tuple[Mark, Region]], readers: int, volume: Volume, case: Case, path: Path) -> Annotation:
    """One nodule: the voxels of at least half of its readers, their mean ratings."""
    box = _around([region for _, region in group])
    share = np.mean([_within(box, region) for _, region in group], axis=0, dtype=np.float32)
    chosen = np.asarray(share >= 0.5 if (share >= 0.5).any() else share > 0)
    from_here = volume.affine.copy()
    from_here[:3, 3] = point(volume.affine @ (box[2].start, box[1].start, box[0].start, 1.0))
    turned, affine = oriented(chosen, from_here, path)
    made = annotation(turned.astype(bool), affine, label="nodule", readers=readers)
    assert made.region is not None
    start = [round(place) for place in case.to_voxel(point(affine[:, 3]))][::-1]
    k, j, i = (slice(side.start + at, side.stop + at) for side, at in zip(made.region.box, start, strict=True))
    names = sorted({name for mark, _ in group for name in mark.ratings})
    ratings = {name: float(np.mean([m.ratings[name] for m, _ in group if name in m.ratings])) for name in names}
    return replace(made, region=replace(made.region, box=(k, j, i)), ratings=ratings)


def _dot(mark: Mark, slices: Mapping[str, int], volume: Volume) -> Annotation:
    places = [(*np.mean(points, axis=0), slices[uid], 1.0) for uid, _, points in mark.rings if points]
    centre = np.mean([volume.affine @ place for place in places], axis=0)
    return Annotation(centre_mm=point(centre), diameter_mm=0.0, label=mark.label, readers=1)
