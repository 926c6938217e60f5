"""Who is connected by TCP: how many at once, and for how long.

Who knows the token finds a place, whatever those do who do not. A connection ends by itself when its time is over, if
it says nothing, sends half a request or does not read its answers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable

MAX_CONNECTIONS = 128
"""At so many, TCP gets no more: whoever holds them open takes no file descriptor from what serves devices."""
MAX_STRANGERS = 32
"""Connections of one address on which the token was not shown yet."""
STRANGER_SECONDS = 60.0
"""For so long a connection may be open without the token."""
REQUEST_SECONDS = 300.0
"""For so long with it, from its last request on."""
GONE_SECONDS = 60.0
"""For so long the peer may leave what was sent to it unread."""


class Places:
    """The connections that there may be, as numbers."""

    def __init__(self) -> None:
        self._open = 0
        self._strangers: Counter[str] = Counter()

    def take(self, peer: str) -> bool:
        """Whether there is a place for one more of that address, which has it then, as a stranger."""
        if self._open >= MAX_CONNECTIONS or self._strangers[peer] >= MAX_STRANGERS:
            return False
        self._open += 1
        self._strangers[peer] += 1
        return True

    def know(self, peer: str) -> None:
        """One of that address is no stranger any more."""
        self._strangers[peer] -= 1
        self._strangers += Counter()  # those that have none are left out

    def leave(self, peer: str, *, is_stranger: bool) -> None:
        self._open -= 1
        if is_stranger:
            self.know(peer)


class Caller(asyncio.Protocol):
    """A connection, served by the protocol that ``serve`` makes when there is a place for it; else it is hung up."""

    def __init__(self, places: Places, serve: Callable[[], asyncio.Protocol] | None) -> None:
        self._places = places
        self._serve = serve
        self._served = asyncio.Protocol()
        self._peer: str | None = None
        """None when it has no place."""
        self._is_stranger = True
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a socket's
        peer = (transport.get_extra_info("peername") or ("gone",))[0]
        if self._serve is None or not self._places.take(peer):
            transport.abort()
            return
        self._peer, self._transport = peer, transport
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(GONE_SECONDS * 1000)
        )
        self._end_after(STRANGER_SECONDS)
        self._served = self._serve()
        self._served.connection_made(transport)

    def trust(self, *, has_end: bool) -> None:
        """The token was shown with a request; one that has no end may take any time."""
        if self._is_stranger and self._peer is not None and self._transport is not None:
            self._places.know(self._peer)
            self._is_stranger = False
        self._end_after(REQUEST_SECONDS if has_end else None)

    def _end_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._end, self._transport)

    def _end(self, transport: asyncio.Transport) -> None:
        """By a reset: a close waits for a peer that does not read, here or in the kernel."""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end_after(None)
        if self._peer is not None:
            self._places.leave(self._peer, is_stranger=self._is_stranger)
        self._served.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def pause_writing(self) -> None:
        self._served.pause_writing()

    def resume_writing(self) -> None:
        self._served.resume_writing()
