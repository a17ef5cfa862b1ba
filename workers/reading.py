"""One reading, from a series' files to the files of its report; read top to bottom."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dicom_node.archive.files import Archive
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.codes import LIMITED_QUALITY
from dicom_node.core.errors import ArchiveUnusable, OutOfDeviceMemory, UnreadableInstance
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.outcome import Outcome, outcome_of_reading
from dicom_node.core.prior import PRIOR_REPORT, PRIOR_STUDY
from dicom_node.core.screening import Screening, graded
from dicom_node.core.urgency import DEFAULT_RULES, TriageRule, Urgency, urgency_of
from workers.algorithms import Algorithm, Prepared, Reading
from workers.dependence import Dependence
from workers.dependence import in_words as dependence_in_words
from workers.following import Followed, follow
from workers.input_check import Deviation, InputCheck, Reason
from workers.layout import Layout, Named, layout_of, place_of
from workers.lungs import lung_sides
from workers.pipe import Read, ReportObject, SeriesToRead
from workers.preprocessing import grid_shape
from workers.reporting.evidence import Evidence
from workers.reporting.report import build_report
from workers.volume import Volume, load_volume
from workers.writing import with_predecessors, written_objects

log = logging.getLogger(__name__)

#: Of a digest that stands among parameters.
_DIGITS = 16

#: What shows people on what findings' scores depended.
_SHOWS_DEPENDENCE = frozenset({Form.SECONDARY_CAPTURE, Form.PDF})

#: Called between the steps of a reading with the name of the next; may raise what ends the reading.
Beat = Callable[[str], None]


class LastRun(Protocol):
    """What is to be known of the network's last run."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def concession(self) -> str:
        """What it did otherwise for want of memory, as a parameter's value; empty when nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reader:
    """An algorithm ready to read, and how reports name it."""

    algorithm: Algorithm
    identification: AlgorithmIdentification
    last_run: LastRun
    #: Looks at each series before it is read; without one any is read.
    check: InputCheck = field(default_factory=InputCheck)
    #: What makes the algorithm's input of the files of a series.
    load: Callable[[Sequence[Path]], Volume] = load_volume


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A series in memory."""

    volume: Volume
    #: What the algorithm made of it ahead of the reading.
    prepared: Prepared | None = None


class Stopwatch:
    """Seconds that each step took, by name, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """The step of this name ends here, and the next begins."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now


def load(
    series: SeriesToRead, archive: Archive, beat: Beat, as_volume: Callable[[Sequence[Path]], Volume] = load_volume
) -> Volume:
    """The series as a volume, or what else an algorithm reads, every byte as it was received."""
    try:
        for file in series.files:
            beat("checking the files")
            archive.verify(file.path, file.sha256)
        beat("loading the series")
        return as_volume([archive.path_of(file.path) for file in series.files])
    except UnreadableInstance as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        if not missing or archive.holds_studies():
            raise
        raise ArchiveUnusable("the archive that this worker looks into is empty; see its mount") from error


