"""Pictures: frames as JPEG or PNG, windowed for the eye; not for diagnosis (PS3.18 Section 8.3.5)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from dicom_node.archive.contents import Content
from dicom_node.core.errors import QueryInvalid
from dicom_node.web.dicomweb.shown_frame import ShownFrames, Window
from dicom_node.web.frame_look import LINEAR, least_width

#: Pixels along the longer side of a thumbnail.
THUMBNAIL = 128

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

    #: None: as the header says.
    window: Window | None = None
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
    """Draws frames as image files."""

    def __init__(self, shown: ShownFrames) -> None:
        self._shown = shown

    def draw(self, content: Content, number: int, look: Look, media_type: str) -> bytes:
        """A frame, from 1 on; CannotTranscode where it has no pixels that can be drawn."""
        image = Image.fromarray(self._shown.draw(content, number, look.window).pixels)
        return _encoded(_fitted(_cropped(image, look), look), look, media_type)


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


def _window(text: str) -> Window | None:
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
