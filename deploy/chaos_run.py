"""One chaos run: the site is built, studies and faults come by the plan, all is healed, and every study is judged."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from deploy.chaos_faults import CountingProxy, DoneFault, Faults, Kept, Site
from deploy.chaos_plan import Plan, PlannedFault, PlannedStudy
from deploy.chaos_result import Result, failed_by_faults_alone
from deploy.chaos_senders import Ledger, Scanner
from deploy.chaos_states import States
from deploy.chaos_studies import Templates, draw_templates, write_study
from deploy.chaos_verdict import finals, judge
from deploy.processes import descendants, holders, tell
from deploy.rig import ORTHANC, LittlePacs, Orthanc, ReceiveOnlyNode, RunningNode, free_port
from deploy.small_disk import SmallDisk
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import Peer, settings_reference, toml_text

#: Shorter waits than a hospital's, so that a run of minutes meets every one of them; those that the node has are set.
SETTINGS: Mapping[tuple[str, str], object] = {
    ("completeness", "quiet_seconds_when_whole"): 1.0,
    ("completeness", "quiet_seconds_otherwise"): 8.0,
    ("queue", "lease_seconds"): 6.0,
    ("queue", "first_wait_seconds"): 0.5,
    ("queue", "maximum_wait_seconds"): 5.0,
    ("worker", "device"): "cpu",
    ("worker", "threads"): 1,
    ("delivery", "first_wait_seconds"): 0.5,
    ("delivery", "maximum_wait_seconds"): 10.0,
    ("delivery", "timeout_seconds"): 10.0,
    ("delivery", "commitment_timeout_seconds"): 10.0,
    ("delivery", "commitment_maximum_wait_seconds"): 30.0,
}

SENDERS_AT_ONCE = 4
#: A peer that is asked for it.
_COMMITMENT: Mapping[str, Any] = {"commitment": True}
_TICK_SECONDS = 0.05
_KEEP_SECONDS = 0.2
_POLL_SECONDS = 1.0
#: What a node that ended in order leaves behind for longer is left over.
_ENDING_SECONDS = 5.0
_BEING_READ = frozenset({StudyState.QUEUED, StudyState.READING})
_TELL_SECONDS = 15.0


class Run:
    """Everything of a run in one folder."""

    def __init__(self, plan: Plan, folder: Path, *, orthanc: bool, least_hits: int, say: Callable[[str], None]) -> None:
        """Build the site, and start nothing yet; `say` takes lines for people."""
        self._plan = plan
        self._least_hits = least_hits
        self._folder = folder
        self._say = say
        self._log = folder / "chaos.log"
        self._began = self._began_at = 0.0
        self._asked_again: list[str] = []
        self._disk = SmallDisk(folder / "disk")
        node_port = free_port()
        self._incoming = CountingProxy(node_port)
        node_peer = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=self._incoming.port)
        self._pacs = _pacs(folder / "pacs", node_peer, orthanc)
        self._outgoing = CountingProxy(self._pacs.peer.port)
        self.committing = orthanc and "commitment" in {entry.name for entry in fields(Peer)}
        peer = replace(self._pacs.peer, port=self._outgoing.port)
        if self.committing:
            peer = replace(peer, **_COMMITMENT)
        self._node = RunningNode(
            folder / "node",
            peer,
            further_settings=_settings_text(),
            port=node_port,
            data_dir=self._disk.folder / "data",
            minimum_free_megabytes=self._disk.least_free_megabytes,
        )
        programs = {"node": self._node.program, "PACS": self._pacs.program}
        self._kept = {name: Kept(name, program, since_start=self._since_start) for name, program in programs.items()}
        self._states = States(f"sqlite:///{self._node.data_dir / 'index.sqlite'}")
        self._ledger = Ledger()
        self._ending = threading.Event()
        self._scanner = Scanner(
            node_peer,
            self._ledger,
            at_once=SENDERS_AT_ONCE,
            reported=self._reported,
            being_read=lambda uid: self._states.of(uid) in _BEING_READ,
            ending=self._ending,
        )
        site = Site(
            node=self._kept["node"],
            pacs=self._kept["PACS"],
            disk=self._disk,
            incoming=self._incoming,
            outgoing=self._outgoing,
        )
        self._faults = Faults(site, since_start=self._since_start, say=self._note)
        self._bringing: list[threading.Thread] = []

    def go(self, patience_seconds: float) -> Result:
        """The whole run; whatever happens, nothing of it goes on afterwards."""
        templates = draw_templates(self._folder / "templates")
        keeping = threading.Thread(target=self._keep, name="keeper", daemon=True)
        try:
            self._start()
            self._began, self._began_at = time.monotonic(), time.time()
            keeping.start()
            self._states.start()
            self._follow_plan(templates)
            faults = self._faults.wait()
            healed = time.monotonic()
            self._heal()
            self._wait_for_all(patience_seconds, faults)
            ended = time.monotonic()
            self._ending.set()
            result = self._judge(faults, ended - self._began, ended - healed)
        finally:
            self._ending.set()
            outlived = self._stop(keeping)
        return replace(result, left_over=(*result.left_over, *outlived))

    def _start(self) -> None:
        self._incoming.start()
        self._outgoing.start()
        self._say(f"starting {self._pacs.name} as the PACS, and the node")
        self._pacs.start()
        self._node.start()
        self._node.index.close()

    def _follow_plan(self, templates: Templates) -> None:
        """Begin every study and every fault when its time has come."""
        due: list[PlannedStudy | PlannedFault] = [*self._plan.studies, *self._plan.faults]
        due.sort(key=lambda planned: planned.at)
        told = 0.0
        for planned in due:
            while (now := self._since_start()) < planned.at:
                if now - told >= _TELL_SECONDS:
                    told = now
                    self._tell()
                time.sleep(_TICK_SECONDS)
            if isinstance(planned, PlannedStudy):
                self._bring(planned, templates)
            else:
                self._faults.begin(planned)

    def _bring(self, planned: PlannedStudy, templates: Templates) -> None:
        def bring() -> None:
            folder = self._folder / "studies" / f"{planned.number:05d}"
            self._scanner.bring(write_study(planned, templates, folder))

        thread = threading.Thread(target=bring, name=f"study {planned.number}", daemon=True)
        self._bringing.append(thread)
        thread.start()

    def _heal(self) -> None:
        """After the last fault: everything is as it should be, and stays so."""
        self._disk.make_room()
        for proxy in (self._incoming, self._outgoing):
            proxy.spare()
            proxy.heal()
        self._note(f"everything is healed at {self._since_start():.1f} s")

    def _wait_for_all(self, patience_seconds: float, faults: Sequence[DoneFault]) -> None:
        """Until every study that was sent was accepted whole and is final, or patience ends."""
        until, told = time.monotonic() + patience_seconds, 0.0
        while time.monotonic() < until:
            sending = any(thread.is_alive() for thread in self._bringing)
            final = self._states.count(finals(self.committing))
            if not sending and final == len(self._ledger.studies()):
                # What is final stays so: a study that is opened again would show itself now.
                time.sleep(2 * _POLL_SECONDS)
                still = self._states.count(finals(self.committing)) == final
                if still and not self._ask_again(faults):
                    return
            if time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                self._tell()
            time.sleep(_POLL_SECONDS)
        self._note(f"patience ended at {self._since_start():.1f} s")

    def _ask_again(self, faults: Sequence[DoneFault]) -> bool:
        """Ask once for each study that gave up because of faults alone, as a person would; whether there was one."""
        index = self._node.index
        failed = [uid for uid in index.studies.in_state(StudyState.FAILED) if uid not in self._asked_again]
        excused = [
            uid
            for uid in failed
            if any(row.dead_letter for row in index.jobs.of_study(uid))
            and failed_by_faults_alone(index.studies.history(uid), faults, run_began_at=self._began_at)
        ]
        for uid in excused:
            self._note(f"study {uid} gave up because of faults alone and is asked for again")
            index.jobs.ask_again(uid, actor="chaos", at=time.time())
        self._asked_again += excused
        return bool(excused)

    def _judge(self, faults: Sequence[DoneFault], seconds: float, healing_seconds: float) -> Result:
        for thread in self._bringing:
            thread.join()
        sent = self._ledger.studies().values()
        outcomes = [judge(each, self._node, self._pacs, committing=self.committing) for each in sent]
        return Result(
            outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome.number)),
            planned=len(self._plan.studies),
            faults=tuple(faults),
            least_hits=self._least_hits,
            left_over=tuple(self._left_over()),
            unasked_ends=tuple(end for kept in self._kept.values() for end in kept.unasked),
            asked_again=tuple(self._asked_again),
            pacs=self._pacs.name,
            committing=self.committing,
            real_disk=self._disk.real,
            seconds=seconds,
            healing_seconds=healing_seconds,
        )

    def _left_over(self) -> list[str]:
        """What an earlier node started and the present one knows nothing of."""
        node = self._kept["node"].pid
        known = {each.pid for each in descendants(node)} | {node} if node is not None else set()
        found = [each for each in holders(str(self._node.data_dir)) if each.pid not in known]
        return [f"process {each.pid}: {each.command[:120]}" for each in found]

    def _stop(self, keeping: threading.Thread) -> list[str]:
        """End every process, keep the index for whoever looks for a cause, and give the disk back.

        Returns what outlived the orderly end of the node.
        """
        if keeping.is_alive():
            keeping.join()
        self._states.stop()
        self._node.stop()
        self._pacs.stop()
        until = time.monotonic() + _ENDING_SECONDS
        while (outlived := holders(str(self._node.data_dir))) and time.monotonic() < until:
            time.sleep(_KEEP_SECONDS)
        for left in outlived:
            tell(left.pid, signal.SIGKILL)
        for proxy in (self._incoming, self._outgoing):
            with suppress(RuntimeError):
                proxy.stop()
        for path in self._node.data_dir.glob("index.sqlite*"):
            shutil.copy(path, self._folder / path.name)
        self._disk.close()
        return [f"process {each.pid}: {each.command[:120]}" for each in outlived]

    def _keep(self) -> None:
        while not self._ending.wait(_KEEP_SECONDS):
            for kept in self._kept.values():
                kept.keep()

    def _reported(self, study_instance_uid: str) -> bool:
        return self._states.of(study_instance_uid) in finals(self.committing)

    def _since_start(self) -> float:
        return time.monotonic() - self._began

    def _tell(self) -> None:
        begun = len(self._bringing)
        accepted = sum(sent.finished for sent in self._ledger.studies().values())
        final, count = self._states.count(finals(self.committing)), len(self._plan.studies)
        line = f"{self._since_start():5.0f} s  begun {begun}, accepted {accepted}, final {final} of {count}"
        self._say(f"{line}; faults {self._faults.done()} of {len(self._plan.faults)}")

    def _note(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{time.time():.3f} {line}\n")


def _pacs(folder: Path, node: Peer, orthanc: bool) -> LittlePacs:
    return Orthanc(folder, callers=[node]) if orthanc else ReceiveOnlyNode(folder)


def orthanc_is_installed() -> bool:
    """Whether there is an Orthanc to be the PACS."""
    return Path(ORTHANC).exists()


def _settings_text() -> str:
    """SETTINGS as TOML, without what this node does not know."""
    known = {(row.section, row.key) for row in settings_reference()}
    sections: dict[str, list[str]] = {}
    for (section, key), value in SETTINGS.items():
        if (section, key) in known:
            sections.setdefault(section, []).append(f"{key} = {toml_text(value)}")
    return "".join(f"\n[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
