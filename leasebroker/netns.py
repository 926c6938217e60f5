"""Inside a container's network namespace: what the kernel shows there, and changes to it.

`look` and `apply` enter the namespace with the calling thread: they are for a thread of their own, not for the event
loop's.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, singledispatch
from ipaddress import IPv4Network
from pathlib import Path
from struct import Struct
from threading import Thread
from typing import Literal

from dhcpd.wire import arp_announcement
from leasebroker import netlink
from leasebroker.plan import (
    AddAddress,
    Address,
    Announce,
    Link,
    Operation,
    Promote,
    RemoveAddress,
    RemoveDetour,
    Route,
    SetDefault,
    SetDetour,
    SetMac,
    SetMtu,
    View,
)

_CLONE_NEWNET = 0x40000000
_IN_CREATE, _IN_DELETE, _IN_MOVED = 0x100, 0x200, 0xC0
_RTMGRP = 0x1 | 0x10 | 0x40
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV4_ROUTE."""
_MAIN_TABLE, _UNICAST, _DHCP, _LINK_SCOPE, _ANY_SCOPE = 254, 1, 16, 253, 255
_DETOUR_TABLE = 0x6C77
_GET_LINK, _SET_LINK = 18, 19
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_LINK, _ADDRESS, _ROUTE = Struct("=BxxxiI4x"), Struct("=BBxxI"), Struct("=BB3xBBB4x")
"""``ifinfomsg``: family, index, flags. ``ifaddrmsg``: family, prefix, index. ``rtmsg``: family, length of the target's
prefix, protocol, scope, type; and ``fib_rule_hdr``: family, 0, 0, 0, action."""
_U32 = Struct("=I")
_LINK_MAC, _LINK_NAME, _LINK_MTU, _LINK_ALIAS, _IS_UP = 1, 3, 4, 20, 1
_ADDRESS_PEER, _ADDRESS_LOCAL, _ADDRESS_LABEL, _ADDRESS_BROADCAST = 1, 2, 3, 4
_ROUTE_TARGET, _ROUTE_LINK, _ROUTE_GATEWAY, _ROUTE_METRIC, _ROUTE_SOURCE, _ROUTE_TABLE = 1, 4, 5, 6, 7, 15
_RULE_PRIORITY, _RULE_SUPPRESS, _TO_TABLE = 6, 14, 1
_AF_SPEC, _INET_CONF, _PROMOTE_SECONDARIES = 26, 1, 20
_IPV4 = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0)


def _u32(kind: int, number: int) -> bytes:
    return netlink.attribute(kind, _U32.pack(number))


_RULE = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TO_TABLE)
_DETOUR_RULES = {
    30_000: _RULE + _u32(_RULE_PRIORITY, 30_000) + _u32(_ROUTE_TABLE, _MAIN_TABLE) + _u32(_RULE_SUPPRESS, 0),
    30_001: _RULE + _u32(_RULE_PRIORITY, 30_001) + _u32(_ROUTE_TABLE, _DETOUR_TABLE),
}
"""By priority. What is more than a default route in the main table goes first, then our table's, then the main table's
own."""
_OWN_HOSTNAME = re.compile(r"/containers/([0-9a-f]{64})/hostname /etc/hostname ")
_WAS = "lanward, was "
"""The alias of a leg whose MAC we replaced, with the one by which Docker knows it."""
_ARP = 0x0806

_libc = ctypes.CDLL(None, use_errno=True)


