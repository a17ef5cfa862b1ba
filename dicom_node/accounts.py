"""The commands `users` and `tokens`: who may see the pages and ask by program; and the first admin of a new node."""

import argparse
import getpass
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from dicom_node.archive.holdings import Holdings
from dicom_node.archive.index import Index
from dicom_node.audit import USERS_CHANGED, AuditFile, AuditTrail, Happening
from dicom_node.core.access import Role, Scope
from dicom_node.core.errors import AccountError
from dicom_node.credentials import LONGEST_PASSWORD, SHORTEST_PASSWORD, Passwords, new_password
from dicom_node.settings import Settings, WebSettings

#: The user that a new node makes.
FIRST_ADMIN = "admin"
_DAY_SECONDS = 86400.0


def add_commands(users: argparse.ArgumentParser, tokens: argparse.ArgumentParser) -> None:
    """What can be done with users and tokens, as options of their two commands."""
    users.add_argument("action", choices=sorted(_USERS), metavar="add|list|remove|password|role|disable|enable|link")
    users.add_argument("name", nargs="?", default="", metavar="NAME")
    users.add_argument(
        "--role", type=Role, choices=list(Role), help="reader, operator or admin; add: reader if not given"
    )
    users.add_argument("--no-password", action="store_true", help="add: comes in by identity provider or link alone")
    users.add_argument("--minutes", type=float, default=15.0, metavar="N", help="link: how long it holds")
    users.add_argument("--data-dir", metavar="DIR", help="folder of archive and index")
    tokens.add_argument("action", choices=sorted(_TOKENS), metavar="add|list|remove")
    tokens.add_argument("name", nargs="?", default="", metavar="NAME")
    scopes = ", ".join(Scope)
    tokens.add_argument(
        "--scope", type=Scope, choices=list(Scope), action="append", metavar="SCOPE", help=f"of {scopes}"
    )
    tokens.add_argument("--days", type=float, metavar="N", help="how long it holds; until removed if not given")
    tokens.add_argument("--data-dir", metavar="DIR", help="folder of archive and index")


def run_users(settings: Settings, options: argparse.Namespace) -> int:
    """One of the commands on users."""
    return _run(_USERS, settings, options)


def run_tokens(settings: Settings, options: argparse.Namespace) -> int:
    """One of the commands on tokens."""
    return _run(_TOKENS, settings, options)


def first_admin(settings: Settings, show: Callable[[str], None], *, is_terminal: bool) -> None:
    """Make an admin where there is no user yet, and show his password, once and on a terminal alone.

    What is written elsewhere ends in somebody's log: there it is only said how to make one.
    """
    index = Holdings.open(settings).index
    try:
        if index.users.rows():
            return
        if not is_terminal:
            show("dicom-node: nobody can log in yet; make a user: dicom-node users add NAME --role admin")
            return
        password = new_password()
        if index.users.add_first(FIRST_ADMIN, password=Passwords().hash(password), at=time.time()):
            show(f"dicom-node: log in as {FIRST_ADMIN} with the password {password}  (shown this once)")
    finally:
        index.close()


def _page(web: WebSettings) -> str:
    """The page's address as the settings have it; nothing where they leave its port open."""
    host = "127.0.0.1" if web.host in ("0.0.0.0", "::") else web.host
    return f"http://{host}:{web.port}" if web.port else ""


def _run(actions: Mapping[str, "_Action"], settings: Settings, options: argparse.Namespace) -> int:
    if options.action != "list" and not options.name:
        raise AccountError(f"name whom or what to {options.action}")
    index = Holdings.open(settings).index
    options.page = _page(settings.web)
    try:
        done = actions[options.action](index, options)
    finally:
        index.close()
    if done:
        sinks = [AuditFile(settings.node.data_dir / "audit")]
        trail = AuditTrail(sinks, source=settings.node.ae_title)
        who = getpass.getuser()
        trail.note(Happening(event=USERS_CHANGED, at=time.time(), user=f"command line of {who}", description=done))
    return 0


