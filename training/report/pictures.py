"""Worst cases as pictures: a grey slice with outlines, enlarged, as an inline PNG."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Of truth and of what the algorithm outlined.
TRUTH_COLOUR, OUR_COLOUR = (16, 185, 129), (245, 158, 11)
_SIDE = 224


def png(grey: Floats, truth: Mask | None = None, ours: Mask | None = None, side: int = _SIDE) -> str:
    """A data URL of a picture [row, column] of 0..1 with the lines of both masks, one picture pixel wide."""
    scale = max(1, round(side / max(grey.shape)))
    size = (grey.shape[1] * scale, grey.shape[0] * scale)
    plain = Image.fromarray(np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.stack([np.asarray(plain)] * 3, axis=-1)
    for mask, colour in ((truth, TRUTH_COLOUR), (ours, OUR_COLOUR)):
        if mask is not None and mask.any():
            fine = np.kron(mask, np.ones((scale, scale), dtype=bool))
            pixels[ndimage.binary_dilation(fine) & ~fine] = colour
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
