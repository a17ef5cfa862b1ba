"""The index's sessions: who is logged in, by a cookie of which the index knows the hash alone; and one-time links."""

import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.remembered_query import RememberedQuery
from dicom_node.archive.transactions import Transactions
from dicom_node.core.access import Role
from dicom_node.core.errors import AccountError

#: A session's last use is written so seldom: a page that asks every few seconds writes no row each time.
_SEEN_EVERY_SECONDS = 60.0
#: Bytes of a secret.
_SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session that lasts."""

    user: str
    role: Role
    began_at: float
    seen_at: float


def fingerprint(secret: str) -> str:
    """What the index keeps of a secret that has 256 bits of chance: no slow hash is needed for those."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Sessions:
    """The sessions of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        names = ("sessions", "users", "entries")
        self._sessions, self._users, self._entries = (transactions.tables[name] for name in names)
        sessions, users = self._sessions, self._users
        columns = (sessions.c.user, sessions.c.began_at, sessions.c.seen_at, users.c.role)
        self._find = RememberedQuery(
            sa.select(*columns)
            .join(users, users.c.name == sessions.c.user)
            .where(sessions.c.token == sa.bindparam("secret"), users.c.disabled.is_(False))
        )

    def begin(self, user: str, *, at: float, instead_of: str = "", password: str | None = None) -> str:
        """A new session's secret; the one that the browser came with ends. AccountError for whom is not let in.

        `password` is the hash that he came in by: no session begins by one that was changed while it was looked at.
        """
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        sessions = self._sessions
        with self._transactions.write() as connection:
            if instead_of:
                connection.execute(sa.delete(sessions).where(sessions.c.token == fingerprint(instead_of)))
            self._check(connection, user, password)
            row = {"token": fingerprint(secret), "user": user, "began_at": at, "seen_at": at}
            connection.execute(sa.insert(sessions).values(**row))
        return secret

    def find(
        self, secret: str, *, at: float, idle_seconds: float, longest_seconds: float, used: bool = True
    ) -> Session | None:
        """The session of this secret if it still lasts; that a person used it is noted, unless it was no person."""
        token = fingerprint(secret)
        with self._transactions.look(once=True) as connection:
            row = self._find.first(connection, secret=token)
        if row is None:
            return None
        session = Session(**{**row, "role": Role(row["role"])})
        if at - session.seen_at > idle_seconds or at - session.began_at > longest_seconds:
            self.end(secret)
            return None
        if used and at - session.seen_at > _SEEN_EVERY_SECONDS:
            self._seen(token, at)
        return session

    def end(self, secret: str) -> None:
        """Log out."""
        with self._transactions.write() as connection:
            connection.execute(sa.delete(self._sessions).where(self._sessions.c.token == fingerprint(secret)))

    def forget(self, before: float) -> None:
        """Remove the sessions that nobody used since then, and the links that are over."""
        with self._transactions.write(durable=False) as connection:
            connection.execute(sa.delete(self._sessions).where(self._sessions.c.seen_at < before))
            connection.execute(sa.delete(self._entries).where(self._entries.c.expires_at < before))

    def make_entry(self, user: str, *, expires_at: float) -> str:
        """The secret of a link that lets this user in once; AccountError for whom is not let in."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        with self._transactions.write() as connection:
            self._check(connection, user)
            row = {"token": fingerprint(secret), "user": user, "expires_at": expires_at}
            connection.execute(sa.insert(self._entries).values(**row))
        return secret

    def take_entry(self, secret: str, *, at: float) -> str | None:
        """The user whom the link lets in, this once; None where it is over, was used, or never was."""
        entries = self._entries
        same = entries.c.token == fingerprint(secret)
        with self._transactions.write() as connection:
            row = connection.execute(sa.select(entries).where(same)).mappings().first()
            if row is None or connection.execute(sa.delete(entries).where(same)).rowcount != 1:
                return None
        return str(row["user"]) if row["expires_at"] >= at else None

    def _check(self, connection: sa.Connection, user: str, password: str | None = None) -> None:
        # Locked, where the database can: who changes a user ends his sessions before this one begins, or with it.
        found = sa.select(self._users.c.disabled, self._users.c.password).where(self._users.c.name == user)
        row = connection.execute(found.with_for_update()).first()
        if row is None:
            raise AccountError(f"there is no user {user}; see `dicom-node users list`")
        if row.disabled:
            raise AccountError(f"user {user} is disabled; `dicom-node users enable {user}` lets him in again")
        if password is not None and password != row.password:
            raise AccountError(f"user {user} has another password by now")

    def _seen(self, token: str, at: float) -> None:
        with self._transactions.write(durable=False) as connection:
            change = sa.update(self._sessions).where(self._sessions.c.token == token)
            connection.execute(change.values(seen_at=at))
