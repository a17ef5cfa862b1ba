from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.leftovers import torn_place
from dicom_node.archive.places import place, places
from dicom_node.archive.second_name import second_name, told_by

#: The longest there are: 64 characters.
UIDS = st.lists(st.integers(0, 10**9), min_size=7, max_size=7).map(
    lambda parts: ".".join(map(str, parts))[:64].rstrip(".")
)
SHA256 = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(study=UIDS, series=UIDS, sop=UIDS, sha256=SHA256)
def test_a_name_tells_the_place_and_the_content_and_is_a_name(study: str, series: str, sop: str, sha256: str) -> None:
    first = place("studies", study, series, sop)
    for path in places(first, "1.2.840.10008.1.2.1", sha256):
        name = second_name(path, sha256)
        assert len(name.encode()) <= 255
        assert torn_place(path.with_name(name)) == path  # type: ignore[arg-type]  # of a path its name alone counts
        told = told_by(name)
        assert told is not None
        assert told.fits(sha256)
        assert not told.fits("0" * 64 if sha256[0] != "0" else "1" * 64)
        assert second_name(path, sha256) != name


def test_other_names_tell_nothing() -> None:
    for name in ("half", "0" * 32, "a_b_c_d", "00000000_1.2_1.3_1.4_" + "g" * 32):
        assert told_by(name) is None
