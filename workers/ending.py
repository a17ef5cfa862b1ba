"""How a worker comes to its end: signals, the death of its node, and what is done about one that hangs."""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping

from workers.heartbeat import FAULTY
from workers.triage import Triage

log = logging.getLogger(__name__)

#: The signals that ask a worker to end, and the exit status of one that ended so.
SIGNALS: Mapping[int, int] = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 1, signal.SIGQUIT: 1}
#: Signals that come within so long of the first are one request. The kernel tells of a killed node by as many signals
#: as it had threads whose deaths came one after the other.
ONE_REQUEST_SECONDS = 1.0


class Ending:
    """A worker's end: asked for by signals or by the death of its node, and enforced where the worker hangs.

    It is a thread's work, which no signal interrupts, and which goes on where the main thread hangs.
    """

    #: How often it is looked whether the node lives.
    LOOK_SECONDS = 0.5
    #: After `stop_seconds` a job has so long to be laid down, also in an index that is away for a while.
    LAYING_DOWN_SECONDS = 30.0
    #: A worker with no job in hand that does not end within so long hangs.
    LAST_SECONDS = 10.0

    def __init__(
        self,
        triage: Triage,
        stop_seconds: float,
        *,
        leave: Callable[[int], None],
        node: int | None = None,
        end_process: Callable[[int], None] = os._exit,
        parent: Callable[[], int] = os.getppid,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`leave` ends the loop that waits for messages; `node` is the process number that the parent should have."""
        self._triage, self._stop_seconds = triage, stop_seconds
        self._leave, self._end_process = leave, end_process
        self._node, self._parent = node, parent
        self._clock = clock
        self._asked_at: float | None = None
        self._worked_at = 0.0

    def heed_signals(self) -> None:
        """Take this process's signals over; only from the main thread."""
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        # The bytes come also while the main thread is in foreign code, or waits for a lock.
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        for number in SIGNALS:
            # `nohup` lets a program go on when its terminal is closed.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda _number, _frame: None)
        threading.Thread(target=self.wait, args=(told,), name="ending", daemon=True).start()

    def wait(self, signals: int) -> None:
        """Look until the worker's end, and bring it about where the worker hangs; `signals` is a pipe of them."""
        while not self.hangs():
            self.look(signals, self.LOOK_SECONDS)
        log.error("this worker hangs and ends", extra={"exit_status": FAULTY})
        self._end_process(FAULTY)

    def look(self, signals: int, seconds: float) -> None:
        """Ask the worker to end if there is reason to, or if a signal comes within so many seconds."""
        if self._node is not None and self._parent() != self._node:
            self._orphaned(self._node)
        if select.select([signals], [], [], seconds)[0]:
            for number in SIGNALS.keys() & os.read(signals, 512):
                self._ask(SIGNALS[number])

    def hangs(self) -> bool:
        """Whether the worker was asked to end, and should have ended by now."""
        if self._asked_at is None:
            return False
        now = self._clock()
        if self._triage.working:
            self._worked_at = now
            return now - self._asked_at >= self._stop_seconds + self.LAYING_DOWN_SECONDS
        return now - self._worked_at >= self.LAST_SECONDS

    def _ask(self, status: int) -> None:
        now = self._clock()
        if self._asked_at is None:
            self._asked_at = self._worked_at = now
            self._triage.stop(self._stop_seconds)
        elif now - self._asked_at >= ONE_REQUEST_SECONDS:
            # Whoever asks twice does not want to wait.
            self._triage.stop(0.0)
        self._leave(status)

    def _orphaned(self, node: int) -> None:
        self._node = None
        # The kernel may have told already: that is no second request.
        if self._asked_at is None:
            self._ask(0)
        log.warning("the node of this worker is gone, and the worker ends", extra={"pid": node})
