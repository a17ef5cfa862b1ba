"""A TCP proxy that can be made to misbehave: it cuts connections, lets them stall, or takes no new ones."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from deploy.rig import RigError, free_port

T = TypeVar("T")

_READ_BYTES = 1 << 16


class TcpProxy:
    """Forwards every connection to a port of this machine, as long as it is told to; thread-safe."""

    def __init__(self, target_port: int) -> None:
        """The port that it listens on is known before it starts."""
        self.port = free_port()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._refusing = False
        #: Bytes that may still pass before each announced cut, and what is set when it has come.
        self._announced: list[tuple[int, threading.Event]] = []

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._done(self._listen())

    def stop(self) -> None:
        """Cut every connection and listen no more."""
        self._done(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def cut(self) -> int:
        """Reset every connection now, on both sides; how many there were."""
        return self._done(self._reset_all()) // 2

    def cut_after(self, count: int) -> threading.Event:
        """Reset every connection once so many more bytes have passed; the event is set when that has happened."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._announced.append, (count, done))
        return done

    def stall(self) -> None:
        """Forward nothing, and close nothing either."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def refuse(self) -> None:
        """Reset every connection, also each new one, before a byte has passed."""
        self._refusing = True
        self.cut()

    def spare(self) -> None:
        """No cut that was announced and has not come comes any more."""
        self._loop.call_soon_threadsafe(self._announced.clear)

    def heal(self) -> None:
        """Forward everything again; a cut that was announced still comes."""
        self._refusing = False
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        self._flowing.set()
        try:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        except OSError as error:
            raise RigError(f"the proxy cannot listen on port {self.port} ({error.strerror}); run it again") from error

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._refusing:
                _reset(writer)
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            # Nobody listens behind us: who called is told the same as without a proxy, a little later.
            return
        else:
            self._writers.add(back)
            pumps = {asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))}
            self._pumps |= pumps
            await asyncio.wait(pumps)
            self._pumps -= pumps
            self._close(back)
        finally:
            self._close(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction until its end."""
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._flowing.wait()
                if self._ends_with(len(data)):
                    await self._reset_all()
                    return
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    def _ends_with(self, count: int) -> bool:
        """Whether an announced cut comes with this piece, which then does not pass."""
        left = [(allowance - count, done) for allowance, done in self._announced]
        self._announced = [(allowance, done) for allowance, done in left if allowance > 0]
        for allowance, done in left:
            if allowance <= 0:
                done.set()
        return len(self._announced) < len(left)

    async def _reset_all(self) -> int:
        writers = list(self._writers)
        for writer in writers:
            _reset(writer)
        return len(writers)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        """End a connection once all that waits has been sent."""
        self._writers.discard(writer)
        writer.close()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset_all()
        self._flowing.set()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        # What served a connection has to notice its end before the loop does.
        await asyncio.sleep(0.05)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST; what still waits to be sent is thrown away."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        # Linger for no second: the kernel says RST where it would say FIN.
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
