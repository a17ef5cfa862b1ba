"""What Image Type says of an image's making."""

import pytest

from dicom_node.core.image_type import is_derived, is_localizer


@pytest.mark.parametrize(
    ("value", "derived", "localizer"),
    [
        (("ORIGINAL", "PRIMARY", "AXIAL"), False, False),
        # Reconstructed later from raw data: secondary, but not derived.
        (("ORIGINAL", "SECONDARY", "AXIAL"), False, False),
        (("DERIVED", "SECONDARY", "MPR"), True, False),
        (["derived ", "PRIMARY"], True, False),
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), False, True),
        (("ORIGINAL", "PRIMARY", "CT_SOM5", "TOPOGRAM"), False, True),
        ("DERIVED", True, False),
        ((), False, False),
        (None, False, False),
    ],
)
def test_image_type_tells_derived_images_and_localizers(value, derived, localizer):
    header = {"ImageType": value}
    assert (is_derived(header), is_localizer(header)) == (derived, localizer)


def test_an_image_without_image_type_is_taken_for_original():
    assert not is_derived({})
    assert not is_localizer({})
