"""The settings: one frozen value from a TOML file, the environment and the command line, checked whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from dicom_node.core.errors import SettingsError
from dicom_node.core.expression import parse_expression
from dicom_node.core.priority import QUEUES
from dicom_node.core.routing import Route
from dicom_node.settings_check import Fault, Text, check_array, check_table, unknown_key
from dicom_node.settings_file import KeyPath, lines_of, read_settings_file

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


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """How jobs are handed out."""

    lease_seconds: float = _setting(30.0, "a worker silent for so long has lost its job", (1, 86400))
    maximum_attempts: int = _setting(3, "attempts before a job fails for good", (1, 100))
    maximum_reading_seconds: float = _setting(1800.0, "a reading of so long hangs, and its worker ends", (1, 86400))


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The reading side."""

    queues: tuple[str, ...] = _setting(QUEUES, "queues that a worker serves, the first first", rule="queue")
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N", rule="device")
    bundle_dirs: tuple[Path, ...] = _setting((), "folders with further bundles")
    threads: int = _setting(0, "CPU threads of the inference; 0: as many as there are cores", (0, 1024))


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """How results go out."""

    first_wait_seconds: float = _setting(2.0, "wait before the second attempt; doubles each time", (0.01, 86400))
    maximum_wait_seconds: float = _setting(900.0, "longest wait between attempts", (0.01, 86400))
    maximum_refusals: int = _setting(10, "refusals by the peer before a delivery fails for good", (1, 1000))
    timeout_seconds: float = _setting(30.0, "longest wait for an answer of a peer", (0.1, 3600))


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An application entity that we know by name."""

    name: str = field(metadata={"meaning": "our name for it", "rule": "name"})
    ae_title: str = field(metadata={"meaning": "its AE title", "rule": "ae_title"})
    host: str = field(metadata={"meaning": "its address", "rule": "not_empty"})
    port: int = field(metadata={"meaning": "its port", "allowed": (1, 65535)})
    results: bool = _setting(False, "whether SR and SEG go here")


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
    peers: tuple[Peer, ...] = ()
    routes: tuple[Route, ...] = field(default_factory=_default_routes)


_ARRAYS: Mapping[str, type[Peer] | type[Route]] = {"peers": Peer, "routes": Route}

_PREFIX = "DICOM_NODE_"


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Raw values from all sources, the later over the earlier, and where those outside the file come from."""

    values: dict[str, Any]
    origins: dict[KeyPath, str]

    def put(self, path: KeyPath, value: object, origin: str) -> None:
        """Lay one value over what is there."""
        self.origins[path] = origin
        *above, key = path
        table = self.values
        for name in above:
            held = table.get(str(name))
            # A copy: the file's own tables stay as they were read.
            table[str(name)] = table = dict(held) if isinstance(held, dict) else {}
        table[str(key)] = value


def load_settings(
    path: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object] = MappingProxyType({})
) -> Settings:
    """The settings of file, environment (DICOM_NODE_SECTION__KEY) and overrides ("section.key"); the later wins.

    Raises SettingsError with every fault, each with its line or origin and its mend. An override of None is none.
    """
    values, text = ({}, "") if path is None else read_settings_file(path)
    sources = _Sources(values=dict(values), origins={})
    faults: list[Fault] = []
    _lay_environment(sources, environment, faults)
    for name, value in overrides.items():
        if value is not None:
            sources.put(tuple(name.split(".")), Text(value) if isinstance(value, str) else value, f"option {name}")
    settings = _checked(sources.values, faults)
    if settings is None or faults:
        raise SettingsError(_report(faults, path, text, sources.origins))
    return settings


def _lay_environment(sources: _Sources, environment: Mapping[str, str], faults: list[Fault]) -> None:
    for variable, value in sorted(environment.items()):
        rest = variable.removeprefix(_PREFIX)
        path = tuple(rest.lower().split("__"))
        # Others that begin so are not ours: Kubernetes sets DICOM_NODE_PORT and such for a service called dicom-node.
        if rest == variable or (len(path) == 1 and path[0] not in _ARRAYS):
            continue
        if len(path) == (1 if path[0] in _ARRAYS else 2):
            sources.put(path, Text(value), f"environment {variable}")
        else:
            names = " or ".join(f"{_PREFIX}{name.upper()}" for name in _ARRAYS)
            message = f"is no setting; write {_PREFIX}SECTION__KEY, or a whole TOML list as {names}"
            sources.origins[(variable,)] = f"environment {variable}"
            faults.append(Fault(path=(variable,), message=message))


