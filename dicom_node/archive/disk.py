"""The disk, and the wait for it: for several files and directories at once, since each wait alone takes as long.

Linux takes such a wait as a request (io_submit(2), IOCB_CMD_FSYNC), and so one thread has several of them, without
handing the interpreter on. Wherever that is not to be had, one wait follows the other. So it is also while another
thread waits: the waits of several threads overlap by themselves, and at less cost.
"""

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

#: Of these calls: io_setup, io_getevents, io_submit; by machine (syscalls(2)).
_CALLS: Mapping[str, tuple[int, int, int]] = MappingProxyType({"x86_64": (206, 208, 209), "aarch64": (0, 4, 2)})

#: IOCB_CMD_FSYNC of linux/aio_abi.h.
_FSYNC = 2

#: So many at once: a new file, and the directories down to it.
_MOST = 8


class _Request(ctypes.Structure):
    """struct iocb of linux/aio_abi.h, as machines of 64 bits and little endian have it."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("flags_of_write", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 5),
    )


class _Event(ctypes.Structure):
    """struct io_event of linux/aio_abi.h."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("further", ctypes.c_int64),
    )


def wait_for(descriptors: Sequence[int]) -> None:
    """Let all these files and directories be on the disk at return; OSError where one is not."""
    waits = _waits()
    if waits is None or len(descriptors) > _MOST:
        _one_after_the_other(descriptors)
    else:
        waits.have(descriptors)


def _one_after_the_other(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


class _Waits:
    """The kernel's queue of this process, for one thread at a time."""

    def __init__(self, calls: tuple[int, int, int]) -> None:
        self._setup, self._getevents, self._submit = calls
        self._wait: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
        # It comes back at once: the interpreter is not handed on for it.
        self._call: Callable[..., int] = ctypes.PyDLL(None, use_errno=True).syscall
        #: Made when it is wanted first; None also where it was not to be had.
        self._queue: _Queue | None = None
        #: Of the process that made it: the child of a fork has none.
        self._process = 0
        #: An entry for each thread that waits: the one that finds none uses the queue.
        self._waiting: list[None] = []

    def have(self, descriptors: Sequence[int]) -> None:
        """Let them be on the disk at return; OSError where one is not."""
        self._waiting.append(None)
        try:
            is_alone = len(self._waiting) == 1
            queue = self._own_queue() if is_alone and len(descriptors) > 1 else None
            if queue is None:
                _one_after_the_other(descriptors)
            else:
                self._have(queue, descriptors)
        finally:
            self._waiting.pop()

    def _have(self, queue: "_Queue", descriptors: Sequence[int]) -> None:
        for request, descriptor in zip(queue.requests, descriptors, strict=False):
            request.descriptor = descriptor
        # Until every answer is there: one that comes later would be taken for that of another wait.
        self._queue = None
        submitted = self._call(self._submit, queue.number, ctypes.c_long(len(descriptors)), queue.addresses)
        faults = self._answers(queue, submitted) if submitted > 0 else []
        self._queue = queue
        for fault in faults:
            raise OSError(fault, os.strerror(fault))
        # Of what the kernel does not take so, the plain call says why.
        _one_after_the_other(descriptors[max(0, submitted) :])

    def _answers(self, queue: "_Queue", count: int) -> list[int]:
        """Wait for so many; the numbers of their errors. OSError where the kernel answers no more."""
        faults: list[int] = []
        while count:
            most = ctypes.c_long(count)
            came = self._wait(self._getevents, queue.number, most, most, queue.events, None)
            if came < 0:
                if ctypes.get_errno() == errno.EINTR:
                    continue
                raise OSError(errno.EIO, "the kernel does not say what is on the disk")
            faults += [-event.result for event in queue.events[:came] if event.result]
            count -= came
        return faults

    def _own_queue(self) -> "_Queue | None":
        if self._process != os.getpid():
            self._process, queue = os.getpid(), _Queue()
            # A kernel that has none left (fs.aio-max-nr), or a sandbox that forbids it, is not asked again.
            is_made = not self._call(self._setup, ctypes.c_long(_MOST), ctypes.byref(queue.number))
            self._queue = queue if is_made else None
        return self._queue


class _Queue:
    """The kernel's, with what is told to it and what it answers."""

    def __init__(self) -> None:
        self.number = ctypes.c_ulong(0)
        self.requests = (_Request * _MOST)()
        size = ctypes.sizeof(_Request)
        first = ctypes.addressof(self.requests)
        self.addresses = (ctypes.c_void_p * _MOST)(*(first + size * place for place in range(_MOST)))
        self.events = (_Event * _MOST)()
        for request in self.requests:
            request.opcode = _FSYNC


@cache
def _waits() -> _Waits | None:
    """Those of this process; None where the kernel is another. They are the process's own, as its descriptors are."""
    calls = _CALLS.get(platform.machine())
    is_known = sys.platform == "linux" and sys.byteorder == "little" and ctypes.sizeof(ctypes.c_long) == 8
    return _Waits(calls) if calls is not None and is_known else None
