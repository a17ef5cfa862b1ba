"""The software that writes reports, told by its own files: another build may write other bytes under the same names."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import dicom_node.core
import workers

#: What of the libraries shapes an object.
_LIBRARIES = ("highdicom", "pydicom")


@cache
def software_digest() -> str:
    """Of the modules that measure and write, and of the versions of the libraries that they write with."""
    digest = hashlib.sha256()
    for path in _modules():
        digest.update(path.read_bytes())
    for library in _LIBRARIES:
        digest.update(metadata.version(library).encode())
    return digest.hexdigest()


def _modules() -> Iterator[Path]:
    for package in (dicom_node.core, workers):
        (folder,) = package.__path__
        yield from sorted(Path(folder).rglob("*.py"))
