"""Document: a narrative and the pictures that go with it, as a PDF of A4 pages, the same for the same reading."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reportlab import rl_config
from reportlab.lib.colors import HexColor, black, white
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
from reportlab.platypus import Image as PlacedImage

from workers.reporting.narrative import COLUMNS, NOT_FOR_DIAGNOSIS, Narrative
from workers.reporting.picture import BOLD, FONTS, REGULAR, printable

_FONT, _BOLD_FONT = "Vera", "VeraBd"
_MARGIN = 16 * mm
#: What the library leaves free around the text, in points.
_PADDING = 6
_BANNER = HexColor(0x7A4B00)
_PAPER = HexColor(0xFFF3D6)
_LINES = HexColor(0xB8B8B8)
#: Two pictures beside each other.
_PICTURE_WIDTH = 86 * mm
_JPEG_QUALITY = 90
_COLUMN_WIDTHS = tuple(width * mm for width in (25, 17, 28, 16, 17, 15, 15, 45))

_TEXT = ParagraphStyle("text", fontName=_FONT, fontSize=9.5, leading=13, spaceAfter=5, splitLongWords=1)
_HEADLINE = ParagraphStyle("headline", fontName=_BOLD_FONT, fontSize=14, leading=18, spaceBefore=8, spaceAfter=8)
_CELL = ParagraphStyle("cell", fontName=_FONT, fontSize=8, leading=10)
_HEAD = ParagraphStyle("head", parent=_CELL, fontName=_BOLD_FONT)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture [row, column, red green blue] and what stands below it."""

    pixels: NDArray[np.uint8]
    caption: str


def as_pdf(told: Narrative, figures: Sequence[Figure]) -> bytes:
    """The bytes of the PDF: without clock or chance, so that the same reading writes the same document."""
    for name, font in ((_FONT, REGULAR), (_BOLD_FONT, BOLD)):
        registerFont(TTFont(name, FONTS / font))
    # A file need not be text: else each picture is rewritten in letters, a quarter larger, in a second.
    rl_config.useA85 = 0
    with BytesIO() as file:
        SimpleDocTemplate(
            file,
            pagesize=A4,
            leftMargin=_MARGIN - _PADDING,
            rightMargin=_MARGIN - _PADDING,
            topMargin=_MARGIN + 12 * mm,
            bottomMargin=_MARGIN,
            title=NOT_FOR_DIAGNOSIS,
            author="",
            subject=printable(told.headline),
            creator="",
            lang="en-US",
            invariant=1,
        ).build(list(_story(told, figures)), onFirstPage=_on_page, onLaterPages=_on_page)
        return file.getvalue()


def _story(told: Narrative, figures: Sequence[Figure]) -> Iterator[Flowable]:
    yield Paragraph(_shown(told.headline), _HEADLINE)
    for sentence in told.sentences:
        yield Paragraph(_shown(sentence), _TEXT)
    if told.rows:
        yield Spacer(0, 4 * mm)
        yield _table(told.rows)
        yield Spacer(0, 6 * mm)
    for number in range(0, len(figures), 2):
        cells = [[_figure(figure) for figure in figures[number : number + 2]]]
        style = TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)])
        yield KeepTogether(Table(cells, colWidths=_PICTURE_WIDTH + 3 * mm, style=style, hAlign="LEFT"))


def _table(rows: Sequence[Sequence[str]]) -> Table:
    cells = [[Paragraph(_shown(name), _HEAD) for name in COLUMNS]]
    cells += [[Paragraph(_shown(cell), _CELL) for cell in row] for row in rows]
    style = TableStyle(
        [
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINES),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("RIGHTPADDING", (0, 0), (-1, -1), 2),
        ]
    )
    return Table(cells, colWidths=_COLUMN_WIDTHS, repeatRows=1, style=style, hAlign="LEFT")


def _figure(figure: Figure) -> list[Flowable]:
    jpeg = BytesIO()
    Image.fromarray(figure.pixels).save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    jpeg.seek(0)
    height = _PICTURE_WIDTH * figure.pixels.shape[0] / figure.pixels.shape[1]
    picture = PlacedImage(jpeg, width=_PICTURE_WIDTH, height=height)
    return [picture, Spacer(0, 1.5 * mm), Paragraph(_shown(figure.caption), _CELL), Spacer(0, 3 * mm)]


def _on_page(canvas: Canvas, _document: SimpleDocTemplate) -> None:
    """Says on every page what it is, so that one page alone cannot be taken for more."""
    width, height = A4
    canvas.saveState()
    canvas.setFillColor(_PAPER)
    canvas.rect(0, height - 18 * mm, width, 18 * mm, stroke=0, fill=1)
    canvas.setFillColor(_BANNER)
    canvas.setFont(_BOLD_FONT, 13)
    canvas.drawString(_MARGIN, height - 12 * mm, NOT_FOR_DIAGNOSIS)
    canvas.setFillColor(black)
    canvas.setFont(_FONT, 8)
    canvas.drawRightString(width - _MARGIN, 8 * mm, f"Page {canvas.getPageNumber()}")
    canvas.drawString(_MARGIN, 8 * mm, "The patient and the study are those of the object that holds this document.")
    canvas.setFillColor(white)
    canvas.restoreState()


def _shown(text: str) -> str:
    return escape(printable(text))
