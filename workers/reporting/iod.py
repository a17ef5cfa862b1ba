"""The outside check: dciodvfy's word on each object, while our own rules run (dicom3tools; where it is installed)."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydicom import Dataset

from dicom_node.core.form import TRAITS, Form
from workers.reporting.forms import Part

log = logging.getLogger(__name__)

PROGRAM = "dciodvfy"
#: Longer than it takes over the largest segmentation.
_SECONDS = 60.0
#: "Error - </PatientSex(0010,0040)[1]> - Unrecognized enumerated value = <X>": the place, what is wrong, the value.
_ERROR = re.compile(r"Error - <(?P<place>[^>]*)> - (?P<fault>.*)")
_QUOTED = re.compile(r"\s*= <(?P<value>.*?)>(?= -|$)")
#: Of a segment of a label map: the program's table of segmentations is older than that class.
_OF_LABEL_MAPS = "Shall not be present for Referenced SOP Class that is not segmentation"
_KEYWORD = re.compile(r"/(\w+)\([0-9a-fA-F,]+\)(?:\[\d+\])?$")


@dataclass(frozen=True, kw_only=True)
class _Running:
    """The check of one object."""

    process: subprocess.Popen[bytes]
    #: Of the object's bytes, in memory: a patient's data is not written to a disk for this.
    descriptor: int


class IodChecks:
    """The checks of some objects, begun at once and asked for later; left by `with`, nothing of them is still open."""

    def __init__(self, files: Mapping[Part, bytes]) -> None:
        """Begin; nothing is done where the program is not installed."""
        program, self._running = shutil.which(PROGRAM), dict[Part, _Running]()
        try:
            for part, file in files.items() if program else ():
                self._running[part] = _begin(str(program), file)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """End what nobody asked for: a rule may have raised before."""
        while self._running:
            _, running = self._running.popitem()
            running.process.kill()
            running.process.communicate()
            os.close(running.descriptor)

    def faults(self, part: Part, result: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
        """What is wrong with an object; the texts hold no value of it, for that may be a patient's name.

        What is wrong with a value that was copied from the source is the source's fault, and must stand as it is.
        """
        running = self._running.get(part)
        if running is None:
            return
        try:
            said = running.process.communicate(timeout=_SECONDS)[0].decode("ascii", "replace")
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.communicate()
            log.error("an outside check did not end and is left out", extra={"kind": PROGRAM})
            return
        finally:
            os.close(running.descriptor)
            del self._running[part]
        if running.process.returncode < 0:
            # Whatever it said before counts; what it had not said yet nobody knows.
            log.error("an outside check broke off", extra={"kind": PROGRAM, "signal": -running.process.returncode})
        for line in said.splitlines():
            if TRAITS[part.form].refers_to is Form.LABEL_MAP and line.endswith(_OF_LABEL_MAPS):
                continue
            if (error := _ERROR.match(line)) is not None and not _is_copied(error, result, sources):
                yield f"{error['place']}: {_QUOTED.sub('', error['fault'])}"
            elif line.startswith("Error") and error is None:
                yield "an error without a place"


def _begin(program: str, file: bytes) -> _Running:
    descriptor = os.memfd_create("object")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            copy.write(file)
        process = subprocess.Popen(
            [program, "-new", f"/proc/self/fd/{descriptor}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
        )
    except BaseException:
        os.close(descriptor)
        raise
    return _Running(process=process, descriptor=descriptor)


def _is_copied(error: re.Match[str], result: Dataset, sources: Sequence[Dataset]) -> bool:
    """Whether the value in question came from the source as it is."""
    keyword = _KEYWORD.search(error["place"])
    if keyword is None:
        return False
    name, header = keyword[1], sources[0]
    if error["place"].count("/") == 1:
        return name in header and name in result and header[name].value == result[name].value
    quoted = _QUOTED.search(error["fault"])
    return quoted is not None and quoted["value"] in _uids_of(sources, name)


def _uids_of(sources: Sequence[Dataset], keyword: str) -> set[str]:
    """What the sources have as this UID, or as the one that a reference to them has."""
    name = keyword.removeprefix("Referenced")
    return {str(header.get(name, "")) for header in sources}
