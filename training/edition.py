"""The edition of a part of this package: what one edition drew and kept is not taken for another's."""

import hashlib
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def edition(modules: tuple[ModuleType, ...]) -> str:
    """Twelve hexadecimal digits of the sources of the modules, in their order, as they were when this was asked first.

    A process that goes on for hours while somebody edits them asks when it begins, and draws as it began.
    """
    files = [Path(str(module.__file__)) for module in modules]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
