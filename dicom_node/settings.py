"""The settings: everything that can be set, with its default, its meaning and its range, as one frozen value."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar, get_type_hints

from dicom_node.core.attempts import Attempts
from dicom_node.core.expression import parse_expression
from dicom_node.core.form import BY_DEFAULT, UNREAD, Form, FormChoice, SRForm, forms_of
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import QUEUES
from dicom_node.core.routing import Route
from dicom_node.core.urgency import DEFAULT_RULES, TriageRule

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
    study_link: str = _setting(
        "",
        "where the page opens a study in a viewer or PACS, with {study}; empty: in OHIF, where it is installed",
        rule="study_link",
    )
    longest_wait_minutes: float = _setting(
        240.0, "a study that waits so long to be read goes before all routine ones on the worklist", (1, 525600)
    )
    picture_megabytes: int = _setting(256, "disk that drawn pictures may take before the oldest go", (1, 1e6))
    viewer_dir: Path = _setting(Path("~/.local/share/dicom-node/viewer"), "folder where `make viewer` puts OHIF")


@dataclass(frozen=True, kw_only=True)
class WatchingSettings:
    """What is told to programs that watch the node, beside /metrics."""

    traces: str = _setting(
        "", "OTLP/HTTP address for a trace of each study, such as http://host:4318/v1/traces; empty: none", rule="http"
    )


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """Who may see the pages, and what is written of it."""

    secure_cookies: bool = _setting(False, "cookies over TLS alone: set it where a proxy speaks TLS with browsers")
    trusted_proxies: tuple[str, ...] = _setting((), "addresses of proxies whose X-Forwarded-For is believed")
    session_hours: float = _setting(12.0, "a session ends after so long", (0.1, 8760))
    idle_minutes: float = _setting(60.0, "a session that nobody uses ends after so long", (1, 525600))
    login_attempts: int = _setting(
        10,
        "wrong passwords for a user from an address before they must wait; ten times so many for either alone",
        (1, 1e4),
    )
    login_wait_minutes: float = _setting(10.0, "how long they must wait", (0.01, 1440))
    metrics: Literal["token", "open"] = _setting(
        "token", "who may ask for /metrics: a token with the scope metrics, or anybody (open)"
    )
    oidc_issuer: str = _setting("", "OpenID Connect: address of the identity provider; empty: none", rule="https")
    oidc_client_id: str = _setting("", "our name at the identity provider")
    oidc_client_secret: str = _setting("", "our secret at the identity provider", secret=True)
    oidc_claim: str = _setting(
        "preferred_username", "claim that names the user; must be unique, and nobody may change his own"
    )
    audit_syslog: str = _setting(
        "", "audit messages also go to tls://host:port, tcp://host:port or udp://host:port", rule="syslog"
    )
    audit_authority: str = _setting("", "file of certificates that sign the syslog receiver's; empty: the system's")


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings:
    """Who may store here."""

    calling_ae_titles: tuple[str, ...] = _setting((), "AE titles that may call; empty: any", rule="ae_title")
    called_ae_title_must_match: bool = _setting(True, "refuse callers that ask for another AE title than ours")
    maximum_associations: int = _setting(100, "associations at one time", (1, 10000))
    maximum_associations_per_peer: int = _setting(
        50, "the same of one calling AE title at one address, so that it keeps nobody else out", (1, 10000)
    )
    differing_content: Literal["keep", "refuse"] = _setting(
        "keep", "another content of a SOP Instance UID that is here: keep it beside the first, or refuse it (0x0111)"
    )


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
    explanation_seconds: float = _setting(
        20.0, "longest time a reading takes to tell, in SC and PDF, on what scores depended; 0: not told", (0, 3600)
    )
    prior_years: float = _setting(
        5.0, "how far back a patient's earlier studies are looked for, to follow findings; 0: not at all", (0, 150)
    )


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
    character_set: str = _setting(
        "", "Specific Character Set of the texts that it sends without one, such as ISO_IR 100", rule="character_set"
    )
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
        if form in UNREAD:
            return self.unread and not self.wanted_forms.isdisjoint(UNREAD[form])
        return form is Form.REJECTION or form in self.wanted_forms


@dataclass(frozen=True, kw_only=True)
class BundleSettings:
    """A bundle from outside, or what is to be different about one that is found."""

    name: str = field(metadata={"meaning": "what routes call it: its folder's name, or ours for it", "rule": "name"})
    folder: str = _setting("", "the bundle's own folder; empty: it is found in bundle_dirs")
    report_threshold: float = _setting(0.0, "least score of a finding that is reported; 0: as the bundle says", (0, 1))
    own_code: bool = _setting(
        False, "whether code that the bundle brings or names beyond MONAI's and torch's may run: trust it as a program"
    )
    torchscript: bool = _setting(False, "whether models/model.ts is run where the bundle has no models/model.pt")
    out_of_range: Literal["caveat", "refuse"] = _setting(
        "caveat", "a series unlike those it was trained on: caveat (read, and the report says so) or refuse"
    )


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
    watching: WatchingSettings = field(default_factory=WatchingSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    completeness: CompletenessSettings = field(default_factory=CompletenessSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    peers: tuple[Peer, ...] = ()
    routes: tuple[Route, ...] = field(default_factory=_default_routes)
    bundles: tuple[BundleSettings, ...] = ()
    triage: tuple[TriageRule, ...] = DEFAULT_RULES

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

    @property
    def character_sets(self) -> Mapping[str, str]:
        """Calling AE title to the character set of the texts that come from there without one."""
        pairs = ((title, peer.character_set) for peer in self.peers for title in (peer.ae_title, *peer.sends_as))
        return {title: character_set for title, character_set in pairs if character_set}


#: The tables of which there may be any number.
ARRAYS: Mapping[str, type[Peer] | type[Route] | type[BundleSettings] | type[TriageRule]] = {
    "peers": Peer,
    "routes": Route,
    "bundles": BundleSettings,
    "triage": TriageRule,
}


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
