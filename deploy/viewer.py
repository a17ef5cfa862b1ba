"""The viewer, OHIF, fetched once from npm and checked; `make viewer`.

One version, by its checksum: another file of that name is not unpacked. Its files lie outside the repository, where the
node finds them by `viewer_dir` of [web].
"""

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dicom_node.core.errors import SettingsError
from dicom_node.settings_loading import load_settings
from dicom_node.web.dicomweb.viewer import VIEWER

PACKAGE, VERSION = "@ohif/app", "3.13.2"

#: Of the package's file, as npm publishes it.
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="

#: Says which version lies in the folder.
MARK = "version.txt"

_INSIDE = "package/dist/"

#: Where a script of it says below which path the others lie.
_ROOT = '__webpack_require__.p = "/"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch it unless it is there; 0 when it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="the settings file whose viewer_dir it goes to")
    parser.add_argument("--package", type=Path, help="the package's file, where it was fetched by other means")
    options = parser.parse_args(arguments)
    try:
        folder = load_settings(options.config, os.environ).web.viewer_dir.expanduser()
        if is_there(folder):
            print(f"OHIF {VERSION} is there: {folder}")
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            unpack(options.package or _fetched(Path(temporary)), folder)
    except (SettingsError, ViewerUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"OHIF {VERSION} lies in {folder}; a running node serves it at /viewer")
    return 0


class ViewerUnavailable(Exception):
    """It could not be fetched, or is not what it should be."""


def is_there(folder: Path) -> bool:
    """Whether this version lies in the folder, whole."""
    mark = folder / MARK
    return mark.is_file() and mark.read_text(encoding="utf-8").strip() == VERSION


def unpack(package: Path, folder: Path) -> None:
    """Check the package and put its files into the folder, in place of another version's."""
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode("ascii")
    if f"sha512-{digest}" != INTEGRITY:
        raise ViewerUnavailable(
            f"{package.name} is not {PACKAGE} {VERSION}: its checksum differs; nothing was unpacked"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        with tarfile.open(package) as archive:
            archive.extractall(temporary, members=_wanted(archive), filter="data")
        made = Path(temporary) / _INSIDE
        _move_below_our_path(made)
        # Last: what broke off before has no mark.
        (made / MARK).write_text(f"{VERSION}\n", encoding="utf-8")
        if folder.exists():
            # Only what this program put there, or nothing at all.
            shutil.rmtree(folder) if (folder / MARK).is_file() else _removed_if_empty(folder)
        made.rename(folder)


def _move_below_our_path(folder: Path) -> None:
    """Its scripts look for each other at the root of a host, as they were built; let them look below /viewer."""
    changed = 0
    for script in sorted(folder.glob("*.js")):
        text = script.read_text(encoding="utf-8")
        if _ROOT in text:
            script.write_text(text.replace(_ROOT, _ROOT.replace('"/"', f'"{VIEWER}/"')), encoding="utf-8")
            changed += 1
    for sheet in sorted(folder.glob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        sheet.write_text(re.sub(r"""url\((["']?)/(?!/)""", rf"url(\1{VIEWER}/", text), encoding="utf-8")
    if not changed:
        raise ViewerUnavailable(f"{PACKAGE} {VERSION} is not built as expected; nothing was put into its folder")


def _removed_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        raise ViewerUnavailable(
            f"{folder} holds other files; set viewer_dir of [web] to a folder of its own"
        ) from error


def _wanted(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Its pages, scripts and codecs, without what only its developers read."""
    return [
        m
        for m in archive.getmembers()
        if m.name.startswith(_INSIDE) and not m.name.endswith((".map", "LICENSE.txt.gz"))
    ]


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ViewerUnavailable("npm is needed once, to fetch the viewer; on Debian: apt-get install npm")
    command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        raise ViewerUnavailable(f"npm could not fetch {PACKAGE} {VERSION}; see that it reaches its registry")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