def read(
    request: Read,
    reader: Reader,
    archive: Archive,
    beat: Beat,
    ahead: Loaded | None = None,
    explanation_seconds: float = 0.0,
) -> tuple[tuple[ReportObject, ...], dict[str, Any]]:
    """The objects of the report in the order of delivery, and the reading's summary.

    `ahead` is the same series, where it was loaded before; `explanation_seconds` may be taken to tell on what scores
    depended, where a form shows that. Raises TriageError, OSError, and what `beat` raises.
    """
    watch, series = Stopwatch(), request.series
    loaded = ahead or Loaded(volume=load(series, archive, beat, reader.load))
    volume = loaded.volume
    watch.lap("load")
    beat("reading")
    prepared = loaded.prepared
    if prepared is None and reader.check.needs_lungs:
        prepared = reader.algorithm.prepare(volume)
    deviations = reader.check(volume, _lungs_of(prepared, volume))
    read_now = reader.algorithm.read(volume, prepared)
    is_partial = bool(read_now.not_reported or read_now.incomplete)
    layout = layout_of(volume, read_now.searched, read_now.parameters, is_partial=is_partial)
    known = request.earlier_studies
    told = follow(read_now.findings, layout, volume.headers[0], reader.identification, known, archive)
    reading = _graded(_followed(read_now, told), request.screening)
    watch.lap("reading")
    # Explaining runs the network again.
    concession, network_seconds = reader.last_run.concession, reader.last_run.seconds
    explained = _explained(reading, explanation_seconds if request.forms & _SHOWS_DEPENDENCE else 0.0, beat)
    if explained:
        watch.lap("explaining")
    beat("writing the report")
    remarks = _remarks(reading, concession, deviations)
    urgency = urgency_of(reading.findings, request.triage, series.algorithm)
    evidence = Evidence(
        volume=volume,
        algorithm=replace(reader.identification, parameters=_parameters(reading, concession, request.triage)),
        evidence=series.evidence,
        completed_at=datetime.fromtimestamp(series.completed_at, UTC),
        prior=told.report,
        priors=told.others,
    )
    evidence = with_predecessors(evidence, request.forms, request.earlier, archive)
    report = build_report(
        evidence,
        reading.findings,
        reading.labels,
        remarks,
        outcome=_outcome(reading, deviations, urgency),
        forms=request.forms,
        lungs=_lungs(reading, volume) if Form.LUNG in request.forms else None,
        explained=explained,
    )
    objects = written_objects(report, evidence)
    watch.lap("report")
    seconds = {**watch.seconds, "network": round(network_seconds, 3)}
    summary = summarise(reading, reader.identification, volume, seconds, explained)
    if told.report is not None:
        summary |= {
            PRIOR_STUDY: str(told.report.StudyInstanceUID),
            PRIOR_REPORT: str(told.report.SOPInstanceUID),
        }
    if layout is not None:
        summary["layout"] = _left(layout, reading, report.tracked, told.highest)
    summary |= {"ahead": loaded.prepared is not None, "memory": concession, **_judged(deviations, urgency)}
    # What a worker without NumPy can take, and what the index's JSON can hold.
    return objects, json.loads(json.dumps(summary))


def _followed(reading: Reading, told: Followed) -> Reading:
    """With what an earlier study says; which it was, and what is said of it, is part of the report's identity."""
    parameters = list(reading.parameters)
    if told.report is not None:
        named = (told.report, *told.others.values())
        parameters.append(("compared with", " ".join(str(report.SOPInstanceUID) for report in named)))
    if told.remarks:
        # That a study could not be compared may change without this one: its report may be lost, or withdrawn.
        digest = hashlib.sha256("\n".join(told.remarks).encode()).hexdigest()
        parameters.append(("comparison", digest[:_DIGITS]))
    remarks = (*reading.further_remarks, *told.remarks)
    return replace(reading, findings=told.findings, parameters=tuple(parameters), further_remarks=remarks)


def _left(layout: Layout, reading: Reading, tracked: Mapping[int, str], highest: int) -> dict[str, Any]:
    """What a later study of the patient is compared with."""
    findings = {tracked[one.number]: Named(name=one.name, place=place_of(one)) for one in reading.findings}
    return replace(layout, findings=findings, highest=highest).as_json()


def _graded(reading: Reading, screening: Screening) -> Reading:
    """With categories where the route says that it was screening; that it said so is part of the report's identity."""
    if screening == "no":
        return reading
    parameters = (*reading.parameters, ("screening", screening))
    return replace(reading, findings=graded(reading.findings, screening), parameters=parameters)


def _explained(reading: Reading, seconds: float, beat: Beat) -> Mapping[int, Dependence]:
    """By a finding's number, on what its score depended: no reading fails for want of that."""
    if reading.dependences is None or not reading.findings or seconds <= 0:
        return {}
    beat("explaining")
    until = time.monotonic() + seconds
    try:
        return reading.dependences(lambda: time.monotonic() >= until)
    except OutOfDeviceMemory as error:
        log.warning("findings' scores are not explained", extra={"reason": str(error)})
        return {}


def _lungs(reading: Reading, volume: Volume) -> NDArray[np.uint8] | None:
    return None if reading.searched is None else lung_sides(reading.searched, volume)


def _parameters(reading: Reading, concession: str, rules: Sequence[TriageRule]) -> tuple[tuple[str, str], ...]:
    # Part of the report's identity: a network that ran otherwise may have seen other things, and by other rules the
    # same finding is more urgent or less.
    memory = (("for want of memory", concession),) if concession else ()
    own = () if rules == DEFAULT_RULES else (("triage rules", sha256(repr(rules).encode()).hexdigest()[:16]),)
    return (*reading.parameters, *memory, *own)


