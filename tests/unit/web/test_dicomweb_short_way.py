"""The short way of DICOMweb: whatever is asked, it is answered as the framework would answer it."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from httpx import ASGITransport, AsyncClient

from dicom_node.archive.index import Index
from dicom_node.core.access import Role, Scope
from dicom_node.core.errors import IndexUnavailable
from dicom_node.settings import AccessSettings
from dicom_node.telemetry import context_keys, log_context
from dicom_node.web.application import build_application
from dicom_node.web.dicomweb.budget import Turns
from dicom_node.web.dicomweb.service import build_dicomweb
from dicom_node.web.dicomweb.short_way import ShortWay, ShortWayFirst
from dicom_node.web.doorkeeper import Doorkeeper
from dicom_node.web.gate import Gate
from dicom_node.web.server import WebServer
from tests.dicomweb_service import Answer, Service, serving
from tests.instances import SERIES_UID, STUDY_UID, sop_uid
from tests.room import NOW, Room
from tests.visitors import Person, session

INSTANCE = f"/studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop_uid(1)}"

PATHS = (
    "/studies",
    "/studies?PatientID=TEST-1",
    "/studies?Nonsense=1",
    "/series?limit=1",
    f"/studies/{STUDY_UID}",
    f"/studies/{STUDY_UID}/series",
    f"/studies/{STUDY_UID}/metadata",
    f"/studies/{STUDY_UID}/rendered",
    f"/studies/{STUDY_UID}/series/{SERIES_UID}/instances?limit=1",
    INSTANCE,
    f"{INSTANCE}/metadata",
    f"{INSTANCE}/frames/1",
    f"{INSTANCE}/frames/2",
    f"{INSTANCE}/frames/1/rendered",
    f"{INSTANCE}/thumbnail",
    f"{INSTANCE}/bulkdata/7FE00010",
    f"{INSTANCE}/bulkdata/0040A730/1/7FE00010",
    "/studies/no-uid/metadata",
    "/studies/1.2.3/series",
    "/studies//series",
    "/studies/",
    "/nothing",
    "/studies/../metrics",
)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """The same service by the short way, and by the framework's alone."""
    room = Room(tmp_path_factory.mktemp("room"))
    room.receive(1, 2)
    application = FastAPI()
    application.include_router(build_dicomweb(room.index, room.archive, ae_title="TRIAGE").router)
    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    with serving(room) as short:
        yield short, Service(room=room, port=server.port, application=application, metrics=short.metrics)
    server.stop()
    room.index.close()


