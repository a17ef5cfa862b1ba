"""Forms: the kinds of objects that a report consists of, which peer gets which, and in what order they go out.

A further form is a member here with its row, and a row in `workers.reporting.forms` with what builds it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Form(StrEnum):
    """What one object of a report is."""

    #: BINARY Segmentation.
    SEG = "SEG"
    #: Structured report in the form that most viewers show.
    SR = "SR"
    #: Structured report in the form that OHIF takes as annotations of its own.
    SR_OHIF = "SR OHIF"
    #: The same for a peer that gets a label map and no BINARY segmentation, whose segments they name.
    SR_LABEL_MAP = "SR LABELMAP"
    SR_OHIF_LABEL_MAP = "SR OHIF LABELMAP"
    #: And for a peer that gets no segmentation of the findings: they refer to images alone.
    SR_IMAGES = "SR IMAGES"
    SR_OHIF_IMAGES = "SR OHIF IMAGES"
    #: Structured report that says why a study was not read.
    UNREAD = "UNREAD"
    #: The same as a colour picture of text, and as a PDF.
    UNREAD_PICTURE = "UNREAD SC"
    UNREAD_PDF = "UNREAD PDF"
    #: The findings as a Label Map Segmentation, smaller where they are many.
    LABEL_MAP = "LABELMAP"
    #: Segmentation of the lungs that were searched.
    LUNG = "LUNG"
    #: Key Object Selection that opens the slices of the findings.
    KEY_OBJECTS = "KOS"
    #: Grayscale Softcopy Presentation State: outlines and labels over the source images.
    PRESENTATION_STATE = "GSPS"
    #: Colour Secondary Capture: a page of text, and pictures of the findings.
    SECONDARY_CAPTURE = "SC"
    #: Encapsulated PDF: the report as a document with pictures.
    PDF = "PDF"
    #: Rejection note: Key Object Selection that withdraws what was sent before.
    REJECTION = "REJECTION"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What delivery must know of a form."""

    #: Of one report the objects of lower rank go first.
    rank: int
    #: The form that it names objects of, if any: it goes to a peer that gets those, and only after them.
    refers_to: Form | None = None


TRAITS: dict[Form, Traits] = {
    Form.SEG: Traits(rank=0),
    Form.LABEL_MAP: Traits(rank=0),
    Form.SR: Traits(rank=1, refers_to=Form.SEG),
    Form.SR_OHIF: Traits(rank=1, refers_to=Form.SEG),
    Form.SR_LABEL_MAP: Traits(rank=1, refers_to=Form.LABEL_MAP),
    Form.SR_OHIF_LABEL_MAP: Traits(rank=1, refers_to=Form.LABEL_MAP),
    Form.SR_IMAGES: Traits(rank=1),
    Form.SR_OHIF_IMAGES: Traits(rank=1),
    Form.UNREAD: Traits(rank=1),
    Form.UNREAD_PICTURE: Traits(rank=2),
    Form.UNREAD_PDF: Traits(rank=2),
    # These refer to source images alone, and are whole without the others.
    Form.LUNG: Traits(rank=2),
    Form.KEY_OBJECTS: Traits(rank=2),
    Form.PRESENTATION_STATE: Traits(rank=2),
    Form.SECONDARY_CAPTURE: Traits(rank=2),
    Form.PDF: Traits(rank=2),
    # It refers to what the peer was sent before.
    Form.REJECTION: Traits(rank=3),
}

#: What a peer may ask for by name.
FormChoice = Literal["SEG", "SR", "LABELMAP", "LUNG", "KOS", "GSPS", "SC", "PDF"]
SRForm = Literal["portable", "ohif"]

#: Of these a peer must ask for one: the others are not written where nothing was found, and silence is no answer.
SAY_THAT_NOTHING_WAS_FOUND: tuple[FormChoice, ...] = ("SR",)

#: Structured reports on a reading, by the peer's `sr_form` and the form of the segments that it gets.
_STRUCTURED_REPORTS: dict[tuple[SRForm, Form | None], Form] = {
    ("portable", Form.SEG): Form.SR,
    ("ohif", Form.SEG): Form.SR_OHIF,
    ("portable", Form.LABEL_MAP): Form.SR_LABEL_MAP,
    ("ohif", Form.LABEL_MAP): Form.SR_OHIF_LABEL_MAP,
    ("portable", None): Form.SR_IMAGES,
    ("ohif", None): Form.SR_OHIF_IMAGES,
}
STRUCTURED_REPORTS = tuple(_STRUCTURED_REPORTS.values())

#: Of these those that OHIF takes as annotations of its own.
FOR_OHIF = frozenset(form for (sr_form, _), form in _STRUCTURED_REPORTS.items() if sr_form == "ohif")

#: Where one of these must not be sent, nothing of its report is.
ESSENTIAL = (Form.SEG, *STRUCTURED_REPORTS, Form.UNREAD)

#: What says why a study was not read, by the forms of which a peer gets it for one.
UNREAD = {
    Form.UNREAD: frozenset(STRUCTURED_REPORTS),
    Form.UNREAD_PICTURE: frozenset({Form.SECONDARY_CAPTURE}),
    Form.UNREAD_PDF: frozenset({Form.PDF}),
}

#: What is written where no peer asks for anything.
BY_DEFAULT = frozenset({Form.SEG, Form.SR})


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A structured report of the same study and algorithm as one that is to be written."""

    #: Relative to the archive's root.
    path: str
    form: Form
    #: Whether a peer may have it.
    offered: bool
    #: Whether the same job wrote it.
    own: bool
    #: Whether it was taken back: if a peer may have it, it is replaced, and never written again.
    withdrawn: bool = False


def forms_of(choices: tuple[FormChoice, ...], sr_form: SRForm) -> frozenset[Form]:
    """The forms that a peer's settings ask for: its structured report names the segments that it gets."""
    others = {Form(choice) for choice in choices if choice != "SR"}
    segments = next((form for form in (Form.SEG, Form.LABEL_MAP) if form in others), None)
    return frozenset(others | ({_STRUCTURED_REPORTS[sr_form, segments]} if "SR" in choices else set()))


def nearest_report(wanted: Collection[Form], written: Collection[Form]) -> Form | None:
    """The structured report among those written for a peer that wants one; None where it wants none, or there is none.

    Its own, if there is one. The settings may have changed since: then one that refers to nothing else, or to what the
    peer gets, goes before one that refers to what it does not get; silence would be worse than that.
    """
    if set(STRUCTURED_REPORTS).isdisjoint(wanted):
        return None
    known = [form for form in STRUCTURED_REPORTS if form in written]
    return min(known, key=lambda form: (form not in wanted, not _is_whole(form, wanted)), default=None)


def _is_whole(form: Form, wanted: Collection[Form]) -> bool:
    return TRAITS[form].refers_to is None or TRAITS[form].refers_to in wanted


def form_of(name: str, sop_class_uid: str) -> Form:
    """The form of an object in the index; one of an earlier version has no name, and tells it by its class."""
    if name:
        return Form(name)
    # Segmentation Storage; all else was Comprehensive 3D SR.
    return Form.SEG if sop_class_uid == "1.2.840.10008.5.1.4.1.1.66.4" else Form.SR
