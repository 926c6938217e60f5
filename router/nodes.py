"""Names of things in the configuration: nodes, ports, interfaces. Readers as in `dhcpd.values`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from dhcpd.pool import dotted
from dhcpd.settings import Scope
from dhcpd.values import shown, suggestion, text, whole
from router.plan import unusable
from router.settings import Kind, Node, Ports

_VLAN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_INTERFACE = re.compile(r"[^\s/:*;{}\"\\]{1,15}")
_PORTS = re.compile(r"(tcp|udp)/([0-9]{1,5})(?:-([0-9]{1,5}))?")
_RESERVED = {"router": Kind.ROUTER, "wan": Kind.WAN}


def vlan_name(value: object) -> str:
    if not isinstance(value, str) or not _VLAN.fullmatch(value):
        raise ValueError(f"expected up to 32 letters, digits, '_' or '-', a letter first, not {shown(value)}")
    if value in _RESERVED:
        raise ValueError(f"{value} has a meaning of its own, choose another name")
    return value


def node_name(value: object) -> str:
    """The name of a reservation, as it is written behind the ``/`` of a node."""
    if not isinstance(value, str) or not _NODE.fullmatch(value):
        raise ValueError(f"expected letters, digits, '_', '.' or '-', a letter or digit first, not {shown(value)}")
    return value


def interface(value: object) -> str:
    """A name that Linux takes for a network interface, and that means this one alone in the rules, too."""
    name = text(value)
    if not _INTERFACE.fullmatch(name) or name in (".", ".."):
        not_in = 'no blanks and none of / : * ; { } " \\'
        raise ValueError(f"expected an interface name of up to 15 characters, {not_in}, not {shown(value)}")
    return name


def port(value: object) -> int:
    return whole(1, 65535)(value)


def ports(value: object) -> Ports:
    """``"tcp/443"``, ``"udp/5000-5010"`` or ``"icmp"``."""
    if value == "icmp":
        return Ports("icmp")
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'expected ports such as "tcp/443", "udp/5000-5010" or "icmp", not {shown(value)}')
    first = port(int(match[2]))
    last = port(int(match[3] or match[2]))
    if last < first:
        raise ValueError(f"{value} ends before it starts")
    return Ports(match[1], first, last)


class Nodes:
    """Finds what a node's text stands for, given the VLANs of the file.

    ``names`` has the names of all VLANs, those with errors too; ``has_wan`` says whether there is an uplink.
    """

    def __init__(self, scopes: Iterable[Scope], names: Iterable[str], *, has_wan: bool) -> None:
        self._scopes = {scope.name: scope for scope in scopes}
        self._names = frozenset(names)
        self.has_wan = has_wan

    def node(self, value: object) -> Node:
        """The node; where one is that the file gives no address is known later."""
        written = text(value)
        if written in _RESERVED:
            return self._reserved(written)
        if re.fullmatch("[0-9.]+", written):
            return self._address(written)
        vlan, slash, name = written.partition("/")
        if vlan not in self._names:
            raise ValueError(f"no VLAN has the name {shown(vlan)}{suggestion(vlan, self._names)}")
        if not slash:
            return Node(Kind.VLAN, written, vlan)
        return Node(Kind.NODE, written, vlan, node_name(name), self._reservations(vlan).get(name))

    def vlan(self, value: object) -> Node:
        return self._only(value, "a VLAN", Kind.VLAN)

    def vlan_or_router(self, value: object) -> Node:
        return self._only(value, 'a VLAN or "router"', Kind.VLAN, Kind.ROUTER)

    def single(self, value: object) -> Node:
        node = self._only(value, 'one node such as "vlan1/device1" or "10.0.1.20"', Kind.NODE, Kind.ADDRESS)
        scope = self._scopes.get(node.vlan or "")
        if scope is not None and node.address is not None:
            if node.address == scope.router:
                raise ValueError(f"{node} is the router's address")
            if why := unusable(scope.subnet, node.address):
                raise ValueError(why)
        return node

    def _only(self, value: object, wanted: str, *kinds: Kind) -> Node:
        node = self.node(value)
        if node.kind not in kinds:
            raise ValueError(f"expected {wanted}, not {shown(value)}")
        return node

    def _reserved(self, written: str) -> Node:
        if written == "wan" and not self.has_wan:
            raise ValueError("there is no [wan] in this file")
        return Node(_RESERVED[written], written)

    def _address(self, written: str) -> Node:
        try:
            address = IPv4Address(written)
        except ValueError:
            raise ValueError(f"expected an IPv4 address such as 10.0.1.20, not {shown(written)}") from None
        vlan = next((name for name, scope in self._scopes.items() if address in scope.subnet), None)
        if vlan is None and len(self._scopes) == len(self._names):
            raise ValueError(f"{address} is in no VLAN of this file")
        return Node(Kind.ADDRESS, dotted(int(address)), vlan, address=int(address))

    def _reservations(self, vlan: str) -> Mapping[str, int | None]:
        scope = self._scopes.get(vlan)
        return {} if scope is None else {one.name: one.address for one in scope.reservations}
