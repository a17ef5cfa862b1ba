"""Grayscale Softcopy Presentation State: the lung window, and the findings' outlines over the source images themselves.

PS3.3 Section A.33.1. The images stay as they are; whoever applies the state sees the outline on every slice that a
finding is on, and its name and axes on the slice of its largest extent.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from highdicom import ModalityLUTTransformation
from highdicom.pr import (
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from dicom_node.core.finding import Finding
from workers.reporting.equipment import contributing_equipment, keep_own_equipment
from workers.reporting.evidence import Evidence
from workers.reporting.marked_slice import MarkedSlice, marked_slices
from workers.reporting.narrative import NOT_FOR_DIAGNOSIS
from workers.reporting.room import Box, beside, nearest
from workers.reporting.segmentation import colour_of, tracking_uid
from workers.reporting.window import LUNG

PRESENTATION_STATE_SERIES_NUMBER = 9005

_PIXEL, _DISPLAY = "PIXEL", "DISPLAY"
#: The room for a text, in parts of the image's width and height: for measurements, and for a name alone.
_ROOM, _ROOM_FOR_A_NAME = (0.28, 0.04), (0.14, 0.04)


def build_presentation_states(
    evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]
) -> tuple[GrayscaleSoftcopyPresentationState, ...]:
    """One state for all marked slices, or one a rescaling to HU where slices differ in it; none without findings.

    `labels` [k, j, i] hold a finding's number in its voxels. A state has one Modality LUT for all that it refers to.
    """
    marked = sorted(marked_slices(evidence, findings, labels), key=lambda piece: _rescaling(evidence, piece.k))
    groups = groupby(marked, key=lambda piece: _rescaling(evidence, piece.k))
    return tuple(
        _state(evidence, findings, number, sorted(pieces, key=lambda piece: piece.k))
        for number, (_, pieces) in enumerate(groups, start=1)
    )


def _state(
    evidence: Evidence, findings: tuple[Finding, ...], number: int, pieces: Sequence[MarkedSlice]
) -> GrayscaleSoftcopyPresentationState:
    notice = GraphicLayer(layer_name="AI NOTICE", order=1, description=NOT_FOR_DIAGNOSIS)
    layers = {finding.number: _layer(finding) for finding in findings}
    annotations = [_notice(evidence, pieces, notice)]
    annotations += [annotation for piece in pieces for annotation in _annotations(evidence, piece, layers)]
    used = {mark.finding.number for piece in pieces for mark in piece.marks}
    slope, intercept = _rescaling(evidence, pieces[0].k)
    attributes = evidence.header_attributes("outlines")
    completed = DA(attributes.pop("content_date")), TM(attributes.pop("content_time"))
    attributes["instance_number"] = (attributes["instance_number"] - 1) * 1000 + number
    state = GrayscaleSoftcopyPresentationState(
        # One for all: of each image the constructor asks again whether its class has pixels.
        referenced_images=[_image(evidence)],
        series_instance_uid=evidence.series_uid("PR"),
        series_number=PRESENTATION_STATE_SERIES_NUMBER,
        sop_instance_uid=evidence.uid("PR" if number == 1 else f"PR {number}"),
        content_label="AI_FINDINGS",
        content_description="AI result, not for diagnostic use",
        modality_lut_transformation=ModalityLUTTransformation(
            rescale_intercept=intercept, rescale_slope=slope, rescale_type="HU"
        ),
        voi_lut_transformations=[
            SoftcopyVOILUTTransformation(
                window_center=[LUNG.centre], window_width=[LUNG.width], window_explanation=[LUNG.name]
            )
        ],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing_equipment(evidence)],
        **attributes,
    )
    evidence.complete(state)
    keep_own_equipment(state, evidence.algorithm)
    state.PresentationCreationDate, state.PresentationCreationTime = completed
    _refer(state, evidence, pieces)
    state.GraphicLayerSequence = [notice, *(layers[number] for number in sorted(used))]
    state.GraphicAnnotationSequence = annotations
    # Type 2C: lungs are a pair, and both are shown.
    state.Laterality = ""
    _show_whole_image(state, evidence.header)
    return state


def _rescaling(evidence: Evidence, k: int) -> tuple[float, float]:
    header = evidence.volume.headers[k]
    return float(header.RescaleSlope), float(header.RescaleIntercept)


def _image(evidence: Evidence) -> Dataset:
    image = evidence.source_images[0]
    image.SamplesPerPixel = 1
    return image


def _refer(state: Dataset, evidence: Evidence, pieces: Sequence[MarkedSlice]) -> None:
    """Name what the state is for: the marked slices alone (PS3.3 Section C.11.11)."""
    series = Dataset()
    series.SeriesInstanceUID = evidence.volume.series_instance_uid
    series.ReferencedImageSequence = evidence.references([piece.k for piece in pieces])
    state.ReferencedSeriesSequence = [series]


def _layer(finding: Finding) -> GraphicLayer:
    name = f"FINDING {finding.number}"
    return GraphicLayer(
        layer_name=name, order=finding.number + 1, description="AI finding", display_color=colour_of(finding)
    )


def _notice(evidence: Evidence, pieces: Sequence[MarkedSlice], layer: GraphicLayer) -> Dataset:
    """Says on every marked slice, at the same place of the window, whose marks these are."""
    text = TextObject(
        text_value=NOT_FOR_DIAGNOSIS,
        units=_DISPLAY,
        bounding_box=(0.02, 0.94, 0.6, 0.98),
        text_justification="LEFT",
    )
    return _on_slices(evidence, [piece.k for piece in pieces], layer, [], [text])


def _annotations(evidence: Evidence, piece: MarkedSlice, layers: dict[int, GraphicLayer]) -> list[Dataset]:
    """The findings on one slice, each in its own layer, their texts beside them and off each other."""
    header, annotations = evidence.volume.headers[piece.k], []
    texts: list[Box] = []
    size = float(header.Columns), float(header.Rows)
    for mark in piece.marks:
        room = _ROOM if mark.is_key else _ROOM_FOR_A_NAME
        box = beside(
            mark.box,
            (room[0] * size[0], room[1] * size[1]),
            marks=[other.box for other in piece.marks],
            texts=texts,
            whole=(0.0, 0.0, *size),
        )
        texts.append(box)
        outlines = [
            GraphicObject(
                graphic_type="POLYLINE",
                graphic_data=np.clip(line, 0.0, size),
                units=_PIXEL,
                tracking_id=mark.name,
                tracking_uid=tracking_uid(evidence, mark.finding),
            )
            for line in mark.lines
        ]
        label = TextObject(
            text_value=f"{mark.name}: {mark.extent}" if mark.is_key else mark.name,
            units=_PIXEL,
            bounding_box=_within(box, size),
            anchor_point=nearest(mark.box, box),
            text_justification="LEFT",
            tracking_id=mark.name,
            tracking_uid=tracking_uid(evidence, mark.finding),
        )
        annotations.append(_on_slices(evidence, [piece.k], layers[mark.finding.number], outlines, [label]))
    return annotations


def _within(box: Box, size: tuple[float, float]) -> Box:
    """A box moved into the image."""
    left = min(max(0.0, box[0]), size[0] - (box[2] - box[0]))
    top = min(max(0.0, box[1]), size[1] - (box[3] - box[1]))
    return left, top, min(left + box[2] - box[0], size[0]), min(top + box[3] - box[1], size[1])


def _on_slices(
    evidence: Evidence,
    places: Sequence[int],
    layer: GraphicLayer,
    outlines: Sequence[GraphicObject],
    texts: Sequence[TextObject],
) -> Dataset:
    """An item of the Graphic Annotation Sequence (PS3.3 Section C.10.5)."""
    annotation = Dataset()
    annotation.GraphicLayer = layer.GraphicLayer
    annotation.ReferencedImageSequence = evidence.references(places)
    if outlines:
        annotation.GraphicObjectSequence = outlines
    annotation.TextObjectSequence = texts
    return annotation


def _show_whole_image(state: Dataset, header: Dataset) -> None:
    """The whole image, at the true ratio of its sides (PS3.3 Section C.10.4)."""
    for area in state.DisplayedAreaSelectionSequence:
        # Only tiled images have an origin to choose.
        area.pop("PixelOriginInterpretation", None)
        area.pop("PresentationPixelAspectRatio", None)
        area.PresentationPixelSpacing = header.PixelSpacing