def _add_user(index: Index, options: argparse.Namespace) -> str:
    held = "" if options.no_password else Passwords().hash(_asked_password())
    role = options.role or Role.READER
    index.users.add(options.name, role=role, password=held, at=time.time())
    print(f"{options.name} is a user with the role {role}")
    return f"user {options.name} added with the role {role}"


def _remove_user(index: Index, options: argparse.Namespace) -> str:
    index.users.remove(options.name)
    print(f"{options.name} is no user any more, and is logged out")
    return f"user {options.name} removed"


def _set_password(index: Index, options: argparse.Namespace) -> str:
    if index.users.find(options.name) is None:
        raise AccountError(f"there is no user {options.name}; see `dicom-node users list`")
    index.users.change(options.name, password=Passwords().hash(_asked_password()), at=time.time())
    print(f"{options.name} has the new password, and is logged out everywhere")
    return f"password of user {options.name} changed"


def _set_role(index: Index, options: argparse.Namespace) -> str:
    if options.role is None:
        raise AccountError("say which: --role reader, operator or admin")
    index.users.change(options.name, role=options.role, at=time.time())
    print(f"{options.name} has the role {options.role}, and is logged out everywhere")
    return f"user {options.name} has the role {options.role}"


def _disable(index: Index, options: argparse.Namespace) -> str:
    index.users.change(options.name, disabled=True, at=time.time())
    print(f"{options.name} comes in no more, and is logged out everywhere")
    return f"user {options.name} disabled"


def _enable(index: Index, options: argparse.Namespace) -> str:
    index.users.change(options.name, disabled=False, at=time.time())
    print(f"{options.name} may come in again")
    return f"user {options.name} enabled"


def _link(index: Index, options: argparse.Namespace) -> str:
    secret = index.sessions.make_entry(options.name, expires_at=time.time() + options.minutes * 60)
    print(f"{options.page}/enter/{secret}")
    words = "where its page has another address, put that before /enter"
    print(f"lets {options.name} in once, for {options.minutes:g} min; {words}")
    return f"a link that lets user {options.name} in once was made"


def _list_users(index: Index, _options: argparse.Namespace) -> str:
    for user in index.users.rows():
        kind = ("" if user.password else "  no password") + ("  disabled" if user.disabled else "")
        print(f"{user.name:<40} {user.role:<9} since {_day(user.created_at)}{kind}")
    return ""


def _add_token(index: Index, options: argparse.Namespace) -> str:
    if not options.scope:
        raise AccountError(f"say what for: --scope, one or more of {', '.join(Scope)}")
    now = time.time()
    expires_at = None if options.days is None else now + options.days * _DAY_SECONDS
    secret = index.tokens.add(options.name, scopes=options.scope, at=now, expires_at=expires_at)
    print(f"{secret}\n(shown this once; send it as Authorization: Bearer TOKEN)")
    return f"token {options.name} made for {', '.join(options.scope)}"


def _remove_token(index: Index, options: argparse.Namespace) -> str:
    index.tokens.remove(options.name)
    print(f"the token {options.name} holds no more")
    return f"token {options.name} removed"


def _list_tokens(index: Index, _options: argparse.Namespace) -> str:
    for token in index.tokens.rows():
        until = "until removed" if token.expires_at is None else f"until {_day(token.expires_at)}"
        print(f"{token.name:<40} {', '.join(token.scopes)}  {until}")
    return ""


_Action = Callable[[Index, argparse.Namespace], str]

#: Each tells in words what it changed, or nothing.
_USERS: Mapping[str, _Action] = {
    "add": _add_user,
    "disable": _disable,
    "enable": _enable,
    "link": _link,
    "list": _list_users,
    "password": _set_password,
    "remove": _remove_user,
    "role": _set_role,
}
_TOKENS: Mapping[str, _Action] = {"add": _add_token, "list": _list_tokens, "remove": _remove_token}


def _asked_password() -> str:
    """A password, asked for twice at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise AccountError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccountError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} signs")
    return password


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
