"""Our codes are the standard's."""

import pytest
from pydicom.sr._concepts_dict import concepts

from dicom_node.core import codes
from dicom_node.core.codes import Code

OURS = {name: code for name, code in vars(codes).items() if isinstance(code, Code)}
#: Not in the dictionary, or there under another meaning than the one that the standard's templates print.
SPELT_OTHERWISE = {
    "QUALITATIVE_EVALUATIONS",
    "CT_CHEST",
    "MILLIMETRE",
    # SNOMED CT's own, which no context group has.
    "CHEST_RADIOGRAPH",
    # Of the private scheme 99DICOMNODE: no standard names these ways of measuring, nor the solid part's diameter, nor
    # what became of a finding, nor whether two sizes compare.
    "CHANGE",
    "COMPARABILITY",
    "CONTRAST_OTHERWISE",
    "DAYS_SINCE_PRIOR",
    "DIAMETER_CHANGE",
    "DOUBLING_TIME",
    "MEASURED_OTHERWISE",
    "NEW_FINDING",
    "PRIOR_DIAMETER",
    "PRIOR_VOLUME",
    "VOLUME_CHANGE",
    "FILLED_BORDER",
    "PARTIAL_VOLUME",
    "SMOOTHED_BORDER",
    "SOLID_DIAMETER",
    "VOXEL_BORDER",
    # RadLex codes that are in no context group.
    "COMPOSITION",
    "SOLID",
    "PARTIALLY_SOLID",
    "NON_SOLID",
    "LUNG_RADS_ASSESSMENT",
    "LUNG_RADS_2",
    "LUNG_RADS_3",
    "LUNG_RADS_4A",
    "LUNG_RADS_4B",
}


def meanings(code: Code) -> set[str]:
    """What pydicom's copy of the context groups calls a code."""
    return {entry[code.value][0] for entry in concepts.get(code.scheme, {}).values() if code.value in entry}


@pytest.mark.parametrize("name", sorted(OURS.keys() - SPELT_OTHERWISE))
def test_a_code_means_what_the_standard_says(name: str) -> None:
    assert OURS[name].meaning in meanings(OURS[name])


def test_no_two_names_stand_for_one_code() -> None:
    assert len({(code.scheme, code.value) for code in OURS.values()}) == len(OURS)
