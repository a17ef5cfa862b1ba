"""What goes wrong in a chaos run, done to real processes, connections and a disk, and mended again."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.chaos_plan import Act, PlannedFault, Target
from deploy.processes import Process, descendants, tell
from deploy.rig import Program
from deploy.small_disk import SmallDisk
from deploy.tcp_proxy import TcpProxy

#: How long a fault waits for its target: a worker that was just killed must live before it can be killed again, and
#: nobody calls the PACS until a worker has started and read.
_TARGET_SECONDS = 90.0
_POLL_SECONDS = 0.1
#: Stands in the command of a worker's reading process.
_READING = " workers.reading_loop "
#: As systemd's RestartSec does for a program that ended by itself.
_RESTART_SECONDS = 1.0
_LAST_LINES = 1500


@dataclass(frozen=True, kw_only=True)
class UnaskedEnd:
    """A program ended that nobody had asked to."""

    program: str
    #: When it was seen, in seconds after the run's start.
    at: float
    #: The end of its log.
    log: str


class Kept:
    """A program that is started again whenever it ended, as systemd would; only the keeper's own thread starts it."""

    def __init__(self, name: str, program: Program, *, since_start: Callable[[], float]) -> None:
        """`since_start` gives the seconds of the run."""
        self.name = name
        self.program = program
        self.unasked: list[UnaskedEnd] = []
        self._since_start = since_start
        self._lock = threading.Lock()
        self._start_at: float | None = None
        self._asked = False

    @property
    def pid(self) -> int | None:
        """The process number, while it runs."""
        process = self.program.process
        return process.pid if process is not None and process.poll() is None else None

    def kill(self, seconds: float) -> bool:
        """kill -9, and no start for so long; False where it does not run."""
        with self._lock:
            pid = self.pid
            if pid is None:
                return False
            self._asked, self._start_at = True, time.monotonic() + seconds
            return tell(pid, signal.SIGKILL)

    def keep(self) -> None:
        """Start it again, when it has ended and its time has come."""
        with self._lock:
            if self.pid is not None:
                return
            if not self._asked and self._start_at is None:
                log = self.program.log.read_text(errors="replace")[-_LAST_LINES:]
                self.unasked.append(UnaskedEnd(program=self.name, at=self._since_start(), log=log))
                self._start_at = time.monotonic() + _RESTART_SECONDS
            if self._start_at is not None and time.monotonic() >= self._start_at:
                self._asked, self._start_at = False, None
                self.program.start()


class CountingProxy(TcpProxy):
    """A proxy that knows whether anybody calls."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        #: Connections so far.
        self.calls = 0

    @property
    def is_used(self) -> bool:
        """Whether a connection is open now."""
        return bool(self._writers)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        await super()._connected(reader, writer)


@dataclass(frozen=True, kw_only=True)
class Site:
    """All that faults can be done to."""

    node: Kept
    pacs: Kept
    disk: SmallDisk
    incoming: CountingProxy
    outgoing: CountingProxy


@dataclass(frozen=True, kw_only=True)
class DoneFault:
    """What became of a planned fault; times are seconds after the run's start."""

    fault: PlannedFault
    #: When it hit; None: its target was not there, or nobody used the connections that it broke.
    hit_at: float | None
    began: float
    ended: float

    @property
    def hit(self) -> bool:
        """Whether it hit."""
        return self.hit_at is not None


