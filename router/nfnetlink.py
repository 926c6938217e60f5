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

from leasebroker import netlink

Key = tuple[bytes, int]
"""MAC and address."""

NETFILTER = 12
"""The netlink protocol."""
_NFPROTO_INET = 1
_SUBSYSTEM = 10 << 8
_NEW_ELEMENTS, _DELETE_ELEMENTS, _GET_GENERATION = 12, 14, 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11

FAMILY = Struct("!BBH")
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
            self._socket = netlink.open_socket(NETFILTER)
            self._socket.setblocking(False)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def generation(self) -> int:
        """The number of the ruleset; every change of any table by anybody adds one."""
        body = self._ask([self._message(_SUBSYSTEM | _GET_GENERATION, 0, socket.AF_UNSPEC, 0)])
        return int.from_bytes(netlink.attributes(body, FAMILY.size)[1], "big")

    def change(self, table: str, name: str, add: Iterable[tuple[Key, float | None]], remove: Iterable[Key]) -> int:
        """Make ``add`` members of a set of MACs and addresses for so many seconds (None: for good), ``remove`` none.

        It does not matter which were members before. Returns the number of transactions: one for each `_CHUNK`.
        """
        changes = [(_element(*one), True) for one in add] + [(_element(one, None), False) for one in remove]
        chunks = [changes[start : start + _CHUNK] for start in range(0, len(changes), _CHUNK)]
        head = netlink.attribute(1, table.encode() + b"\0") + netlink.attribute(2, name.encode() + b"\0")
        for chunk in chunks:
            self._commit(head, b"".join(one for one, _ in chunk), b"".join(one for one, stays in chunk if stays))
        return len(chunks)

    def _commit(self, head: bytes, every: bytes, staying: bytes) -> None:
        """A member is added before it is deleted because there may be none, and deleted before it is added because
        adding does not change the time that is left."""
        steps = [
            (_NEW_ELEMENTS, netlink.CREATE, every),
            (_DELETE_ELEMENTS, 0, every),
            (_NEW_ELEMENTS, netlink.CREATE, staying),
        ]
        steps = [step for step in steps if step[2]]
        messages = [self._message(_BATCH_BEGIN, 0, socket.AF_UNSPEC, _SUBSYSTEM >> 8)]
        for index, (kind, flags, elements) in enumerate(steps, 1):
            wanted = netlink.ACK if index == len(steps) else 0
            body = head + netlink.attribute(3 | netlink.NESTED, elements)
            messages.append(self._message(_SUBSYSTEM | kind, flags | wanted, _NFPROTO_INET, 0, body))
        self._ask([*messages, self._message(_BATCH_END, 0, socket.AF_UNSPEC, _SUBSYSTEM >> 8)])

    def _message(self, kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
        return netlink.message(kind, flags, FAMILY.pack(family, 0, resource) + body, next(self._sequence))

    def _ask(self, messages: list[bytes]) -> bytes:
        """The first answer without its header; the first error is raised. The kernel has written all answers when
        sending returns."""
        if self._socket is None:
            raise FirewallError(NO_TABLES)
        received: list[bytes] = []
        try:
            self._socket.send(b"".join(messages))
            with suppress(BlockingIOError):
                while True:
                    received.append(self._socket.recv(netlink.MAX_ANSWER))
            answers = [body for one in received for _, body in netlink.answers(one)]
        except OSError as error:
            raise explained(error.errno or 0) from None
        if not answers:
            raise FirewallError(NO_TABLES)
        return answers[0]


def _element(member: Key, seconds: float | None) -> bytes:
    """An element of a set: its key, each part of it filled up to four bytes, and its timeout in milliseconds."""
    mac, address = member
    key = mac + bytes(2) + address.to_bytes(4, "big")
    body = netlink.attribute(1 | netlink.NESTED, netlink.attribute(1, key))
    if seconds is not None:
        body += netlink.attribute(4, max(1, int(seconds * 1000)).to_bytes(8, "big"))
    return netlink.attribute(1 | netlink.NESTED, body)


def explained(code: int) -> FirewallError:
    """What an error number of the kernel means here."""
    if code in (EINVAL, EOPNOTSUPP):
        return FirewallError(NO_TABLES)
    if code == EPERM:
        return FirewallError(NO_PERMISSION)
    if code == ENOENT:
        return FirewallError("the firewall table or one of its sets is gone: it is set up again with the next check")
    return FirewallError(f"nftables refused a change: {os.strerror(code)}")
