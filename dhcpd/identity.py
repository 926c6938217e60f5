"""Whom a lease belongs to: the key of a node in the lease book, and its reservation.

A key starts with an odd byte unless it is a plain Ethernet address: the lowest bit of such an address's first byte
marks a group (IEEE 802), which no client is, so keys of different kinds never meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dhcpd import opt
from dhcpd.leases import Columns
from dhcpd.settings import Reservation
from dhcpd.wire import ETHERNET

BY_ADDRESS, BY_CONTAINER, BY_CLIENT_ID, BY_HARDWARE = b"a", b"c", b"i", b"m"


def container_key(name: str) -> bytes:
    """The key of the container of that name (or of that label ``lanward.identity``)."""
    return BY_CONTAINER + name.encode()


def container_of(key: bytes) -> str | None:
    """The name of the container whose key it is, None when it is a device's."""
    return key[1:].decode(errors="replace") if key[:1] == BY_CONTAINER else None


def device_key(htype: int, mac: bytes, client_id: bytes) -> bytes:
    """The key of a device: its client identifier when it has one (RFC 2131 section 4.2), else its hardware address."""
    if client_id:
        return BY_CLIENT_ID + client_id
    if htype == ETHERNET and len(mac) == 6:
        return mac
    return BY_HARDWARE + bytes((htype,)) + mac


def reserved_key(address: int) -> bytes:
    """The key of all who may have a reserved address."""
    return BY_ADDRESS + address.to_bytes(4, "big")


class Node(NamedTuple):
    """The client of one message."""

    mac: bytes
    owner: bytes
    """Its key in the lease book."""
    reservation: Reservation | None
    key: bytes
    """Its own key, which differs from ``owner`` when it has a reserved address."""


class Directory:
    """The reservations of one VLAN, found by what a node shows of itself."""

    def __init__(self, reservations: Iterable[Reservation], match_client_id: bool) -> None:
        self.reservations = tuple(reservations)
        self._match_client_id = match_client_id
        self._by_mac = {mac: one for one in self.reservations for mac in one.macs}
        self._by_client_id = {one.client_id: one for one in self.reservations if one.client_id}
        self._by_container = {container_key(one.container): one for one in self.reservations if one.container}
        self.by_address = {one.address: one for one in self.reservations if one.address is not None}

    def identify(self, htype: int, mac: bytes, client_id: bytes) -> Node:
        """A device. A reserved address is the key of all who may have it: each MAC of a list, and every client
        identifier that one MAC sends while it boots in stages. A device without a hardware address (RFC 4390) is always
        known by its identifier."""
        key = device_key(htype, mac, client_id if self._match_client_id or not mac else b"")
        if not self.reservations:
            return Node(mac, key, None, key)
        reservation = self._by_mac.get(mac) or self._by_client_id.get(client_id)
        if reservation is None or reservation.address is None:
            return Node(mac, key, reservation, key)
        return Node(mac, reserved_key(reservation.address), reservation, key)

    def owner_of(self, row: Columns) -> bytes:
        """The key under which the book has a stored row, as the reservations are now."""
        _, _, client, mac, client_id, _, _, _ = row
        if client == mac and not client_id and mac not in self._by_mac:
            return client
        if (container := container_of(client)) is not None:
            return self.identify_container(container).owner
        htype = client[1] if client[:1] == BY_HARDWARE else ETHERNET
        return self.identify(htype, mac, client_id).owner

    def identify_container(self, name: str) -> Node:
        """A container, which has no hardware address of its own."""
        key = container_key(name)
        reservation = self._by_container.get(key)
        reserved = None if reservation is None else reservation.address
        return Node(b"", key if reserved is None else reserved_key(reserved), reservation, key)


_E = 4
_MAX_LABEL, _MAX_NAME = 63, 255
_HOST_NAME_BYTES = bytes(
    code if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "-._") else ord("-") for code in range(256)
)


def host_name(options: dict[int, bytes]) -> str:
    """The client's name by option 12, or 81 (RFC 4702), with every byte that no host name has replaced by ``-``."""
    name = _plain(options[opt.HOST_NAME]) if opt.HOST_NAME in options else ""
    return _plain(_domain_name(options[opt.FQDN])) if not name and opt.FQDN in options else name


def _domain_name(fqdn: bytes) -> bytes:
    """Of option 81: in ASCII, or as the labels of DNS when bit E is set (RFC 4702 section 2.3.1)."""
    if not fqdn or not fqdn[0] & _E:
        return fqdn[3:]
    labels, rest = [], fqdn[3 : 3 + _MAX_NAME]
    while rest and 0 < (size := rest[0]) <= _MAX_LABEL:
        labels.append(rest[1 : size + 1])
        rest = rest[size + 1 :]
    return b".".join(labels)


def _plain(name: bytes) -> str:
    return name[:63].translate(_HOST_NAME_BYTES).strip(b"-.").decode("ascii")
