"""Hypothesis strategies: slices, studies and expressions as the world sends them, whole and broken."""

import math
from typing import Any

from hypothesis import strategies as st

from dicom_node.core.study import Instance, Study

#: Row and column cosines of usual planes.
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def slice_at(z: float, **attributes: Any) -> dict[str, Any]:
    """The header of an axial CT slice of 512 x 512 pixels at a height; attributes replace, None removes."""
    header = {
        "Modality": "CT",
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": (-180.0, -180.0, z),
        "FrameOfReferenceUID": "1.2.3",
        "PixelSpacing": (0.7, 0.7),
        "Rows": 512,
        "Columns": 512,
        "SliceThickness": 2.5,
        "SeriesNumber": 2,
    }
    return {keyword: value for keyword, value in (header | attributes).items() if value is not None}


def slices_at(*heights: float, **attributes: Any) -> list[dict[str, Any]]:
    """Slices at several heights, alike in all else."""
    return [slice_at(z, **attributes) for z in heights]


def instances_of(
    series_instance_uid: str, headers: list[dict[str, Any]], study_instance_uid: str = "1"
) -> list[Instance]:
    """One instance a header, of one series."""
    return [
        Instance(
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            sop_instance_uid=f"{series_instance_uid}.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=f"{series_instance_uid}.{number}.dcm",
            size_bytes=1,
            sha256=f"{number:064x}",
            received_at=0.0,
            calling_ae_title="CT1",
            attributes=header,
        )
        for number, header in enumerate(headers, start=1)
    ]


def study_of(**series: list[dict[str, Any]]) -> Study:
    """A study of series named s1, s2, ...: their UIDs are 1.1, 1.2, ..."""
    instances = [i for name, headers in series.items() for i in instances_of(f"1.{name[1:]}", headers)]
    return Study.from_instances("1", instances)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Row and column cosines of any plane: two perpendicular unit vectors, from three angles."""
    a, b, c = (draw(st.floats(-math.pi, math.pi)) for _ in range(3))
    row = (math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b))
    across = (-math.sin(a), math.cos(a), 0.0)
    up = (
        row[1] * across[2] - row[2] * across[1],
        row[2] * across[0] - row[0] * across[2],
        row[0] * across[1] - row[1] * across[0],
    )
    column = tuple(math.cos(c) * s + math.sin(c) * t for s, t in zip(across, up, strict=True))
    return (*row, *column)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """A header in which anything may lack or be odd."""
    optional = {
        "Modality": st.sampled_from(["CT", "MR", "ct ", "", 7]),
        "SliceThickness": st.one_of(st.floats(), st.integers(-1, 10), st.just("2.5")),
        "ImageType": st.lists(st.sampled_from(["ORIGINAL", "DERIVED", "PRIMARY", "AXIAL", "LOCALIZER"]), max_size=4),
        "SeriesDescription": st.text(max_size=12),
        "ImageOrientationPatient": st.one_of(orientations(), st.tuples(st.floats(), st.floats()), st.text(max_size=3)),
        "ImagePositionPatient": st.one_of(st.tuples(*[st.floats(-1e3, 1e3)] * 3), st.just(())),
        "ContrastBolusAgent": st.sampled_from(["", "NONE", "Iomeron"]),
        "SeriesNumber": st.one_of(st.integers(), st.text(max_size=2)),
        "RequestedProcedurePriority": st.sampled_from(["STAT", "HIGH", "LOW", "?", ("STAT", "LOW")]),
    }
    return draw(st.fixed_dictionaries({}, optional=optional))


@st.composite
def series_headers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A stack with gaps, repeated slices and an odd spacing."""
    spacing = draw(st.sampled_from([0.6, 1.0, 2.5, 5.0]))
    places = draw(st.lists(st.integers(0, 30), min_size=1, max_size=26))
    shared = {"SliceThickness": spacing, "SeriesNumber": draw(st.integers(1, 3))} | draw(
        st.fixed_dictionaries(
            {}, optional={"Modality": st.sampled_from(["MR", None]), "ImageType": st.just(("DERIVED",))}
        )
    )
    return [slice_at(place * spacing, **shared) for place in places]


@st.composite
def expression_texts(draw: st.DrawFn, depth: int = 3) -> str:
    """Text of the small language, also Python with the same meaning once its names are bound."""
    if depth == 0 or draw(st.booleans()):
        return draw(_comparisons())
    part = expression_texts(depth=depth - 1)
    match draw(st.sampled_from(["and", "or", "not"])):
        case "not":
            return f"not ({draw(part)})"
        case word:
            return f"({draw(part)}) {word} ({draw(part)})"


@st.composite
def _comparisons(draw: st.DrawFn) -> str:
    number = draw(st.integers(-3, 8))
    sign = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    return draw(
        st.sampled_from(
            [
                f"SliceThickness {sign} {number}",
                f"{number} {sign} SeriesNumber",
                f"0 <= SliceThickness {sign} {number}",
                f"SeriesNumber {sign} SliceThickness",
                f"SeriesNumber in [1, 2, {number}]",
                f"SliceThickness not in [{number}]",
                'Modality == "ct"',
                'Modality in ["mr", "ct"]',
                '"t" in Modality',
                "derived",
                "localizer",
            ]
        )
    )
