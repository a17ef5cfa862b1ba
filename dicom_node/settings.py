"""The settings: everything that can be set, with its default, its meaning and its range, as one frozen value."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar, get_type_hints

from dicom_node.core.attempts import Attempts
from dicom_node.core.expression import parse_expression
from dicom_node.core.form import BY_DEFAULT, Form, FormChoice, SRForm, forms_of
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import QUEUES
from dicom_node.core.routing import Route

T = TypeVar("T")

#: The smallest and the largest value of a number.
Range = tuple[float, float]

PORTS: Range = (0, 65535)


def _setting(default: T, meaning: str, allowed: Range | None = None, rule: str = "", secret: bool = False) -> T:
    """A field with its default, what it means, its range, the name of a rule in settings_check; none shows a secret."""
    return field(default=default, repr=not secret, metadata={"meaning": meaning, "allowed": allowed, "rule": rule})


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """This application entity and where it keeps what it receives."""

    ae_title: str = _setting("TRIAGE", "our AE title", rule="ae_title")
    host: str = _setting("0.0.0.0", "address that the Storage SCP listens on", rule="not_empty")
    port: int = _setting(11112, "port of the Storage SCP; 0 takes a free one", PORTS)
    data_dir: Path = _setting(Path("~/.local/share/dicom-node"), "folder of archive and index")
    minimum_free_megabytes: int = _setting(1024, "with less room on the disk, instances are refused (0xA700)", (0, 1e9))
    maximum_pdu_bytes: int = _setting(131072, "longest PDU that we accept; 0 for any", (0, 2**32 - 1))


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """The database of studies, jobs and deliveries."""

    url: str = _setting("", "SQLAlchemy URL; empty: SQLite in data_dir", secret=True)


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """The queue between the node and its workers."""

    url: str = _setting("", "Redis URL; empty: a Redis of our own on a socket in data_dir", secret=True)


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """The web page, health and metrics."""

    host: str = _setting("127.0.0.1", "address that the web page listens on", rule="not_empty")
    port: int = _setting(8080, "port of the web page; 0 takes a free one", PORTS)
    viewer_dir: Path = _setting(Path("~/.local/share/dicom-node/viewer"), "folder where `make viewer` puts OHIF")


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings:
    """Who may store here."""

    calling_ae_titles: tuple[str, ...] = _setting((), "AE titles that may call; empty: any", rule="ae_title")
    called_ae_title_must_match: bool = _setting(True, "refuse callers that ask for another AE title than ours")
    maximum_associations: int = _setting(100, "associations at one time", (1, 10000))


@dataclass(frozen=True, kw_only=True)
class CompletenessSettings:
    """When a study has arrived."""

    quiet_seconds_when_whole: float = _setting(
        2.0, "quiet time after the last association when every volume is whole", (0, 86400)
    )
    quiet_seconds_otherwise: float = _setting(60.0, "quiet time when slices are missing or a sender hangs", (0, 86400))
    question_after_seconds: float = _setting(
        0.5, "quiet time after which a sender with query = true is asked how many instances it holds", (0.05, 86400)
    )
    question_first_wait_seconds: float = _setting(2.0, "wait before it is asked again; doubles each time", (0.1, 86400))
    question_maximum_wait_seconds: float = _setting(60.0, "longest wait before it is asked again", (0.1, 86400))
    question_timeout_seconds: float = _setting(5.0, "longest wait for its answer", (0.1, 3600))
    maximum_waiting_seconds: float = _setting(
        3600.0, "a study fails when nothing came for so long, though its sender holds more of a series", (1, 604800)
    )


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """How jobs are handed out."""

    lease_seconds: float = _setting(30.0, "a worker silent for so long has lost its job", (1, 86400))
    maximum_attempts: int = _setting(3, "attempts before a job is a dead letter and waits for a person", (1, 100))
    first_wait_seconds: float = _setting(2.0, "wait before the second attempt; doubles each time", (0, 86400))
    maximum_wait_seconds: float = _setting(300.0, "longest wait between attempts", (0, 86400))
    maximum_waiting_seconds: float = _setting(
        1800.0, "a job that waited so long goes before all others but STAT", (1, 604800)
    )
    maximum_reading_seconds: float = _setting(
        1800.0, "a reading that takes longer is ended and tried again", (1, 86400)
    )
    maximum_silence_seconds: float = _setting(
        120.0, "a reading process of which nothing is heard for so long hangs, and is replaced", (5, 86400)
    )

    @property
    def attempts(self) -> Attempts:
        """How often a job is tried, and when again."""
        return Attempts(
            maximum=self.maximum_attempts,
            first_wait_seconds=self.first_wait_seconds,
            maximum_wait_seconds=self.maximum_wait_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The reading side."""

    queues: tuple[str, ...] = _setting(QUEUES, "queues that a worker serves, the first first", rule="queue")
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N", rule="device")
    bundle_dirs: tuple[Path, ...] = _setting((), "folders with further bundles")
    threads: int = _setting(0, "CPU threads of the inference; 0: as many as there are cores", (0, 1024))
    look_seconds: float = _setting(2.0, "a worker also looks for jobs this often, without any message", (0.05, 3600))
    stop_seconds: float = _setting(25.0, "a worker asked to stop finishes its job if it takes no longer", (0, 86400))


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """How results go out."""

    first_wait_seconds: float = _setting(2.0, "wait before the second attempt; doubles each time", (0.01, 86400))
    maximum_wait_seconds: float = _setting(900.0, "longest wait between attempts", (0.01, 86400))
    maximum_refusals: int = _setting(10, "refusals by the peer before a delivery fails for good", (1, 1000))
    timeout_seconds: float = _setting(30.0, "longest wait for an answer of a peer", (0.1, 3600))
    commitment_timeout_seconds: float = _setting(
        300.0, "wait for a storage commitment before it is asked for again; doubles each time", (1, 86400)
    )
    commitment_maximum_wait_seconds: float = _setting(
        3600.0, "longest wait before a storage commitment is asked for again", (1, 604800)
    )
    instead_after_seconds: float = _setting(
        3600.0, "a peer away for so long has its objects also sent to the peer named as its instead", (0, 604800)
    )


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings:
    """How the files on the disk are compared with the index, in the background."""

    check_files_per_second: float = _setting(
        50.0, "files of up to 4 MB that are read and compared with the index; 0: none", (0, 1e5)
    )
    check_every_days: float = _setting(
        7.0, "time from the beginning of one look at all files to the next", (0.04, 3650)
    )


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """When a study leaves the disk; its lines in the index stay."""

    days: float = _setting(0.0, "age at which a study may leave the disk when room is wanted; 0: never", (0, 36500))
    after: Literal["committed", "delivered"] = _setting(
        "committed", "what its results must be: committed (the peer said that it keeps them), or also merely delivered"
    )
    not_routed: bool = _setting(False, "whether a study that no route wants, which has no results, may leave, too")
    watermark_gigabytes: float = _setting(0.0, "room that is wanted: studies leave only while there is less", (0, 1e6))
    free_percent: float = _setting(0.0, "the same as a part of the disk; the larger of both counts", (0, 90))

    @property
    def states(self) -> frozenset[StudyState]:
        """States whose studies may leave."""
        states = {StudyState.COMMITTED}
        if self.after == "delivered":
            states.add(StudyState.DELIVERED)
        if self.not_routed:
            states.add(StudyState.NOT_ROUTED)
        return frozenset(states)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An application entity that we know by name."""

    name: str = field(metadata={"meaning": "our name for it", "rule": "name"})
    ae_title: str = field(metadata={"meaning": "its AE title", "rule": "ae_title"})
    host: str = field(metadata={"meaning": "its address", "rule": "not_empty"})
    port: int = field(metadata={"meaning": "its port", "allowed": (1, 65535)})
    results: bool = _setting(False, "whether SR and SEG go here")
    query: bool = _setting(False, "whether it is asked by C-FIND how many instances it holds of a study that it sends")
    sends_as: tuple[str, ...] = _setting((), "further AE titles that it sends under", rule="ae_title")
    commitment: bool = _setting(False, "whether it is asked for storage commitment of what it accepted")
    instead: str = _setting("", "name of the peer that also gets its objects while it is away for long; empty: none")
    forms: tuple[FormChoice, ...] = _setting(
        ("SEG", "SR"), "what it gets of a report: SEG, SR, LABELMAP, LUNG, KOS, GSPS, SC, PDF"
    )
    sr_form: SRForm = _setting(
        "portable", "form of its structured reports: portable, for most viewers, or ohif, with axes that OHIF edits"
    )
    unread: bool = _setting(True, "whether it also gets a report that says why a routed study was not read")

    @property
    def wanted_forms(self) -> frozenset[Form]:
        """What of a report on a reading goes to it."""
        return forms_of(self.forms, self.sr_form)

    def takes(self, form: Form) -> bool:
        """Whether an object of this form goes to it; what withdraws something goes to everyone who has that."""
        return form is Form.REJECTION or (self.unread if form is Form.UNREAD else form in self.wanted_forms)


def _default_routes() -> tuple[Route, ...]:
    when = parse_expression('Modality == "CT" and SliceThickness <= 5 and not derived')
    return (Route(name="lung nodules on chest CT", algorithm="lung_nodule", when=when),)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    node: NodeSettings = field(default_factory=NodeSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    web: WebSettings = field(default_factory=WebSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    completeness: CompletenessSettings = field(default_factory=CompletenessSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    peers: tuple[Peer, ...] = ()
    routes: tuple[Route, ...] = field(default_factory=_default_routes)

    @property
    def wanted_forms(self) -> frozenset[Form]:
        """What any peer that results may go to takes of them; the usual where there is none yet."""
        named = {name for route in self.routes for name in route.send_to}
        takers = [peer for peer in self.peers if peer.results or peer.name in named]
        return frozenset().union(*(peer.wanted_forms for peer in takers)) if takers else BY_DEFAULT

    @property
    def askable_peers(self) -> Mapping[str, tuple[str, ...]]:
        """Calling AE title to the names of the peers that send under it and can be asked what they hold."""
        found: dict[str, tuple[str, ...]] = {}
        for peer in self.peers:
            for title in {peer.ae_title, *peer.sends_as} if peer.query else ():
                found[title] = (*found.get(title, ()), peer.name)
        return found


#: The tables of which there may be any number.
ARRAYS: Mapping[str, type[Peer] | type[Route]] = {"peers": Peer, "routes": Route}


@dataclass(frozen=True, kw_only=True)
class SettingReference:
    """One row of the table of all settings."""

    section: str
    key: str
    #: As TOML writes it; empty when the key must be given.
    default: str
    meaning: str


def settings_reference() -> tuple[SettingReference, ...]:
    """Every setting with its default and meaning, in the order of the file."""
    rows = []
    for section, kind in get_type_hints(Settings).items():
        for entry in fields(ARRAYS.get(section, kind)):
            default = "" if entry.default is MISSING else toml_text(entry.default)
            meaning = str(entry.metadata["meaning"])
            rows.append(SettingReference(section=section, key=entry.name, default=default, meaning=meaning))
    return tuple(rows)


def toml_text(value: object) -> str:
    """A value as a settings file would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'
