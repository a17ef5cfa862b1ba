"""Frames: rules on the pixel data of segmentations, which hold what their kind says, whole, and nothing empty."""

from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
from pydicom import Dataset

from workers.reporting.written_report import WrittenReport

#: Bits Allocated by Segmentation Type (PS3.3 Section C.8.20.2.1).
_DEPTHS = MappingProxyType({"BINARY": (1,), "LABELMAP": (8, 16)})


def frame_faults(written: WrittenReport) -> Iterator[str]:
    """A segmentation is BINARY, has as much pixel data as its frames need, and no empty one."""
    segmentation = written.segmentation
    if segmentation is None:
        return
    if segmentation.SegmentationType != "BINARY":
        yield f"the segmentation is {segmentation.SegmentationType}, not BINARY"
    yield from _pixel_faults(segmentation)


def own_frame_faults(written: WrittenReport) -> Iterator[str]:
    """The same of an object that is judged by itself, where it is a segmentation: a label map, or one of the lungs."""
    if "SegmentSequence" in written.structured_report:
        yield from _pixel_faults(written.structured_report)


def _pixel_faults(segmentation: Dataset) -> Iterator[str]:
    kind, bits = str(segmentation.SegmentationType), int(segmentation.BitsAllocated)
    if bits not in _DEPTHS.get(kind, ()):
        yield f"the segmentation is {kind} and has {bits} bits a voxel"
        return
    count, voxels = int(segmentation.NumberOfFrames), int(segmentation.Rows) * int(segmentation.Columns)
    needed = (count * voxels * bits + 7) // 8
    # Of odd length it has a byte more (PS3.5 Section 8.1.1).
    if len(segmentation.PixelData) != needed + needed % 2:
        yield f"the segmentation has {len(segmentation.PixelData)} bytes of pixel data, and needs {needed}"
        return
    yield from (f"frame {number} of the segmentation is empty" for number in _empty_frames(segmentation, bits))


def _empty_frames(segmentation: Dataset, bits: int) -> list[int]:
    """The numbers of frames without a voxel; where frames begin with a byte nothing is unpacked."""
    count, size = int(segmentation.NumberOfFrames), int(segmentation.Rows) * int(segmentation.Columns) * bits
    stored = np.frombuffer(segmentation.PixelData, dtype=np.uint8)
    if size % 8:
        stored, size = np.unpackbits(stored, bitorder="little"), 8 * size
    frames = stored[: count * size // 8].reshape(count, -1)
    return [int(index) + 1 for index in np.flatnonzero(~frames.any(axis=1))]
