"""A segmentation as pictures need it: which of its frames lie on which image, and their masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame of a segmentation."""

    #: From 0.
    index: int
    #: From 1; the number of the finding.
    segment: int


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A BINARY Segmentation in the archive (PS3.3 Section A.51)."""

    path: Path
    #: By SOP Instance UID of the image.
    frames: Mapping[str, tuple[Frame, ...]]

    def masks(self, sop_instance_uid: str) -> dict[int, NDArray[np.bool_]]:
        """Mask [row, column] of each finding on an image, by its number."""
        return {frame.segment: self._mask(frame) for frame in self.frames.get(sop_instance_uid, ())}

    def key_image(self, segment: int) -> str | None:
        """The image on which a finding is largest; None where it is on none."""
        areas = {
            uid: int(self._mask(frame).sum())
            for uid, frames in self.frames.items()
            for frame in frames
            if frame.segment == segment
        }
        return max(areas, key=lambda uid: (areas[uid], uid)) if areas else None

    def _mask(self, frame: Frame) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = np.asarray(pixel_array(self.path, index=frame.index)) != 0
        return mask


@lru_cache(maxsize=64)
def read_segmentation(path: Path) -> Segmentation:
    """Read a segmentation's functional groups; what lies under a path never changes."""
    ds = dcmread(path, stop_before_pixels=True)
    found: dict[str, list[Frame]] = {}
    for index, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for derivation in group.get("DerivationImageSequence", ()):
            for source in derivation.get("SourceImageSequence", ()):
                uid = str(source.ReferencedSOPInstanceUID)
                found.setdefault(uid, []).append(Frame(index=index, segment=segment))
    return Segmentation(path=path, frames={uid: tuple(frames) for uid, frames in found.items()})
