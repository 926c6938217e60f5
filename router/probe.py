"""Asking other nodes, from any network namespace, without a process: echo requests, TCP and UDP, all at once.

The kernel of the node that is asked answers: an echo reply, a connection or its refusal, a datagram or "port
unreachable".
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from errno import ECONNREFUSED, EINPROGRESS

from dhcpd.pool import dotted
from router.policy import End, Row

_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_HEADER = struct.Struct("!BBHHH")
_NUMBER = struct.Struct("!I")

_SOL_RAW, _ICMP_FILTER = 255, 1
_ONLY_REPLIES = struct.pack("I", ~(1 << _ECHO_REPLY) & 0xFFFFFFFF)

AT_ONCE = 128
"""Rows under way. Each may be a neighbour that the kernel did not know, of which it remembers 1,024 for the whole
machine, an open socket, and an answer that waits in a buffer that holds about 160."""

Enter = Mapping[End, Callable[[], AbstractContextManager[None]]]
"""Source -> what puts the calling thread into its network namespace."""


def measure(
    rows: Sequence[Row], enter: Enter, seconds: float = 1.0, go_on: Callable[[], bool] = lambda: True
) -> list[bool | None]:
    """Whether each row gets an answer; None when its source cannot be entered, or nothing can be said.

    What shall be answered and is not is asked twice. `AT_ONCE` rows are asked at a time, which ends when ``seconds``
    pass without an answer, after twice as long at most; then ``go_on`` says whether it is worth while. Raises
    PermissionError without NET_RAW.
    """
    asked = {number: row for number, row in enumerate(rows) if row.source in enter}
    answered = _ask(asked, enter, seconds, go_on)
    missing = {number: row for number, row in asked.items() if row.expected and number not in answered}
    answered |= _ask(missing, enter, seconds, go_on)
    return [_result(row, number in answered) if number in asked else None for number, row in enumerate(rows)]


def _result(row: Row, is_answered: bool) -> bool | None:
    """A UDP service may hear and be silent."""
    is_silent = row.service.protocol == "udp" and row.expected and not is_answered
    return None if is_silent else is_answered


def _ask(rows: Mapping[int, Row], enter: Enter, seconds: float, go_on: Callable[[], bool]) -> set[int]:
    """The numbers of the rows that are answered."""
    numbered, answered = list(rows.items()), set[int]()
    for start in range(0, len(numbered), AT_ONCE):
        if not go_on():
            break
        answered |= _ask_at_once(numbered[start : start + AT_ONCE], enter, seconds)
    return answered


def _ask_at_once(rows: Sequence[tuple[int, Row]], enter: Enter, seconds: float) -> set[int]:
    probes = Probes()
    try:
        for source in {row.source: None for _, row in rows}:
            with enter[source]():
                probes.send((number, row) for number, row in rows if row.source == source)
        probes.wait(len(rows), seconds)
    finally:
        probes.close()
    return probes.answered


class Probes:
    """The requests under way. ``answered`` has the numbers of those that were."""

    def __init__(self) -> None:
        self.answered: set[int] = set()
        self._token = os.urandom(8)
        self._identifier = int.from_bytes(self._token[:2], "big")
        self._selector = selectors.DefaultSelector()

    def send(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Ask from the network namespace of the calling thread. Raises PermissionError without NET_RAW."""
        echo: socket.socket | None = None
        for number, row in rows:
            address = dotted(row.target.address)
            if row.service.protocol == "icmp":
                echo = echo or self._echo_socket()
                with suppress(OSError):  # no route, no neighbour, a full queue, a rule of its own: not answered
                    echo.sendto(self._request(number), (address, 0))
            else:
                self._connect(number, row.service.protocol, (address, row.service.first))

    def wait(self, count: int, seconds: float) -> None:
        """Until ``count`` are answered, or nothing is for ``seconds``."""
        now = time.monotonic()
        end, quiet = now + 2 * seconds, now + seconds
        while len(self.answered) < count and now < min(end, quiet):
            before = len(self.answered)
            for key, _ in self._selector.select(min(end, quiet) - now):
                key.data(key.fileobj)
            now = time.monotonic()
            if len(self.answered) > before:
                quiet = now + seconds

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _echo_socket(self) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        one.setsockopt(_SOL_RAW, _ICMP_FILTER, _ONLY_REPLIES)
        self._selector.register(one, selectors.EVENT_READ, self._on_echo)
        return one

    def _request(self, number: int) -> bytes:
        data = self._token + _NUMBER.pack(number)
        sequence = number & 0xFFFF
        blank = _HEADER.pack(_ECHO_REQUEST, 0, 0, self._identifier, sequence) + data
        return _HEADER.pack(_ECHO_REQUEST, 0, _checksum(blank), self._identifier, sequence) + data

    def _on_echo(self, one: socket.socket) -> None:
        """Anybody may send any echo reply here."""
        packet = one.recv(2048)
        data = packet[4 * (packet[0] & 15) + _HEADER.size :]
        if data.startswith(self._token) and len(data) == len(self._token) + _NUMBER.size:
            self.answered.add(_NUMBER.unpack_from(data, len(self._token))[0])

    def _connect(self, number: int, protocol: str, address: tuple[str, int]) -> None:
        is_tcp = protocol == "tcp"
        kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
        one = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        event = selectors.EVENT_WRITE if is_tcp else selectors.EVENT_READ
        self._selector.register(one, event, lambda ready: self._on_answer(number, ready))
        with suppress(OSError):
            if one.connect_ex(address) in (0, EINPROGRESS, ECONNREFUSED):
                if not is_tcp:
                    one.send(b"")
                return
        self._selector.unregister(one)
        one.close()

    def _on_answer(self, number: int, one: socket.socket) -> None:
        """A refusal is an answer; "host unreachable" is none."""
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, ECONNREFUSED):
            self.answered.add(number)
        self._selector.unregister(one)
        one.close()


def _checksum(data: bytes) -> int:
    """RFC 1071; ``data`` has an even length."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
