"""Pictures of slices: a frame as it is shown, and the outlines of findings over it; no text of the header."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from dicom_node.web.dicomweb.shown_frame import ShownFrame, Window
from dicom_node.web.frame_look import LINEAR

#: In Hounsfield units.
WINDOWS: Mapping[str, Window] = {
    "lung": (-600.0, 1500.0, LINEAR),
    "soft": (40.0, 400.0, LINEAR),
    "bone": (300.0, 1500.0, LINEAR),
}

#: Of findings, in turn; each is told from the others, and from grey, by people who confuse red and green, too.
COLOURS = ((255, 200, 87), (124, 196, 255), (255, 138, 128), (125, 220, 154), (214, 160, 255))


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square part of an image around a point, in pixels."""

    row: int
    column: int
    half: int


def marked(
    shown: ShownFrame, masks: Mapping[int, NDArray[np.bool_]], *, size: int = 0, crop: Crop | None = None
) -> bytes:
    """A PNG of a frame with the outlines of the findings on it, by their numbers.

    `size` is the longest side, 0 for one pixel a pixel.
    """
    picture = Image.fromarray(shown.pixels).convert("RGB")
    scale = 1 if size == 0 else max(1, round(size / max(picture.size)))
    if crop is not None:
        picture, masks = _cropped(picture, masks, crop)
        scale = max(1, round(size / (2 * crop.half))) if size else 1
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    pixels = np.array(picture)
    for number, mask in masks.items():
        if mask.shape == (picture.height // scale, picture.width // scale):
            pixels[outline(mask, scale)] = COLOURS[(number - 1) % len(COLOURS)]
    picture = _in_true_proportion(Image.fromarray(pixels), shown.header)
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
