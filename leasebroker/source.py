"""Where a container's lease comes from: the VLAN's own server, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dhcpd.server import Server


class Source(Protocol):
    """What the broker asks for leases."""

    async def lease(self, vlan: str, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """The container's address, on disk before it is returned; None when there is none for it."""

    def is_anothers(self, vlan: str, identity: str, address: int) -> bool:
        """Whether an address is leased to, or reserved for, somebody else."""


class OwnServers:
    """The servers that serve the devices. ``servers`` gives those that run now, by VLAN."""

    def __init__(self, servers: Callable[[], Mapping[str, Server]]) -> None:
        self._servers = servers

    async def lease(self, vlan: str, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        server = self._servers().get(vlan)
        return None if server is None else await server.lease_container(identity, mac, hostname, wanted)

    def is_anothers(self, vlan: str, identity: str, address: int) -> bool:
        server = self._servers().get(vlan)
        return server is not None and server.engine.is_anothers(identity, address)
