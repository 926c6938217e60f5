"""The lease broker in the service: there when a VLAN has a Docker network, loaded only then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhcpd.decision import Note
from dhcpd.histogram import Histogram
from dhcpd.pool import dotted
from dhcpd.server import Host
from leasebroker.source import Source
from router import late
from router.settings import Config, Vlan
from router.times import iso_millis, iso_time

if TYPE_CHECKING:
    from leasebroker.broker import Broker
    from leasebroker.client import ExternalVlan
    from leasebroker.known import Leg, Record
    from leasebroker.plan import View
    from leasebroker.wire import Frames

FIRST_LOOK_SECONDS = 10.0
"""After so long the service is ready without having seen all containers."""
_INTERFACE_MTU = 26
_KINDS: dict[str, tuple[str, ...]] = {
    "container_without_lease": (), "container": ("container ",), "network": ("network ",), "netns": ("netns",),
    "adoption": ("adopt", "healed "), "docker": ("engine",),
}  # fmt: skip
"""The kinds of `router.warnings` -> how the keys of `leasebroker.known.Known.warnings` begin."""


class Containers:
    """The broker of a configuration, if there is one. It takes 11 MiB and 0.1 s to load, on another thread."""

    def __init__(self, state: Path, source: Source, log: Callable[[Note], None]) -> None:
        self._state = state
        self._source = source
        self._log = log
        self._broker: Broker | None = None
        self._docker: tuple[str, str] | None = None
        self._frames: Frames | None = None
        self._turn = asyncio.Lock()
        """One configuration is followed after the other."""

    async def start(self, config: Config, host: Host) -> None:
        """Begin, and return when all containers were looked at once, or the engine is not there."""
        async with self._turn:
            await self._start(config, host)

    async def _start(self, config: Config, host: Host) -> None:
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
        async with self._turn:
            same = self._docker == (config.docker.socket, config.docker.netns)
            if self._broker is not None and same and any(vlan.network for vlan in config.vlans):
                await self._serve_externals(config, host)
                self._broker.reload(legs(config), adopt=config.docker.adopt)
                return
            await self.close()
            await self._start(config, host)

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
            "connected": self._broker.first_look.is_set() and "engine" not in known.warnings,
            "pins": dict(known.counts),
            "looked": None if known.looked_at is None else iso_time(known.looked_at),
            "warnings": list(known.warnings.values()),
            "external": {name: one.status() for name, one in self._source.externals.items()},
            "containers": self.list(),
        }

    def records(self) -> list[Record]:
        """What is known of each container on each VLAN."""
        return [] if self._broker is None else list(self._broker.known.records.values())

    async def facts(self, record: Record) -> dict[str, Any]:
        """What the engine said last of a container (``docker``) and what its namespace shows now (``namespace``), each
        with the time in ``at``; None where there is nothing."""
        if self._broker is None:
            return {"docker": None, "namespace": None}
        known = self._broker.known
        container = known.containers.get(record.container)
        end = None if container is None else container.endpoints.get(record.leg.network)
        docker = None
        if end is not None:
            at = known.seen_at.get(record.container, 0.0)
            docker = {
                "address": _dotted(end.address), "requested": _dotted(end.requested), "mac": end.mac.hex(":") or None,
                "at": iso_time(at),
            }  # fmt: skip
        view = await self._broker.look_into(record.container)
        return {"docker": docker, "namespace": None if view is None else _namespace(view, record)}

    @property
    def looked_at(self) -> float | None:
        """When all containers were looked at last, wall clock time."""
        return None if self._broker is None else self._broker.known.looked_at

    @property
    def pin_seconds(self) -> Histogram:
        return Histogram() if self._broker is None else self._broker.known.pin_seconds

    def troubles(self) -> dict[str, dict[str, str]]:
        """What is wrong at the moment, by the kinds of `router.warnings` and by subject."""
        found: dict[str, dict[str, str]] = {kind: {} for kind in _KINDS}
        if self._broker is None:
            return found
        known = self._broker.known
        without = {one.title for one in known.records.values() if one.address is None}
        for key, text in known.warnings.items():
            kind = next((kind for kind, start in _KINDS.items() if key.startswith(start)), "docker")
            if kind == "container" and key in without:
                kind = "container_without_lease"
            found[kind][key.partition(" ")[2] or key] = text
        return found

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
        "pinned": None if pinned is None else iso_millis(pinned),
        "path": one.path,
        "problems": list(one.problems),
    }


def _dotted(address: int) -> str | None:
    return dotted(address) if address else None


def _namespace(view: View, record: Record) -> dict[str, Any] | None:
    """The link of one VLAN in a namespace, None when there is none with the lease's MAC."""
    link = next((one for one in view.links if one.mac == record.mac), None)
    if link is None:
        return None
    addresses = [one for one in view.addresses if one.ifindex == link.ifindex]
    route = view.detour or next(iter(view.defaults), None)
    names = {one.ifindex: one.name for one in view.links}
    return {
        "interface": link.name,
        "mac": link.mac.hex(":"),
        "mtu": link.mtu,
        "addresses": [f"{dotted(one.address)}/{one.prefix}" for one in addresses],
        "default_route": None if route is None else {
            "gateway": _dotted(route.gateway),
            "interface": names.get(route.ifindex),
            "source": _dotted(route.source),
        },
        "at": iso_time(time.time()),
    }  # fmt: skip
