"""A reading process from within: it is set up, serves its worker, and ends when its worker does.

Started by `workers.reading_process` alone. Whatever goes wrong here, a library's crash or a hung device, ends in this
process: its worker kills it and starts another.
"""

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection

from dicom_node.telemetry import configure_logging
from dicom_node.work_log import keep_work_log
from workers.pipe import Begin
from workers.requests import Requests

#: prctl(2): be sent a signal when the thread that started this process ends.
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve the worker at the other end of a pipe; arguments are the pipe's number and the worker's process number."""
    descriptor, parent = (int(argument) for argument in sys.argv[1:])
    _end_with(parent)
    os.umask(0o027)
    pipe = Connection(descriptor)
    try:
        begin = pipe.recv()
    except EOFError:
        return 0
    assert isinstance(begin, Begin)
    configure_logging(as_json=begin.log_as_json)
    keep_work_log(begin.archive.parent)
    requests = Requests(pipe)
    requests.beat("importing")
    # Here, since it takes seconds, and all of the above must not wait for it.
    from workers.desk import desk_of

    return desk_of(begin, requests).serve(begin.device)


def _end_with(parent: int) -> None:
    """Be killed when the worker dies, however it does."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