class Faults:
    """Does planned faults, each in a thread of its own."""

    def __init__(self, site: Site, *, since_start: Callable[[], float], say: Callable[[str], None]) -> None:
        """`since_start` gives the seconds of the run, `say` takes a line for its log."""
        self._site = site
        self._since_start = since_start
        self._say = say
        self._lock = threading.Lock()
        self._done: list[DoneFault] = []
        self._threads: list[threading.Thread] = []

    def begin(self, fault: PlannedFault) -> None:
        """Begin a fault; it ends by itself."""
        name = f"fault {fault.number}"
        thread = threading.Thread(target=self._do, args=(fault,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> list[DoneFault]:
        """Everything that was begun, once all of it is mended."""
        for thread in self._threads:
            thread.join()
        return sorted(self._done, key=lambda done: done.fault.number)

    def done(self) -> int:
        """How many have hit so far."""
        with self._lock:
            return sum(done.hit for done in self._done)

    def _do(self, fault: PlannedFault) -> None:
        began = self._since_start()
        hit_at = self._performed(fault)
        done = DoneFault(fault=fault, hit_at=hit_at, began=began, ended=self._since_start())
        with self._lock:
            self._done.append(done)
        outcome = (
            f"hit at {hit_at:.1f} s, mended at {done.ended:.1f} s"
            if hit_at is not None
            else "found nothing to be done to"
        )
        self._say(f"fault {fault.number} at {began:.1f} s: {fault.target}: {fault.act}, {outcome}")

    def _performed(self, fault: PlannedFault) -> float | None:
        """Do it and mend it; when it hit, if it did."""
        if fault.target is Target.DISK:
            return self._fill(fault)
        if fault.target in (Target.INCOMING, Target.OUTGOING):
            return self._break_wire(fault)
        return self._signal(fault)

    def _fill(self, fault: PlannedFault) -> float:
        disk, at = self._site.disk, self._since_start()
        if fault.act is Act.FULL:
            disk.make_full()
        else:
            disk.make_low()
        time.sleep(fault.seconds)
        disk.make_room()
        return at

    def _break_wire(self, fault: PlannedFault) -> float | None:
        proxy = self._site.incoming if fault.target is Target.INCOMING else self._site.outgoing
        if fault.act is Act.CUT:
            return self._since_start() if proxy.cut_after(fault.after_bytes).wait(_TARGET_SECONDS) else None
        is_used, calls = proxy.is_used, proxy.calls
        if fault.act is Act.STALL:
            proxy.stall()
        else:
            proxy.refuse()
        # A connection that nobody uses cannot be broken: the fault begins for good when somebody comes.
        until = time.monotonic() + _TARGET_SECONDS
        while not (met := is_used or proxy.calls > calls) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        at = self._since_start()
        if met:
            time.sleep(fault.seconds)
        proxy.heal()
        return at if met else None

    def _signal(self, fault: PlannedFault) -> float | None:
        kept = {Target.NODE: self._site.node, Target.PACS: self._site.pacs}.get(fault.target)
        until = time.monotonic() + _TARGET_SECONDS
        while time.monotonic() < until:
            at = self._since_start()
            if kept is not None and fault.act is Act.KILL:
                if kept.kill(fault.seconds):
                    time.sleep(fault.seconds)
                    return at
            elif (pid := self._pid(fault.target)) is not None and _stopped_or_killed(pid, fault):
                return at
            time.sleep(_POLL_SECONDS)
        return None

    def _pid(self, target: Target) -> int | None:
        """The process number of what is to be hit, if it is there."""
        if target is Target.PACS:
            return self._site.pacs.pid
        node = self._site.node.pid
        if target is Target.NODE or node is None:
            return node
        return pid_of(target, descendants(node))


def pid_of(target: Target, below_node: list[Process]) -> int | None:
    """Which of the node's processes is its worker, the worker's reading process, or Redis."""
    if target is Target.REDIS:
        return next((each.pid for each in below_node if "redis-server" in each.command), None)
    worker = next((each for each in below_node if " workers work" in f" {each.command}"), None)
    if worker is None or target is Target.WORKER:
        return worker.pid if worker else None
    children = [each for each in below_node if each.parent == worker.pid and _READING in each.command]
    return children[0].pid if children else None


def _stopped_or_killed(pid: int, fault: PlannedFault) -> bool:
    if fault.act is Act.KILL:
        return tell(pid, signal.SIGKILL)
    if not tell(pid, signal.SIGSTOP):
        return False
    time.sleep(fault.seconds)
    tell(pid, signal.SIGCONT)
    return True
