"""The lease broker in the service: there when a VLAN has a Docker network, loaded only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhcpd.decision import Note
from dhcpd.pool import dotted
from dhcpd.server import Host
from leasebroker.source import Source
from router import late
from router.settings import Config, Vlan

if TYPE_CHECKING:
    from leasebroker.broker import Broker
    from leasebroker.client import ExternalVlan
    from leasebroker.known import Leg, Record
    from leasebroker.wire import Frames

FIRST_LOOK_SECONDS = 10.0
"""After so long the service is ready without having seen all containers."""
_INTERFACE_MTU = 26


class Containers:
    """The broker of a configuration, if there is one. It takes 25 MiB and 0.2 s to load, on another thread."""

    def __init__(self, state: Path, source: Source, log: Callable[[Note], None]) -> None:
        self._state = state
        self._source = source
        self._log = log
        self._broker: Broker | None = None
        self._docker: tuple[str, str] | None = None
        self._frames: Frames | None = None

    async def start(self, config: Config, host: Host) -> None:
        """Begin, and return when all containers were looked at once, or the engine is not there."""
        if not any(vlan.network for vlan in config.vlans):
            return
        module = await asyncio.to_thread(late, "leasebroker.broker")
        docker = config.docker
        self._docker = (docker.socket, docker.netns)
        self._broker = module.Broker(
            docker.socket, Path(docker.netns), self._source, self._state, self._log, adopt=docker.adopt
        )
        await self._serve_externals(config, host)
        self._broker.start(legs(config))
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._broker.first_look.wait()

    async def reload(self, config: Config, host: Host) -> None:
        """Follow a new configuration."""
        same = self._docker == (config.docker.socket, config.docker.netns)
        if self._broker is not None and same and any(vlan.network for vlan in config.vlans):
            await self._serve_externals(config, host)
            self._broker.reload(legs(config), adopt=config.docker.adopt)
            return
        await self.close()
        await self.start(config, host)

    async def close(self) -> None:
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.close()
        for external in self._source.externals.values():
            external.close()
        self._source.externals.clear()

    async def _serve_externals(self, config: Config, host: Host) -> None:
        """Be the DHCP client of the containers on the VLANs that another server serves; scapy is loaded only for these.

        A VLAN of which nothing has changed keeps its client.
        """
        wanted = [vlan for vlan in config.vlans if vlan.network and vlan.scope.is_external]
        running = self._source.externals
        if not wanted and not running:
            return
        await asyncio.to_thread(late, "leasebroker.external")
        from leasebroker.external import External  # noqa: PLC0415 - loaded where there is one
        from leasebroker.files import read_site  # noqa: PLC0415
        from leasebroker.wire import load_frames  # noqa: PLC0415

        vlans = {vlan.scope.name: _external(vlan, read_site(self._state)) for vlan in wanted}
        for name in [name for name, one in running.items() if vlans.get(name) != one.vlan]:
            running.pop(name).close()
        self._frames = self._frames or await load_frames()
        for name, vlan in vlans.items():
            server = self._source.server(name)
            if name not in running and self._broker is not None and server is not None:
                running[name] = External(vlan, server, host, self._frames, self._broker.lease_changed)

    def status(self) -> dict[str, Any] | None:
        """What ``GET /status`` shows; None when no VLAN has a Docker network."""
        if self._broker is None:
            return None
        known = self._broker.known
        return {
            "connected": "engine" not in known.warnings,
            "pins": dict(known.counts),
            "warnings": list(known.warnings.values()),
            "external": {name: one.status() for name, one in self._source.externals.items()},
            "containers": self.list(),
        }

    def list(self) -> list[dict[str, Any]]:
        """What ``GET /containers`` answers."""
        found = [] if self._broker is None else self._broker.known.records.values()
        return [_shown(one) for one in sorted(found, key=lambda one: (one.leg.vlan, one.name))]


def legs(config: Config) -> list[Leg]:
    """The VLANs with containers, in the order of the file."""
    from leasebroker.known import Leg  # noqa: PLC0415 - loaded by `Containers.start`

    return [
        Leg(
            vlan.scope.name,
            vlan.network,
            vlan.scope.subnet,
            vlan.scope.router,
            vlan.landing,
            int.from_bytes(vlan.scope.options.get(_INTERFACE_MTU, b""), "big"),
            vlan.scope.is_external,
        )
        for vlan in config.vlans
        if vlan.network
    ]


def _external(vlan: Vlan, site: str) -> ExternalVlan:
    from leasebroker.client import ExternalVlan  # noqa: PLC0415 - loaded where there is one

    scope = vlan.scope
    avoid = () if scope.landing is None else (scope.landing,)
    return ExternalVlan(scope.name, vlan.network or "", scope.subnet, scope.router, avoid, site)


def _shown(one: Record) -> dict[str, Any]:
    pinned = one.pinned_at
    return {
        "vlan": one.leg.vlan,
        "network": one.leg.network,
        "container": one.name,
        "id": one.container[:12],
        "identity": one.identity,
        "state": one.state,
        "address": dotted(one.address) if one.address else None,
        "docker_address": dotted(one.docker) if one.docker else None,
        "mac": one.mac.hex(":") or None,
        "pinned": None if pinned is None else datetime.fromtimestamp(pinned, UTC).isoformat(timespec="milliseconds"),
        "path": one.path,
        "problems": list(one.problems),
    }
