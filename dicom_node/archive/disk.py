"""The disk below a directory: all that was written to it, waited for at once."""

import ctypes
import os
import re

#: Before it, Linux did not tell of what the disk had refused (syncfs(2)).
_TELLS_OF_ERRORS = (5, 8)


class Disk:
    """The file system that a directory lies in; for one thread at a time."""

    def __init__(self, folder: str) -> None:
        """Errors are told of from here on; OSError where the directory cannot be opened."""
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._library = ctypes.CDLL(None, use_errno=True)
        self.can_be_synced = _kernel() >= _TELLS_OF_ERRORS and hasattr(self._library, "syncfs")

    def sync(self) -> None:
        """Let every file and name be on the disk at return; OSError where any was refused since the last time."""
        if self._library.syncfs(self._folder):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """It is not asked any more."""
        os.close(self._folder)


def _kernel() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(map(int, found.groups())) if found else (0, 0)
