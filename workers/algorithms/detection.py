"""Detection: any bundle of a detector that gives boxes with scores, such as RetinaNet; each box becomes a finding.

What a published configuration says of network, anchors, box coder, score threshold, suppression and windows is built as
it stands there. Left out, with why: `amp` (a report must not depend on the device's number formats), `device` (the
settings name it), `whether_raw_luna16` (a scanner's series is never resampled yet), `inferer` but for
`force_sliding_window` (the detector holds its own windows), and the steps after it: the detector has clipped its boxes,
and the series' own geometry takes them to the patient.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dicom_node.core.errors import BundleInvalid
from dicom_node.core.finding import Finding
from workers.algorithms import Prepared, Reading
from workers.algorithms.meanings import Meaning, classes_of, meaning_of
from workers.algorithms.network_output import output_of, remarks_on
from workers.bundles import CONFIGURATION, Bundle
from workers.configuration import Configuration
from workers.measurement import measure
from workers.network_image import Preparation
from workers.network_run import NetworkRun
from workers.volume import Region, Volume

#: Where neither settings nor bundle set a threshold: of published detectors' lists all but the surest is noise.
_USUAL_THRESHOLD = 0.5
#: Segments of a segmentation are numbered in a byte, and nobody looks at more.
_MOST_FINDINGS = 20
_OUTLINES = (
    "Outlines are ellipsoids in the boxes that the network gave: axes and volumes are those of the boxes, and "
    "attenuation is what lies in them."
)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box on the network's grid, in voxels of it; whole numbers are voxel centres."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    score: float
    label: int


@dataclass(frozen=True, kw_only=True)
class OnGrid(Prepared):
    """What the network is given, with the way back to the series."""

    to_series: NDArray[np.float64]


class Detection:
    """A detector of MONAI (`detector` in inference.json) as an algorithm."""

    def __init__(self, bundle: Bundle, device: str, *, threads: int, beat: Callable[[str], None]) -> None:
        """Build network, detector and transforms; BundleInvalid names what the bundle lacks."""
        self.name = bundle.name
        network, parts = bundle.assembled()
        self.last_run = NetworkRun(network, device, threads=threads, beat=beat)
        self._detector = parts.built("detector")
        if not hasattr(self._detector, "box_selector") or getattr(self._detector, "network", None) is not network:
            reason = f"bundle {bundle.name}: detector in {CONFIGURATION} is no detector around network_def"
            raise BundleInvalid(f"{reason}; a RetinaNetDetector of MONAI with network: @network_def can be used")
        if "detector_ops" in parts:
            parts.built("detector_ops")
        self._detector.eval()
        self._always_in_windows = _forces_windows(parts)
        self._preparation = Preparation(bundle, parts)
        self._threshold = bundle.settings.report_threshold or _own_threshold(bundle)
        self._meanings = _meanings(bundle)
        self._remarks = (_OUTLINES, *remarks_on(bundle, parts))

    def warm_up(self) -> None:
        """The detector's first window takes as long as any: there is nothing to prepare."""

    def reads(self, volume: Volume) -> None:
        """Whatever is a CT volume."""

    def prepare(self, volume: Volume) -> Prepared:
        """The series on the network's grid."""
        image = self._preparation(volume)
        everywhere = np.ones((1, 1, 1), dtype=bool)
        return OnGrid(voxels=image.voxels, where=everywhere, to_series=image.to_series)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Find boxes, and make each from the threshold on a finding."""
        given = prepared if isinstance(prepared, OnGrid) else self.prepare(volume)
        assert isinstance(given, OnGrid)
        return self.findings(self.boxes(given.voxels), given.to_series, volume)

    def boxes(self, voxels: NDArray[np.float32]) -> list[Box]:
        """The detector's boxes over [channel, x, y, z], by falling score."""
        found = self.last_run(lambda device: self._detected(voxels, device))
        keys = (self._detector.target_box_key, self._detector.pred_score_key, self._detector.target_label_key)
        corners, scores, labels = (found[key].float().cpu().numpy() for key in keys)
        boxes = [
            Box(
                centre=tuple(float(value) for value in (corner[:3] + corner[3:]) / 2),  # type: ignore[arg-type]
                size=tuple(float(value) for value in corner[3:] - corner[:3]),  # type: ignore[arg-type]
                score=float(score),
                label=int(label),
            )
            for corner, score, label in zip(corners, scores, labels, strict=True)
        ]
        return sorted(boxes, key=lambda box: (-box.score, box.centre))

    def findings(self, boxes: Sequence[Box], to_series: NDArray[np.float64], volume: Volume) -> Reading:
        """Findings of boxes from the threshold on, where they lie in the series."""
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        findings: list[Finding] = []
        not_reported = 0
        for box in (box for box in boxes if box.score >= self._threshold):
            region = ellipsoid(box, to_series, volume.voxels.shape)
            own = region.mask & (labels[region.box] == 0)
            if not own.any() or len(findings) == _MOST_FINDINGS:
                not_reported += 1
                continue
            number = len(findings) + 1
            labels[region.box][own] = number
            meaning = self._meaning(box.label)
            findings.append(finding_of(number, box.score, Region(box=region.box, mask=own), meaning, volume))
        return Reading(
            findings=tuple(findings),
            labels=labels,
            parameters=(("report threshold", f"{self._threshold:g}"),),
            not_reported=not_reported,
            noun=self._meanings[0].concept.meaning.lower(),
            further_remarks=self._remarks,
        )

    def _meaning(self, label: int) -> Meaning:
        """What a box of this label is; never what another label means."""
        if not 0 <= label < len(self._meanings):
            known = f"0 to {len(self._meanings) - 1}"
            raise BundleInvalid(f"the network gives label {label}, and channel_def of metadata.json describes {known}")
        return self._meanings[label]

    def _detected(self, voxels: NDArray[np.float32], device: torch.device) -> Any:
        detector = self._detector
        # Anchors lie on the device of the run before.
        detector.anchors, detector.previous_image_shape = None, None
        window = getattr(detector.inferer, "roi_size", None)
        in_windows = window is not None and (self._always_in_windows or voxels[0].size >= math.prod(window))
        with warnings.catch_warnings():
            # MONAI's detector hands its tensors to NumPy, which means to refuse them some day.
            warnings.simplefilter("ignore", DeprecationWarning)
            (found,) = detector([torch.from_numpy(voxels).to(device)], use_inferer=in_windows)
        return found


