"""The index's tokens: programs that may ask without a person, each for the scopes it was made for."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.remembered_query import RememberedQuery
from dicom_node.archive.sessions import fingerprint
from dicom_node.archive.transactions import Transactions
from dicom_node.archive.users import check_admin
from dicom_node.core.access import USER_NAME, Scope
from dicom_node.core.errors import AccountError

#: So that a token that was left somewhere is recognised for what it is.
_PREFIX = "dn_"


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """A token, without its secret."""

    name: str
    scopes: tuple[str, ...]
    created_at: float
    #: None: it lasts until it is removed.
    expires_at: float | None


class Tokens:
    """The tokens of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tokens, self._users = transactions.tables["tokens"], transactions.tables["users"]
        tokens = self._tokens
        columns = (tokens.c.name, tokens.c.scopes, tokens.c.created_at, tokens.c.expires_at)
        self._rows = sa.select(*columns).order_by(tokens.c.name)
        self._find = RememberedQuery(sa.select(*columns).where(tokens.c.token == sa.bindparam("secret")))

    def add(
        self, name: str, *, scopes: Collection[Scope], at: float, expires_at: float | None = None, by: str = ""
    ) -> str:
        """Make a token; its secret is told here alone. AccountError for a name that cannot be, or is taken.

        `by`: the admin who asks for it; AccountError where he is none any more.
        """
        if not USER_NAME.fullmatch(name):
            raise AccountError(f"{name!r} is no name of a token; 1 to 40 letters, digits and . _ @ + -, no spaces")
        secret = _PREFIX + secrets.token_urlsafe(32)
        row = {"token": fingerprint(secret), "name": name, "scopes": sorted(scope.value for scope in scopes)}
        with self._transactions.write() as connection:
            check_admin(connection, self._users, by)
            if connection.execute(sa.select(self._tokens.c.name).where(self._tokens.c.name == name)).first():
                raise AccountError(f"there is a token {name} already; see `dicom-node tokens list`")
            connection.execute(sa.insert(self._tokens).values(**row, created_at=at, expires_at=expires_at))
        return secret

    def find(self, secret: str, *, at: float) -> TokenRow | None:
        """The token of this secret, if it still lasts."""
        with self._transactions.look(once=True) as connection:
            row = self._find.first(connection, secret=fingerprint(secret))
        if row is None or (row["expires_at"] is not None and row["expires_at"] < at):
            return None
        return _token(row)

    def rows(self) -> list[TokenRow]:
        """Every token, by name."""
        with self._transactions.read() as connection:
            return [_token(row) for row in connection.execute(self._rows).mappings()]

    def remove(self, name: str, *, by: str = "") -> None:
        """Let the token hold no more; AccountError where there is none, or as of `add`."""
        with self._transactions.write() as connection:
            check_admin(connection, self._users, by)
            if connection.execute(sa.delete(self._tokens).where(self._tokens.c.name == name)).rowcount != 1:
                raise AccountError(f"there is no token {name}; see `dicom-node tokens list`")


def _token(row: Mapping[Any, Any]) -> TokenRow:
    return TokenRow(**{**row, "scopes": tuple(row["scopes"])})
