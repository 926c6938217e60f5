"""nftables over netlink, for what must not wait for a process: members of a set, and the number of the ruleset.

Every call is one system call and its answer, tens of microseconds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from errno import EINVAL, ENOENT, EOPNOTSUPP, EPERM
from itertools import count
from struct import Struct

Key = tuple[bytes, int]
"""MAC and address."""

_NETLINK_NETFILTER = 12
_NFPROTO_INET = 1
_SUBSYSTEM = 10 << 8
_NEW_ELEMENTS, _DELETE_ELEMENTS, _GET_GENERATION = 12, 14, 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
ERROR = 2
_NESTED = 0x8000

HEADER = Struct("=IHHII")
FAMILY = Struct("!BBH")
ATTRIBUTE = Struct("=HH")
CODE = Struct("=i")
_CHUNK = 1000
"""Members to a transaction: an attribute's length has 16 bits, and a member takes 36 bytes."""
NO_TABLES = "this kernel has no nf_tables: it needs one with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT"
NO_PERMISSION = "no permission to change nftables: run as root, or give the container NET_ADMIN"


class FirewallError(Exception):
    """The kernel does not take the rules. ``str()`` is one sentence that says what is wrong and what to do."""


class Nfnetlink:
    """A socket to nf_tables in the network namespace in which it is made. Calls raise `FirewallError`, all of them on a
    kernel that has no such sockets; making and closing it do not."""

    def __init__(self) -> None:
        self._sequence = count(1)
        self._socket: socket.socket | None = None
        with suppress(OSError):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            self._socket.setblocking(False)
            self._socket.bind((0, 0))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def generation(self) -> int:
        """The number of the ruleset; every change of any table by anybody adds one."""
        body = self._ask([self._message(_SUBSYSTEM | _GET_GENERATION, _REQUEST, socket.AF_UNSPEC, 0)])
        offset = FAMILY.size
        length, _ = ATTRIBUTE.unpack_from(body, offset)
        return int.from_bytes(body[offset + ATTRIBUTE.size : offset + length], "big")

    def change(self, table: str, name: str, add: Iterable[tuple[Key, float | None]], remove: Iterable[Key]) -> int:
        """Make ``add`` members of a set of MACs and addresses for so many seconds (None: for good), ``remove`` none.

        It does not matter which were members before. Returns the number of transactions: one for each `_CHUNK`.
        """
        changes = [(_element(*one), True) for one in add] + [(_element(one, None), False) for one in remove]
        chunks = [changes[start : start + _CHUNK] for start in range(0, len(changes), _CHUNK)]
        head = attribute(1, table.encode() + b"\0") + attribute(2, name.encode() + b"\0")
        for chunk in chunks:
            self._commit(head, b"".join(one for one, _ in chunk), b"".join(one for one, stays in chunk if stays))
        return len(chunks)

    def _commit(self, head: bytes, every: bytes, staying: bytes) -> None:
        """A member is added before it is deleted because there may be none, and deleted before it is added because
        adding does not change the time that is left."""
        steps = [(_NEW_ELEMENTS, _CREATE, every), (_DELETE_ELEMENTS, 0, every), (_NEW_ELEMENTS, _CREATE, staying)]
        steps = [step for step in steps if step[2]]
        messages = [self._message(_BATCH_BEGIN, _REQUEST, socket.AF_UNSPEC, _SUBSYSTEM >> 8)]
        for index, (kind, flags, elements) in enumerate(steps, 1):
            wanted = _ACK if index == len(steps) else 0
            body = head + attribute(3 | _NESTED, elements)
            messages.append(self._message(_SUBSYSTEM | kind, _REQUEST | flags | wanted, _NFPROTO_INET, 0, body))
        self._ask([*messages, self._message(_BATCH_END, _REQUEST, socket.AF_UNSPEC, _SUBSYSTEM >> 8)])

    def _message(self, kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
        size = HEADER.size + FAMILY.size + len(body)
        header = HEADER.pack(size, kind, flags, next(self._sequence), 0)
        return header + FAMILY.pack(family, 0, resource) + body

    def _ask(self, messages: list[bytes]) -> bytes:
        """The first answer without its header; the first error is raised. The kernel has written all answers when
        sending returns."""
        if self._socket is None:
            raise FirewallError(NO_TABLES)
        answers: list[bytes] = []
        try:
            self._socket.send(b"".join(messages))
            with suppress(BlockingIOError):
                while True:
                    answers.append(self._socket.recv(65536))
        except OSError as error:
            raise explained(error.errno or 0) from None
        if not answers:
            raise FirewallError(NO_TABLES)
        for answer in answers:
            if HEADER.unpack_from(answer)[1] == ERROR and (code := -CODE.unpack_from(answer, HEADER.size)[0]):
                raise explained(code)
        return answers[0][HEADER.size :]


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, filled up to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _element(member: Key, seconds: float | None) -> bytes:
    """An element of a set: its key, each part of it filled up to four bytes, and its timeout in milliseconds."""
    mac, address = member
    key = mac + bytes(2) + address.to_bytes(4, "big")
    body = attribute(1 | _NESTED, attribute(1, key))
    if seconds is not None:
        body += attribute(4, max(1, int(seconds * 1000)).to_bytes(8, "big"))
    return attribute(1 | _NESTED, body)


def explained(code: int) -> FirewallError:
    """What an error number of the kernel means here."""
    if code in (EINVAL, EOPNOTSUPP):
        return FirewallError(NO_TABLES)
    if code == EPERM:
        return FirewallError(NO_PERMISSION)
    if code == ENOENT:
        return FirewallError("the firewall table or one of its sets is gone: it is set up again with the next check")
    return FirewallError(f"nftables refused a change: {os.strerror(code)}")
