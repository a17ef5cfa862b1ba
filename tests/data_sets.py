"""Tiny data sets of each layout, all of one known chest with one nodule at known patient millimetres.

Each is written without the library that reads it: MetaImage by hand, NIfTI by nibabel, segmentations by highdicom.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from training.ct_series import Patient, write_ct_series

#: Of the nodule, mm: its semi-axes differ, so that exchanged axes show.
SEMI_AXES_MM = np.array([7.0, 5.0, 6.0])
LUNG_HU, NODULE_HU = -850, 40
SERIES_UID = "1.2.826.0.1.3680043.8.498.7"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A volume [k, j, i] in HU, its affine (i, j, k, 1) to LPS mm, and where its nodule is."""

    voxels: NDArray[np.int16]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    centre_mm: NDArray[np.float64]

    @property
    def diameter_mm(self) -> float:
        """Of the sphere of the nodule's volume."""
        return float(2 * SEMI_AXES_MM.prod() ** (1 / 3))


def known(directions: NDArray[np.float64], spacing_mm: tuple[float, float, float] = (0.7, 0.9, 2.0)) -> Known:
    """A chest whose voxel axes i, j, k run along the columns of `directions`; the nodule is off its middle."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing_mm)
    affine[:3, 3] = (-31.5, 12.25, -120.0)
    shape = (20, 44, 48)
    k, j, i = np.indices(shape)
    places = np.einsum("wa,akji->wkji", affine, np.stack([i, j, k, np.ones(shape)]))[:3]
    centre = (affine @ (17, 25, 8, 1))[:3]
    mask = (((places - centre[:, None, None, None]) / SEMI_AXES_MM[:, None, None, None]) ** 2).sum(axis=0) < 1
    # No two places look alike, so that a flip of an axis shows in the values, too.
    voxels = np.where(mask, NODULE_HU, LUNG_HU + i + j // 2 + 3 * k).astype(np.int16)
    return Known(voxels=voxels, affine=affine, mask=mask, centre_mm=centre)


def luna16(chest: Known, folder: Path) -> None:
    """As LUNA16 is laid out, with an irrelevant finding and two candidates."""
    (folder / "subset0").mkdir(parents=True)
    _meta_image(folder / "subset0" / f"{SERIES_UID}.mhd", chest)
    x, y, z = chest.centre_mm
    _csv(folder / "annotations.csv", ["coordX", "coordY", "coordZ", "diameter_mm"], [(x, y, z, chest.diameter_mm)])
    _csv(folder / "annotations_excluded.csv", ["coordX", "coordY", "coordZ", "diameter_mm"], [(x + 9, y, z, -1)])
    _csv(folder / "candidates.csv", ["coordX", "coordY", "coordZ", "class"], [(x, y, z, 1), (x + 9, y, z, 0)])


def decathlon(chest: Known, folder: Path) -> None:
    """As the Medical Segmentation Decathlon is laid out."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    _nifti(folder / "imagesTr" / "lung_001.nii.gz", chest.voxels, chest.affine)
    _nifti(folder / "labelsTr" / "lung_001.nii.gz", chest.mask.astype(np.uint8), chest.affine)
    entry = {"image": "./imagesTr/lung_001.nii.gz", "label": "./labelsTr/lung_001.nii.gz"}
    description = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "nodule"}, "training": [entry]}
    (folder / "dataset.json").write_text(json.dumps(description))


def datalist_of_masks(chest: Known, folder: Path) -> None:
    """NIfTI and a JSON datalist, with a mask."""
    folder.mkdir(parents=True)
    _nifti(folder / "scan.nii.gz", chest.voxels, chest.affine)
    _nifti(folder / "mask.nii.gz", chest.mask.astype(np.uint8), chest.affine)
    (folder / "list.json").write_text(json.dumps({"training": [{"image": "scan.nii.gz", "label": "mask.nii.gz"}]}))


def datalist_of_boxes(chest: Known, folder: Path, space: str = "LPS") -> None:
    """NIfTI and a JSON datalist, with a world box."""
    folder.mkdir(parents=True)
    _nifti(folder / "scan.nii.gz", chest.voxels, chest.affine)
    centre = chest.centre_mm * ((1, 1, 1) if space == "LPS" else (-1, -1, 1))
    entry = {"image": "scan.nii.gz", "box": [[*centre, *(2 * SEMI_AXES_MM)]], "label": [0]}
    (folder / "list.json").write_text(json.dumps({"box_space": space, "training": [entry]}))


