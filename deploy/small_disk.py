"""A disk of a few hundred megabytes that can be filled to the last byte, without harm to the real one."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

_MEGABYTE = 1 << 20
_SIZE_MEGABYTES = 768
#: What the node is told to leave free.
_LEAST_FREE_MEGABYTES = 64
#: Without a small disk: so much may still come before the real one counts as nearly full.
_HEADROOM_MEGABYTES = 2048


class SmallDisk:
    """A tmpfs where this user may mount one (`real`); else the folder itself, which can only be made to look full."""

    def __init__(self, folder: Path) -> None:
        """Mount it on an empty folder; one left over by an earlier run is taken away first."""
        unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.real = _mounted(folder)
        free = _free(folder) // _MEGABYTE
        #: For `minimum_free_megabytes` of the node.
        self.least_free_megabytes = _LEAST_FREE_MEGABYTES if self.real else max(0, free - _HEADROOM_MEGABYTES)
        self._ballast = folder / "ballast"

    def make_low(self) -> None:
        """Leave less than the node wants, but something."""
        self._leave(self.least_free_megabytes * _MEGABYTE - 8 * _MEGABYTE)

    def make_full(self) -> None:
        """Leave nothing; where the disk is everybody's, leave less than the node wants."""
        if not self.real:
            self.make_low()
            return
        with suppress(OSError):
            self._leave(0)

    def make_room(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; its files are gone."""
        unmount(self.folder)

    def _leave(self, count: int) -> None:
        size = _free(self.folder) - count
        if size <= 0:
            return
        with self._ballast.open("ab") as ballast:
            os.posix_fallocate(ballast.fileno(), ballast.tell(), size)


def unmount(folder: Path) -> None:
    """Unmount what is mounted there, if anything is."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mounted(folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MEGABYTES}m,mode=0700", "chaos", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
