"""The composition root: one process that serves all VLANs of a configuration."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dhcpd.clock import Clock, settle
from dhcpd.decision import Note
from dhcpd.engine import Engine
from dhcpd.leases import Columns, Row
from dhcpd.link import Link, LinkError
from dhcpd.pool import dotted
from dhcpd.server import Host, Server
from dhcpd.settings import Scope
from dhcpd.store import Store, StoreError
from leasebroker.source import Source
from router import SOCKET_NAME
from router.config import Config, ConfigError, Vlan, parse, read
from router.containers import Containers
from router.control import Control
from router.events import Bus
from router.history import History
from router.kept import Keeper
from router.legs import Legs
from router.lookout import Lookout
from router.nfnetlink import FirewallError
from router.settings import Entry

if TYPE_CHECKING:
    from leasebroker.containers import Problem

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those that `App.run` follows. Who calls it blocks them from its own beginning on, and has none lost."""
MAX_TICK, MIN_TICK = 1.0, 0.1
"""Seconds between two looks at what time brings."""


UNKNOWN = -1
"""In place of the doubt in the clock that is on the disk."""


def monotonic() -> float:
    """Seconds that run on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class App:
    """The running service. ``log`` writes a `Note`; `reload`, `keep` and `run` are its verbs."""

    def __init__(self, path: Path, state: Path, log: Callable[[Note], None]) -> None:
        self.path = path
        self.state = state
        self.bus = Bus()
        self.log = log = self.bus.tee(log)
        self.started = time.time()
        self.text = read(path)
        """The configuration file as it is in force."""
        self.kept = Keeper(state, log)
        self.config: Config = parse(self.text, self.kept.entries)
        self.servers: dict[str, Server] = {}
        self.legs = Legs(log)
        self.source = Source(lambda: self.servers)
        self.containers = Containers(state, self.source, log)
        self.listening: tuple[str, int] | None = None
        """The TCP address of the control API, which stays as it is until the service ends."""
        self._stop = asyncio.Event()
        self._again = asyncio.Event()
        """A reload that was asked for during the start."""
        self._ticker: asyncio.Task[None] | None = None
        self._dropped: dict[str, Counter[str]] = {}
        self._drops_due = 0.0
        self._harm_looked = -MAX_TICK
        self.turned_at = time.monotonic()
        """The last look at what time brings."""
        self.lost_interfaces: set[str] = set()
        self.strayed: set[str] = set()
        """The VLANs with leases that the configuration has no place for."""
        self.missing: dict[str, Problem] = {}
        """The capabilities that the process lacks, see `router.capabilities`."""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `StoreError`, `LinkError` or `ControlError` when it cannot start."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._again.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self.store = Store(self.state)
        self.history = History(self.state, self.config.history)
        self.host = Host(self.store, self.now, self.log, self._admit, self._tell)
        try:
            self.kept.tidy(self.config.kept)
            self._stamp = self.store.latest()
            self._doubt = self.store.doubt()
            self.clock = Clock(time.time(), monotonic(), self._stamp, self._doubt)
            self._keep_doubt()
            links = self._open(self.config.vlans)
            try:
                engines = self._engines(self.config.vlans)
            except StoreError:
                self._close(links, keep=())
                raise
            self._serve(engines, links)
            self.host.start()
            self.store.start(loop.call_soon_threadsafe)
            self.history.start()
            gc.freeze()
            gc.enable()
            await self._until_stopped(loop)
        finally:
            for server in self.servers.values():
                server.stop()
            self.host.close()
            self.store.close()
            self.history.close()
            for server in self.servers.values():
                server.link.close()

    async def _until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        from router import capabilities  # noqa: PLC0415 - devices are served first
        from router.forwarding import Forwarding  # noqa: PLC0415

        self.missing = capabilities.missing(capabilities.effective(), self.config)
        for what in self.missing.values():
            self.log(Note("error", "capability_missing", {"what": what}))
        control = Control(self, self.state / SOCKET_NAME)  # before the rules: a start that fails leaves none behind
        self.listening = None if self.config.api is None else (self.config.api.host, self.config.api.port)
        self.forwarding = Forwarding(self.log, self.legs.uplink)
        self.lookout = Lookout(self)
        start = loop.create_task(self._begin(loop))
        stop = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                await stop
        finally:
            for one in (start, stop, self._ticker):
                if one is not None:
                    one.cancel()
            await asyncio.gather(start, return_exceptions=True)
            self.lookout.close()
            await self.containers.close()
            await self.legs.close()
            await control.close()
            self.forwarding.close()
        self.log(Note("info", "stopped", {}))

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Become ready; a stop may come at any time meanwhile."""
        self._update_forwarding()  # nothing from the WAN is answered before the rules are there: connections survive
        await self.legs.start(lambda: self.config)
        self._update_forwarding()
        self._ticker = loop.create_task(self._tick())
        await self.containers.start(self.config, self.host)
        served = {name: server.link.interface for name, server in self.servers.items()}
        self.log(Note("info", "ready", {"vlans": served, "seconds": round(time.time() - self.started, 3)}))
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        if self._again.is_set():
            self.reload()

    def now(self) -> float:
        """Service time."""
        return self.clock.now(monotonic())

    def clock_offset(self) -> float:
        """Seconds to add to service time for the wall clock's."""
        return time.time() - self.now()

    # -- configuration

    def reload(self) -> tuple[list[str], list[str]]:
        """Read the configuration file again and take it over as a whole, or keep the running one as a whole.

        Returns (errors, changes): one of them is empty.
        """
        errors, changes = self._change(lambda: read(self.path), self.kept.entries)
        if errors:
            self.log(Note("error", "reload_refused", {"file": str(self.path), "errors": errors}))
        else:
            self.log(Note("info", "reloaded", {"file": str(self.path), "changes": changes}))
        return errors, changes

    async def keep(self, entries: Sequence[Entry]) -> list[str]:
        """Have these reservations beside those of the file that is in force, on the disk first; for the holder of
        ``kept.lock``. Returns the errors, and then all is as it was."""
        before = self.kept.entries
        errors = await self.kept.write(entries)
        if errors:
            return errors
        errors, changes = self._change(lambda: self.text, entries)
        if errors:
            await self.kept.write(before)
            self.log(Note("error", "reservations_refused", {"errors": errors}))
        else:
            self.log(Note("info", "reservations_changed", {"changes": changes}))
        return errors

    def _change(self, text: Callable[[], str], entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
        """Change over to a file's text and the reservations beside it; returns (errors, changes)."""
        from router.changes import diff  # noqa: PLC0415 - not before the first change: 10 ms

        try:
            source = text()
            new = parse(source, entries)
            links, engines = self._prepare(new)
        except (ConfigError, LinkError, FirewallError, StoreError) as error:
            return error.errors if isinstance(error, ConfigError) else [str(error)], []
        changes = diff(self.config, new)
        self.text, self.config = source, new
        self.history.keep = new.history
        self._serve(engines, links)
        self._update_forwarding()
        loop = asyncio.get_running_loop()
        self._follower = loop.create_task(self.containers.reload(new, self.host))
        if self.kept.take(entries, new.kept):
            self._writer = loop.create_task(self.kept.write_the_rest())
        return [], changes

    def _prepare(self, new: Config) -> tuple[dict[str, Link], dict[str, Engine]]:
        """Sockets and engines for a configuration that the kernel would take as well."""
        links = self._open(new.vlans)
        try:
            there = {name: link.interface for name, link in links.items() if link.is_there()}
            self.forwarding.check(new, there, self.now())
            return links, self._engines(new.vlans)
        except (FirewallError, StoreError):
            self._close(links, keep=[server.link for server in self.servers.values()])
            raise

    def _update_forwarding(self) -> None:
        self.forwarding.update(self.config, self.servers, self.now())

    def _admit(self, vlan: str, rows: Sequence[Row]) -> None:
        if self.forwarding.committed(vlan, rows, self.now()):
            asyncio.get_running_loop().call_soon(self._update_forwarding)

    def _tell(self, vlan: str, rows: Sequence[Row]) -> None:
        now = self.now()
        self.bus.changed(vlan, rows, now)
        self.history.put(vlan, rows, now)

    def _open(self, vlans: tuple[Vlan, ...]) -> dict[str, Link]:
        """A link for each VLAN, the open one where there is one on its interface; all of them or `LinkError`. A VLAN
        whose interface went away, and that waits for it, has the link that it had."""
        present = (server.link for server in self.servers.values() if server.link.is_there())
        running = {link.interface: link for link in present}
        waiting = {_place(one) for one in self.config.vlans if one.scope.name in self.lost_interfaces}
        links: dict[str, Link] = {}
        for vlan in vlans:
            name = vlan.scope.name
            try:
                interface = self.legs.interface(vlan)
                links[name] = running.get(interface) or Link(interface)
            except LinkError:
                if _place(vlan) not in waiting:
                    self._close(links, keep=running.values())
                    raise
                links[name] = self.servers[name].link
        return links

    def _close(self, links: Mapping[str, Link], keep: Iterable[Link]) -> None:
        kept = set(keep)
        for link in links.values():
            if link not in kept:
                link.close()

    def _serve(self, engines: Mapping[str, Engine], links: Mapping[str, Link]) -> None:
        """Change over to these VLANs, in the turn of the loop in which their engines were made."""
        old, self.servers = self.servers, {}
        self.lost_interfaces = {name for name in self.lost_interfaces & links.keys() if not links[name].is_there()}
        for server in old.values():
            server.stop()
        for name, engine in engines.items():
            before = old.get(name)
            if before is None or before.engine is not engine:
                self._tell_of_strays(engine)
            server = self.servers[name] = Server(engine, links[name], self.host)
            if before is not None:
                server.errors, server.unwritten = before.errors, before.unwritten
            if name not in self.lost_interfaces:
                server.start()
        self._close({name: server.link for name, server in old.items()}, keep=links.values())

    def _engines(self, vlans: tuple[Vlan, ...]) -> dict[str, Engine]:
        """An engine for each VLAN, the running one where nothing changed; all of them or `StoreError`. Changes nothing
        of what runs."""
        return {vlan.scope.name: self._engine(vlan.scope, self.servers.get(vlan.scope.name)) for vlan in vlans}

    def _engine(self, scope: Scope, before: Server | None) -> Engine:
        if before is None:
            return Engine(scope, self._load(scope.name), self.now())
        if before.engine.scope == scope:
            return before.engine
        engine = Engine(scope, before.engine.rows(), self.now())
        engine.inherit(before.engine)
        return engine

    def _tell_of_strays(self, engine: Engine) -> None:
        name = engine.scope.name
        self.strayed.discard(name)
        if strays := engine.allocator.strays(self.now()):
            self.strayed.add(name)
            fields = {"vlan": name, "leases": len(strays), "addresses": [dotted(one) for one in strays[:20]]}
            self.log(Note("warning", "leases_outside_configuration", fields))

    def _load(self, name: str) -> Iterator[Columns]:
        """The stored leases of a VLAN, freed of a clock that was ahead when they were stamped."""
        now = int(self.now())
        return self.store.load(name) if self._stamp <= now else self._settled(name, now)

    def _settled(self, name: str, now: int) -> Iterator[Row]:
        changed = []
        for stored in map(Row._make, self.store.load(name)):
            since, expires = settle(stored.since, stored.expires, now)
            row = stored._replace(since=since, expires=expires)
            if row != stored:
                changed.append((self.store.vlan_id(name), row))
            yield row
        self.store.commit(changed, self._rewritten)

    def _rewritten(self, error: Exception | None) -> None:
        if error is not None:
            self.log(Note("error", "commit_failed", {"error": str(error)}))

    # -- time

    async def _tick(self) -> None:
        while True:
            pause = MAX_TICK
            try:
                pause = self._look()
                self.turned_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 - a defect in one look must not end all later ones
                self.log(Note("error", "defect", {"error": repr(error)}))
            await asyncio.sleep(min(max(pause, MIN_TICK), MAX_TICK))

    def _look(self) -> float:
        """Do what time brings; returns the seconds until there is more to do."""
        self._follow_the_clock()
        self._report_database()
        while self.history.notes:
            self.log(Note("warning", "history", {"what": self.history.notes.popleft()}))
        self._report_drops(monotonic())
        deadlines = [self._visit(name, server) for name, server in list(self.servers.items())]
        self.source.watch()
        self.forwarding.watch(self.config, self.servers, self.now())
        self._watch_for_harm(monotonic())
        return min(deadlines) - self.now()

    def _follow_the_clock(self) -> None:
        from router.discipline import is_disciplined  # noqa: PLC0415 - loads ctypes; devices are served first

        since = self.clock.since
        if seconds := self.clock.step(time.time(), monotonic()):
            self.log(Note("warning", "clock_set", {"seconds": seconds}))
            for name, server in self.servers.items():
                if name not in self.source.externals:
                    server.step(seconds, since)
            self.source.step(seconds)
            self.forwarding.step()
        self.clock.vouch(time.time(), monotonic(), is_right=is_disciplined())
        self._keep_doubt()

    def _keep_doubt(self) -> None:
        """Have on the disk what the clock has to know at the next start; the next look tries again if that fails."""

        def kept(error: Exception | None) -> None:
            self._doubt = self._doubt if error is None else UNKNOWN

        if self._doubt != self.clock.doubt:
            self._doubt = self.clock.doubt
            self.store.keep_doubt(self._doubt, kept)

    def _watch_for_harm(self, now: float) -> None:
        """Once a second, however often there is something else to do."""
        if not 0 <= now - self._harm_looked < MAX_TICK:
            self._harm_looked = now
            self.lookout.look(now)

    def _visit(self, name: str, server: Server) -> float:
        """Do what is due on one VLAN, and serve it again when its interface was replaced by another."""
        later = self.now() + MAX_TICK
        if not server.link.is_there():
            self._relink(name, server)
        return min(server.tick() or later, later)

    def _relink(self, name: str, server: Server) -> None:
        """A network that was disconnected and connected again is a new interface, often of another name."""
        vlan = next(vlan for vlan in self.config.vlans if vlan.scope.name == name)
        if name not in self.lost_interfaces:
            self.lost_interfaces.add(name)
            self.log(Note("error", "interface_lost", {"vlan": name, "interface": server.link.interface}))
            server.stop()
            server.link.close()
        try:
            server.link = Link(self.legs.interface(vlan))
        except LinkError:
            return
        server.start()
        self.lost_interfaces.discard(name)
        self.log(Note("warning", "interface_back", {"vlan": name, "interface": server.link.interface}))

    def _report_database(self) -> None:
        """What the store has to say; a database that was damaged gets all leases again."""
        if not self.store.notes:
            return
        while self.store.notes:
            self.log(Note("warning", "lease_database", {"what": self.store.notes.popleft()}))
        self._doubt = UNKNOWN
        for name, server in self.servers.items():
            vlan = self.store.vlan_id(name)
            self.store.commit([(vlan, row) for row in server.engine.rows()], self._rewritten)

    def _report_drops(self, now: float) -> None:
        """What was not answered since the last line about it: at most one a second, however much arrives."""
        if now < self._drops_due:
            return
        seen = {name: Counter(server.engine.dropped) for name, server in self.servers.items()}
        drops = {name: dict(new) for name, now in seen.items() if (new := now - self._dropped.get(name, Counter()))}
        self._dropped = seen
        if drops:
            self._drops_due = now + 1
            self.log(Note("info", "dropped", {"vlans": drops}))


def _place(vlan: Vlan) -> tuple[object, ...]:
    """What a VLAN's interface is found by."""
    return vlan.scope.name, vlan.interface, vlan.scope.subnet
