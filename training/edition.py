"""The edition of a part of this package: what one edition drew and kept is not taken for another's."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def edition(modules: Sequence[ModuleType]) -> str:
    """Twelve hexadecimal digits of the sources of the modules, in their order."""
    files = [Path(str(module.__file__)) for module in modules]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