def _remarks(reading: Reading, concession: str, deviations: tuple[Deviation, ...]) -> tuple[str, ...]:
    """What the comment says: what the series was like comes first, for it casts doubt on all the rest."""
    memory = (f"For want of memory the network ran {concession}.",) if concession else ()
    return (*(f"Caution: {deviation}." for deviation in deviations), *reading.remarks, *memory)


def _outcome(reading: Reading, deviations: tuple[Deviation, ...], urgency: Urgency | None) -> Outcome:
    found = bool(reading.findings) or any(statement.is_positive for statement in reading.statements)
    ended = outcome_of_reading(found=found, incomplete=reading.incomplete)
    limited = any(deviation.reason is not Reason.NOT_STATED for deviation in deviations)
    quality = LIMITED_QUALITY if limited else ended.quality
    return replace(
        ended, urgency=urgency, quality=quality, statements=reading.statements, further_marks=reading.not_reported
    )


def _judged(deviations: tuple[Deviation, ...], urgency: Urgency | None) -> dict[str, Any]:
    """What people see of what was judged."""
    caveats = [{"code": deviation.reason.value, "words": deviation.words} for deviation in deviations]
    if urgency is None:
        return {"caveats": caveats, "priority": ""}
    return {"caveats": caveats, "priority": urgency.code.meaning, "priority_reason": urgency.reason}


def _lungs_of(prepared: Prepared | None, volume: Volume) -> NDArray[np.bool_] | None:
    """The lungs, where the algorithm has looked for them: a mask on the grid that training and serving share."""
    grid = grid_shape(volume.voxels.shape, volume.spacing_mm)
    return prepared.where if prepared is not None and prepared.where.shape == grid else None


def summarise(
    reading: Reading,
    algorithm: AlgorithmIdentification,
    volume: Volume,
    seconds: Mapping[str, float],
    explained: Mapping[int, Dependence] = MappingProxyType({}),
) -> dict[str, Any]:
    """What people see of a reading before they open its report: no patient data."""
    return {
        "result": in_words(reading),
        "findings": len(reading.findings),
        "algorithm": f"{algorithm.name} {algorithm.version}",
        "slices": len(volume.headers),
        "inference_seconds": seconds["network"],
        "steps": dict(seconds),
        "rows": [_row(finding, explained.get(finding.number)) for finding in reading.findings],
    }


def in_words(reading: Reading) -> str:
    """The reading in one line."""
    further = f"; {reading.not_reported} not outlined" if reading.not_reported else ""
    findings = reading.findings
    if reading.statements:
        return "; ".join(f"{statement.concept.meaning}: {statement.text}" for statement in reading.statements)
    if not findings:
        return f"no {reading.noun}s found{further}"
    largest = max(finding.long_axis.length_mm for finding in findings)
    count = f"{len(findings)} {reading.noun}{'s' if len(findings) > 1 else ''}"
    return f"{count} found, the largest {largest:.1f} mm{further}"


def _row(finding: Finding, told: Dependence | None) -> dict[str, Any]:
    explanation = {} if told is None else {"explanation": dependence_in_words(finding.name, finding.score, told)}
    return {**explanation, **_change(finding)} | {
        "number": finding.number,
        "finding": finding.concept.meaning,
        "site": finding.site.meaning,
        "laterality": finding.laterality.meaning if finding.laterality else "",
        "centre_mm": [round(value, 1) for value in finding.centre],
        "long_axis_mm": round(finding.long_axis.length_mm, 1),
        "short_axis_mm": round(finding.short_axis.length_mm, 1),
        "volume_mm3": round(finding.volume_mm3),
        "mean_hu": round(finding.mean_hu),
        "score": round(finding.score, 3),
    }


def _change(finding: Finding) -> dict[str, Any]:
    """What became of a finding since an earlier study, without its date: the index keeps that where it is searched."""
    change = finding.change
    if not finding.is_compared:
        return {}
    if change is None:
        return {"name": finding.name, "change": "not marked then" if finding.is_new else ""}
    unclear = "not compared" if change.caveats else "not clear"
    trend = unclear if change.trend is None else change.trend.value.lower()
    return {
        "caveat": " and ".join(change.caveats),
        "name": finding.name,
        "change": trend,
        "prior_diameter_mm": change.earlier.mean_diameter_mm,
        "mean_diameter_mm": change.later.mean_diameter_mm,
        "prior_days": change.days,
        "doubling_days": None if change.doubling_days is None else round(change.doubling_days),
    }
