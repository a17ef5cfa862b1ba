"""The index's users: names, roles and password hashes of those who may see the pages."""

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.access import USER_NAME, Role
from dicom_node.core.errors import AccountError


@dataclass(frozen=True, kw_only=True)
class UserRow:
    """A user; the hash of the password is shown by nothing."""

    name: str
    role: Role
    password: str
    created_at: float
    changed_at: float
    #: Comes in by nothing, neither password nor link nor identity provider.
    disabled: bool = False

    def __repr__(self) -> str:
        return f"UserRow(name={self.name!r}, role={self.role!r})"


class Users:
    """The users of the index; whatever changes one ends his sessions."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        names = ("users", "sessions", "entries")
        self._users, self._sessions, self._entries = (transactions.tables[name] for name in names)
        self._find = sa.select(self._users).where(self._users.c.name == sa.bindparam("user"))

    def add(self, name: str, *, role: Role, password: str, at: float, by: str = "") -> None:
        """Add a user with the hash of a password, or none.

        AccountError for a name that cannot be, or is taken, or as of `change`.
        """
        if not USER_NAME.fullmatch(name):
            raise AccountError(f"{name!r} is no name of a user; 1 to 40 letters, digits and . _ @ + -, no spaces")
        row = {"name": name, "role": role.value, "password": password, "created_at": at, "changed_at": at}
        with self._transactions.write() as connection:
            check_admin(connection, self._users, by)
            if connection.execute(self._find, {"user": name}).first() is not None:
                raise AccountError(f"there is a user {name} already; see `dicom-node users list`")
            connection.execute(sa.insert(self._users).values(**row))

    def add_first(self, name: str, *, password: str, at: float) -> bool:
        """Add an admin if there is no user at all; whether it was done."""
        with self._transactions.write() as connection:
            if connection.execute(sa.select(sa.func.count()).select_from(self._users)).scalar_one():
                return False
            row = {"name": name, "role": Role.ADMIN.value, "password": password, "created_at": at, "changed_at": at}
            connection.execute(sa.insert(self._users).values(**row))
        return True

    def change(
        self,
        name: str,
        *,
        at: float,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
        by: str = "",
    ) -> None:
        """Give a user another role or password, or let him in no more; his sessions end. AccountError if unknown.

        `by`: the admin who asks for it; AccountError where he is none any more.
        """
        given = {"role": None if role is None else role.value, "password": password, "disabled": disabled}
        values = {"changed_at": at} | {column: value for column, value in given.items() if value is not None}
        with self._transactions.write() as connection:
            check_admin(connection, self._users, by, name)
            change = sa.update(self._users).where(self._users.c.name == name).values(**values)
            if connection.execute(change).rowcount != 1:
                raise _unknown(name)
            self._shut_out(connection, name)

    def rehash(self, name: str, password: str, *, instead_of: str) -> str:
        """Keep the same password by a newer hash, unless he has another one by now; what he has afterwards.

        Another hash may be of the same password: of a login that was quicker. Nothing where there is no such user.
        """
        same = sa.and_(self._users.c.name == name, self._users.c.password == instead_of)
        with self._transactions.write() as connection:
            connection.execute(sa.update(self._users).where(same).values(password=password))
            row = connection.execute(self._find, {"user": name}).mappings().first()
        return "" if row is None else str(row["password"])

    def remove(self, name: str, *, by: str = "") -> None:
        """Forget a user; AccountError where there is none, or as of `change`."""
        with self._transactions.write() as connection:
            check_admin(connection, self._users, by, name)
            self._shut_out(connection, name)
            if connection.execute(sa.delete(self._users).where(self._users.c.name == name)).rowcount != 1:
                raise _unknown(name)

    def find(self, name: str) -> UserRow | None:
        """The user of this name."""
        with self._transactions.read() as connection:
            row = connection.execute(self._find, {"user": name}).mappings().first()
        return None if row is None else _user(row)

    def rows(self) -> list[UserRow]:
        """Every user, by name."""
        with self._transactions.read() as connection:
            rows = connection.execute(sa.select(self._users).order_by(self._users.c.name)).mappings().all()
        return [_user(row) for row in rows]

    def _shut_out(self, connection: sa.Connection, name: str) -> None:
        for table in (self._sessions, self._entries):
            connection.execute(sa.delete(table).where(table.c.user == name))


def check_admin(connection: sa.Connection, users: sa.Table, by: str, *others: str) -> None:
    """Whether `by` is an admin still, until the transaction ends; AccountError where not. Nobody: nothing is asked.

    Of `others`, whom he changes, the rows are locked with his: two admins who shut each other out at once must not
    leave none.
    """
    if not by:
        return
    rows = sa.select(users).where(users.c.name.in_({by, *others})).order_by(users.c.name)
    found = connection.execute(rows.with_for_update()).mappings().all()
    if not any(row["name"] == by and row["role"] == Role.ADMIN and not row["disabled"] for row in found):
        raise AccountError(f"{by} is no admin any more")


def _user(row: sa.RowMapping) -> UserRow:
    return UserRow(**{**row, "role": Role(row["role"])})


def _unknown(name: str) -> AccountError:
    return AccountError(f"there is no user {name}; see `dicom-node users list`")
