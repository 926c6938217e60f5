"""The connections that the kernel tracks, and an end for those that the rules have no place for any more.

The rules look at a connection when it begins: what is established passes, and goes on to where it was first sent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from typing import NamedTuple

from leasebroker import netlink
from router.nfnetlink import FAMILY, NETFILTER, explained
from router.settings import Ports, Publish

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_IPV4 = FAMILY.pack(socket.AF_INET, 0, 0)
_ORIGINAL, _REPLY, _STATUS, _ID, _ZONE = 1, 2, 3, 12, 18
_IP, _PROTOCOL = 1, 2
_SOURCE = 1
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_IS_PUBLISHED = 1 << 5
"""``IPS_DST_NAT``"""
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


class Connection(NamedTuple):
    """An IPv4 connection. Ports are 0 where its protocol has none."""

    protocol: str
    source: int
    """Who began it."""
    port: int
    """The one that was asked, which is not that of the node when it is published as another."""
    target: int
    """Who answers."""
    target_port: int
    is_published: bool
    """Whether it was asked of another address than the one that answers."""


class Landing(NamedTuple):
    """Where a ``[[publish]]`` leads now."""

    ports: Ports
    address: int
    to_port: int

    def has(self, one: Connection) -> bool:
        """Whether it is this that sent the connection where it goes."""
        offset = one.port - self.ports.first
        return (
            one.is_published
            and one.protocol == self.ports.protocol
            and 0 <= offset <= self.ports.last - self.ports.first
            and (one.target, one.target_port) == (self.address, self.to_port + offset)
        )


def landings(published: Iterable[Publish]) -> frozenset[Landing]:
    """Where connections are sent; a node without an address gets none."""
    placed = ((one, one.target.address) for one in published)
    return frozenset(Landing(one.ports, address, one.to_port) for one, address in placed if address is not None)


def has_moved(before: frozenset[Landing], now: frozenset[Landing], one: Connection) -> bool:
    """Whether a connection was sent where the same one would not be sent any more."""
    return any(old.has(one) for old in before - now) and not any(new.has(one) for new in now)


def trespasses(subnets: Sequence[IPv4Network], one: Connection) -> bool:
    """Whether a connection ends in a VLAN and did not begin there, nor by a ``[[publish]]``: only an ``[[allow]]`` lets
    it through, and if one does it is tracked anew with its next packet."""
    ends = next((net for net in subnets if _is_in(net, one.target)), None)
    return ends is not None and not one.is_published and not _is_in(ends, one.source)


def _is_in(network: IPv4Network, address: int) -> bool:
    return address & int(network.netmask) == int(network.network_address)


def end(is_over: Callable[[Connection], bool]) -> int:
    """End connections in the network namespace of the calling thread; how many there were. What their nodes send next
    begins a new one, or nothing. Blocks for some 12 ms for each 1,000 connections there are. Raises `FirewallError`."""
    try:
        with netlink.open_socket(NETFILTER) as kernel:
            over = [entry for entry, one in _connections(kernel) if is_over(one)]
            return sum(_forget(kernel, entry) for entry in over)
    except OSError as error:
        raise explained(error.errno or 0) from None


def _connections(kernel: socket.socket) -> Iterator[tuple[bytes, Connection]]:
    """All there are, each with its entry in the kernel's table."""
    for body in netlink.dump(kernel, _SUBSYSTEM | _GET, _IPV4):
        entry = body[FAMILY.size :]
        found = connection(netlink.attributes(entry, last=_STATUS))
        if found is not None:
            yield entry, found


def connection(attributes: Mapping[int, bytes]) -> Connection | None:
    """What the kernel's attributes of a connection say; None for what is not IPv4."""
    asked, answers = (netlink.attributes(attributes.get(one, b"")) for one in (_ORIGINAL, _REPLY))
    source, target = _source(asked), _source(answers)
    if not source or not target:
        return None
    began, answered = (netlink.attributes(one.get(_PROTOCOL, b"")) for one in (asked, answers))
    number = _number(began, _NUMBER)
    status = _number(attributes, _STATUS)
    ports = (_number(began, _TARGET_PORT), _number(answered, _SOURCE_PORT))
    return Connection(
        _PROTOCOLS.get(number, str(number)), source, ports[0], target, ports[1], bool(status & _IS_PUBLISHED)
    )


def _source(side: netlink.Attributes) -> int:
    return _number(netlink.attributes(side.get(_IP, b"")), _SOURCE)


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), "big")


def _forget(kernel: socket.socket, entry: bytes) -> bool:
    """False when it has ended by itself."""
    found = netlink.attributes(entry)
    named = (kind for kind in (_ORIGINAL, _ZONE, _ID) if kind in found)
    handle = (netlink.attribute(kind | (netlink.NESTED if kind == _ORIGINAL else 0), found[kind]) for kind in named)
    with suppress(FileNotFoundError):
        netlink.ask(kernel, _SUBSYSTEM | _DELETE, _IPV4 + b"".join(handle))
        return True
    return False
