"""Credentials: passwords by argon2id, at no more memory at a time than a node can spare, and new ones by chance."""

import secrets
import threading
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

#: The least that a person's password must have.
SHORTEST_PASSWORD = 12
#: Nobody has one so long, and hashing more costs time.
LONGEST_PASSWORD = 512

#: Each check takes 64 MB (RFC 9106, Section 4, second choice): a flood of them must wait, not fill the memory.
_AT_A_TIME = 2

#: Letters and digits that are not taken for each other.
_SIGNS = "abcdefghjkmnpqrstuvwxyz23456789"


class Passwords:
    """Hashes and checks passwords; a check takes as long for a name that nobody has."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = PasswordHasher() if hasher is None else hasher
        self._turns = threading.BoundedSemaphore(_AT_A_TIME)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_hex())

    def hash(self, password: str) -> str:
        """The hash of a password, with its parameters and a salt of its own."""
        with self._turns:
            return self._hasher.hash(password)

    def fits(self, password: str, held: str) -> bool:
        """Whether this is the password; `held` may be empty, and nothing fits that."""
        if len(password) > LONGEST_PASSWORD:
            return False
        with self._turns:
            try:
                self._hasher.verify(held or self._nobodys, password)
            except (VerificationError, InvalidHashError):
                return False
        return bool(held)

    def is_old(self, held: str) -> bool:
        """Whether the hash was made by weaker parameters than today's."""
        return self._hasher.check_needs_rehash(held)


def new_password() -> str:
    """Twenty signs by chance in five groups: 99 bits, and it can be read aloud."""
    return "-".join("".join(secrets.choice(_SIGNS) for _ in range(4)) for _ in range(5))
