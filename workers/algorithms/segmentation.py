"""Segmentation: any bundle whose network gives a class for every voxel; organs become one finding, lesions one each."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.errors import BundleInvalid
from dicom_node.core.finding import Finding
from workers.algorithms import Prepared, Reading
from workers.algorithms.detection import OnGrid, finding_of
from workers.algorithms.meanings import Meaning, classes_of, meaning_of
from workers.algorithms.network_output import Activation, activation_of, output_of, remarks_on
from workers.bundles import CONFIGURATION, Bundle
from workers.morphology import box_around
from workers.network_image import Preparation
from workers.network_run import NetworkRun
from workers.volume import Region, Volume

_MOST_FINDINGS = 255
#: A place of fewer voxels is noise of a border.
_FEWEST_VOXELS = 8
_EIGHTH = np.ones((3, 3, 3), dtype=bool)


class Segmentation:
    """A segmenting bundle (`network_def` and `inferer` in inference.json) as an algorithm."""

    def __init__(self, bundle: Bundle, device: str, *, threads: int, beat: Callable[[str], None]) -> None:
        """Build network, inferer and transforms; BundleInvalid names what the bundle lacks."""
        self.name = bundle.name
        network, parts = bundle.assembled()
        self.last_run = NetworkRun(network, device, threads=threads, beat=beat)
        self._inferer = parts.built("inferer")
        if not callable(self._inferer):
            raise BundleInvalid(f"bundle {bundle.name}: inferer in {CONFIGURATION} is no inferer of MONAI")
        self._preparation = Preparation(bundle, parts)
        output = output_of(bundle)
        self._activation = activation_of(bundle, parts, output)
        self._threshold = bundle.settings.report_threshold or 0.5
        self._meanings = _meanings(bundle, self._activation)
        self._remarks = remarks_on(bundle, parts)

    def warm_up(self) -> None:
        """The first window takes as long as any: there is nothing to prepare."""

    def reads(self, volume: Volume) -> None:
        """Whatever is a CT volume."""

    def prepare(self, volume: Volume) -> Prepared:
        """The series on the network's grid."""
        image = self._preparation(volume)
        return OnGrid(voxels=image.voxels, where=np.ones((1, 1, 1), dtype=bool), to_series=image.to_series)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Find each class's voxels on the series' own grid."""
        given = prepared if isinstance(prepared, OnGrid) else self.prepare(volume)
        assert isinstance(given, OnGrid)
        return self.findings(self.probabilities(given.voxels), given.to_series, volume)

    def probabilities(self, voxels: NDArray[np.float32]) -> NDArray[np.float32]:
        """0 to 1 for each class [class, x, y, z] on the network's grid."""
        result = self.last_run(lambda device: self._activated(voxels, device))
        return np.asarray(result.numpy(), dtype=np.float32)

    def findings(self, probabilities: NDArray[np.float32], to_series: NDArray[np.float64], volume: Volume) -> Reading:
        """Findings of the voxels of each class: interpolated probabilities decide, as MONAI's own way back does."""
        classes, certainty = self._on_series(probabilities, to_series, volume.voxels.shape)
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        findings: list[Finding] = []
        not_reported = 0
        for number, meaning in self._meanings.items():
            for region in _places(classes == number, meaning):
                if len(findings) == _MOST_FINDINGS:
                    not_reported += 1
                    continue
                labels[region.box][region.mask] = len(findings) + 1
                score = float(certainty[region.box][region.mask].mean())
                findings.append(finding_of(len(findings) + 1, score, region, meaning, volume))
        return Reading(
            findings=tuple(findings),
            labels=labels,
            parameters=() if self._activation is Activation.SOFTMAX else (("threshold", f"{self._threshold:g}"),),
            not_reported=not_reported,
            noun=next(iter(self._meanings.values())).concept.meaning.lower(),
            further_remarks=self._remarks,
        )

    def _activated(self, voxels: NDArray[np.float32], device: torch.device) -> torch.Tensor:
        output = self._inferer(torch.from_numpy(voxels)[None].to(device), self.last_run.network)[0].float()
        return (output.softmax(dim=0) if self._activation is Activation.SOFTMAX else output.sigmoid()).cpu()

    def _on_series(
        self, probabilities: NDArray[np.float32], to_series: NDArray[np.float64], shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The most probable class of every voxel [k, j, i], and its probability; class by class, to save memory."""
        # A series' index is (k, j, i), the network's (x, y, z).
        turned = np.linalg.inv(to_series)
        matrix, offset = turned[:3, 2::-1], turned[:3, 3]
        softmax = self._activation is Activation.SOFTMAX
        certainty = np.full(shape, 0.0 if softmax else self._threshold, dtype=np.float32)
        classes = np.zeros(shape, dtype=np.uint8)
        for number, probability in enumerate(probabilities):
            # Beyond the network's grid there is background.
            beyond = 1.0 if softmax and number == 0 else 0.0
            here = ndimage.affine_transform(
                probability, matrix, offset, output_shape=shape, order=1, mode="constant", cval=beyond
            )
            better = here > certainty
            certainty[better] = here[better]
            classes[better] = number if softmax else number + 1
        return classes, certainty


def _places(mask: NDArray[np.bool_], meaning: Meaning) -> Iterator[Region]:
    """The places of a class: an organ's voxels together, each lesion on its own, the largest first."""
    box = box_around(mask)
    if box is None:
        return
    where = (box[0], box[1], box[2])
    if meaning.is_organ:
        yield Region(box=where, mask=mask[where].copy())
        return
    numbered, count = ndimage.label(mask[where], structure=_EIGHTH)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(numbered)
    for place in np.argsort(-sizes, kind="stable"):
        if sizes[place] >= _FEWEST_VOXELS:
            inner = boxes[place]
            k, j, i = (slice(o.start + n.start, o.start + n.stop) for o, n in zip(where, inner, strict=True))
            yield Region(box=(k, j, i), mask=numbered[inner] == place + 1)


def _meanings(bundle: Bundle, activation: Activation) -> dict[int, Meaning]:
    """By class; background is none."""
    names = classes_of(bundle, output_of(bundle))
    if activation is Activation.SOFTMAX:
        names = {number: name for number, name in names.items() if number}
    else:
        names = {number + 1: name for number, name in names.items()}
    if not names:
        reason = f"bundle {bundle.name}: network_data_format does not say what its classes are"
        raise BundleInvalid(f"{reason}; add channel_def to its output in metadata.json")
    return {number: meaning_of(bundle, name) for number, name in names.items()}
