"""Accept: which of the media types that can be had a client prefers (PS3.18 Section 8.7, RFC 9110 Section 12.5.1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

#: Parameters are looked at up to here: an Accept header is short.
_LONGEST = 8000

#: What was agreed for a header of fewer letters is remembered.
_SHORT = 300

_PARAMETER = re.compile(r';\s*([\w.+-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"\s]*)')
_RANGE = re.compile(r'\s*([\w.+*-]+/[\w.+*-]+)((?:\s*;\s*[\w.+-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^;,"\s]*))*)\s*(?:,|$)')


@dataclass(frozen=True, kw_only=True)
class MediaRange:
    """One element of an Accept header."""

    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax asked for; empty: none was named."""
        return self.parameters.get("transfer-syntax", "")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A media type that can be had."""

    media_type: str
    #: As the parts of multipart/related.
    multipart: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was agreed."""

    offer: Offer
    transfer_syntax: str


def media_ranges(header: str) -> list[MediaRange]:
    """The elements of an Accept header, in their order; what is none is left out."""
    found = []
    for match in _RANGE.finditer(header[:_LONGEST]):
        parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(match[2])}
        quality = _quality(parameters.pop("q", "1"))
        found.append(MediaRange(media_type=match[1].lower(), parameters=parameters, quality=quality))
    return found


def choose(header: str, offers: Sequence[Offer]) -> Choice | None:
    """The offer that the client prefers, the earlier where it prefers none; None where it accepts none of them."""
    return (_known if len(header) < _SHORT else _chosen)(header, tuple(offers))


def _chosen(header: str, offers: tuple[Offer, ...]) -> Choice | None:
    ranges = media_ranges(header) or ([MediaRange(media_type="*/*")] if not header.strip() else [])
    best: tuple[float, int, int] | None = None
    chosen: Choice | None = None
    for place, offer in enumerate(offers):
        fits = [(fit, number) for number, one in enumerate(ranges) if (fit := _fit(one, offer))]
        if not fits:
            continue
        fit, number = max(fits, key=lambda pair: (pair[0], -pair[1]))
        quality, rank = ranges[number].quality, (ranges[number].quality, fit, -number * len(offers) - place)
        if quality > 0 and (best is None or rank > best):
            best, chosen = rank, Choice(offer=offer, transfer_syntax=ranges[number].transfer_syntax)
    return chosen


#: A client says the same with each request.
_known = lru_cache(maxsize=256)(_chosen)


def _fit(one: MediaRange, offer: Offer) -> int:
    """How exactly an element names an offer; 0: not at all."""
    wanted = one.media_type
    if wanted == "*/*":
        return 1
    if wanted in ("multipart/related", "multipart/*"):
        inner = one.parameters.get("type", "").lower()
        if not offer.multipart:
            return 0
        return _fit_of_type(inner, offer.media_type) if inner and inner != "*/*" else 2
    return 0 if offer.multipart else _fit_of_type(wanted, offer.media_type)


def _fit_of_type(wanted: str, offered: str) -> int:
    if wanted == offered:
        return 4
    return 3 if wanted.endswith("/*") and offered.startswith(wanted[:-1]) else 0


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
