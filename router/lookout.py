"""What may do harm, looked for every second: on the wires, in the pools, among the containers, on the disk."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from dhcpd.engine import Engine
from dhcpd.listen import Claim, Ear, Heard, Rival
from dhcpd.pool import dotted
from dhcpd.server import Server
from router.warnings import MAX_OF_A_KIND, Finding, Warnings

if TYPE_CHECKING:
    from router.app import App

FULL, ROOM = 0.9, 0.8
"""A pool is nearly full from the first part on, and not any more from the second down."""
STRAYS_SECONDS = 10.0
"""Between two looks at every lease of a VLAN, some of which had no place in a new configuration."""

Found = dict[str, Finding]
_KINDS_OF_VLANS = (
    "dhcp_rival", "duplicate_address", "quarantine", "proxy_arp", "pool_nearly_full", "pool_full", "asks_too_often",
    "strangers_crowd", "leases_outside_configuration",
)  # fmt: skip


class Lookout:
    """For the loop's thread. ``now`` everywhere is a monotonic reading."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.warnings = Warnings(app.log)
        self._ears: dict[str, Ear] = {}
        self._heard: dict[str, Heard] = {}
        self._xid = random.getrandbits(32)
        self._looked: dict[str, float] = {}
        self._outside: dict[str, int] = {}
        """Live leases outside all pools of a VLAN, as of the last look at every lease."""
        self._nearly_full: set[str] = set()
        self._by_vlan: dict[str, dict[str, Found]] = {}

    def look(self, now: float) -> None:
        """Look at everything, and say what is new and what is over."""
        app = self._app
        found: dict[str, Found] = {kind: {} for kind in _KINDS_OF_VLANS}
        for name in [name for name in self._by_vlan if name not in app.servers]:
            self._forget(name)
        for name, server in app.servers.items():
            for kind, problems in self._vlan(name, server, now).items():
                found[kind] |= problems
        found |= self._service()
        for kind, problems in found.items():
            self.warnings.keep(kind, problems)

    def close(self) -> None:
        for one in self._ears.values():
            one.close()

    def _forget(self, name: str) -> None:
        self._by_vlan.pop(name, None)
        self._heard.pop(name, None)
        self._looked.pop(name, None)
        self._outside.pop(name, None)
        self._nearly_full.discard(name)
        if (ear := self._ears.pop(name, None)) is not None:
            ear.close()

    # -- one VLAN

    def _vlan(self, name: str, server: Server, now: float) -> dict[str, Found]:
        engine, service_now = server.engine, self._app.now()
        if engine.scope.is_external:
            self._forget(name)
            return {}
        found = self._by_vlan.setdefault(name, {})
        found |= self._listen(name, server, now)
        found["pool_full"] = _pool_full(engine, service_now)
        found["asks_too_often"] = _asks_too_often(engine, service_now)
        found["strangers_crowd"] = _strangers_crowd(engine, service_now)
        found["quarantine"] = _quarantine(engine)
        found["proxy_arp"] = _proxy_arp(engine)
        if name not in self._app.strayed:
            found["leases_outside_configuration"] = {}
            self._outside.pop(name, None)
        elif now - self._looked.get(name, -STRAYS_SECONDS) >= STRAYS_SECONDS:
            self._looked[name] = now
            strays = engine.allocator.strays(service_now)
            self._outside[name] = len(engine.pool.without(strays))
            found["leases_outside_configuration"] = _strays(name, strays)
            if not strays:
                self._app.strayed.discard(name)
        found["pool_nearly_full"] = self._pool_nearly_full(engine)
        return found

    def _pool_nearly_full(self, engine: Engine) -> Found:
        name = engine.scope.name
        taken, size = engine.allocator.usage(self._outside.get(name, 0))
        if not size or taken < ROOM * size:
            self._nearly_full.discard(name)
        elif taken >= FULL * size:
            self._nearly_full.add(name)
        what = f"{name} has {size - taken} of {size} addresses left for new nodes"
        return {name: Finding(what)} if name in self._nearly_full else {}

    # -- on the wire

    def _listen(self, name: str, server: Server, now: float) -> dict[str, Found]:
        heard, ear = self._heard.setdefault(name, Heard()), self._ear(name, server)
        if ear is None:
            return {"dhcp_rival": {}, "duplicate_address": {}}
        self._hear(server, ear, heard, now)
        self._ask(server, ear, heard, now)
        return {
            "dhcp_rival": {_subject(name, one): _rival(name, one) for one in heard.rivals(now)},
            "duplicate_address": {_subject(name, one): _duplicate(server, one) for one in heard.claims(now)},
        }

    def _hear(self, server: Server, ear: Ear, heard: Heard, now: float) -> None:
        service_now = self._app.now()
        for one in ear.rivals():
            if one.address != server.engine.scope.router:  # a relay agent repeats what this server said
                heard.hear(one, now)
        for claim in ear.claims():
            if _is_wrong(claim, server, service_now) and heard.hear(claim, now):
                ear.ask(claim.address)
        for claim in heard.unsure():
            if not _is_wrong(claim, server, service_now):
                heard.retract(claim)

    def _ask(self, server: Server, ear: Ear, heard: Heard, now: float) -> None:
        """Whether another is there, now and then."""
        if server.engine.scope.probe and heard.is_question_due(now):
            ear.ask_servers(self._xid)
            for address in {server.engine.scope.router, *(claim.address for claim in heard.unsure())}:
                ear.ask(address)

    def _ear(self, name: str, server: Server) -> Ear | None:
        """The sockets on the VLAN's interface as it is now, None while it is away."""
        ear, link = self._ears.get(name), server.link
        if not link.is_there():
            return None
        if ear is None or ear.interface != link.interface or not ear.is_there():
            if ear is not None:
                self._ears.pop(name).close()
            try:
                ear = self._ears[name] = Ear(link.interface)
            except OSError:
                return None
        return ear

    # -- the rest of the service

    def _service(self) -> dict[str, Found]:
        app = self._app
        found: dict[str, Found] = {
            kind: {subject: _finding(text) for subject, text in texts.items()}
            for kind, texts in app.containers.troubles().items()
        }
        for kind, lines in app.forwarding.troubles().items():
            found[kind] = {_place(line): _finding(line) for line in lines}
        found["capability_missing"] = {name: _finding(text) for name, text in app.missing.items()}
        found["interface_lost"] = {
            name: Finding(f"{name} is not served: its interface {app.servers[name].link.interface} is away")
            for name in app.lost_interfaces
            if name in app.servers
        }
        why = app.host.commit_error
        what = f"leases cannot be written, so nobody gets one: {why}"
        found["leases_not_written"] = {"leases": Finding(what)} if why else {}
        why = app.history.problem
        found["history_not_written"] = {"history": Finding(f"the history is not written: {why}")} if why else {}
        return found