class GoneError(Exception):
    """The namespace, or what was to be changed in it, is not there any more."""


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """The calling thread is in the namespace during the block. Raises `GoneError` when it is none. Its own it does not
    enter: for that too the kernel wants SYS_ADMIN, without which the router can still take its addresses."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(descriptor), os.fstat(home)):
            yield
            return
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise GoneError(os.strerror(ctypes.get_errno()))
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # a thread lost in a container's namespace would serve the wrong network
    finally:
        os.close(home)


class Space:
    """An open namespace. ``changes`` becomes readable when its links, addresses or routes change: see `drain`."""

    def __init__(self, path: Path) -> None:
        """Raises `GoneError` when there is no namespace at that path (yet)."""
        self.name = path.name
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GoneError(str(error)) from None
        try:
            with inside(self.descriptor):
                self.changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                self.changes.bind((0, _RTMGRP))
        except BaseException:
            os.close(self.descriptor)
            raise

    def drain(self) -> None:
        """Take what says that there are changes; what they are is to be looked at."""
        try:
            while True:
                self.changes.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: some were lost, which says as much
            return

    def close(self) -> None:
        self.changes.close()
        os.close(self.descriptor)


# -- observe


def look(descriptor: int) -> View:
    """What the kernel shows in the namespace. Raises `GoneError`."""
    with inside(descriptor), netlink.open_socket() as kernel:
        links = tuple(link for link, _ in _links(kernel))
        addresses = tuple(map(_address, netlink.dump(kernel, _GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0))))
        routes = [_route(one) for one in netlink.dump(kernel, _GET_ROUTE, _IPV4) if _is_default(one)]
        rules = {_priority(one) for one in netlink.dump(kernel, _GET_RULE, _IPV4)}
    defaults = tuple(one for table, one in routes if table == _MAIN_TABLE)
    detours = [one for table, one in routes if table == _DETOUR_TABLE]
    detour = detours[0] if detours and _DETOUR_RULES.keys() <= rules else None
    return View(links, addresses, defaults, detour, bool(detours or _DETOUR_RULES.keys() & rules))


def own_macs() -> set[bytes]:
    """The MACs of the interfaces in the calling thread's namespace, and those that they had before `SetMac`."""
    with netlink.open_socket() as kernel:
        found = list(_links(kernel))
    macs = {link.mac for link, _ in found}
    macs |= {bytes.fromhex(alias.removeprefix(_WAS).replace(":", "")) for _, alias in found if alias.startswith(_WAS)}
    return {mac for mac in macs if any(mac)}


@cache
def own_id() -> str | None:
    """The id of the container that this process is in, None in none. While that starts, the engine does not show its
    MACs on all its networks."""
    found = _OWN_HOSTNAME.search(Path("/proc/self/mountinfo").read_text())
    return found[1] if found else None


def _links(kernel: socket.socket) -> Iterator[tuple[Link, str]]:
    """Those with a hardware address, each with its alias."""
    for body in netlink.dump(kernel, _GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0)):
        _, ifindex, flags = _LINK.unpack_from(body)
        found = netlink.attributes(body, _LINK.size)
        if mac := found.get(_LINK_MAC):
            inet = netlink.attributes(netlink.attributes(found.get(_AF_SPEC, b"")).get(socket.AF_INET, b""))
            promotes = inet.get(_INET_CONF, b"")[4 * (_PROMOTE_SECONDARIES - 1) : 4 * _PROMOTE_SECONDARIES]
            name, mtu = _text(found, _LINK_NAME), _number(found, _LINK_MTU)
            yield Link(ifindex, name, mac, mtu, bool(flags & _IS_UP), any(promotes)), _text(found, _LINK_ALIAS)


def _address(body: bytes) -> Address:
    _, prefix, ifindex = _ADDRESS.unpack_from(body)
    found = netlink.attributes(body, _ADDRESS.size)
    address = _number(found, _ADDRESS_LOCAL, "big") or _number(found, _ADDRESS_PEER, "big")
    return Address(ifindex, address, prefix, _text(found, _ADDRESS_LABEL))


def _is_default(body: bytes) -> bool:
    _, length, _, _, kind = _ROUTE.unpack_from(body)
    return not length and kind == _UNICAST


