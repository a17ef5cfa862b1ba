"""Probes: what machines ask of the node, `/metrics` for its counts and `/healthz` for whether its parts live."""

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def build_probes(
    registry: CollectorRegistry, health: Callable[[], Mapping[str, bool]], dispensable: Collection[str]
) -> APIRouter:
    """Both addresses; `dispensable` are the parts without which the node still does its work."""
    router = APIRouter()

    @router.get("/metrics")
    def scrape() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> JSONResponse:
        # No thread: whoever asks must not wait for those that are busy. The parts only say what they know already.
        parts = dict(health())
        # Whoever starts a node again that is not well must not do so for what it works on without.
        ok = all(alive for name, alive in parts.items() if name not in dispensable)
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        missed = sorted(name for name, alive in parts.items() if not alive)
        return JSONResponse({"ok": ok, "missed": missed, "parts": parts}, status_code=status)

    return router
