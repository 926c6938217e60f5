"""What the DHCP client of a VLAN decides, as values: the closed set of effects that its shell carries out in order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from dhcpd.decision import Note
from dhcpd.leases import Row

__all__ = ["Bound", "Changed", "Commit", "Effect", "Lease", "Lost", "Note", "Send"]

INTERFACE_MTU = 26
_MIN_MTU = 68
"""RFC 2132 section 5.1."""


class Lease(NamedTuple):
    """A container's address. Times are whole service seconds; ``expires`` None means never."""

    address: int
    since: int
    expires: int | None
    server: int = 0
    """The server identifier, 0 for a lease from the store that no server has confirmed yet."""
    options: Mapping[int, bytes] = MappingProxyType({})
    """Those of `leasebroker.messages.REQUESTED` that the server sent, raw; none before it has confirmed."""

    @property
    def mtu(self) -> int | None:
        """What option 26 says, None when it says nothing sensible: the link stays as it is."""
        value = self.options.get(INTERFACE_MTU, b"")
        mtu = int.from_bytes(value, "big")
        return mtu if len(value) == 2 and mtu >= _MIN_MTU else None


class Send(NamedTuple):
    """A UDP payload to broadcast, from port 68 to port 67, in a frame from ``mac``."""

    payload: bytes
    mac: bytes


class Commit(NamedTuple):
    """Rows for the store. They come before the `Bound`, `Changed` or `Lost` that they are for."""

    rows: tuple[Row, ...]


class Bound(NamedTuple):
    """The container of that identity has a lease, and had none."""

    name: str
    lease: Lease


class Changed(NamedTuple):
    """The container has another address than before, or the same with another MTU."""

    name: str
    lease: Lease
    previous: Lease


class Lost(NamedTuple):
    """The container has no lease any more: its address may be another's."""

    name: str
    lease: Lease


Effect = Send | Commit | Bound | Changed | Lost | Note
