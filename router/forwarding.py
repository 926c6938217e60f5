"""What the router forwards: the firewall, the source guard and the broadcast relay, kept as the configuration says."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, NamedTuple

from dhcpd.decision import Note
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, Row
from dhcpd.link import default_interface
from dhcpd.pool import dotted
from dhcpd.server import Server
from router import conntrack, sysctls
from router.advice import warnings
from router.conntrack import Connection, Landing, has_moved, landings, trespasses
from router.firewall import Firewall, FirewallError, Member, has_flowtables
from router.nftables import Ruleset
from router.places import Name, Places, find, placed, unplaced
from router.relay import Leg, Relay
from router.rules import ruleset
from router.settings import Config

RETRY_SECONDS = 10.0
"""Between two attempts to apply rules that the kernel refused."""

Servers = Mapping[str, Server]


class Wiring(NamedTuple):
    """All that the rules depend on beside the configuration."""

    legs: dict[str, str]
    """The interface of each VLAN whose interface is there."""
    wan: str | None
    nodes: Mapping[Name, int]
    """The addresses of the nodes that the configuration names and does not locate."""
    indexes: dict[str, int]
    """The numbers of all these interfaces: one that went and came back is another."""


class Forwarding:
    """The kernel's rules for one thread's network namespace. They stay when the service ends.

    `check` raises `FirewallError`; all others log it, once for each cause, and try again later: devices get their
    addresses in any case, and nothing is forwarded that was not allowed before.
    """

    def __init__(self, log: Callable[[Note], None], uplink: Callable[[], str | None] = default_interface) -> None:
        """``uplink`` names the interface of the WAN where the configuration does not."""
        self.error: str | None = None
        self._log = log
        self._uplink = uplink
        self._firewall = Firewall()
        self._relay: Relay | None = None
        self._config: Config | None = None
        self._wiring: Wiring | None = None
        self._holders: dict[tuple[str, int], bytes] = {}
        self._landings: frozenset[Landing] = frozenset()
        self._guarded: set[str] = set()
        self._named: set[Name] = set()
        self._places = Places()
        self._retry_at = 0.0
        self._advice: list[str] = []
        self._settings: list[str] = []

    def check(self, config: Config, interfaces: Mapping[str, str], now: float) -> None:
        """Ask the kernel whether it would take the rules of a configuration."""
        wan = self._wan_interface(config, interfaces)
        wiring = Wiring(dict(interfaces), wan, {}, _indexes(interfaces, wan))
        self._firewall.check(_rules(config, wiring), now)
        if self._relay is not None:
            self._relay.check(config.broadcast, _relay_legs(config, wiring))

    def update(self, config: Config, servers: Servers, now: float, *, moved: bool = True) -> None:
        """Make the kernel's rules those of a configuration, if anything that they depend on has changed. ``moved``: a
        lease that the rules name may be another."""
        if config is not self._config:
            self._guarded = {vlan.scope.name for vlan in config.vlans if vlan.guard}
            self._named = unplaced(config)
            told, self._advice = self._advice, warnings(config)
            for warning in [one for one in self._advice if one not in told]:
                self._log(Note("warning", "rules_advice", {"what": warning}))
        if moved or config is not self._config or now >= self._places.until:
            engines = {name: server.engine for name, server in servers.items()}
            self._places = find(self._named, engines, self._places, now)
        legs = {name: server.link.interface for name, server in servers.items() if server.link.is_there()}
        wan = self._wan_interface(config, legs)
        wiring = Wiring(legs, wan, self._places.nodes, _indexes(legs, wan))
        is_same = config is self._config and wiring == self._wiring
        if is_same and (self.error is None or now < self._retry_at):
            return
        if self._succeeds(self._apply, config, wiring, servers, now):
            self.error = None
        self._config, self._wiring, self._retry_at = config, wiring, now + RETRY_SECONDS

    def step(self) -> None:
        """The clock was set: what the guard holds ends at another time, so the next `watch` sets all anew."""
        self._config = None

    def watch(self, config: Config, servers: Servers, now: float) -> None:
        """Repair what somebody else changed, and follow interfaces that went or came; to be called every second."""
        self.update(config, servers, now, moved=False)
        if self.error is None:
            self._succeeds(self._repair, config, now)

    def committed(self, vlan: str, rows: Sequence[Row], now: float) -> bool:
        """Leases of a VLAN are on disk, and their ACKs are about to leave: let their holders pass the source guard.

        True when a node that the rules name may have moved: an `update` is due.
        """
        if vlan in self._guarded:
            self._succeeds(self._admit, vlan, rows, now)
        return bool(self._named) and any(self._concerns(vlan, row) for row in rows)

    def _concerns(self, vlan: str, row: Row) -> bool:
        """Whether a node that the rules name has a lease by it, or has lost one, or another has its address."""
        is_named = row.state == BOUND and any((vlan, name) in self._named for name in _names(row))
        return is_named or row.address in self._places.watched

    def status(self) -> dict[str, Any]:
        """What ``GET /status`` shows of it."""
        relayed: dict[str, Any] = {}
        repairs = self._firewall.repairs
        if self._relay is not None:
            repairs += self._relay.repairs
            if self._config is not None and self._config.broadcast:
                with suppress(FirewallError):
                    relayed = {name: one._asdict() for name, one in self._relay.counts()[0].items()}
        nodes = {f"{vlan}/{name}": dotted(address) for (vlan, name), address in self._places.nodes.items()}
        return {"error": self.error, "repairs": repairs, "broadcasts": relayed, "nodes": nodes}

    @property
    def nodes(self) -> Mapping[Name, int]:
        """Where the nodes are that exceptions name and the file gives no address."""
        return self._places.nodes

    @property
    def is_applied(self) -> bool:
        """Whether the kernel has the rules of the configuration."""
        return self.error is None and self._config is not None

    def troubles(self) -> dict[str, list[str]]:
        """What is wrong at the moment, by the kinds of `router.warnings`."""
        relay = None if self._relay is None else self._relay.failure
        uplink = None
        if self._config is not None and self._wiring is not None:
            uplink = _without_uplink(self._config, self._wiring.wan)
        return {
            "rules_not_applied": [self.error] if self.error else [],
            "relay": [relay] if relay else [],
            "no_uplink": [uplink] if uplink else [],
            "rules_advice": self._advice,
            "shared_name": [_shared(name, self._places) for name in self._places.shared],
            "kernel_setting": self._settings,
        }

    def close(self) -> None:
        """Leave the rules as they are."""
        if self._relay is not None:
            self._relay.stop()
        self._firewall.close()

    def _wan_interface(self, config: Config, legs: Mapping[str, str]) -> str | None:
        """The uplink: the interface that is named, else the one that leads to the WAN."""
        if config.wan is None:
            return None
        interface = config.wan.interface or self._uplink()
        return None if interface in legs.values() else interface

    def _succeeds(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Do it, and say whether that went well. An error stands until the rules are applied again."""
        try:
            action(*arguments)
        except FirewallError as error:
            if self.error != str(error):
                self._log(Note("error", "firewall_failed", {"error": str(error)}))
            self.error = str(error)
            return False
        return True

    def _apply(self, config: Config, wiring: Wiring, servers: Servers, now: float) -> None:
        members = None
        were = None if self._wiring is None else self._wiring.legs
        if config is not self._config or self.error is not None or wiring.legs != were:
            members = _members(config, servers, now)
            self._holders = {(one.vlan, one.address): one.mac for one in members}
        changed = self._firewall.apply(_rules(config, wiring), now, members)
        self._settings = sysctls.prepare(wiring.legs.values(), wiring.wan)
        for warning in self._settings:
            self._log(Note("warning", "kernel_setting", {"what": warning}))
        legs = _relay_legs(config, wiring)
        if self._relay is None:
            self._relay = Relay(config.broadcast, legs, self._log)
            self._relay.start()
        else:
            self._relay.reload(config.broadcast, legs)
        if changed:
            self._firewall.watch(now)
            self._log(Note("info", "rules_applied", {"legs": wiring.legs, "wan": wiring.wan}))
        before, self._landings = self._landings, landings(placed(config, wiring.nodes).publish)
        if before - self._landings:
            self._end(partial(has_moved, before, self._landings))

    def _repair(self, config: Config, now: float) -> None:
        if self._firewall.watch(now):
            self._log(Note("warning", "rules_repaired", {"repairs": self._firewall.repairs}))
            self._end(partial(trespasses, [scope.subnet for scope in config.scopes]))
        if self._relay is not None:
            self._relay.watch(now)

    def _end(self, is_over: Callable[[Connection], bool]) -> None:
        try:
            if count := conntrack.end(is_over):
                self._log(Note("info", "connections_ended", {"connections": count}))
        except FirewallError as error:
            self._log(Note("warning", "connections_not_ended", {"error": str(error)}))

    def _admit(self, vlan: str, rows: Sequence[Row], now: float) -> None:
        entering: dict[Member, float] = {}
        leaving: list[Member] = []
        for row in rows:
            is_live = row.state == BOUND and (row.expires is None or row.expires > now)
            before = self._holders.pop((vlan, row.address), None)
            if before is not None and (not is_live or before != row.mac):
                leaving.append(Member(vlan, before, row.address))
            if is_live:
                self._holders[vlan, row.address] = row.mac
                entering[Member(vlan, row.mac, row.address)] = inf if row.expires is None else row.expires
        if leaving:
            self._firewall.expel(leaving, now)
        if entering:
            self._firewall.admit(entering, now)