def _route(body: bytes) -> tuple[int, Route]:
    """Its table, and what it says."""
    found = netlink.attributes(body, _ROUTE.size)
    gateway, source = (_number(found, one, "big") for one in (_ROUTE_GATEWAY, _ROUTE_SOURCE))
    route = Route(_number(found, _ROUTE_LINK), gateway, source, _number(found, _ROUTE_METRIC))
    return _number(found, _ROUTE_TABLE), route


def _priority(body: bytes) -> int:
    return _number(netlink.attributes(body, _ROUTE.size), _RULE_PRIORITY)


def _number(found: netlink.Attributes, kind: int, order: Literal["little", "big"] = sys.byteorder) -> int:
    """0 when it is not there."""
    return int.from_bytes(found.get(kind, b""), order)


def _text(found: netlink.Attributes, kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")


# -- change


def apply(descriptor: int, operations: Iterable[Operation]) -> None:
    """Carry out the operations in their order. Raises `GoneError` at the first whose link or namespace went away."""
    with inside(descriptor), netlink.open_socket() as kernel:
        for operation in operations:
            try:
                _do(operation, kernel)
            except OSError as error:
                raise GoneError(f"{operation}: {error}") from None


@singledispatch
def _do(operation: Operation, kernel: socket.socket) -> None:
    raise NotImplementedError(operation)


@_do.register
def _(operation: SetMtu, kernel: socket.socket) -> None:
    _set_link(kernel, operation.ifindex, _LINK_MTU, _U32.pack(operation.mtu))


@_do.register
def _(operation: SetMac, kernel: socket.socket) -> None:
    _set_link(kernel, operation.ifindex, _LINK_ALIAS, f"{_WAS}{operation.before.hex(':')}".encode())
    _set_link(kernel, operation.ifindex, _LINK_MAC, operation.mac)


@_do.register
def _(operation: Promote, kernel: socket.socket) -> None:
    _set_conf(kernel, operation.ifindex, _PROMOTE_SECONDARIES, 1)


def set_conf(ifindex: int, number: int, value: int) -> None:
    """Set one of an interface's IPv4 settings by its number (``IPV4_DEVCONF_...``): by netlink, since /proc/sys is
    read-only in a container. Raises OSError."""
    with netlink.open_socket() as kernel:
        _set_conf(kernel, ifindex, number, value)


def _set_conf(kernel: socket.socket, ifindex: int, number: int, value: int) -> None:
    setting = netlink.attribute(_INET_CONF | netlink.NESTED, _u32(number, value))
    inet = netlink.attribute(socket.AF_INET | netlink.NESTED, setting)
    _set_link(kernel, ifindex, _AF_SPEC | netlink.NESTED, inet)


def _set_link(kernel: socket.socket, ifindex: int, kind: int, value: bytes) -> None:
    netlink.ask(kernel, _SET_LINK, _LINK.pack(socket.AF_UNSPEC, ifindex, 0) + netlink.attribute(kind, value))


@_do.register
def _(operation: AddAddress, kernel: socket.socket) -> None:
    one = operation.address
    mask = (1 << (32 - one.prefix)) - 1
    broadcast = netlink.attribute(_ADDRESS_BROADCAST, (one.address | mask).to_bytes(4, "big"))
    label = netlink.attribute(_ADDRESS_LABEL, one.label.encode() + b"\0")
    netlink.ask(kernel, _NEW_ADDRESS, _address_message(one) + broadcast + label, netlink.CREATE | netlink.REPLACE)


def _address_message(one: Address) -> bytes:
    address = one.address.to_bytes(4, "big")
    both = netlink.attribute(_ADDRESS_LOCAL, address) + netlink.attribute(_ADDRESS_PEER, address)
    return _ADDRESS.pack(socket.AF_INET, one.prefix, one.ifindex) + both


@_do.register
def _(operation: RemoveAddress, kernel: socket.socket) -> None:
    """While the kernel promotes the next address, the subnet has no route for a moment, and an engine that looks for
    the gateway then fails the container's start: a route of ours stands in."""
    one = operation.address
    subnet = IPv4Network((one.address, one.prefix), strict=False)
    stand_in = _ROUTE.pack(socket.AF_INET, one.prefix, _DHCP, _LINK_SCOPE, _UNICAST)
    stand_in += netlink.attribute(_ROUTE_TARGET, subnet.network_address.packed)
    stand_in += _u32(_ROUTE_LINK, one.ifindex) + _u32(_ROUTE_TABLE, _MAIN_TABLE)
    with suppress(OSError):  # it is there, left by a router that died here
        netlink.ask(kernel, _NEW_ROUTE, stand_in, netlink.CREATE | netlink.APPEND)
    try:
        netlink.ask(kernel, _DELETE_ADDRESS, _address_message(one))
    finally:
        with suppress(OSError):  # it went with the link's last address
            netlink.ask(kernel, _DELETE_ROUTE, stand_in)


@_do.register
def _(operation: SetDefault, kernel: socket.socket) -> None:
    _set_default(kernel, operation.route, _MAIN_TABLE)


@_do.register
def _(operation: SetDetour, kernel: socket.socket) -> None:
    _set_default(kernel, operation.route, _DETOUR_TABLE)
    for rule in _DETOUR_RULES.values():
        with suppress(FileExistsError):
            netlink.ask(kernel, _NEW_RULE, rule, netlink.CREATE | netlink.EXCLUSIVE)


@_do.register
def _(operation: RemoveDetour, kernel: socket.socket) -> None:  # noqa: ARG001
    for rule in reversed(_DETOUR_RULES.values()):
        with suppress(OSError):  # it is not there
            netlink.ask(kernel, _DELETE_RULE, rule)
    default = _ROUTE.pack(socket.AF_INET, 0, 0, _ANY_SCOPE, 0) + _u32(_ROUTE_TABLE, _DETOUR_TABLE)
    with suppress(ProcessLookupError):  # there is none any more
        while True:
            netlink.ask(kernel, _DELETE_ROUTE, default)


def _set_default(kernel: socket.socket, route: Route, table: int) -> None:
    numbers = ((_ROUTE_GATEWAY, route.gateway), (_ROUTE_SOURCE, route.source))
    body = _ROUTE.pack(socket.AF_INET, 0, _DHCP, 0, _UNICAST)
    body += b"".join(netlink.attribute(kind, value.to_bytes(4, "big")) for kind, value in numbers)
    body += _u32(_ROUTE_LINK, route.ifindex) + _u32(_ROUTE_TABLE, table)
    netlink.ask(kernel, _NEW_ROUTE, body, netlink.CREATE | netlink.REPLACE)


@_do.register
def _(operation: Announce, kernel: socket.socket) -> None:  # noqa: ARG001
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        one.sendto(arp_announcement(operation.mac, operation.address), (socket.if_indextoname(operation.ifindex), _ARP))
    finally:
        Thread(target=one.close).start()  # in which the kernel waits for its other processors, 10 ms and more


# -- the folder


class Folder:
    """The engine's folder of namespace files, watched. ``events`` becomes readable when a file comes or goes."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when there is no such folder. The engine makes it for its first container; it is made here so
        that this one is seen as well."""
        self.path = path
        if path.parent.is_dir():
            path.mkdir(exist_ok=True)
        self.events = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = _libc.inotify_add_watch(self.events, os.fsencode(path), _IN_CREATE | _IN_DELETE | _IN_MOVED)
        if self.events < 0 or watch < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(path))

    def names(self) -> set[str]:
        """The files that are there; what is no namespace `Space` refuses."""
        try:
            return {one.name for one in self.path.iterdir()}
        except OSError:
            return set()

    def drain(self) -> None:
        """Take what says that something came or went; `names` says what is there."""
        try:
            while os.read(self.events, 1 << 16):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        if self.events >= 0:
            os.close(self.events)
