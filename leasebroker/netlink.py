"""Netlink messages and attributes, for what must not wait: the kernel answers within some ten microseconds, pyroute2
within some hundreds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from struct import Struct

ACK = 0x4
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
MAX_ANSWER = 65536
"""Bytes in which the kernel puts an answer, or a part of it."""

_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_HEADER, _ATTRIBUTE, _CODE = Struct("=IHHII"), Struct("=HH"), Struct("=i")
_SECONDS = 5.0

Attributes = dict[int, bytes]


def open_socket(protocol: int = 0) -> socket.socket:
    """A socket in the network namespace of the calling thread, by default for rtnetlink. Raises `OSError`."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    kernel.settimeout(_SECONDS)
    return kernel


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """A message to the kernel."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, sequence, 0) + body


def ask(kernel: socket.socket, kind: int, body: bytes, flags: int = 0) -> None:
    """Have the kernel do something. Raises `OSError` when it does not."""
    kernel.send(message(kind, ACK | flags, body))
    for _ in answers(kernel.recv(MAX_ANSWER)):
        pass


def dump(kernel: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all that the kernel has of a kind. Raises `OSError`."""
    kernel.send(message(kind, _DUMP, body))
    while True:
        for what, found in answers(kernel.recv(MAX_ANSWER)):
            if what == _DONE:
                return
            yield found


def answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each message. Raises `OSError` for an error."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        body = data[offset + _HEADER.size : offset + size]
        if kind in (_ERROR, _DONE) and (code := -_CODE.unpack_from(body)[0]) > 0:
            raise OSError(code, os.strerror(code))
        yield kind, body
        offset += size + 3 & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, filled up to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int = 0, last: int | None = None) -> Attributes:
    """All of them from an offset on, or those up to one kind: what is behind it costs nothing."""
    found: Attributes = {}
    offset, end = start, len(data) - _ATTRIBUTE.size
    while offset <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        kind &= 0x3FFF
        found[kind] = data[offset + _ATTRIBUTE.size : offset + size]
        if kind == last:
            break
        offset += max(size, _ATTRIBUTE.size) + 3 & ~3
    return found
