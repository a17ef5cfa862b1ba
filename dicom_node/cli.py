"""The command `dicom-node`: thin; each command reads the settings and calls what does the work.

What a command alone needs is imported where it runs: `status` waits for no web framework, `echo` for no broker.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import __version__
from dicom_node.accounts import add_commands, first_admin, run_tokens, run_users
from dicom_node.archive.holdings import Holdings
from dicom_node.archive.overview import read_overview, read_study, to_json
from dicom_node.core.errors import NodeError, SettingsError, UnreadableInstance
from dicom_node.settings import Peer, Settings
from dicom_node.settings_loading import load_settings
from dicom_node.telemetry import configure_logging
from dicom_node.terminal import print_overview, print_study
from dicom_node.work_log import keep_work_log

if TYPE_CHECKING:
    from dicom_node.node import Node

ANY_PEER = {"admission.calling_ae_titles": [], "admission.called_ae_title_must_match": False}

#: Option of the command line to the setting it overrides.
OPTIONS = {"port": "node.port", "web_port": "web.port", "data_dir": "node.data_dir"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 with the reason on standard error, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    # Index, archive and sockets hold patient data: for this user and its group only.
    os.umask(0o027)
    configure_logging(os.environ.get("DICOM_NODE_LOG_LEVEL", "INFO"), as_json=not sys.stderr.isatty())
    try:
        return int(options.run(_settings(options), options))
    except (NodeError, OSError) as error:
        print(f"dicom-node: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dicom-node", description="A DICOM node with AI triage.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        added.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "the whole node: receiver, index, queue, worker, delivery, web page")
    receive = command("receive", _receive, "Storage SCP, archive and index only")
    for listening in (serve, receive):
        listening.add_argument("--port", type=int, metavar="N", help="port of the Storage SCP")
        listening.add_argument("--data-dir", metavar="DIR", help="folder of archive and index")
    serve.add_argument("--web-port", type=int, metavar="N", help="port of the web page")
    receive.add_argument("--any-peer", action="store_true", help="admit every AE title, called by whatever name")
    worker = command("worker", _worker, "one GPU worker")
    worker.add_argument("--queues", metavar="NAMES", help="queues to serve, the first first: stat,urgent,routine")
    command("doctor", _doctor, "settings, disk, index, broker, peers, decoders, bundles: what is wrong, and the mend")
    status = command("status", _status, "queue and studies, or one study's whole history")
    status.add_argument("--study", metavar="UID")
    status.add_argument("--json", action="store_true")
    send = command("send", _send, "send files to a peer by C-STORE")
    send.add_argument("peer", metavar="PEER")
    send.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    command("echo", _echo, "C-ECHO to a peer").add_argument("peer", metavar="PEER")
    command("requeue", _requeue, "have a study read again").add_argument("study", metavar="STUDY_UID")
    withdraw = command("withdraw", _withdraw, "take a study's result back: peers that have it get a rejection note")
    withdraw.add_argument("study", metavar="STUDY_UID")
    withdraw.add_argument("--reason", required=True, help="why, in words, without names")
    withdraw.add_argument("--safety", action="store_true", help="for the safety of the patient, not for its quality")
    users = command("users", run_users, "who may see the pages: add, list, remove, change, let in")
    tokens = command("tokens", run_tokens, "what programs may ask by: add, list, remove")
    add_commands(users, tokens)
    command("bundles", _bundles, "the installed bundles: version, checksum, intended use")
    reindex = command("reindex", _reindex, "make the index again, or complete it, from the archive's files")
    reindex.add_argument("--read-days", type=float, metavar="N", help="do not read older studies again")
    for asking in (status, reindex, withdraw, commands.choices["requeue"], commands.choices["doctor"]):
        asking.add_argument("--data-dir", metavar="DIR", help="folder of archive and index")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    overrides: dict[str, object] = {setting: getattr(options, name, None) for name, setting in OPTIONS.items()}
    if getattr(options, "any_peer", False):
        overrides |= ANY_PEER
    return load_settings(options.config, os.environ, overrides)


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    from dicom_node.composition_root import build_node
    from dicom_node.node import sole_owner

    with sole_owner(settings.node.data_dir):
        keep_work_log(settings.node.data_dir)
        build_node(settings, options.config).run(lambda node: _announce_pages(node, settings))
    return 0


def _receive(settings: Settings, _options: argparse.Namespace) -> int:
    from dicom_node.composition_root import build_receiver
    from dicom_node.node import sole_owner

    with sole_owner(settings.node.data_dir):
        build_receiver(settings).run(_announce)
    return 0


def _announce(node: "Node") -> None:
    """Say where the node can be reached, on standard output, for people and programs that started it."""
    print(f"dicom-node: Storage SCP on port {node.application_entity.port}", flush=True)
    if (port := node.web_port()) is not None:
        print(f"dicom-node: web page on http://127.0.0.1:{port}/", flush=True)


def _announce_pages(node: "Node", settings: Settings) -> None:
    _announce(node)
    first_admin(settings, lambda text: print(text, flush=True), is_terminal=sys.stdout.isatty())


def _worker(_settings: Settings, options: argparse.Namespace) -> int:
    arguments = ["--queues", options.queues] if options.queues else []
    command = _of_workers("work", options, arguments)
    os.execv(command[0], command)


def _bundles(_settings: Settings, options: argparse.Namespace) -> int:
    return subprocess.run(_of_workers("bundles", options, []), check=False).returncode


def _of_workers(name: str, options: argparse.Namespace, arguments: Sequence[str]) -> list[str]:
    """A command of the package `workers`, which this one does not import: it may be on another machine."""
    if find_spec("workers") is None or find_spec("torch") is None:
        raise SettingsError("this installation has no workers; install dicom-node with its extra `worker`")
    config = ["--config", str(options.config)] if options.config else []
    return [sys.executable, "-m", "workers", name, *config, *arguments]


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from dicom_node.doctor import examine

    faults = 0
    for check in examine(settings, lambda: _of_workers("bundles", options, [])):
        print(f"{'ok   ' if check.good else 'WRONG'}  {check.name}: {check.finding}", flush=True)
        faults += not check.good
    return 1 if faults else 0


def _status(settings: Settings, options: argparse.Namespace) -> int:
    index = Holdings.open(settings).index
    now = time.time()
    if options.study:
        detail = read_study(index, options.study, now)
        print(json.dumps(to_json(detail), indent=2)) if options.json else print_study(detail)
    else:
        overview = read_overview(index, now)
        print(json.dumps(to_json(overview), indent=2)) if options.json else print_overview(overview)
    return 0


def _reindex(settings: Settings, options: argparse.Namespace) -> int:
    from dicom_node.node import sole_owner
    from dicom_node.reindexing import reindex

    def tell(files: int) -> None:
        if files % 1000 == 0:
            print(f"{files} files", file=sys.stderr, flush=True)

    with sole_owner(settings.node.data_dir):
        done = reindex(settings, time.time, read_days=options.read_days, tell=tell)
    if done.moved_to:
        print(f"the damaged index is now {done.moved_to}")
    for path in done.unreadable:
        print(f"{path}: no instance of this node; left where it is", file=sys.stderr)
    print(f"{done.instances} instance(s) taken in, {done.studies} of their studies new to the index", end="")
    unread = done.old_studies + done.withdrawn_studies
    print(f", {unread} of them not to be read again" if unread else "")
    return 0


def _peer(settings: Settings, name: str) -> Peer:
    peers: Mapping[str, Peer] = {peer.name: peer for peer in settings.peers}
    if name not in peers:
        known = ", ".join(peers) or "none; add [[peers]] to the settings file"
        raise SettingsError(f"no peer is named {name}; known: {known}")
    return peers[name]


def _send(settings: Settings, options: argparse.Namespace) -> int:
    from dicom_node.scu.storage import FileToSend, store

    peer = _peer(settings, options.peer)
    files, failed = [], 0
    for path in _files(options.paths):
        try:
            files.append(FileToSend.read(path))
        except UnreadableInstance as error:
            failed += 1
            print(f"{path}: {error}", file=sys.stderr)
    if not files:
        raise SettingsError("nothing to send: no DICOM file was found there")
    sent = 0
    timeout = settings.delivery.timeout_seconds
    for outcome in store(peer, files, ae_title=settings.node.ae_title, timeout_seconds=timeout):
        if outcome.error is None:
            sent += 1
        else:
            failed += 1
            print(f"{outcome.file.path}: {outcome.error}", file=sys.stderr)
    print(f"{sent} of {sent + failed} file(s) stored at {peer.name}")
    return 1 if failed else 0


def _files(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        if not path.exists():
            raise SettingsError(f"{path} does not exist")
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def _echo(settings: Settings, options: argparse.Namespace) -> int:
    from dicom_node.scu.verification import echo

    peer = _peer(settings, options.peer)
    seconds = echo(peer, ae_title=settings.node.ae_title, timeout_seconds=settings.delivery.timeout_seconds)
    print(f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port}) answered in {seconds * 1000:.0f} ms")
    return 0


def _requeue(settings: Settings, options: argparse.Namespace) -> int:
    index = Holdings.open(settings).index
    index.jobs.ask_again(options.study, actor="command line", at=time.time())
    print(f"study {options.study} will be routed and read again")
    return 0


def _withdraw(settings: Settings, options: argparse.Namespace) -> int:
    index = Holdings.open(settings).index
    withdrawal = index.withdrawals.withdraw(
        options.study, safety=options.safety, reason=options.reason, actor="command line", at=time.time()
    )
    peers = ", ".join(sorted(withdrawal.objects))
    told = f"a rejection note goes to {peers}" if peers else "no peer had anything of it, and none is told"
    print(f"the result of study {options.study} is withdrawn; {told}")
    return 0
