"""C-STORE of files to a peer, all over as few associations as their presentation contexts need (PS3.4 Annex B)."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import _config
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


#: SOP class and transfer syntax: what a presentation context is proposed for.
Kind = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class FileToSend:
    """A PS3.10 file, by what its meta information says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: Its bytes are known to be what was written: they are sent as they lie where the peer takes their transfer syntax.
    as_it_lies: bool = False

    @property
    def kind(self) -> Kind:
        """SOP class and transfer syntax."""
        return self.sop_class_uid, self.transfer_syntax_uid

    @classmethod
    def read(cls, path: Path, *, as_it_lies: bool = False) -> "FileToSend":
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
        return cls(path=path, as_it_lies=as_it_lies, **dict(zip(names, map(str, fields), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one file; `error` is None when the peer has it, and `answer` says how it took it."""

    file: FileToSend
    answer: str
    error: DeliveryError | None


class Storing:
    """An association on which a peer is sent files, one after the other; for one thread."""

    def __init__(self, assoc: Association, peer: Peer, kinds: Collection[Kind]) -> None:
        self._assoc = assoc
        self._peer = peer
        self._kinds = frozenset(kinds)

    def takes(self, files: Iterable[FileToSend]) -> bool:
        """Whether the association is still there, and was proposed for all that these files are."""
        return self._assoc.is_established and all(file.kind in self._kinds for file in files)

    def send(self, file: FileToSend) -> Sent:
        """Send a file; what became of it."""
        return _send(self._assoc, self._peer, file)


@contextmanager
def storing(peer: Peer, kinds: Collection[Kind], *, ae_title: str, timeout_seconds: float) -> Iterator[Storing]:
    """An association for files of these kinds, at most `MAXIMUM_CONTEXTS`; PeerUnreachable or AssociationRejected."""
    contexts = [ProposedContext(sop_class, _proposed(syntax)) for sop_class, syntax in sorted(kinds)]
    # Of this whole process: a file that is given by its path goes out as it lies, one that was read is encoded anew.
    _config.STORE_SEND_CHUNKED_DATASET = True
    with association(peer, contexts, ae_title=ae_title, timeout_seconds=timeout_seconds) as assoc:
        yield Storing(assoc, peer, kinds)


def store(peer: Peer, files: Iterable[FileToSend], *, ae_title: str, timeout_seconds: float) -> Iterator[Sent]:
    """Send files and yield what became of each; raises PeerUnreachable or AssociationRejected when none could go."""
    files = list(files)
    kinds = sorted({file.kind for file in files})
    for start in range(0, len(kinds), MAXIMUM_CONTEXTS):
        some = kinds[start : start + MAXIMUM_CONTEXTS]
        with storing(peer, some, ae_title=ae_title, timeout_seconds=timeout_seconds) as to_peer:
            yield from (to_peer.send(file) for file in files if file.kind in some)


def _proposed(transfer_syntax_uid: str) -> tuple[str, ...]:
    if transfer_syntax_uid not in _UNCOMPRESSED:
        return (transfer_syntax_uid,)
    return tuple(dict.fromkeys((transfer_syntax_uid, EXPLICIT_LITTLE, IMPLICIT_LITTLE)))


def _send(assoc: Association, peer: Peer, file: FileToSend) -> Sent:
    if not assoc.is_established:
        return _unsent(file, PeerUnreachable(f"peer {peer.name} ended the association early"))
    try:
        answer = assoc.send_c_store(file.path if _goes_as_it_lies(assoc, file) else dcmread(file.path))
    except ValueError:
        wanted = f"SOP class {file.sop_class_uid} in transfer syntax {file.transfer_syntax_uid}"
        return _unsent(file, StoreFailed(f"peer {peer.name} did not accept {wanted}", status=0x0122))
    except RuntimeError:  # pynetdicom's word for an association that ended a moment ago
        return _unsent(file, PeerUnreachable(f"peer {peer.name} ended the association early"))
    except (AttributeError, EOFError, InvalidDicomError, LookupError, NotImplementedError, OSError) as error:
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


def _goes_as_it_lies(assoc: Association, file: FileToSend) -> bool:
    """Whether the peer takes the bytes of the file: then nothing is decoded, nor encoded anew."""
    accepted = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in assoc.accepted_contexts}
    return file.as_it_lies and file.kind in accepted


def _unsent(file: FileToSend, error: DeliveryError) -> Sent:
    return Sent(file=file, answer="", error=error)
