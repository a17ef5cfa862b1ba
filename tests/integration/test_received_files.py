"""Files of every kind that can be sent come out as they went in, byte for byte, whoever sends them."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import split_dataset

from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.scp.presentation_contexts import storage_sop_classes
from tests.instances import ct_instance, received, sop_uid
from tests.receivers import Dcmtk, Receiver, answers, associated, c_store, propose, send
from tests.wire_tap import tapped

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
def test_a_kept_file_opens_as_what_was_sent(receiver: Receiver, syntax: UID) -> None:
    (answer,) = answers(receiver.entity, received(ct_instance(), syntax))
    assert answer.Status == 0x0000
    (row,) = receiver.index.studies.find(sop_uid(1))
    kept = dcmread(receiver.archive.path_of(row.path))
    assert kept == ct_instance()
    assert kept.file_meta.TransferSyntaxUID == row.transfer_syntax_uid == syntax
    assert kept.file_meta.SourceApplicationEntityTitle == row.calling_ae_title == "SCANNER"
    assert kept.file_meta.ReceivingApplicationEntityTitle == "TRIAGE"


def sent_from(path: Path) -> bytes:
    """A file's data set, by pynetdicom's reckoning, since not every file was written by us."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def request_of(path: Path) -> ReceivedInstance | None:
    """The C-STORE request that a file asks for; None where it does not say which, or is of no storage class."""
    try:
        meta = dcmread(path, stop_before_pixels=True, force=False).file_meta
    except (InvalidDicomError, EOFError):
        return None
    facts = [
        str(meta.get(f"{name}UID", ""))
        for name in ("MediaStorageSOPClass", "MediaStorageSOPInstance", "TransferSyntax")
    ]
    if facts[0] not in storage_sop_classes() or not all(facts):
        return None
    names = ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
    changes = {"data_set": BytesIO(sent_from(path)), **dict(zip(names, facts, strict=True))}
    return received(ct_instance(), **changes)


def send_files(receiver: Receiver, paths: Sequence[Path]) -> dict[str, str]:
    """Send files over one association and compare what is kept with what was sent; the refusals by file name."""
    requests = {path: request for path in paths if (request := request_of(path)) is not None}
    refusals = {}
    with associated(receiver.entity, *propose(*requests.values())) as association:
        assert association.rejected_contexts == []
        for path, request in requests.items():
            answer = c_store(association, request)
            if answer.Status == 0x0000:
                assert sent_from(path) in receiver.kept(request.sop_instance_uid), path.name
            else:
                refusals[path.name] = f"0x{answer.Status or 0:04X} {answer.ErrorComment}"
        assert association.is_established
    return refusals


def every_file(shared: Path) -> list[Path]:
    """The files of every transfer syntax, and those that pydicom is tested with."""
    ours = sorted((shared / "data" / "transfer-syntaxes").glob("[!L]*"))
    assert len(ours) >= 20
    return [*ours, *sorted(path for path in PYDICOMS.rglob("*") if path.is_file() and path.suffix not in NO_FILES)]


