"""The processor: a thread that waits again and again asks for short turns of it, and so gets the next one sooner.

Beside a program that computes on every core, such as a worker, each wait for disk or peer would cost a whole turn of
that program besides: some 4 ms. From Linux 6.12 on, whoever asks for shorter turns than the one that runs takes over
when its wait is over; it gets no more of the processor than its share. Earlier kernels do not heed the wish.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Mapping
from types import MappingProxyType

#: The number of sched_setattr, by machine (syscalls(2)).
_CALLS: Mapping[str, int] = MappingProxyType({"x86_64": 314, "aarch64": 274})

#: struct sched_attr (sched_setattr(2)): its size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")

#: The shortest turn that the kernel gives.
_TURN_NANOSECONDS = 100_000


def ask_for_short_turns() -> bool:
    """Ask it for the calling thread; whether the kernel took the wish."""
    number = _CALLS.get(platform.machine())
    if number is None or not hasattr(os, "sched_getscheduler"):
        return False
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, 0)
    except OSError:
        # A sandbox may forbid the question: then nothing is wished for.
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _TURN_NANOSECONDS, 0, 0)
    refused: int = ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(0), attributes, ctypes.c_long(0))
    return not refused
