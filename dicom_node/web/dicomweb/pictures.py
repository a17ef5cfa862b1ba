"""Pictures: frames as JPEG or PNG, windowed for the eye; not for diagnosis (PS3.18 Section 8.3.5)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from dicom_node.archive.contents import Content
from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import QueryInvalid
from dicom_node.web.dicomweb.frames import Frames
from dicom_node.web.dicomweb.reading import DEFLATED, Readings
from dicom_node.web.dicomweb.transcoding import CannotTranscode
from dicom_node.web.frame_look import LINEAR, least_width, look_of, own_window, windowed

#: Pixels along the longer side of a thumbnail.
THUMBNAIL = 128

#: What the decoder, the values of the modality and those of the window take while a frame is drawn.
_BYTES_OF_PIXEL = 24

#: Of a picture, on each side.
_LARGEST = 8192

_FORMATS: Mapping[str, str] = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}

#: What a picture may be, the usual first.
TYPES = tuple(_FORMATS)

_NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
_WINDOW = re.compile(rf"({_NUMBER}),({_NUMBER})(?:,(linear|linear-exact|sigmoid))?", re.IGNORECASE | re.ASCII)
_VIEWPORT = re.compile(r"(\d{1,5}),(\d{1,5})(?:,(\d{0,5}),(\d{0,5})(?:,(\d{0,5}),(\d{0,5}))?)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a picture is wanted."""

    #: Centre, width and function in units of the modality, such as HU; None: as the header says.
    window: tuple[float, float, str] | None = None
    #: It fits into so many columns and rows.
    viewport: tuple[int, int] | None = None
    #: Left, top, columns and rows of the part that is wanted; 0 columns or rows: up to the end.
    part: tuple[int, int, int, int] = (0, 0, 0, 0)
    quality: int = 90


def parse_look(window: str, viewport: str, quality: str) -> Look:
    """By the parameters of an address (PS3.18 Table 8.3.5-1); QueryInvalid says which is wrong."""
    size, part = _viewport(viewport)
    return Look(window=_window(window), viewport=size, part=part, quality=_quality(quality))


class Pictures:
    """Draws frames."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._frames = Frames(readings)

    def draw(self, content: Content, number: int, look: Look, media_type: str) -> bytes:
        """A frame, from 1 on, as an image file; CannotTranscode where it has no pixels that can be drawn."""
        with self._readings.opened(content) as opened:
            ds, syntax = opened.ds, opened.transfer_syntax_uid
        if syntax in DEFLATED:
            raise CannotTranscode("deflated instances are not drawn")
        place = self._readings.pixel_place(content)
        self._frames.check_size(content, place, number)
        with self._readings.memory.taken(_BYTES_OF_PIXEL * place.rows * place.columns * place.samples):
            try:
                image = Image.fromarray(_eight_bits(self._pixels(content, number), look_of(ds, number), look))
            except (*BROKEN_BYTES, RuntimeError, MemoryError) as error:
                raise CannotTranscode("the instance has no pixels that can be drawn") from error
            return _encoded(_fitted(_cropped(image, look), look), look, media_type)

    def _pixels(self, content: Content, number: int) -> NDArray[Any]:
        place = self._readings.pixel_place(content)
        if place.bits_allocated != 1 or place.length is None:
            return pixel_array(self._readings.path_of(content), index=number - 1)
        # Frames of single bits need not begin at a byte, which pydicom takes for granted.
        data = np.frombuffer(self._frames.stored(content, place, number), np.uint8)
        return np.unpackbits(data, bitorder="little")[: place.frame_bits].reshape(place.rows, place.columns)


def _eight_bits(pixels: NDArray[Any], ds: Dataset, look: Look) -> NDArray[np.uint8]:
    if pixels.ndim == 3:
        return _stretched(pixels) if pixels.dtype != np.uint8 else pixels
    if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _stretched(apply_color_lut(pixels, ds))
    values = apply_modality_lut(pixels, ds).astype(np.float32)
    grey = windowed(values, *(look.window or own_window(ds) or _whole(values)))
    return 255 - grey if ds.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _whole(values: NDArray[np.float32]) -> tuple[float, float, str]:
    lowest, highest = float(values.min()), float(values.max())
    return (lowest + highest) / 2 + 0.5, highest - lowest + 1.0, LINEAR


def _stretched(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    most = max(int(pixels.max()), 1)
    shift = max(most.bit_length() - 8, 0)
    return (pixels >> shift).astype(np.uint8)


def _cropped(image: Image.Image, look: Look) -> Image.Image:
    left, top, columns, rows = look.part
    right = min(image.width, left + (columns or image.width))
    bottom = min(image.height, top + (rows or image.height))
    if left >= right or top >= bottom:
        raise QueryInvalid("the viewport's part lies outside of the image")
    return image.crop((left, top, right, bottom)) if any(look.part) else image


def _fitted(image: Image.Image, look: Look) -> Image.Image:
    if look.viewport is None:
        return image
    scale = min(look.viewport[0] / image.width, look.viewport[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _encoded(image: Image.Image, look: Look, media_type: str) -> bytes:
    buffer = BytesIO()
    options = {"quality": look.quality} if media_type == "image/jpeg" else {}
    image.save(buffer, _FORMATS[media_type], **options)
    return buffer.getvalue()


def _window(text: str) -> tuple[float, float, str] | None:
    if not text:
        return None
    found = _WINDOW.fullmatch(text)
    function = (found[3] or LINEAR).upper().replace("-", "_") if found else LINEAR
    if found is None or float(found[2]) < least_width(function):
        raise QueryInvalid("window is not centre,width,function with a width of at least 1 where it is linear")
    return float(found[1]), float(found[2]), function


def _viewport(text: str) -> tuple[tuple[int, int] | None, tuple[int, int, int, int]]:
    """The size, and the part of the image that is to fill it (PS3.18 Section 8.3.5.1.3)."""
    if not text:
        return None, Look.part
    found = _VIEWPORT.fullmatch(text)
    if found is None or not all(1 <= int(found[number]) <= _LARGEST for number in (1, 2)):
        words = "and of a part left,top,columns,rows in whole pixels, not mirrored"
        raise QueryInvalid(f"viewport is not columns,rows of up to {_LARGEST} {words}")
    left, top, columns, rows = (int(found[number] or 0) for number in range(3, 7))
    return (int(found[1]), int(found[2])), (left, top, columns, rows)


def _quality(text: str) -> int:
    if not text:
        return Look.quality
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
        raise QueryInvalid("quality is no number from 1 to 100")
    return int(text)
