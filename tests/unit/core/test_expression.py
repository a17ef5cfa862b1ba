"""The small language of routes: what it says, what it refuses, and that it means what Python means."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.errors import ExpressionError
from dicom_node.core.expression import MAXIMUM_LENGTH, parse_expression
from dicom_node.core.image_type import is_derived, is_localizer
from tests.strategies import AXIAL, expression_texts, headers

CHEST = {
    "Modality": "CT",
    "SliceThickness": 1.25,
    "SeriesNumber": 3,
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SeriesDescription": "Chest lung 1.25",
    "ImageOrientationPatient": AXIAL,
    "ContrastBolusAgent": "Iomeron",
    "BodyPartExamined": "CHEST",
}


@pytest.mark.parametrize(
    "text",
    [
        'Modality == "CT" and SliceThickness <= 5 and not derived',
        "Modality == 'ct'",
        'Modality != "MR"',
        "1 < SliceThickness < 2",
        "SliceThickness > -1",
        'Modality in ["CT", "PT"]',
        'Modality in ("CT", "PT")',
        'BodyPartExamined not in ["HEAD"]',
        '"original" in ImageType',
        '"LUNG" in SeriesDescription',
        "axial and not coronal and not sagittal",
        "contrast and not localizer",
        "derived == False",
        "ProtocolName or SeriesNumber",
        "not ProtocolName",
        '(Modality == "MR" or Modality == "CT") and True',
        "SeriesNumber == 3.0",
        ' Modality == "CT" ',
    ],
)
def test_these_match_a_thin_chest_ct(text):
    expression = parse_expression(text)
    assert expression.matches(CHEST)
    assert expression.explain(CHEST) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('Modality == "MR"', 'Modality is "CT", not "MR"'),
        ('Modality == "CT" and SliceThickness <= 1', "SliceThickness is 1.25, not <= 1"),
        ("0 < SliceThickness <= 1", "SliceThickness is 1.25, not <= 1"),
        ('Modality not in ["CT"]', 'Modality is "CT", which must not be in ["CT"]'),
        ('BodyPartExamined != "chest"', 'BodyPartExamined is "CHEST", which must not be "chest"'),
        ("derived", "it is not derived"),
        ("not axial", "it is axial"),
        ("localizer or derived", "it is not a localizer; and it is not derived"),
        ("not contrast", "it is with contrast"),
        ("SpacingBetweenSlices < 5", "SpacingBetweenSlices is absent"),
        (
            "not SpacingBetweenSlices < 5",
            "SpacingBetweenSlices is absent, so not SpacingBetweenSlices < 5 does not hold",
        ),
        ("GantryDetectorTilt", "GantryDetectorTilt is absent"),
        ('SliceThickness < "5"', 'SliceThickness is 1.25, which SliceThickness < "5" cannot compare'),
        (
            'ImageType == "ORIGINAL"',
            'ImageType is ORIGINAL\\PRIMARY\\AXIAL, which ImageType == "ORIGINAL" cannot compare',
        ),
        (
            "SeriesNumber < SliceThickness",
            "SeriesNumber is 3 and SliceThickness is 1.25, so SeriesNumber < SliceThickness does not hold",
        ),
        ('"DERIVED" in ImageType', 'ImageType is ORIGINAL\\PRIMARY\\AXIAL, so "DERIVED" in ImageType does not hold'),
        ("1 > 2", "1 > 2 never holds"),
        ("False", "False never holds"),
    ],
)
def test_a_header_that_does_not_match_is_told_why(text, why):
    expression = parse_expression(text)
    assert not expression.matches(CHEST)
    assert expression.explain(CHEST) == why


def test_reasons_do_not_repeat_free_text():
    """Descriptions are typed by people and may name the patient; reasons are logged."""
    why = parse_expression('SeriesDescription == "x"').explain(CHEST)
    assert why == 'SeriesDescription is a text of 15 characters, not "x"'


def test_what_a_header_does_not_say_is_neither_true_nor_false():
    for text in ("SliceThickness <= 5", "not SliceThickness <= 5", "axial", "not axial", "SliceThickness != 5"):
        assert not parse_expression(text).matches({}), text


def test_what_is_false_whatever_is_unknown_can_be_negated():
    header = {"Modality": "CT"}
    assert parse_expression('not (SliceThickness <= 5 and Modality == "MR")').matches(header)
    assert not parse_expression('not (SliceThickness <= 5 or Modality == "MR")').matches(header)


def test_one_true_part_is_enough_for_or_even_beside_what_is_unknown():
    assert parse_expression('SliceThickness <= 5 or Modality == "CT"').matches({"Modality": "CT"})
    assert not parse_expression('SliceThickness <= 5 and Modality == "CT"').matches({"Modality": "CT"})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the expression is empty"),
        ("  ", "the expression is empty"),
        ('Modalty == "CT"', "column 1: Modalty is no attribute keyword; did you mean Modality?"),
        ('Modality == "CT" and drived', "column 22: drived is no attribute keyword; did you mean derived?"),
        ("xyzzy", "column 1: xyzzy is no attribute keyword; attributes are AcquisitionNumber,"),
        ("StationName", "column 1: StationName is not kept by this node; kept are"),
        ('"é" == Modality and foo', "column 21: foo is no attribute keyword"),
        ('Modality = "CT"', "column 10: "),
        ('Modality == "CT', "column 13: "),
        ("(Modality", "column 1: "),
        ("Modality is None", "column 1: `is` is not part of the language; write =="),
        ("SliceThickness + 1 < 5", "column 1: SliceThickness + 1 is not part of the language; it does not calculate"),
        ("derived & axial", "column 1: derived & axial is not part of the language; it does not calculate"),
        ("len(ImageType) > 2", "column 1: len(ImageType) is not part of the language; it calls nothing"),
        ("__import__('os').system('true')", "is not part of the language; it calls nothing"),
        ("Modality.lower", "Modality.lower is not part of the language"),
        ("ImageType[0] == 'A'", "ImageType[0] is not part of the language"),
        ("[Modality]", "a list stands only after `in`"),
        ("Modality == ['CT']", "column 13: a list stands only after `in`"),
        ("Modality in []", "column 13: the list is empty"),
        ("Modality in [SeriesNumber]", "column 14: SeriesNumber is not part of the language"),
        ("Modality == ''", "column 13: nothing equals an empty text"),
        ("Modality == None", "column 13: None is not part of the language"),
        ("Modality == b'CT'", "column 13: b'CT' is not part of the language"),
        ("SliceThickness < 5j", "column 18: 5j is not part of the language"),
        ("5", "column 1: 5 alone is no condition"),
        ("'CT'", "column 1: 'CT' alone is no condition"),
        ("-SliceThickness", "column 1: -SliceThickness alone is no condition"),
        ("lambda: 1", "is not part of the language"),
        ("derived if axial else coronal", "is not part of the language"),
        ("(x := derived)", "is not part of the language"),
        ("f'{derived}'", "is not part of the language"),
        ("5and derived", "column 1: invalid decimal literal"),
        (r"Modality == '\d'", r"column 13: "),
        ("derived\x00", "null bytes"),
        ("derived\ud800", "cannot be read"),
        ("not " * 30 + "derived", "nested deeper than 20 levels"),
        ("(" * 300 + "derived" + ")" * 300, "too many nested parentheses"),
        ("derived " * MAXIMUM_LENGTH, "split the route"),
        ("derived\nor axial", ""),
    ],
)
def test_what_is_no_expression_is_refused_with_place_and_mend(text, fault):
    with pytest.raises(ExpressionError) as refused:
        parse_expression(text, known={"StationName"})
    assert fault in str(refused.value)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_and_nothing_else(text):
    with suppress(ExpressionError):
        parse_expression(text).matches(CHEST)


@given(
    st.lists(
        st.sampled_from(
            ["Modality", "derived", "==", "in", "not", "and", "(", ")", "[", "]", ",", "1", '"CT"', "<", "-"]
        )
    )
)
def test_any_heap_of_the_language_s_own_words_is_parsed_or_refused(words):
    with suppress(ExpressionError):
        parse_expression(" ".join(words)).explain(CHEST)


@given(
    expression_texts(),
    st.fixed_dictionaries(
        {
            "Modality": st.sampled_from(["ct", "mr"]),
            "SliceThickness": st.one_of(st.integers(-3, 8), st.floats(-3, 8)),
            "SeriesNumber": st.integers(-3, 8),
            "ImageType": st.sampled_from([("ORIGINAL", "PRIMARY", "AXIAL"), ("DERIVED", "SECONDARY", "LOCALIZER")]),
        }
    ),
)
def test_where_every_attribute_is_there_python_says_the_same(text, header):
    """Law: the language means what Python means, for texts that are lower case already."""
    names = header | {"derived": is_derived(header), "localizer": is_localizer(header)}
    # The test's own generated text, not input: Python is the reference here.
    expected = eval(text, {"__builtins__": {}}, names)
    expression = parse_expression(text)
    assert expression.matches(header) == expected
    assert (expression.explain(header) == "") == expected


@given(expression_texts(), headers())
def test_a_condition_and_its_negation_never_both_match(text, header):
    assert not (parse_expression(text).matches(header) and parse_expression(f"not ({text})").matches(header))


@given(expression_texts(), headers())
def test_every_failure_has_words_and_every_match_has_none(text, header):
    expression = parse_expression(text)
    assert bool(expression.explain(header)) != expression.matches(header)
