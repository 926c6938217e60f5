"""Where a container's lease comes from: the VLAN's own server, in this process, or another one, by its client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from dhcpd.server import Server

if TYPE_CHECKING:
    from leasebroker.external import External


class Source:
    """What the broker asks for leases. ``servers`` gives those that run now, by VLAN."""

    def __init__(self, servers: Callable[[], Mapping[str, Server]]) -> None:
        self.externals: dict[str, External] = {}
        """The VLANs that another server serves and that have containers."""
        self._servers = servers

    def server(self, vlan: str) -> Server | None:
        return self._servers().get(vlan)

    async def lease(self, vlan: str, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """The container's address, on disk before it is returned; None when there is none for it, or none yet: another
        server's answer is not waited for."""
        if (external := self.externals.get(vlan)) is not None:
            return external.lease(identity, mac, hostname, wanted)
        server = self.server(vlan)
        if server is None or server.engine.scope.is_external:
            return None
        return await server.lease_container(identity, mac, hostname, wanted)

    async def obtain(self, vlan: str, identity: str) -> int | None:
        """`lease` for a container that may not exist yet, which another server is given the time to answer."""
        if (external := self.externals.get(vlan)) is not None:
            return await external.obtain(identity)
        return await self.lease(vlan, identity, b"", identity, None)

    def keep(self, vlan: str, identities: Collection[str]) -> None:
        """These are all the containers that there are on a VLAN: nobody else's lease is renewed."""
        if (external := self.externals.get(vlan)) is not None:
            external.keep(identities)

    def is_waiting(self, vlan: str, identity: str) -> bool:
        """Whether another server was asked for a lease, and may still answer soon."""
        external = self.externals.get(vlan)
        return external is not None and external.is_waiting(identity)

    def watch(self) -> None:
        """Follow the servers and their interfaces; to be called every second and after a reload."""
        servers = self._servers()
        for vlan, external in self.externals.items():
            if vlan in servers:
                external.watch(servers[vlan])

    def step(self, seconds: int) -> None:
        """The clock was set by so much."""
        for external in self.externals.values():
            external.step(seconds)

    def mtu(self, vlan: str, identity: str) -> int:
        """What another server says of the container's link (option 26), 0 for nothing."""
        external = self.externals.get(vlan)
        return 0 if external is None else external.mtu(identity)

    def is_anothers(self, vlan: str, identity: str, address: int) -> bool:
        """Whether an address is leased to, or reserved for, somebody else."""
        server = self.server(vlan)
        return server is not None and server.engine.is_anothers(identity, address)

    def is_reserved(self, vlan: str, identity: str, address: int | None) -> bool:
        """Whether the operator has written down an address for the container."""
        server = self.server(vlan)
        return server is not None and address is not None and server.engine.is_reserved(identity, address)
