"""Group commit: the short deeds of many threads in one transaction, since the wait for the disk is the same for all.

Of the threads that have something to do, one leads: it does what all of them want and commits once, while those that
come meanwhile wait, and one of these leads next. Alone, a thread leads itself, and waits for nobody.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa

from dicom_node.core.errors import IndexConflict, IndexUnavailable

Answer = TypeVar("Answer")

#: More would let the first wait for long.
_MOST_AT_ONCE = 64
#: How often what was in another transaction's way is done before it counts as failed.
_ATTEMPTS = 5
#: Before it is done the second time, and twice as long before each further one: who is in the way has to get out of it.
_REST_SECONDS = 0.005


class GroupCommit:
    """Commits what threads do at the same time together; safe to share between threads."""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[sa.Connection]],
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """`transaction` begins one that commits at its end, or leaves nothing behind."""
        self._rest = rest
        self._transaction = transaction
        self._waiting: list[_Deed[Any]] = []
        self._joining = threading.Lock()
        self._leading = threading.Lock()

    def run(self, do: Callable[[sa.Connection], Answer]) -> Answer:
        """Do it, and return its answer when that is committed; whatever it raises, or the transaction does."""
        deed = _Deed(do)
        with self._joining:
            self._waiting.append(deed)
        with self._leading:
            if not deed.is_done:
                self._commit(self._next(deed))
        return deed.answer()

    def _next(self, deed: "_Deed[Any]") -> "list[_Deed[Any]]":
        """The deeds to do next, this one among them."""
        with self._joining:
            others = [waiting for waiting in self._waiting if waiting is not deed]
            self._waiting = others[_MOST_AT_ONCE - 1 :]
        return [deed, *others[: _MOST_AT_ONCE - 1]]

    def _commit(self, deeds: "list[_Deed[Any]]", attempts: int = _ATTEMPTS) -> None:
        try:
            with self._transaction() as connection:
                answers = [deed.do(connection) for deed in deeds]
        except IndexConflict as error:
            # Somebody else wanted the same rows, and has had them by now; who of us it was, nobody says.
            if attempts > 1:
                self._rest(_REST_SECONDS * 2 ** (_ATTEMPTS - attempts))
                self._commit(deeds, attempts - 1)
            else:
                self._apart(deeds, error)
        except IndexUnavailable as error:
            # It is away for each of them, and to ask again would let the last wait for all before it.
            for deed in deeds:
                deed.fail(error)
        except Exception as error:  # whose that is, only its deed alone can tell
            self._apart(deeds, error)
        else:
            for deed, answer in zip(deeds, answers, strict=True):
                deed.succeed(answer)

    def _apart(self, deeds: "list[_Deed[Any]]", error: Exception) -> None:
        """Do what failed together each alone; what was alone has failed."""
        if len(deeds) == 1:
            deeds[0].fail(error)
            return
        for deed in deeds:
            self._commit([deed])


class _Deed(Generic[Answer]):
    """What one thread wants done, and what came of it."""

    def __init__(self, do: Callable[[sa.Connection], Answer]) -> None:
        self.do = do
        self.is_done = False
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def succeed(self, answer: Answer) -> None:
        """It is committed."""
        self._answer, self.is_done = answer, True

    def fail(self, error: Exception) -> None:
        """Nothing of it was kept."""
        self._error, self.is_done = error, True

    def answer(self) -> Answer:
        """Its answer, or what it raised."""
        if self._error is not None:
            raise self._error
        return cast(Answer, self._answer)
