"""Refusals: how a request that cannot be answered is answered, in the same few words of JSON everywhere.

No text quotes a value of the request: a name may stand there.
"""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from dicom_node.core.errors import IndexUnavailable, QueryInvalid, UnreadableInstance
from dicom_node.core.uid import is_uid

#: Seconds after which a client may try again what the index could not answer.
_RETRY_SECONDS = "5"


class Refusal(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        return JSONResponse({"error": self.reason}, status_code=self.status, headers=self.headers)


#: What is an answer, too.
REFUSED = (Refusal, QueryInvalid, UnreadableInstance, IndexUnavailable)

_STATUSES: Mapping[type[Exception], HTTPStatus] = {
    QueryInvalid: HTTPStatus.BAD_REQUEST,
    UnreadableInstance: HTTPStatus.NOT_FOUND,
}


def refused(error: Exception) -> Response:
    """The answer to a request that one of REFUSED ended."""
    if isinstance(error, Refusal):
        return error.response()
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        headers = {"Retry-After": _RETRY_SECONDS}
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers).response()
    return Refusal(status, str(error)).response()


class RefusingRoute(APIRoute):
    """A route whose refusals are answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's, within what catches refusals."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except REFUSED as error:
                return refused(error)
            except ClientDisconnect:
                return Response(status_code=HTTPStatus.BAD_REQUEST)

        return answer


def checked_uids(**uids: str) -> None:
    """Refuse what is no UID; it never becomes part of a path or a message."""
    for name, uid in uids.items():
        if uid and not is_uid(uid):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the {name} UID in the path is no UID")
