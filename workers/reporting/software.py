"""The software that writes reports, told by its own files: another build may write other bytes under the same names."""

import hashlib
import zlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import dicom_node.core
import workers

#: The libraries that decode, find, measure, draw and write; of lossy frames two versions of a decoder differ.
_LIBRARIES = (
    *("gdcm", "highdicom", "monai", "numpy", "pillow", "pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-libjpeg"),
    *("pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm", "reportlab", "scikit-image", "scipy", "torch"),
)


@cache
def software_digest() -> str:
    """Of the modules that measure and write, and of the versions of the libraries that they do it with.

    Of those that lie there when it is asked first, which a reading process does before it is ready.
    """
    digest = hashlib.sha256()
    for path in _modules():
        digest.update(path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {_version(library)}".encode())
    # Pictures and PDF are deflated by it.
    digest.update(f"zlib {zlib.ZLIB_RUNTIME_VERSION}".encode())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        # It may come under another name.
        return ""


def _modules() -> Iterator[Path]:
    for package in (dicom_node.core, workers):
        (folder,) = package.__path__
        yield from sorted(Path(folder).rglob("*.py"))
