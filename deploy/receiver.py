"""A receiver of ours in a process of its own, and the smallest CT slices that it keeps; for measurements and soaks."""

import struct
import sys
from contextlib import suppress
from pathlib import Path

from deploy.rig import Program
from deploy.wire import ABORTING, Refused, WireSender

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def receiver(data_dir: Path, log: Path, port: int) -> Program:
    """A receiver that admits everybody, to be started."""
    words = ["receive", "--any-peer", "--port", str(port), "--data-dir", str(data_dir)]
    return Program([sys.executable, "-m", "dicom_node", *words], log)


def listens(port: int) -> bool:
    """Whether a receiver takes an association."""
    with suppress(OSError, Refused):
        ct_sender(port).send(ABORTING)
        return True
    return False


def ct_sender(port: int) -> WireSender:
    """An association that stores CT slices; errors as of `WireSender`."""
    return WireSender(port, sop_class_uid=CT, transfer_syntax_uid=EXPLICIT, ae_title="BENCH")


def ct_slice(study: str, series: str, instance: str, pixels: bytes) -> bytes:
    """A data set with these UIDs and pixel data, and nothing else."""
    header = (
        _element(0x0008, 0x0016, b"UI", CT.encode()),
        _element(0x0008, 0x0018, b"UI", instance.encode()),
        _element(0x0008, 0x0060, b"CS", b"CT"),
        _element(0x0020, 0x000D, b"UI", study.encode()),
        _element(0x0020, 0x000E, b"UI", series.encode()),
    )
    return b"".join(header) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, len(pixels)) + pixels


def _element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\x00" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value
