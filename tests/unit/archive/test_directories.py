import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dicom_node.archive import directories
from dicom_node.archive.directories import Directories


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of directories that were synced, in their order."""
    names: list[str] = []

    def noted(descriptors: Sequence[int]) -> None:
        names.extend(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name for descriptor in descriptors)

    monkeypatch.setattr(directories, "wait_for", noted)
    return names


def test_each_name_is_on_the_disk_before_it_is_relied_on_and_known_from_then_on(
    tmp_path: Path, synced: list[str]
) -> None:
    known, series = Directories(), tmp_path / "studies" / "ab" / "1.2" / "1.2.3"
    (tmp_path / "studies").mkdir()
    known.make(str(series))
    known.sync(str(series), levels=3)
    assert synced == ["1.2.3", "1.2", "ab", "studies"]
    synced.clear()
    known.make(str(series))
    known.sync(str(series), levels=3)
    assert synced == ["1.2.3"]
    synced.clear()
    other = series.with_name("1.2.4")
    known.make(str(other))
    known.sync(str(other), levels=3)
    assert synced == ["1.2.4", "1.2"]


def test_a_directory_that_was_removed_and_made_again_is_not_taken_for_known(tmp_path: Path, synced: list[str]) -> None:
    known, series = Directories(), tmp_path / "1.2" / "1.2.3"
    known.make(str(series))
    known.sync(str(series), levels=2)
    series.rmdir()
    synced.clear()
    known.make(str(series))
    known.sync(str(series), levels=2)
    assert synced == ["1.2.3", "1.2"]


def test_another_process_s_directory_is_not_relied_on(tmp_path: Path, synced: list[str]) -> None:
    series = tmp_path / "1.2" / "1.2.3"
    series.mkdir(parents=True)
    known = Directories()
    known.make(str(series))
    known.sync(str(series), levels=2)
    assert synced == ["1.2.3", "1.2", tmp_path.name]


def test_a_file_is_on_the_disk_with_the_names_that_lead_to_it(tmp_path: Path, synced: list[str]) -> None:
    known, series = Directories(), tmp_path / "1.2" / "1.2.3"
    known.make(str(series))
    with (series / "1.2.3.4.dcm").open("wb") as file:
        known.sync(str(series), levels=2, with_file=file.fileno())
    assert synced == ["1.2.3.4.dcm", "1.2.3", "1.2", tmp_path.name]


def test_what_could_not_be_waited_for_is_not_known(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, series = Directories(), tmp_path / "1.2" / "1.2.3"
    known.make(str(series))

    def failing(_descriptors: Sequence[int]) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failed:
        failed.setattr(directories, "wait_for", failing)
        with pytest.raises(OSError, match="Input/output"):
            known.sync(str(series), levels=2)
    known.sync(str(series), levels=2)
    assert synced == ["1.2.3", "1.2", tmp_path.name]
