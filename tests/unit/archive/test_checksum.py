"""A content's checksum is that of its bytes, wherever they lie."""

import hashlib
from io import BytesIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.checksum import pieces_of, sha256_of


@given(content=st.binary(max_size=2000), start=st.integers(0, 2100))
def test_it_is_of_what_comes_from_here_on_and_the_file_is_at_its_end(content: bytes, start: int) -> None:
    file = BytesIO(content)
    file.seek(start)
    assert sha256_of(file) == hashlib.sha256(content[start:]).hexdigest()
    assert file.read() == b""


def test_a_file_on_the_disk_comes_in_pieces_and_one_in_memory_as_it_is(tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        pieces = list(pieces_of(file))
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    in_memory = BytesIO(content)
    assert [bytes(piece) for piece in pieces_of(in_memory)] == [content]
    # Nothing holds it: it can grow again.
    in_memory.write(b"more")
