"""Reports of another build are other objects."""

import shutil
from importlib import metadata
from pathlib import Path

import pytest

import workers
from workers.reporting.software import software_digest


def digest() -> str:
    return software_digest.__wrapped__()


def test_the_same_files_are_the_same_software() -> None:
    assert digest() == software_digest()


@pytest.mark.parametrize("library", ["pylibjpeg-libjpeg", "pillow", "torch"])
def test_another_version_of_a_library_that_decodes_or_draws_makes_another(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == library else version(name))
    assert digest() != software_digest()


def test_another_zlib_makes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zlib.ZLIB_RUNTIME_VERSION", "99")
    assert digest() != software_digest()


@pytest.mark.parametrize("module", ["measurement.py", "reporting/structured_report.py", "algorithms/lung_nodule.py"])
def test_a_module_that_measures_or_writes_makes_another(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = workers.__path__
    copied = shutil.copytree(folder, tmp_path / "workers", ignore=shutil.ignore_patterns("*.pt", "__pycache__"))
    monkeypatch.setattr(workers, "__path__", [str(copied)])
    assert digest() == software_digest()
    with (copied / module).open("a") as file:
        file.write("# another\n")
    assert digest() != software_digest()
