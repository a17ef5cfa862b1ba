import hashlib
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.received_instance import CollectedDataSet

pieces = st.lists(st.binary(max_size=300), max_size=8)
places = st.lists(
    st.tuples(st.integers(-50, 400), st.sampled_from([SEEK_SET, SEEK_CUR, SEEK_END]), st.integers(-1, 400)), max_size=5
)


@given(st.lists(st.tuples(pieces, places), max_size=4))
def test_a_collected_data_set_is_read_as_a_file_of_the_same_bytes(one_after_another: list[tuple]) -> None:  # type: ignore[type-arg]
    collected = CollectedDataSet()
    for came, looks in one_after_another:
        collected.clear()
        for piece in came:
            assert collected.write(memoryview(piece)) == len(piece)
        whole = b"".join(came)
        assert collected.held() == whole
        assert (collected.size_bytes, collected.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
        file, at = BytesIO(whole), 0
        for offset, whence, size in looks:
            at = max(0, {SEEK_SET: 0, SEEK_CUR: at, SEEK_END: len(whole)}[whence] + offset)
            file.seek(at)
            assert collected.seek(offset, whence) == at
            part = collected.read(size)
            assert part == file.read(size)
            at += len(part)
            assert collected.tell() == at


def test_of_a_long_data_set_no_memory_is_kept_for_the_next() -> None:
    collected = CollectedDataSet()
    collected.write(bytes(3 << 20))
    collected.clear()
    assert len(collected._view) == 0
    collected.write(b"short")
    assert collected.held() == b"short"
