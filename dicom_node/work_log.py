"""The work log: what the log says of readings and of trouble, also in a small file, so that pages can show it.

Every process of the node and of its workers on this machine appends to the same file of the data folder. What a line
may hold is telemetry's matter: UIDs, and no patient data. When the file is full it becomes the earlier one, and the one
before goes: at most two are read. A disk that is full costs a line, no work.
"""

import fcntl
import json
import logging
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicom_node.telemetry import JsonLines, context_keys

#: Below the data folder.
FOLDER, NAME, EARLIER = "log", "work.jsonl", "work.1.jsonl"

#: Of one file.
MOST_BYTES = 1 << 20

#: Of one line: a traceback may be long.
_LONGEST_LINE = 16 << 10

#: Of a line on a page.
_LONGEST_WORDS = 300

#: A line that names one of these is about work on a study.
_OF_WORK = ("job_uid", "peer", "lease_token")

#: What a page has beside the line, or need not tell.
_NOT_TOLD = frozenset({"time", "level", "event", "logger", "study_instance_uid", "traceback", "withheld"})


class WorkLog(logging.Handler):
    """Keeps lines from warnings on, and those about work on a study."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._path = data_dir / FOLDER / NAME
        self._file = -1

    def emit(self, record: logging.LogRecord) -> None:
        """Append the line, if it is one to keep."""
        if record.levelno < logging.WARNING and not _is_of_work(record):
            return
        with suppress(OSError):
            self._append(f"{self.format(record)[:_LONGEST_LINE]}\n".encode())

    def close(self) -> None:
        """Keep no more."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        super().close()

    def _append(self, line: bytes) -> None:
        if self._file < 0:
            self._open()
        if os.fstat(self._file).st_size + len(line) > MOST_BYTES:
            self._begin_anew()
        os.write(self._file, line)

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _begin_anew(self) -> None:
        # Of the processes that find it full, one gives it its other name.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                os.replace(self._path, self._path.with_name(EARLIER))
        os.close(self._file)
        self._file = -1
        self._open()


def _is_of_work(record: logging.LogRecord) -> bool:
    context, given = context_keys(), vars(record)
    return any(key in context or key in given for key in _OF_WORK)


def keep_work_log(data_dir: Path) -> None:
    """Let this process's lines be kept, beside where they go already."""
    logging.getLogger().addHandler(WorkLog(data_dir))


def excerpts(data_dir: Path, studies: Collection[str], most: int) -> Mapping[str, list[str]]:
    """The last lines that name each of these studies, in words, the latest last."""
    wanted = {study: deque[str](maxlen=most) for study in studies}
    if wanted:
        for line in _lines(data_dir / FOLDER):
            study = line.get("study_instance_uid")
            if isinstance(study, str) and study in wanted:
                wanted[study].append(_words(line))
    return {study: list(lines) for study, lines in wanted.items() if lines}


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for name in (EARLIER, NAME):
        with suppress(OSError):
            for text in (folder / name).read_text(encoding="utf-8", errors="replace").splitlines():
                # One that was cut, or is just being written, is none.
                with suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict):
                        yield line


def _words(line: Mapping[str, Any]) -> str:
    """Time, level and event, then its keys; of a traceback the innermost place."""
    told = {name: value for name, value in line.items() if name not in _NOT_TOLD}
    if frames := line.get("traceback"):
        told["at"] = str(frames[-1]).rpartition("/")[2]
    keys = ", ".join(f"{name} {_plain(value)}" for name, value in told.items())
    words = f"{line.get('time', '')} {line.get('level', '')} {line.get('event', '')}"
    return f"{words}: {keys}"[:_LONGEST_WORDS] if keys else words[:_LONGEST_WORDS]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
