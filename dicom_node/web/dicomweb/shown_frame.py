"""A frame as it is shown, on pages and over DICOMweb: decoded within bounds, and through its window in eight bits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from dicom_node.archive.contents import Content
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.web.dicomweb.frames import Frames
from dicom_node.web.dicomweb.reading import DEFLATED, Readings
from dicom_node.web.dicomweb.transcoding import CannotTranscode
from dicom_node.web.frame_look import look_of, own_window, whole_window, windowed

#: Centre, width and function, in units of the modality, such as HU.
Window = tuple[float, float, str]

#: What the decoder, the values of the modality and those of the window take while a frame is drawn.
_BYTES_OF_PIXEL = 24


@dataclass(frozen=True, kw_only=True)
class ShownFrame:
    """A frame in eight bits."""

    #: [row, column], or [row, column, colour].
    pixels: NDArray[np.uint8]
    #: The header, with what holds for this frame at its top.
    header: Dataset


class ShownFrames:
    """Draws frames of the archive's instances."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._frames = Frames(readings)

    def draw(self, content: Content, number: int, window: Window | None) -> ShownFrame:
        """A frame, from 1 on, through a window, or its own; CannotTranscode where it has no pixels to be drawn."""
        with self._readings.opened(content) as opened:
            ds, syntax = opened.ds, opened.transfer_syntax_uid
        if syntax in DEFLATED:
            raise CannotTranscode("deflated instances are not drawn")
        place = self._readings.pixel_place(content)
        self._frames.check_size(content, place, number)
        look = look_of(ds, number)
        with self._readings.memory.taken(_BYTES_OF_PIXEL * place.rows * place.columns * place.samples):
            try:
                return ShownFrame(pixels=_eight_bits(self._pixels(content, number), look, window), header=look)
            except (*BROKEN_BYTES, RuntimeError, MemoryError) as error:
                raise CannotTranscode("the instance has no pixels that can be drawn") from error

    def _pixels(self, content: Content, number: int) -> NDArray[Any]:
        place = self._readings.pixel_place(content)
        if place.bits_allocated != 1 or place.length is None:
            return pixel_array(self._readings.path_of(content), index=number - 1)
        # Frames of single bits need not begin at a byte, which pydicom takes for granted.
        data = np.frombuffer(self._frames.stored(content, place, number), np.uint8)
        return np.unpackbits(data, bitorder="little")[: place.frame_bits].reshape(place.rows, place.columns)


def _eight_bits(pixels: NDArray[Any], ds: Dataset, window: Window | None) -> NDArray[np.uint8]:
    if pixels.ndim == 3:
        return _stretched(pixels) if pixels.dtype != np.uint8 else pixels
    if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _stretched(apply_color_lut(pixels, ds))
    values = apply_modality_lut(pixels, ds).astype(np.float32)
    grey = windowed(values, *(window or own_window(ds) or whole_window(values)))
    return 255 - grey if ds.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _stretched(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    most = max(int(pixels.max()), 1)
    shift = max(most.bit_length() - 8, 0)
    return (pixels >> shift).astype(np.uint8)
