"""A port on loopback that leads to a socket elsewhere, as `ssh -L` makes one: to a unix socket, or into a namespace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self


def connected(one: socket.socket, place: str | tuple[str, int]) -> socket.socket:
    """The socket, connected; closed when it cannot be."""
    try:
        one.connect(place)
    except OSError:
        one.close()
        raise
    return one


class Forward:
    """A context manager. ``connect`` opens the other end of each connection, on a thread of its own."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._started = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="forward")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._tasks)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, sock=self._listening)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                other_reader, other_writer = await asyncio.open_connection(sock=self._connect())
                await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))
        finally:
            writer.close()
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """When either side ends, so does the other."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