def ellipsoid(box: Box, to_series: NDArray[np.float64], shape: tuple[int, ...]) -> Region:
    """The voxels [k, j, i] of a series whose centres lie in the ellipsoid that fills a box; at least the nearest one.

    Empty where the box lies outside the series.
    """
    centre = (to_series @ (*box.centre, 1.0))[2::-1]
    reach = (np.abs(to_series[:3, :3]) @ (np.array(box.size) / 2))[::-1]
    lower = np.clip(np.floor(centre - reach), 0, np.array(shape)).astype(int)
    upper = np.clip(np.ceil(centre + reach) + 1, lower, np.array(shape)).astype(int)
    where = tuple(slice(int(low), int(high)) for low, high in zip(lower, upper, strict=True))
    k, j, i = (axis.astype(float) for axis in np.meshgrid(*(np.arange(s.start, s.stop) for s in where), indexing="ij"))
    back = np.linalg.inv(to_series)
    away = [
        (row[0] * i + row[1] * j + row[2] * k + row[3] - middle) / max(side / 2, 1e-6)
        for row, middle, side in zip(back[:3], box.centre, box.size, strict=True)
    ]
    mask = np.asarray(away[0] ** 2 + away[1] ** 2 + away[2] ** 2 <= 1.0)
    nearest = np.round(centre).astype(int)
    if not mask.any() and bool(((nearest >= lower) & (nearest < upper)).all()):
        mask[tuple(nearest - lower)] = True
    return Region(box=(where[0], where[1], where[2]), mask=mask)


def finding_of(number: int, score: float, region: Region, meaning: Meaning, volume: Volume) -> Finding:
    """A finding of what lies in a region of the series."""
    return Finding(
        number=number,
        **vars(meaning),
        laterality=None,
        score=min(1.0, score),
        **vars(measure(region, volume)),
    )


def _forces_windows(parts: Configuration) -> bool:
    """Whether the bundle's inferer lays windows also over images that are smaller than one."""
    key = "inferer::force_sliding_window"
    return key in parts and parts.built(key) is True


def _own_threshold(bundle: Bundle) -> float:
    section = bundle.configuration.get("postprocessing")
    stated = section.get("report_threshold") if isinstance(section, dict) else None
    return float(stated) if isinstance(stated, int | float) else _USUAL_THRESHOLD


def _meanings(bundle: Bundle) -> list[Meaning]:
    """By label."""
    classes = classes_of(bundle, output_of(bundle)) or {0: ""}
    return [meaning_of(bundle, classes[number]) for number in sorted(classes)]
