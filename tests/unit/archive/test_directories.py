from pathlib import Path

import pytest

from dicom_node.archive import directories
from dicom_node.archive.directories import Directories


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of directories that were synced, in their order."""
    names: list[str] = []
    monkeypatch.setattr(directories, "sync_directory", lambda path: names.append(Path(path).name))
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