def by_reason(reasons: Mapping[str, str]) -> dict[str, set[str]]:
    """The names of the files that have each reason."""
    found: dict[str, set[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, set()).add(name)
    return found


def why_not(path: Path) -> str:
    """Why nobody can make a C-STORE request of a file; empty where one can."""
    if request_of(path) is not None:
        return ""
    try:
        meta = dcmread(path, stop_before_pixels=True).file_meta
    except InvalidDicomError:
        return "it has no DICM prefix"
    if meta.get("MediaStorageSOPClassUID") and meta.MediaStorageSOPClassUID not in storage_sop_classes():
        return f"{meta.MediaStorageSOPClassUID.name} is no image or document of a patient"
    return "its meta information names no class, instance or transfer syntax"


PYDICOMS = Path(pydicom.__file__).parent / "data"

#: Beside pydicom's DICOM files lie its own modules, and texts, archives and profiles.
NO_FILES = (".py", ".pyc", ".json", ".txt", ".md", ".dump", ".gz", ".icc")

NO_PREFIX = {"ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "README", "no_meta.dcm", "rtstruct.dcm"}
PALETTES = {f"{name}.dcm" for name in ("fall", "hotiron", "hotmetalblue", "pet", "pet20step")}
PALETTES |= {"spring.dcm", "summer.dcm", "winter.dcm"}
DIRECTORIES = {f"DICOMDIR{end}" for end in ("", "-bigEnd", "-implicit", "-nooffset", "-nopatient", "-reordered")}

#: Which of all those files cannot be sent, and why.
UNSENDABLE = {
    "it has no DICM prefix": NO_PREFIX,
    "Color Palette Storage is no image or document of a patient": PALETTES,
    "Media Storage Directory Storage is no image or document of a patient": DIRECTORIES | {"DICOMDIR-empty.dcm"},
    "its meta information names no class, instance or transfer syntax": {
        *("empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm")
    },
}

#: Which are refused, and why: their meta information, which the request is made of, names another instance.
ANOTHER_INSTANCE = {
    *("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "badVR.dcm", "rtdose.dcm", "rtdose_1frame.dcm"),
    *("rtdose_expb.dcm", "rtdose_expb_1frame.dcm", "rtplan.dcm", "rtplan_truncated.dcm"),
}
#: Or they are fragments of a data set, which belong to no study.
NO_STUDY = {
    *("chrSQEncoding.dcm", "chrSQEncoding1.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "UN_sequence.dcm", "no_meta_group_length.dcm"),
    "priv_SQ.dcm",
}
REFUSED = {
    "0xA900 SOP Instance UID of data set and command differ; mend the sender": ANOTHER_INSTANCE,
    "0xC000 Study Instance UID is missing; mend it at the sender": NO_STUDY,
}

#: Those that DCMTK's storescu does not send: it reads the whole file before, and finds no SOP class or instance in it.
UNSENT_BY_STORESCU = (ANOTHER_INSTANCE | NO_STUDY) - {
    *("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm"),
}


def test_every_file_that_can_be_sent_is_kept_byte_for_byte_or_refused(receiver: Receiver, shared: Path) -> None:
    files = every_file(shared)
    refused = send_files(receiver, files)
    assert by_reason(refused) == REFUSED
    assert by_reason({path.name: why for path in files if (why := why_not(path))}) == UNSENDABLE
    assert send(receiver.entity, ct_instance()) == [0x0000]


#: DCMTK's option for each transfer syntax that its storescu can propose.
STORESCU_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


#: Retired JPEG processes, for which it has none.
WITHOUT_OPTION = {"1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.57"}


def test_what_storescu_sends_of_every_file_is_kept_byte_for_byte(
    receiver: Receiver, dcmtk: Dcmtk, shared: Path
) -> None:
    """Beside what was on the wire, since storescu writes some data sets anew before it sends them."""
    requests = {path: request for path in every_file(shared) if (request := request_of(path)) is not None}
    groups: dict[str, list[Path]] = {}
    for path, request in requests.items():
        groups.setdefault(STORESCU_OPTIONS.get(request.transfer_syntax_uid, ""), []).append(path)
    assert {requests[path].transfer_syntax_uid for path in groups.pop("")} == WITHOUT_OPTION
    with tapped(receiver.entity.port) as tap:
        for option, paths in groups.items():
            dcmtk("storescu", "-nh", "-R", option, "-aec", "TRIAGE", "127.0.0.1", tap.port, *paths)
        sent = list(tap.data_sets())
    names = {requests[path].sop_instance_uid: path.name for paths in groups.values() for path in paths}
    came = {uid for uid, _ in sent}
    unsent = {path for paths in groups.values() for path in paths if requests[path].sop_instance_uid not in came}
    assert {path.name for path in unsent} == UNSENT_BY_STORESCU
    kept = [(uid, data) for uid, data in sent if receiver.index.studies.find(uid)]
    assert all(data in receiver.kept(uid) for uid, data in kept)
    lost = {names[uid] for uid, _ in sent if uid in names} - {names[uid] for uid, _ in kept if uid in names}
    assert lost <= ANOTHER_INSTANCE | NO_STUDY
    # Some of the files hold the same instance.
    assert len(kept) > 160