def _indexes(legs: Mapping[str, str], wan: str | None) -> dict[str, int]:
    wanted = {*legs.values(), wan}
    return {name: index for index, name in socket.if_nameindex() if name in wanted}


def _rules(config: Config, wiring: Wiring) -> Ruleset:
    return ruleset(config, wiring.legs, wiring.wan, wiring.nodes, wiring.indexes, offload=has_flowtables())


def _without_uplink(config: Config, wan: str | None) -> str | None:
    """Why nothing goes to the WAN although there shall be one."""
    if config.wan is None or wan in {name for _, name in socket.if_nameindex()}:
        return None
    if wan is not None:
        return f"[wan] interface {wan} does not exist: nothing goes to the WAN until it does"
    if config.wan.interface is not None:
        return f"[wan] interface {config.wan.interface} is that of a VLAN: nothing goes to the WAN"
    network = config.wan.network
    return (
        f"the router is not in {network}, the Docker network of [wan], as far as is known, and no default route leads "
        f"past the VLANs: nothing goes to the WAN until it is (docker network connect {network} router)"
    )


def _relay_legs(config: Config, wiring: Wiring) -> dict[str, Leg]:
    scopes = {vlan.scope.name: vlan.scope for vlan in config.vlans}
    return {name: Leg(one, scopes[name].subnet, scopes[name].router) for name, one in wiring.legs.items()}


def _shared(name: Name, places: Places) -> str:
    has = ", ".join(map(dotted, places.shared[name]))
    address = places.nodes.get(name)
    meant = "nobody until one is left" if address is None else f"{dotted(address)}, who had it first"
    return f"{'/'.join(name)}: several nodes have this name ({has}), and an exception is for it: that means {meant}"


def _names(row: Row) -> Iterable[str]:
    """What an exception may call the holder of a lease."""
    return (row.hostname, container_of(row.client) or "")


def _members(config: Config, servers: Servers, now: float) -> dict[Member, float]:
    """All who hold a lease in a guarded VLAN."""
    return {
        Member(vlan.scope.name, one.mac, one.address): one.expires
        for vlan in config.vlans
        if vlan.guard and vlan.scope.name in servers
        for one in servers[vlan.scope.name].engine.book
        if one.is_live(now)
    }