def lidc(chest: Known, folder: Path, readers: int = 4) -> None:
    """As LIDC-IDRI is laid out: a series, and the XML file of its readers, who agree; one marked a point as well."""
    series = folder / "LIDC-IDRI-0001" / "study" / "series"
    paths = _series(chest, series)
    images = [pydicom.dcmread(path) for path in paths]
    rois = []
    for image in images:
        k = int(np.round((np.linalg.inv(chest.affine) @ (*map(float, image.ImagePositionPatient), 1))[2]))
        rois += [_roi(image, ring) for ring in _rings(chest.mask[k])]
    nodule = f"<unblindedReadNodule><noduleID>1</noduleID>{RATINGS}{''.join(rois)}</unblindedReadNodule>"
    dot = f"<nonNodule>{_place(images[0], 'locus', 3, 4)}</nonNodule>"
    sessions = "".join(f"<readingSession>{nodule}{dot if n == 0 else ''}</readingSession>" for n in range(readers))
    header = f"<ResponseHeader><SeriesInstanceUid>{images[0].SeriesInstanceUID}</SeriesInstanceUid></ResponseHeader>"
    text = f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{header}{sessions}</LidcReadMessage>'
    (series / "069.xml").write_text(text)


def dicom_seg(chest: Known, folder: Path) -> None:
    """A series and a segmentation of it, in folders of their own."""
    paths = _series(chest, folder / "ct")
    images = [pydicom.dcmread(path) for path in paths]
    at = [int(np.round((np.linalg.inv(chest.affine) @ (*map(float, ds.ImagePositionPatient), 1))[2])) for ds in images]
    described = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="nodule",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type="MANUAL",
    )
    made = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=chest.mask[at].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[described],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="0",
        device_serial_number="0",
    )
    (folder / "seg").mkdir()
    made.save_as(folder / "seg" / "seg.dcm")


RATINGS = "<characteristics><malignancy>4</malignancy><texture>5</texture></characteristics>"


def _rings(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The line around a mask as a reader draws it: the voxels just outside, in order around the middle."""
    if not mask.any():
        return []
    j, i = np.nonzero(mask)
    middle = np.array([i.mean(), j.mean()])
    grown = mask.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        grown |= np.roll(mask, step, axis)
    y, x = np.nonzero(grown & ~mask)
    around = np.argsort(np.arctan2(y - middle[1], x - middle[0]))
    return [[(int(x[n]), int(y[n])) for n in around]]


def _roi(image: pydicom.Dataset, ring: list[tuple[int, int]]) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in ring)
    return f"<roi><imageSOP_UID>{image.SOPInstanceUID}</imageSOP_UID><inclusion>TRUE</inclusion>{edges}</roi>"


def _place(image: pydicom.Dataset, tag: str, x: int, y: int) -> str:
    where = f"<{tag}><xCoord>{x}</xCoord><yCoord>{y}</yCoord></{tag}>"
    return f"<imageSOP_UID>{image.SOPInstanceUID}</imageSOP_UID>{where}"


def _series(chest: Known, folder: Path) -> list[Path]:
    """The chest as a CT series, for affines whose k runs along the cross product of i and j."""
    spacing = np.linalg.norm(chest.affine[:3, :3], axis=0)
    row, column = (tuple(float(c) for c in chest.affine[:3, a] / spacing[a]) for a in (0, 1))
    return write_ct_series(
        chest.voxels,
        spacing_mm=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        origin_mm=tuple(float(c) for c in chest.affine[:3, 3]),
        directions=(row, column),
        folder=folder,
        patient=Patient(patient_id="LIDC-IDRI-0001"),
    )


def _meta_image(path: Path, chest: Known) -> None:
    spacing = np.linalg.norm(chest.affine[:3, :3], axis=0)
    cosines = (chest.affine[:3, :3] / spacing).T  # MetaImage lists one axis after the other
    k, j, i = chest.voxels.shape
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "TransformMatrix": " ".join(f"{c:.10f}" for c in cosines.ravel()),
        "Offset": " ".join(f"{c:.6f}" for c in chest.affine[:3, 3]),
        "ElementSpacing": " ".join(f"{c:.6f}" for c in spacing),
        "DimSize": f"{i} {j} {k}",
        "ElementType": "MET_SHORT",
        "ElementDataFile": f"{path.stem}.raw",
    }
    path.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
    path.with_suffix(".raw").write_bytes(chest.voxels.astype("<i2").tobytes())


def _nifti(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), ras), path)


def _csv(path: Path, columns: list[str], rows: list[tuple[float, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seriesuid", *columns])
        writer.writerows([[SERIES_UID, *row] for row in rows])
