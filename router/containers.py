"""The lease broker in the service: there when a VLAN has a Docker network, loaded only then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhcpd.decision import Note
from dhcpd.pool import dotted
from leasebroker.source import Source
from router.settings import Config

if TYPE_CHECKING:
    from leasebroker.broker import Broker
    from leasebroker.known import Leg, Record

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

    async def start(self, config: Config) -> None:
        """Begin, and return when all containers were looked at once, or the engine is not there."""
        if not any(vlan.network for vlan in config.vlans):
            return
        if sys.modules.get("ssl", self) is None:
            del sys.modules["ssl"]  # which the command keeps out; pyroute2 wants it
        module = await asyncio.to_thread(import_module, "leasebroker.broker")
        docker = config.docker
        self._docker = (docker.socket, docker.netns)
        self._broker = module.Broker(
            docker.socket, Path(docker.netns), self._source, self._state, self._log, adopt=docker.adopt
        )
        self._broker.start(legs(config))
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._broker.first_look.wait()

    async def reload(self, config: Config) -> None:
        """Follow a new configuration."""
        same = self._docker == (config.docker.socket, config.docker.netns)
        if self._broker is not None and same and any(vlan.network for vlan in config.vlans):
            self._broker.reload(legs(config), adopt=config.docker.adopt)
            return
        await self.close()
        await self.start(config)

    async def close(self) -> None:
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.close()

    def status(self) -> dict[str, Any] | None:
        """What ``GET /status`` shows; None when no VLAN has a Docker network."""
        if self._broker is None:
            return None
        known = self._broker.known
        return {
            "connected": "engine" not in known.warnings,
            "pins": dict(known.counts),
            "warnings": list(known.warnings.values()),
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
        )
        for vlan in config.vlans
        if vlan.network
    ]


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
