"""C-FIND of how many instances a peer holds of a study: Study Root, by Study Instance UID alone (PS3.4 Annex C)."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association

from dicom_node.core.errors import PeerUnreachable, QueryFailed
from dicom_node.core.uid import is_uid
from dicom_node.scu.association import ProposedContext, association
from dicom_node.settings import Peer

#: Study Root Query/Retrieve Information Model - FIND.
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
_TRANSFER_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")

#: PS3.4 Table C.4-1: a match follows, and perhaps not every optional key was looked at.
_PENDING = (0xFF00, 0xFF01)
SUCCESS = 0x0000

#: More is no count of instances, but a mistake.
_LARGEST_COUNT = 10_000_000

#: Series that a study has, at most; a peer that answers without end is not listened to for longer.
_LARGEST_NUMBER_OF_SERIES = 10_000

#: Asks about one study, and gives the counts by Series Instance UID, that of the whole study under "".
Counting = Callable[[str], dict[str, int]]


@contextmanager
def counting(peer: Peer, *, ae_title: str, timeout_seconds: float) -> Iterator[Counting]:
    """An association on which to ask how many instances the peer holds of a study, each within the time limit.

    Entering raises PeerUnreachable or AssociationRejected. Asking raises PeerUnreachable, after which the association
    is of no use, or QueryFailed where only this study's question had no useful answer.
    """
    context = ProposedContext(STUDY_ROOT_FIND, _TRANSFER_SYNTAXES)
    with association(peer, [context], ae_title=ae_title, timeout_seconds=timeout_seconds) as assoc:
        yield lambda study_instance_uid: _count(assoc, peer, study_instance_uid, timeout_seconds)


def _count(assoc: Association, peer: Peer, study_instance_uid: str, timeout_seconds: float) -> dict[str, int]:
    until = time.monotonic() + timeout_seconds
    studies = list(_find(assoc, peer, _study_keys(study_instance_uid), until))
    if not studies:
        raise QueryFailed("it does not hold the study")
    total = _largest(_number(study, "NumberOfStudyRelatedInstances") for study in studies)
    with suppress(QueryFailed):  # a peer may answer at this level and not at the next
        series = _series_counts(_find(assoc, peer, _series_keys(study_instance_uid), until))
        if total is None and series:
            total = sum(series.values())
        if total is not None:
            return {"": total, **series}
    if total is None:
        raise QueryFailed("it counts instances neither of studies (0020,1208) nor of series (0020,1209)")
    return {"": total}


def _series_counts(found: Iterable[Dataset]) -> dict[str, int]:
    """By Series Instance UID; none where the peer does not count every one: a part tells nothing of the whole."""
    counts: dict[str, int | None] = {}
    for ds in found:
        uid = _text(ds, "SeriesInstanceUID")
        if is_uid(uid):
            counts[uid] = _largest([counts.get(uid), _number(ds, "NumberOfSeriesRelatedInstances")])
    counted = {uid: count for uid, count in counts.items() if count is not None}
    return counted if len(counted) == len(counts) else {}


def _find(assoc: Association, peer: Peer, keys: Dataset, until: float) -> Iterator[Dataset]:
    """The matches, of this study only: there are peers that pay no heed to keys."""
    if not assoc.is_established:
        raise PeerUnreachable(f"peer {peer.name} ended the association early")
    try:
        for number, (status, found) in enumerate(assoc.send_c_find(keys, STUDY_ROOT_FIND)):
            # Without a status the answer did not come in time, or the association broke.
            if not status or time.monotonic() > until or number > _LARGEST_NUMBER_OF_SERIES:
                assoc.abort()
                raise PeerUnreachable(f"peer {peer.name} did not answer a C-FIND to its end in time")
            if status.Status not in (*_PENDING, SUCCESS):
                raise QueryFailed(f"it answered a C-FIND with 0x{status.Status:04X}; its own log may say more")
            if found is not None and _text(found, "StudyInstanceUID") in ("", keys.StudyInstanceUID):
                yield found
    except RuntimeError as error:  # pynetdicom's word for an association that ended a moment ago
        raise PeerUnreachable(f"peer {peer.name} ended the association early") from error


def _study_keys(study_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.StudyInstanceUID = study_instance_uid
    ds.NumberOfStudyRelatedInstances = None
    return ds


def _series_keys(study_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "SERIES"
    ds.StudyInstanceUID = study_instance_uid
    ds.SeriesInstanceUID = ""
    ds.NumberOfSeriesRelatedInstances = None
    return ds


def _text(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip("\0 ")


def _number(ds: Dataset, keyword: str) -> int | None:
    """A count; None where there is none, or no number that can be one."""
    try:
        number = int(_text(ds, keyword))
    # pydicom reads a value when it is asked for, and raises what a broken one leads to.
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError):
        return None
    return number if 0 <= number <= _LARGEST_COUNT else None


def _largest(counts: Iterable[int | None]) -> int | None:
    """One study may match twice, as under two patients: then the larger count is waited for."""
    return max((count for count in counts if count is not None), default=None)
