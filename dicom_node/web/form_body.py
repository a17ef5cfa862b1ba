"""The body of a form: read whole where it is looked at, and given once more to whoever it is for."""

from starlette.types import Message, Receive


class FormTooLarge(Exception):
    """A form with more bytes than any of ours has."""


async def whole_form(receive: Receive, most_bytes: int) -> bytes:
    """Its bytes; none where whoever sends it goes away, FormTooLarge as soon as there are too many."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        size += len(message.get("body", b""))
        if size > most_bytes:
            raise FormTooLarge
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def given_again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, then what comes after it."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