def told(service: Service, answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What an answer says, but for what is new in each: its time, port and boundary."""
    port = f":{service.port}"
    named = [(name.lower(), value.replace(port, ":P")) for name, value in answer.headers.items()]
    headers = {name: value for name, value in named if name not in ("date", "etag")}
    boundary = re.search(r"boundary=(\w+)", headers.get("content-type", ""))
    mark = boundary[1].encode() if boundary else b"no boundary"
    headers["content-type"] = headers.get("content-type", "").replace(mark.decode(), "B")
    body = answer.body.replace(mark, b"B").replace(port.encode(), b":P")
    # Addresses of another length.
    headers.pop("content-length", None)
    return answer.status, headers, body


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
def test_the_short_way_answers_as_the_frameworks(ways: tuple[Service, Service], method: str, path: str) -> None:
    short, long = (told(one, one.ask(path, method=method)) for one in ways)
    assert short == long


def test_frames_and_searches_go_the_short_way(ways: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_given: object) -> None:
        raise AssertionError("the framework was asked")

    short, _ = ways
    monkeypatch.setattr(short.application.router, "__call__", fail)
    monkeypatch.setattr(type(short.application.router), "app", fail)
    assert short.ask("/studies").status == 200
    assert short.ask(f"{INSTANCE}/frames/1").status == 200


def test_a_defect_is_an_error_of_the_server_and_ends_nothing_else(
    ways: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = ways
    monkeypatch.setattr(short.room.index.contents.__class__, "of", lambda *_given: 1 / 0)
    assert short.ask(INSTANCE).status == 500
    monkeypatch.undo()
    assert short.ask(INSTANCE).status == 200


def short_way(heavy: Callable[[Request], Response], light: Callable[[Request], Response], **places: int) -> AsyncClient:
    """A client of a short way to two functions."""
    router = APIRouter()
    router.add_api_route("/heavy", heavy)
    router.add_api_route("/light", light)
    short = ShortWayFirst(FastAPI(), short=ShortWay(prefix="/d", routes=router.routes, **places))
    return AsyncClient(transport=ASGITransport(short), base_url="http://node/d", timeout=30)


def test_what_is_light_is_answered_while_all_that_may_be_heavy_is() -> None:
    turns, end, entered = Turns(), threading.Event(), threading.Semaphore(0)

    def make() -> Response:
        end.wait(20)
        return Response()

    def heavy(_request: Request) -> Response:
        entered.release()
        return turns.answer(make)

    async def ask() -> tuple[float, list[int], list[int]]:
        async with short_way(heavy, lambda _request: Response()) as client:
            held = [asyncio.create_task(client.get("/heavy")) for _ in range(16)]
            for _ in held:
                assert await asyncio.to_thread(entered.acquire, timeout=10)
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            now = [await client.get(path) for path in ("/light", "/heavy")]
            took = time.monotonic() - begun
            end.set()
            return took, [each.status_code for each in now], [(await each).status_code for each in held]

    took, now, later = asyncio.run(ask())
    assert now == [200, 503]
    assert later == [200] * 16
    # Nobody's patience: that is ten seconds.
    assert took < 5


def test_whoever_finds_no_thread_and_no_place_to_wait_is_told_at_once_to_come_again() -> None:
    begun, end = threading.Event(), threading.Event()

    def heavy(_request: Request) -> Response:
        begun.set()
        end.wait(20)
        return Response()

    async def ask() -> None:
        async with short_way(heavy, lambda _request: Response(), at_once=1, waiting=1) as client:
            held = asyncio.create_task(client.get("/heavy"))
            assert await asyncio.to_thread(begun.wait, 10)
            waits = asyncio.create_task(client.get("/light"))
            await asyncio.sleep(0.1)
            told = await client.get("/light")
            assert (told.status_code, told.headers["Retry-After"]) == (503, "5")
            # One that goes away leaves its place to another.
            waits.cancel()
            await asyncio.sleep(0.1)
            leaves = asyncio.create_task(client.get("/light"))
            await asyncio.sleep(0.1)
            assert not leaves.done()
            end.set()
            assert [(await each).status_code for each in (held, leaves)] == [200, 200]
            assert [(await client.get("/light")).status_code for _ in range(5)] == [200] * 5

    asyncio.run(ask())


def test_what_the_log_says_of_a_request_goes_with_it_into_its_thread() -> None:
    seen: list[object] = []

    def light(_request: Request) -> Response:
        seen.append(dict(context_keys()))
        return Response()

    async def ask() -> None:
        async with short_way(light, light) as client:
            with log_context(request="1"):
                await client.get("/light")
            await client.get("/light")

    asyncio.run(ask())
    assert seen == [{"request": "1"}, {}]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Room, int]]:
    """A whole application behind its gate, and its port."""
    room = Room(tmp_path_factory.mktemp("guarded"))
    room.receive(1)
    application = build_application(room.index, dict, dict, lambda: NOW, archive=room.archive)
    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    yield room, server.port
    server.stop()
    room.index.close()


def bearer(index: Index, *scopes: Scope) -> dict[str, str]:
    name = f"for-{'-'.join(scopes).replace(':', '-')}"
    return {"Authorization": f"Bearer {index.tokens.add(name, scopes=scopes, at=NOW)}"}


def test_the_gate_lets_nobody_by_on_the_short_way(guarded: tuple[Room, int]) -> None:
    """Whoever may ask a route that is not short may ask this one, and nobody else."""
    room, port = guarded
    reading = bearer(room.index, Scope.DICOMWEB_READ)
    others = bearer(room.index, Scope.DICOMWEB_WRITE, Scope.METRICS)
    invented = {"Authorization": "Bearer dn_" + "x" * 43}
    for path in ("/studies", f"{INSTANCE}/frames/1", f"{INSTANCE}/metadata"):
        for method in ("GET",) if path == "/studies" else ("GET", "HEAD"):
            for headers, status in ((reading, 200), (others, 403), (invented, 401), ({}, 401)):
                answer = Person(port, headers=headers).ask(method, f"/dicomweb{path}")
                assert answer.status == status, (path, method, status)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert Person(port, "x" * 43).get(f"/dicomweb{path}").status == 401
        assert Person(port, session(room.index, Role.READER)).get(f"/dicomweb{path}").status == 200
    room.index.tokens.remove("for-dicomweb-read")
    assert Person(port, headers=reading).get("/dicomweb/studies").status == 401, "at once"


def test_where_the_index_does_not_answer_nobody_is_let_by(
    guarded: tuple[Room, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_given: object, **_named: object) -> None:
        raise IndexUnavailable("the disk is away")

    room, port = guarded
    monkeypatch.setattr(type(room.index.tokens), "find", away)
    answer = Person(port, headers={"Authorization": "Bearer dn_x"}).get(f"/dicomweb{INSTANCE}/frames/1")
    assert (answer.status, "The index does not answer" in answer.text) == (503, True)


def test_strangers_are_refused_while_readers_hold_every_thread_and_take_no_place_to_wait(tmp_path: Path) -> None:
    entered, end = threading.Semaphore(0), threading.Event()

    def slow(_request: Request) -> Response:
        entered.release()
        end.wait(20)
        return Response()

    router = APIRouter()
    router.add_api_route("/studies", slow)
    short = ShortWay(prefix="/dicomweb", routes=router.routes, at_once=2, waiting=2)
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    keeper = Doorkeeper(index=index, settings=AccessSettings(), clock=lambda: NOW)
    gate = Gate(ShortWayFirst(FastAPI(), short=short), doorkeeper=keeper, words=lambda *_given: "refused", short=short)
    reading, invented = bearer(index, Scope.DICOMWEB_READ), {"Authorization": "Bearer dn_" + "x" * 43}

    async def ask() -> None:
        async with AsyncClient(transport=ASGITransport(gate), base_url="http://node/dicomweb", timeout=30) as client:
            held = [asyncio.create_task(client.get("/studies", headers=reading)) for _ in range(2)]
            for _ in held:
                assert await asyncio.to_thread(entered.acquire, timeout=10)
            strangers = [await client.get("/studies", headers=invented) for _ in range(5)]
            assert [each.status_code for each in strangers] == [401] * 5
            waits = asyncio.create_task(client.get("/studies", headers=reading))
            await asyncio.sleep(0.1)
            end.set()
            assert [(await each).status_code for each in (*held, waits)] == [200] * 3

    asyncio.run(ask())
    index.close()
