"""The terminal: overviews, studies and findings as tables; the one place that knows how a terminal is drawn on.

Piped, it writes plain text without colours, and no UID is ever cut.
"""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dicom_node.archive.lines import (
    DeliveryLine,
    JobLine,
    Overview,
    Result,
    StudyDetail,
    StudyLine,
    WithdrawalLine,
    duration_in_words,
    time_in_words,
)
from dicom_node.archive.study_rows import HistoryRow

_COLOURS = {
    "FAILED": "red",
    "WITHDRAWN": "red",
    "STAT": "bold red",
    "HIGH": "yellow",
    "RECEIVING": "yellow",
    "READING": "yellow",
    "COMPLETE": "blue",
    "QUEUED": "blue",
    "WAITING": "blue",
    "REPORTED": "green",
    "DELIVERED": "green",
    "COMMITTED": "green",
    "ACCEPTED": "green",
}

#: A pipe has no width: wide enough that a table with a UID of 64 characters keeps its reasons on few lines.
_PIPE_WIDTH = 200


class Terminal:
    """Writes to a terminal, or to whatever stands in its place."""

    def __init__(self, stream: TextIO | None = None) -> None:
        target = sys.stdout if stream is None else stream
        width = None if target.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        self._console = Console(file=target, width=width, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", style: str = "") -> None:
        """One line of text, wrapped at words only."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def table(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; columns of numbers stand at the right, and nothing is broken but sentences."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        cells = [[_text(value) for value in row] for row in rows]
        for number, heading in enumerate(headings):
            column = [row[number].plain for row in cells]
            if column and all(map(_is_number, column)):
                table.add_column(heading, justify="right", no_wrap=True)
            else:
                table.add_column(heading, overflow="fold", min_width=_least_width(column))
        for row in cells:
            table.add_row(*row)
        self._print(table)
        self.line()

    def overview(self, overview: Overview) -> None:
        """What `dicom-node status` shows."""
        counts = [(state, overview.count(state)) for state in overview.studies_by_state]
        said = ", ".join(f"{count} {state}" for state, count in counts if count) or "none"
        self.line(f"Studies at {time_in_words(overview.now)}: {said}", style="bold")
        for condition in overview.conditions:
            lasting = duration_in_words(overview.now - condition.since)
            self.line(f"{condition.condition.upper()} for {lasting}: {condition.reason}", style="red")
        self.line()
        for study in overview.studies:
            self._study(study, overview.now)
        self._queues(overview)
        self._workers(overview)
        self._peers(overview)
        self._deliveries(overview.deliveries, overview.now, "Deliveries that wait or failed")

    def study(self, detail: StudyDetail) -> None:
        """What `dicom-node status --study` shows."""
        now = detail.now
        self._study(detail.study, now)
        headings = ("series", "number", "modality", "description", "instances", "conflicts")
        lines = detail.series
        series = [(s.series_instance_uid, s.number, s.modality, s.description, s.instances, s.conflicts) for s in lines]
        self.table("Series", headings, series)
        for held in detail.held:
            self.line(f"HELD, sent to nobody: {held.sop_instance_uid}: {held.reason}", style="red")
        for withdrawal in detail.withdrawals:
            self._withdrawal(withdrawal)
        for job in detail.jobs:
            self._job(job)
        self._deliveries(detail.deliveries, now, "Deliveries")
        history = [(time_in_words(h.at), h.subject or "study", _change(h), h.actor, h.cause) for h in detail.history]
        self.table("History", ("time", "of", "state", "by", "cause"), history)

    def _print(self, table: Table) -> None:
        """A table, wider than the terminal rather than with a UID cut short."""
        unlimited = self._console.options.update(max_width=10_000)
        needed = Measurement.get(self._console, unlimited, table).minimum
        width = self._console.width
        self._console.width = max(needed, width)
        self._console.print(table, crop=False)
        self._console.width = width

    def _study(self, study: StudyLine, now: float) -> None:
        head = Text.assemble(_text(study.state), " ", _text(study.priority), " ", (study.study_instance_uid, "bold"))
        self._console.print(head, soft_wrap=True)
        said = "; ".join(map(_result, study.results)) or study.reason
        self.line(f"  {said}  (for {duration_in_words(now - study.since)})")
        if study.dead_letters:
            mend = f"`dicom-node requeue {study.study_instance_uid}` has it read again"
            self.line(
                f"  Dead letter: {', '.join(study.dead_letters)} gave up after its last attempt; {mend}", style="red"
            )
        if study.evicted_at is not None:
            self.line(f"  Its files left the disk at {time_in_words(study.evicted_at)}", style="yellow")
        sender = f" from {study.calling_ae_title}" if study.calling_ae_title else ""
        conflicts = f", {study.conflicts} of them conflicting copies" if study.conflicts else ""
        readers = f", algorithm {', '.join(study.algorithms)}" if study.algorithms else ""
        self.line(f"  {study.instances} instance(s){sender}{conflicts}{readers}", style="dim")
        self.line()

    def _withdrawal(self, withdrawal: WithdrawalLine) -> None:
        why = "for the safety of the patient" if withdrawal.safety else "for its quality"
        told = "told" if withdrawal.written_at is not None else "to be told, when a worker has written it,"
        peers = f"; {told} to {', '.join(withdrawal.peers)}" if withdrawal.peers else "; no peer had anything of it"
        said = f"WITHDRAWN at {time_in_words(withdrawal.asked_at)} by {withdrawal.actor} {why}: {withdrawal.reason}"
        self.line(f"{said}{peers}", style="red")
        self.line()

    def _job(self, job: JobLine) -> None:
        said = _result(job.result) if job.result else job.reason
        past = "" if job.current else " (no longer current)"
        state = f"{job.state}, a dead letter" if job.dead_letter else job.state
        rows: list[tuple[str, object]] = [("state", state), ("said", said), ("series", job.series_instance_uid)]
        if job.result and job.result.priority_reason:
            rows.append(("urgent because", job.result.priority_reason))
        rows += [("caution", words) for _, words in job.result.caveats] if job.result else []
        rows += [("route", job.route), ("priority", job.priority), ("attempts", job.attempts), ("worker", job.worker)]
        times = (
            ("queued", job.queued_at),
            ("began", job.started_at),
            ("ended", job.ended_at),
            ("next attempt", job.next_try_at),
        )
        rows += [(name, time_in_words(at)) for name, at in times if at is not None]
        if job.result and job.result.inference_seconds is not None:
            rows.append(("inference", duration_in_words(job.result.inference_seconds)))
        for name, seconds in job.result.steps if job.result else ():
            rows.append((f"step {name}", duration_in_words(seconds)))
        self.table(f"Job {job.algorithm}{past}", ("", ""), rows)

    def _queues(self, overview: Overview) -> None:
        rows = [
            (
                q.queue,
                q.waiting,
                q.reading,
                None if q.oldest_waiting_seconds is None else duration_in_words(q.oldest_waiting_seconds),
            )
            for q in overview.queues
        ]
        self.table("Queues", ("queue", "waiting", "reading", "longest wait"), rows)

    def _workers(self, overview: Overview) -> None:
        if not overview.workers:
            self.line("No worker: jobs wait until one starts.", style="red")
            self.line()
            return
        rows = []
        for worker in overview.workers:
            heard = f"{duration_in_words(worker.heartbeat_age_seconds)} ago{', SILENT' if worker.silent else ''}"
            reads = worker.study_instance_uid or ("a job that is gone" if worker.job_uid else "idle")
            rows.append((worker.worker, worker.device, heard, ",".join(worker.queues), reads))
        self.table("Workers", ("worker", "device", "heard", "queues", "reads"), rows)

    def _peers(self, overview: Overview) -> None:
        """Peers that are away: their deliveries wait for one association that asks whether they are back."""
        for peer in overview.peers:
            if peer.away_since is not None and peer.next_try_at is not None:
                away = duration_in_words(overview.now - peer.away_since)
                again = duration_in_words(peer.next_try_at - overview.now)
                said = f"{peer.peer} is away for {away}, asked again in {again}: {peer.reason}"
                self.line(f"{said}; {peer.waiting} object(s) wait", style="yellow")
                self.line()

    def _deliveries(self, deliveries: Sequence[DeliveryLine], now: float, title: str) -> None:
        if deliveries:
            rows = [(d.sop_instance_uid, d.peer, d.state, d.attempts, _when(d, now), d.reason) for d in deliveries]
            self.table(title, ("object", "peer", "state", "attempts", "next", "reason"), rows)


def print_overview(overview: Overview, stream: TextIO | None = None) -> None:
    """Write an overview to a stream, standard output by default."""
    Terminal(stream).overview(overview)


def print_study(detail: StudyDetail, stream: TextIO | None = None) -> None:
    """Write one study's story to a stream, standard output by default."""
    Terminal(stream).study(detail)


def print_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO | None = None
) -> None:
    """Write a table, such as one of findings, to a stream, standard output by default."""
    Terminal(stream).table(title, headings, rows)


def _result(result: Result) -> str:
    category = f" [{result.priority}]" if result.priority else ""
    caveats = f", read with caution: {', '.join(code for code, _ in result.caveats)}" if result.caveats else ""
    return f"{result.text}{category}{caveats}"


def _change(line: HistoryRow) -> str:
    return line.after if line.before == line.after else f"{line.before} to {line.after}"


def _when(delivery: DeliveryLine, now: float) -> str | None:
    if delivery.next_try_at is None:
        return None
    return f"in {duration_in_words(delivery.next_try_at - now)}" if delivery.next_try_at > now else "now"


def _text(value: object) -> Text:
    word = "-" if value is None or value == "" else str(value)
    return Text(word, style=_COLOURS.get(word, ""))


def _least_width(column: Sequence[str]) -> int:
    """Room for a whole UID, or for some words of a sentence on one line."""
    return max((min(len(text), 30) if " " in text else len(text) for text in column), default=0)


def _is_number(word: str) -> bool:
    return word == "-" or word.replace(".", "", 1).lstrip("-").isdigit()
