"""Settings are loaded from a TOML file, the environment and the command line, and checked whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from dicom_node.core.errors import SettingsError
from dicom_node.core.form import SAY_THAT_NOTHING_WAS_FOUND
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.routing import Route
from dicom_node.core.urgency import TriageRule
from dicom_node.settings import ARRAYS, BundleSettings, CompletenessSettings, Peer, Settings
from dicom_node.settings_check import Fault, Text, check_array, check_table, unknown_key
from dicom_node.settings_file import KeyPath, lines_of, read_settings_file

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
        if rest == variable or (len(path) == 1 and path[0] not in ARRAYS):
            continue
        if len(path) == (1 if path[0] in ARRAYS else 2):
            sources.put(path, Text(value), f"environment {variable}")
        else:
            names = " or ".join(f"{_PREFIX}{name.upper()}" for name in ARRAYS)
            message = f"is no setting; write {_PREFIX}SECTION__KEY, or a whole TOML list as {names}"
            sources.origins[(variable,)] = f"environment {variable}"
            faults.append(Fault(path=(variable,), message=message))


def _checked(values: Mapping[str, Any], faults: list[Fault]) -> Settings | None:
    """The settings built of raw values; None when some cannot be, with the faults appended."""
    sections = get_type_hints(Settings)
    faults.extend(Fault(path=(key,), message=unknown_key(key, sections)) for key in values if key not in sections)
    built: dict[str, Any] = {}
    for name, kind in sections.items():
        if name not in ARRAYS:
            built[name] = check_table(kind, values.get(name, {}), (name,), faults)
        elif name in values:
            built[name] = check_array(ARRAYS[name], values[name], (name,), faults)
    if faults:
        return None
    settings = Settings(**built)
    faults.extend(_contradictions(settings))
    return settings


def _contradictions(settings: Settings) -> Iterator[Fault]:
    """What each setting may say alone, but not beside the others."""
    named: tuple[tuple[str, Sequence[Peer | Route | BundleSettings | TriageRule]], ...] = (
        ("peers", settings.peers),
        ("routes", settings.routes),
        ("bundles", settings.bundles),
        ("triage", settings.triage),
    )
    for array, entries in named:
        yield from _repeated_names(array, [entry.name for entry in entries])
    names = [peer.name for peer in settings.peers]
    for number, route in enumerate(settings.routes):
        for place, name in enumerate(route.send_to):
            if name in route.send_to[:place]:
                yield Fault(path=("routes", number, "send_to", place), message=f'names "{name}" twice')
            if name not in names:
                known = f"peers are {', '.join(names)}" if names else "there are no [[peers]]"
                yield Fault(path=("routes", number, "send_to", place), message=f'names "{name}", no peer; {known}')
    if not settings.worker.queues:
        yield Fault(path=("worker", "queues"), message="is empty; the worker would have nothing to do")
    for section in ("queue", "delivery"):
        waits = getattr(settings, section)
        if waits.maximum_wait_seconds < waits.first_wait_seconds:
            yield Fault(path=(section, "maximum_wait_seconds"), message="is shorter than first_wait_seconds")
    yield from _alternatives(settings.peers)
    yield from _forms(settings.peers)
    if settings.delivery.commitment_maximum_wait_seconds < settings.delivery.commitment_timeout_seconds:
        path = ("delivery", "commitment_maximum_wait_seconds")
        yield Fault(path=path, message="is shorter than commitment_timeout_seconds")
    if settings.completeness.quiet_seconds_otherwise < settings.completeness.quiet_seconds_when_whole:
        path = ("completeness", "quiet_seconds_otherwise")
        yield Fault(path=path, message="is shorter than quiet_seconds_when_whole")
    yield from _waits_for_answers(settings.completeness)
    yield from _watermarks(settings)


def _waits_for_answers(waits: CompletenessSettings) -> Iterator[Fault]:
    if waits.question_maximum_wait_seconds < waits.question_first_wait_seconds:
        path = ("completeness", "question_maximum_wait_seconds")
        yield Fault(path=path, message="is shorter than question_first_wait_seconds")
    if waits.maximum_waiting_seconds < waits.quiet_seconds_otherwise:
        path = ("completeness", "maximum_waiting_seconds")
        yield Fault(path=path, message="is shorter than quiet_seconds_otherwise")


def _watermarks(settings: "Settings") -> Iterator[Fault]:
    wanted, free = settings.retention.watermark_gigabytes, settings.retention.free_percent
    if settings.retention.days and not wanted and not free:
        yield Fault(path=("retention", "days"), message="deletes nothing without watermark_gigabytes or free_percent")
    if 0 < wanted * 1000 < settings.node.minimum_free_megabytes:
        path = ("retention", "watermark_gigabytes")
        yield Fault(path=path, message="is less than minimum_free_megabytes of [node]: nothing leaves in time")
    if settings.retention.days and settings.retention.states == {StudyState.COMMITTED} and not _commits(settings):
        message = (
            "lets nothing leave: no peer that results go to has commitment = true; set it for such a peer, or after = "
            '"delivered"'
        )
        yield Fault(path=("retention", "days"), message=message)


def _commits(settings: "Settings") -> bool:
    """Whether a peer that results may go to is asked for storage commitment."""
    named = {name for route in settings.routes for name in route.send_to}
    named |= {peer.instead for peer in settings.peers}
    return any(peer.commitment and (peer.results or peer.name in named) for peer in settings.peers)


def _alternatives(peers: Sequence[Peer]) -> Iterator[Fault]:
    """Each peer's `instead` must be another peer, and following them must end."""
    following = {peer.name: peer.instead for peer in peers}
    for number, peer in enumerate(peers):
        path = ("peers", number, "instead")
        if peer.instead and peer.instead not in following:
            others = ", ".join(other.name for other in peers if other is not peer) or "none"
            yield Fault(path=path, message=f'names "{peer.instead}", no peer; other peers are {others}')
        seen, name = [peer.name], peer.instead
        while name and name not in seen:
            seen.append(name)
            name = following.get(name, "")
        if name == peer.name:
            yield Fault(path=path, message=f"leads back to itself: {' -> '.join([*seen, name])}; let one name none")


def _forms(peers: Sequence[Peer]) -> Iterator[Fault]:
    """A peer must take something that can say that nothing was found: silence is no answer."""
    for number, peer in enumerate(peers):
        if not set(peer.forms) & set(SAY_THAT_NOTHING_WAS_FOUND):
            needed = " or ".join(SAY_THAT_NOTHING_WAS_FOUND)
            message = f"holds nothing that is written where nothing was found; add {needed}"
            yield Fault(path=("peers", number, "forms"), message=message)


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
