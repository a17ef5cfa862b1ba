"""A reading process that computes nothing: what it does, the algorithm's name in a request says."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from workers.pipe import WAITING, Beat, Begin, Drop, Failed, Prepare, Read, Ready, Reported


class Little:
    """The child's side of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def serve(self) -> None:
        """One request after the other."""
        begin = self.pipe.recv()
        assert isinstance(begin, Begin)
        if begin.device == "never ready":
            time.sleep(60)
        if begin.device == "cannot start":
            sys.exit(3)
        self.say("starting")
        self.pipe.send(
            Ready(device=begin.device, bundles=("little 1",), algorithms=("little", "hang"), broken=("other",))
        )
        self.say(WAITING)
        while True:
            request = self.pipe.recv()
            if isinstance(request, Prepare):
                self.say(f"prepared {request.series.evidence}")
            elif isinstance(request, Read):
                self.say("reading")
                words = request.series.algorithm.split()
                getattr(self, f"do_{words[0]}")(request, *words[1:])

    def say(self, step: str) -> None:
        self.pipe.send(Beat(step=step))

    def do_report(self, request: Read, size: str = "0") -> None:
        self.pipe.send(Reported(job_uid=request.job_uid, objects=(), summary={"size": b"x" * int(size)}))
        self.say(WAITING)

    def do_fail(self, request: Read, kind: str, last: str = "") -> None:
        self.pipe.send(Failed(job_uid=request.job_uid, kind=kind, message=f"{kind}!", last=bool(last)))
        if last:
            time.sleep(60)

    def do_die(self, request: Read, number: str) -> None:
        os.kill(os.getpid(), int(number))
        time.sleep(60)

    def do_exit(self, request: Read, status: str) -> None:
        sys.exit(int(status))

    def do_tear(self, request: Read) -> None:
        """Be killed in the middle of a message."""
        os.write(self.pipe.fileno(), (1_000_000).to_bytes(4, "big") + b"the beginning")
        os.kill(os.getpid(), signal.SIGKILL)

    def do_hang(self, request: Read) -> None:
        time.sleep(60)

    def do_move(self, request: Read, seconds: str) -> None:
        """Beat for a while, then report."""
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            time.sleep(0.05)
            self.say("network")
        self.do_report(request)

    def do_wait(self, request: Read) -> None:
        """Beat until the job is dropped."""
        while not self.pipe.poll(0.05):
            self.say("network")
        dropped: Any = self.pipe.recv()
        assert isinstance(dropped, Drop)
        self.do_fail(request, "Interrupted")


if __name__ == "__main__":
    Little(Connection(int(sys.argv[1]))).serve()