def _subject(name: str, one: Rival | Claim) -> str:
    return f"{name}/{dotted(one.address)}/{one.mac.hex(':')}"


def _rival(name: str, one: Rival) -> Finding:
    return Finding(f"another DHCP server answers on {name}: {dotted(one.address)} at {one.mac.hex(':')}")


def _is_wrong(claim: Claim, server: Server, now: float) -> bool:
    """Whether the address is the router's, or leased to another station."""
    if claim.address == server.engine.scope.router:
        return True
    holder = server.engine.book.by_address.get(claim.address)
    return holder is not None and holder.is_live(now) and holder.mac not in (b"", claim.mac)


def _duplicate(server: Server, claim: Claim) -> Finding:
    address, mac = dotted(claim.address), claim.mac.hex(":")
    if claim.mac == server.link.mac:
        what = f"another station claims {address} with this router's own MAC {mac}"
        return Finding(what, "end the other router of this configuration, or give it one of its own")
    if claim.address == server.engine.scope.router:
        return Finding(f"{mac} claims the router's address {address}", "give that station another address")
    holder = server.engine.book.by_address[claim.address]
    named = f" ({holder.hostname})" if holder.hostname else ""
    return Finding(f"{mac} claims {address}, which is leased to {holder.mac.hex(':')}{named}")


def _pool_full(engine: Engine, now: float) -> Found:
    name = engine.scope.name
    return {name: Finding(f"{name} has no address left: a new node went without one")} if engine.is_full(now) else {}


def _asks_too_often(engine: Engine, now: float) -> Found:
    found: Found = {}
    for station, one in engine.limits.noisy(now).items():
        owner = engine.book.by_owner.get(station)
        named = f" ({owner.hostname})" if owner is not None and owner.hostname else ""
        what = f"{station.hex(':')}{named} on {engine.scope.name} asks {one.per_second:.0f} times a second"
        found[f"{engine.scope.name}/{station.hex(':')}"] = Finding(what)
    return found


def _strangers_crowd(engine: Engine, now: float) -> Found:
    name = engine.scope.name
    what = f"more unknown stations ask on {name} than are served: known nodes are, new ones may have to wait"
    return {name: Finding(what)} if engine.limits.is_crowded(now) else {}


def _quarantine(engine: Engine) -> Found:
    name = engine.scope.name
    return {
        f"{name}/{dotted(one.address)}": Finding(
            f"{dotted(one.address)} is given to nobody: {one.mac.hex(':') or 'somebody'} has it without a lease, "
            f"or declined it"
        )
        for address in itertools.islice(engine.book.declined, MAX_OF_A_KIND)
        if (one := engine.book.by_address.get(address)) is not None
    }


def _proxy_arp(engine: Engine) -> Found:
    name = engine.scope.name
    what = "on {} answers by ARP for more addresses than a station has: it is not believed"
    return {f"{name}/{mac.hex(':')}": Finding(f"{mac.hex(':')} {what.format(name)}") for mac in engine.proxies()}


def _strays(name: str, strays: list[int]) -> Found:
    first = ", ".join(map(dotted, strays[:3]))
    what = f"{len(strays)} leases of {name} have no place in the configuration any more: {first}"
    return {name: Finding(what)} if strays else {}


def _finding(text: str) -> Finding:
    """Of a text with its cure, or of one without."""
    return Finding(getattr(text, "what", text), getattr(text, "cure", None))


def _place(line: str) -> str:
    """What the line is about: ids must not change with the rest of it."""
    return line.partition(":")[0][:60]