def _checked(values: Mapping[str, Any], faults: list[Fault]) -> Settings | None:
    """The settings built of raw values; None when some cannot be, with the faults appended."""
    sections = get_type_hints(Settings)
    faults.extend(Fault(path=(key,), message=unknown_key(key, sections)) for key in values if key not in sections)
    built: dict[str, Any] = {}
    for name, kind in sections.items():
        if name not in _ARRAYS:
            built[name] = check_table(kind, values.get(name, {}), (name,), faults)
        elif name in values:
            built[name] = check_array(_ARRAYS[name], values[name], (name,), faults)
    if faults:
        return None
    settings = Settings(**built)
    faults.extend(_contradictions(settings))
    return settings


def _contradictions(settings: Settings) -> Iterator[Fault]:
    """What each setting may say alone, but not beside the others."""
    for array, entries in (("peers", settings.peers), ("routes", settings.routes)):
        yield from _repeated_names(array, [entry.name for entry in entries])
    names = [peer.name for peer in settings.peers]
    for number, route in enumerate(settings.routes):
        for place, name in enumerate(route.send_to):
            if name not in names:
                known = f"peers are {', '.join(names)}" if names else "there are no [[peers]]"
                yield Fault(path=("routes", number, "send_to", place), message=f'names "{name}", no peer; {known}')
    if not settings.worker.queues:
        yield Fault(path=("worker", "queues"), message="is empty; the worker would have nothing to do")
    if settings.delivery.maximum_wait_seconds < settings.delivery.first_wait_seconds:
        yield Fault(path=("delivery", "maximum_wait_seconds"), message="is shorter than first_wait_seconds")
    if settings.completeness.quiet_seconds_otherwise < settings.completeness.quiet_seconds_when_whole:
        path = ("completeness", "quiet_seconds_otherwise")
        yield Fault(path=path, message="is shorter than quiet_seconds_when_whole")


def _repeated_names(array: str, names: Sequence[str]) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if name in names[:number]:
            first = names.index(name) + 1
            yield Fault(path=(array, number, "name"), message=f'"{name}" is already the name of number {first}')


def _report(faults: list[Fault], path: Path | None, text: str, origins: Mapping[KeyPath, str]) -> str:
    """All faults, those of the file first and by line."""
    lines = lines_of(text)
    places = [_place(fault.path, lines, origins) for fault in faults]
    ordered = sorted(zip(places, faults, strict=True), key=lambda pair: pair[0])
    rows = [f"{origin or f'line {line}'}: {_named(fault.path)} {fault.message}" for (origin, line), fault in ordered]
    return "\n  ".join([f"the settings{f' in {path}' if path else ''} cannot be used:", *rows])


def _place(path: KeyPath, lines: Mapping[KeyPath, int], origins: Mapping[KeyPath, str]) -> tuple[str, int]:
    """Where the value at a path, or the nearest table around it, was set: an origin outside the file, or a line."""
    around = [path[:length] for length in range(len(path), 0, -1)]
    for place in around:
        if place in origins:
            return origins[place], 0
    for place in around:
        if place in lines:
            return "", lines[place]
    within = (origin for place, origin in origins.items() if place[: len(path)] == path)
    return next(within, "default"), 0


def _named(path: KeyPath) -> str:
    """A path as a person finds it in the file."""
    table, *rest = path
    if not rest:
        return f"[{table}]"
    if isinstance(rest[0], int):
        array = f"[[{table}]] number {rest[0] + 1}"
        return f"{array} {rest[1]}" if len(rest) > 1 else array
    return f"[{table}] {rest[0]}"


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
        for entry in fields(_ARRAYS.get(section, kind)):
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
