"""The doctor: one look at everything that a node needs, and for what is wrong, the mend."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.archive.faults import faults_in_words
from dicom_node.archive.holdings import Holdings
from dicom_node.archive.index import Index
from dicom_node.archive.lines import time_in_words
from dicom_node.broker import redis_program
from dicom_node.core.errors import BundleInvalid, DeliveryError, NodeError
from dicom_node.job_queue import CeleryJobQueue
from dicom_node.scu.verification import echo
from dicom_node.settings import Settings

#: What scanners and PACS compress CT with.
COMMON_COMPRESSIONS = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at, whether it is good, and what was found, with the mend where it is not."""

    name: str
    good: bool
    finding: str


def examine(settings: Settings, bundles_command: Callable[[], Sequence[str]]) -> Iterator[Check]:
    """Look at settings, disk, index, broker, peers, decoders and bundles, one after the other."""
    yield Check(name="settings", good=True, finding="checked whole, no fault")
    yield from _disk_and_index(settings)
    yield _checked("broker", lambda: _broker(settings))
    yield from _peers(settings)
    yield _decoders()
    yield _checked("bundles", lambda: _bundles(bundles_command()))


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, good=True, finding=look())
    except NodeError as error:
        return Check(name=name, good=False, finding=str(error))


def _disk_and_index(settings: Settings) -> Iterator[Check]:
    try:
        holdings = Holdings.open(settings)
    except NodeError as error:
        yield Check(name="archive and index", good=False, finding=str(error))
        return
    studies = sum(holdings.index.studies.counts().values())
    damage = holdings.index.damage()
    mend = f"{damage}; stop the node and make it again from the archive's files: `dicom-node reindex`"
    yield Check(name="index", good=not damage, finding=mend if damage else f"{studies} studies")
    yield _archive(holdings.index)
    free, wanted = holdings.archive.free_bytes() / 1e6, settings.node.minimum_free_megabytes
    finding = f"{free:,.0f} MB free in {settings.node.data_dir}"
    mend = f"; instances are refused below {wanted:,} MB: make room or lower minimum_free_megabytes of [node]"
    yield Check(name="disk", good=free >= wanted, finding=finding if free >= wanted else finding + mend)
    holdings.index.close()


def _archive(index: Index) -> Check:
    """What the looks at the whole archive have found."""
    position, evicted = index.inventory.position(), index.evictions.count()
    if not position.began_at:
        looked = "no look at every file yet"
    elif position.ended_at is None:
        looked = f"a look at every file goes on since {time_in_words(position.began_at)}, {position.files} files so far"
    else:
        looked = f"every file was looked at ({position.files}), last at {time_in_words(position.ended_at)}"
    left = f"; the files of {evicted} studies have left the disk" if evicted else ""
    faults = faults_in_words(index.faults.counts())
    if not faults:
        return Check(name="archive", good=True, finding=f"no file missing or altered as far as known; {looked}{left}")
    first = ", ".join(index.faults.studies(limit=3))
    return Check(name="archive", good=False, finding=f"{faults} (first studies: {first}); {looked}{left}")


def _broker(settings: Settings) -> str:
    if not settings.broker.url:
        return f"a Redis of our own: {redis_program()}"
    queue = CeleryJobQueue(settings.broker.url)
    try:
        waiting = sum(queue.lengths().values())
    finally:
        queue.close()
    return f"answers, {waiting} message(s) waiting"


def _peers(settings: Settings) -> Iterator[Check]:
    if not any(peer.results for peer in settings.peers):
        mend = "no peer has results = true: reports stay in the archive; add one to [[peers]]"
        yield Check(name="peers", good=False, finding=mend)
    for peer in settings.peers:
        try:
            seconds = echo(peer, ae_title=settings.node.ae_title, timeout_seconds=settings.delivery.timeout_seconds)
        except DeliveryError as error:
            yield Check(name=f"peer {peer.name}", good=False, finding=str(error))
            continue
        yield Check(name=f"peer {peer.name}", good=True, finding=f"answered a C-ECHO in {seconds * 1000:.0f} ms")


def _decoders() -> Check:
    """Whether compressed images can be read; all transfer syntaxes are stored all the same."""
    missing = [uid.name for uid in AllTransferSyntaxes if not _can_decode(uid)]
    needed = [uid.name for uid in COMMON_COMPRESSIONS if uid.name in missing]
    if needed:
        mend = "install dicom-node with its extra `worker`, unless the workers are on other machines"
        return Check(name="decoders", good=False, finding=f"no decoder for {', '.join(needed)}: {mend}")
    finding = f"{len(AllTransferSyntaxes) - len(missing)} transfer syntaxes can be decoded"
    others = ", ".join(dict.fromkeys(map(_family, missing))) or "none"
    return Check(name="decoders", good=True, finding=f"{finding}; stored but not readable: {others}")


def _family(transfer_syntax: str) -> str:
    """What the transfer syntaxes of one standard have in common: their names differ by profile and level alone."""
    name = transfer_syntax.removeprefix("Fragmentable ").replace("/", " ")
    return name[: name.index("Multi")].strip() if "Multi" in name else name.split()[0]


def _can_decode(uid: UID) -> bool:
    try:
        return get_decoder(uid).is_available
    except NotImplementedError:
        return False


def _bundles(command: Sequence[str]) -> str:
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = [line for line in listed.stdout.splitlines() if line and not line.startswith(" ")]
    if listed.returncode or not lines:
        raise BundleInvalid("; ".join(lines) or f"none can be used: {listed.stderr.strip()}")
    return "; ".join(lines)
