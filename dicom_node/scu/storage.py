"""C-STORE of files to a peer, all over as few associations as their presentation contexts need (PS3.4 Annex B)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom.association import Association

from dicom_node.core.errors import DeliveryError, PeerUnreachable, StoreFailed, UnreadableInstance
from dicom_node.scu.association import MAXIMUM_CONTEXTS, ProposedContext, association
from dicom_node.settings import Peer

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
#: Into each other these can be written without a change of any value.
_UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)

#: PS3.4 Table B.2-1: stored, but some element was coerced (B000), discarded (B006) or did not match (B007).
WARNINGS = {
    0xB000: "accepted with coerced elements (0xB000)",
    0xB006: "accepted with elements discarded (0xB006)",
    0xB007: "accepted although the data set does not match its SOP class (0xB007)",
}
_FAILURES = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xA700: "out of resources",
    0xA900: "data set does not match its SOP class",
    0xC000: "cannot understand the data set",
}


@dataclass(frozen=True, kw_only=True)
class FileToSend:
    """A PS3.10 file, by what its meta information says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @classmethod
    def read(cls, path: Path) -> "FileToSend":
        """Read the meta information; UnreadableInstance where there is none."""
        try:
            meta = read_file_meta_info(path)
            fields = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
        # pydicom raises what the broken bytes lead to: its own error, or one of these.
        except (
            InvalidDicomError,
            OSError,
            AttributeError,
            ValueError,
            LookupError,
            EOFError,
            NotImplementedError,
        ) as error:
            raise UnreadableInstance(f"{path.name} is no DICOM file with meta information; leave it out") from error
        names = ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
        return cls(path=path, **dict(zip(names, map(str, fields), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one file; `error` is None when the peer has it, and `answer` says how it took it."""

    file: FileToSend
    answer: str
    error: DeliveryError | None


def store(
    peer: Peer,
    files: Iterable[FileToSend],
    *,
    ae_title: str,
    timeout_seconds: float,
    wanted: Callable[[FileToSend], bool] = lambda _file: True,
) -> Iterator[Sent]:
    """Send files and yield what became of each; raises PeerUnreachable or AssociationRejected when none could go.

    `wanted` is asked for each file when its turn comes, after the fate of those before it was yielded.
    """
    files = list(files)
    kinds = sorted({(f.sop_class_uid, f.transfer_syntax_uid) for f in files})
    for some in _batched(kinds, MAXIMUM_CONTEXTS):
        contexts = [ProposedContext(sop_class, _proposed(syntax)) for sop_class, syntax in some]
        with association(peer, contexts, ae_title=ae_title, timeout_seconds=timeout_seconds) as assoc:
            for file in files:
                if (file.sop_class_uid, file.transfer_syntax_uid) in some and wanted(file):
                    yield _send(assoc, peer, file)


def _batched(kinds: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    return (kinds[start : start + size] for start in range(0, len(kinds), size))


def _proposed(transfer_syntax_uid: str) -> tuple[str, ...]:
    if transfer_syntax_uid not in _UNCOMPRESSED:
        return (transfer_syntax_uid,)
    return tuple(dict.fromkeys((transfer_syntax_uid, EXPLICIT_LITTLE, IMPLICIT_LITTLE)))


def _send(assoc: Association, peer: Peer, file: FileToSend) -> Sent:
    if not assoc.is_established:
        return _unsent(file, PeerUnreachable(f"peer {peer.name} ended the association early"))
    try:
        answer = assoc.send_c_store(file.path)
    except ValueError:
        wanted = f"SOP class {file.sop_class_uid} in transfer syntax {file.transfer_syntax_uid}"
        return _unsent(file, StoreFailed(f"peer {peer.name} did not accept {wanted}", status=0x0122))
    except RuntimeError:  # pynetdicom's word for an association that ended a moment ago
        return _unsent(file, PeerUnreachable(f"peer {peer.name} ended the association early"))
    except (AttributeError, EOFError, LookupError, NotImplementedError, OSError) as error:
        why = f"{file.path.name} cannot be read to its end ({type(error).__name__}); nothing was sent of it"
        return _unsent(file, StoreFailed(why, status=0xC000))
    if not answer:
        return _unsent(file, PeerUnreachable(f"peer {peer.name} gave no answer to a C-STORE"))
    status = int(answer.Status)
    if status == 0x0000 or status in WARNINGS:
        return Sent(file=file, answer=WARNINGS.get(status, "accepted (0x0000)"), error=None)
    # Its Error Comment (0000,0902) is left out: peers quote patients' names and identifiers there.
    why = f"peer {peer.name} answered 0x{status:04X}, {_FAILURES.get(status, 'failure')}; its own log may say more"
    return _unsent(file, StoreFailed(why, status=status))


def _unsent(file: FileToSend, error: DeliveryError) -> Sent:
    return Sent(file=file, answer="", error=error)
