"""Pictures of slices: grey values through a window, and the outlines of findings over them; no text of the header."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import UnreadableInstance
from dicom_node.web.dicomweb.codestream import pixels_of
from dicom_node.web.frame_look import LINEAR, look_of, own_window, windowed

#: An image with more pixels than this is not drawn: its header may claim whatever it likes.
MOST_PIXELS = 4096 * 4096

#: Centre and width in Hounsfield units.
WINDOWS: Mapping[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "soft": (40.0, 400.0),
    "bone": (300.0, 1500.0),
}

#: Of findings, in turn; each is told from the others, and from grey, by people who confuse red and green, too.
COLOURS = ((255, 200, 87), (124, 196, 255), (255, 138, 128), (125, 220, 154), (214, 160, 255))


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square part of an image around a point, in pixels."""

    row: int
    column: int
    half: int


def draw(
    path: Path,
    masks: Mapping[int, NDArray[np.bool_]],
    *,
    window: str,
    size: int = 0,
    crop: Crop | None = None,
) -> bytes:
    """A PNG of an image with the outlines of the findings on it, by their numbers.

    `window` is a preset, or anything else for the image's own; `size` is the longest side, 0 for one pixel a pixel;
    UnreadableInstance where the image cannot be drawn.
    """
    ds = _header(path)
    grey = _grey(path, ds, window)
    picture = Image.fromarray(grey).convert("RGB")
    scale = 1 if size == 0 else max(1, round(size / max(picture.size)))
    if crop is not None:
        picture, masks = _cropped(picture, masks, crop)
        scale = max(1, round(size / (2 * crop.half))) if size else 1
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    pixels = np.array(picture)
    for number, mask in masks.items():
        if mask.shape == (picture.height // scale, picture.width // scale):
            pixels[outline(mask, scale)] = COLOURS[(number - 1) % len(COLOURS)]
    picture = _in_true_proportion(Image.fromarray(pixels), ds)
    if size:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def outline(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """The border of a mask at so many picture elements a pixel: one element wide, just outside of it."""
    large = np.kron(mask, np.ones((scale, scale), dtype=np.bool_)) if scale > 1 else mask
    padded = np.pad(large, 1)
    grown = padded[1:-1, :-2] | padded[1:-1, 2:] | padded[:-2, 1:-1] | padded[2:, 1:-1]
    return np.asarray(grown & ~large)


def missing(words: str, size: int = 256) -> bytes:
    """A picture that says that there is none."""
    picture = Image.new("RGB", (size, size), (24, 33, 43))
    font = ImageFont.load_default(size=size / 11)
    middle = (size / 2, size / 2)
    quiet = (159, 176, 192)
    ImageDraw.Draw(picture).multiline_text(middle, fill(words, 18), fill=quiet, font=font, anchor="mm", align="center")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _header(path: Path) -> Dataset:
    """The header of an image whose pixels can be unpacked into no more than it says itself."""
    with path.open("rb") as file:
        if read_file_meta_info(path).TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            raise UnreadableInstance("a deflated image is not drawn")
        ds = dcmread(file, stop_before_pixels=True)
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            # Behind tag, VR and length (PS3.5 Section A.4).
            file.seek(12, io.SEEK_CUR)
            try:
                frame = get_frame(file, 0, number_of_frames=int(ds.get("NumberOfFrames") or 1))
            except BROKEN_BYTES as error:
                raise UnreadableInstance("the pixels cannot be found in the file") from error
            if pixels_of(frame) > int(ds.get("Rows", 0)) * int(ds.get("Columns", 0)):
                raise UnreadableInstance("the image is larger than its header says")
    return ds


def _grey(path: Path, ds: Dataset, window: str) -> NDArray[np.uint8]:
    rows, columns = int(ds.get("Rows", 0)), int(ds.get("Columns", 0))
    if not 0 < rows * columns <= MOST_PIXELS or int(ds.get("SamplesPerPixel", 1)) != 1:
        raise UnreadableInstance("no greyscale image of a size that is drawn")
    try:
        stored = np.asarray(pixel_array(path, index=0 if int(ds.get("NumberOfFrames") or 1) > 1 else None))
    except Exception as error:  # a stranger's pixels: decoders raise whatever they like
        raise UnreadableInstance(f"the pixels cannot be decoded ({type(error).__name__})") from error
    look = look_of(ds, 1)
    values = stored.astype(np.float32) * float(look.get("RescaleSlope", 1)) + float(look.get("RescaleIntercept", 0))
    grey = windowed(values, *_window(look, window, values))
    return np.invert(grey) if ds.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _window(look: Dataset, window: str, values: NDArray[np.float32]) -> tuple[float, float, str]:
    if window in WINDOWS:
        return (*WINDOWS[window], LINEAR)
    if (own := own_window(look)) is not None:
        return own
    low, high = np.percentile(values, (1, 99))
    return float(low + high) / 2, max(float(high - low), 1.0), LINEAR


def _cropped(
    picture: Image.Image, masks: Mapping[int, NDArray[np.bool_]], crop: Crop
) -> tuple[Image.Image, dict[int, NDArray[np.bool_]]]:
    half = min(crop.half, picture.width // 2, picture.height // 2)
    left = min(max(0, crop.column - half), picture.width - 2 * half)
    top = min(max(0, crop.row - half), picture.height - 2 * half)
    part = picture.crop((left, top, left + 2 * half, top + 2 * half))
    return part, {number: mask[top : top + 2 * half, left : left + 2 * half] for number, mask in masks.items()}


def _in_true_proportion(picture: Image.Image, ds: Dataset) -> Image.Image:
    """Pixels that are not square, drawn as what they are."""
    try:
        between_rows, between_columns = (float(value) for value in ds.PixelSpacing)
    except (AttributeError, TypeError, ValueError):
        return picture
    if between_rows <= 0 or between_columns <= 0 or abs(between_rows / between_columns - 1) < 0.01:
        return picture
    height = max(1, min(4096, round(picture.height * between_rows / between_columns)))
    return picture.resize((picture.width, height), Image.Resampling.BICUBIC)
