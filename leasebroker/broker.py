"""Containers get, and keep, their lease: a loop that compares leases with what the engine and the kernel show.

Events only say when to look. A namespace that appears is looked at as soon as its link is there, so that the lease is
on it before the container's first instruction; the ``start`` event and a look at everything now and then find what was
missed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dhcpd.decision import Note
from leasebroker import checks
from leasebroker.caretaker import Caretaker
from leasebroker.containers import Container, Network, Problem, Wish, is_transient
from leasebroker.docker_feed import Engine, EngineError, Event, Feed, Line, RefusedError
from leasebroker.known import Known, Leg, Record
from leasebroker.netns import GoneError, own_id, own_macs
from leasebroker.pinner import Pinner
from leasebroker.plan import View
from leasebroker.source import Source
from leasebroker.spaces import Spaces, Tracked

RECONCILE_SECONDS = 30.0
"""Between two looks at everything that the engine shows."""
ROUNDS_OF_ALL = 10
"""So many of them look once into every namespace; the kernel tells of changes by itself."""
CREATED_SECONDS = 1.0
"""A container that is made and not started by then is one at rest."""
SETTLE_SECONDS = 0.03
"""Events come in groups; one look is for all of a group."""
LOST_SECONDS = 5.0
"""After so long a container that runs should have a namespace in the engine's folder."""

_CURE = "mount the engine's netns folder into the router, or correct [docker] netns"
_BR_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class Broker:
    """``socket`` is the engine's, ``netns`` its folder of namespaces; ``log`` writes a note. For the loop's thread."""

    def __init__(
        self, socket: str, netns: Path, source: Source, state: Path, log: Callable[[Note], None], *, adopt: bool
    ) -> None:
        self.known = Known((), log)
        self.first_look = asyncio.Event()
        """Set when everything was looked at once, or the engine was found absent."""
        self._adopts = adopt
        self._netns = netns
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._asking, self._listing, self._changing = (Line(socket, name) for name in ("ask", "list", "change"))
        self._feed = Feed(socket, lambda what: self._loop.call_soon_threadsafe(self._told, what))
        self._pinner = Pinner(self.known, self._asking, source, self._lease)
        self._caretaker = Caretaker(self.known, self._changing, state)
        self._spaces: Spaces | None = None
        self._looks = 0
        self._lost: dict[str, float] = {}
        """The containers that run and are in no namespace that is known, since when on the loop's clock."""
        self._own: frozenset[bytes] = frozenset()
        """The MACs of the router's own container, as of the last look: to ask the kernel takes 2 ms."""
        self._is_look_due = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, legs: Sequence[Leg]) -> None:
        self.known.legs = tuple(legs)
        self._feed.start()
        self._spawn(self._looks_at_all())

    async def close(self) -> None:
        """Leave everything as it is. An engine that hangs is not waited for."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ends = (self._feed.stop, self._asking.close, self._listing.close, self._changing.close)
        await asyncio.gather(*(asyncio.to_thread(end) for end in ends))
        if self._spaces is not None:
            self._spaces.close()

    def reload(self, legs: Sequence[Leg], *, adopt: bool) -> None:
        """The configuration has changed, and with it perhaps every lease."""
        self.known.legs, self._adopts = tuple(legs), adopt
        self._caretaker.forget()
        for one in self._spaces or ():
            one.is_visited = False
        self._is_look_due.set()

    async def look_into(self, id_: str) -> View | None:
        """What the kernel shows of a container's namespace now, None when it has none that is known."""
        for one in self._spaces or ():
            if self._spaces is not None and id_ in one.members.values():
                with suppress(GoneError):
                    return await self._spaces.look(one)
        return None

    def lease_changed(self, vlan: str, identity: str) -> None:
        """Another server has granted or taken back a container's lease."""
        self._spawn(self._follow(vlan, identity))

    # -- what wakes it

    def _told(self, what: Event | EngineError | None) -> None:
        """By the feed."""
        if isinstance(what, EngineError):
            self.known.warn("engine", str(what))
            self.first_look.set()
        elif what is not None and what.action == "create":
            self._spawn(self._created(what.container))
        elif what is not None and what.action == "start":
            self._spawn(self._started(what.container))
        elif what is None or what.is_news:
            self._is_look_due.set()

    def _appeared(self, one: Tracked) -> None:
        """By the kernel: a container is about to start."""
        if self.first_look.is_set() and self._spaces is not None:
            self._spawn(self._pinner.expect(self._spaces, one))

    def _changed(self, one: Tracked) -> None:
        """By the kernel: something in a namespace is new."""
        if one.is_waiting:
            return
        pause = one.repairs.pause(self._loop.time())
        one.is_waiting = pause > 0
        if one.is_waiting:
            self._loop.call_later(pause, self._waited, one)
        else:
            self._spawn(self._visit(one, "reconcile"))

    def _waited(self, one: Tracked) -> None:
        one.is_waiting = False
        self._changed(one)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EngineError as error:
            self.known.warn("engine", str(error))
        except Exception as error:  # noqa: BLE001 - one container that finds a defect must not end the others' service
            self.known.log(Note("error", "defect", {"error": repr(error)}))

    async def _created(self, id_: str) -> None:
        """A container that does not run yet: have its lease ready."""
        self.known.take(await self._asking.ask(lambda engine: _others(engine, self._own, id=id_)))
        await self._lease_all([id_])
        self._loop.call_later(CREATED_SECONDS, self._is_look_due.set)

    async def _started(self, id_: str) -> None:
        """The engine has done with the container's namespace."""
        found = await self._asking.ask(lambda engine: _others(engine, self._own, id=id_))
        self.known.take(found)
        one = next((one for one in self._spaces or () if id_ in one.members.values()), None)
        if one is not None:
            await self._visit(one, "start")
        else:
            self._pinner.announce(found)
            await self._visit_all("start")
        self._pinner.forget(id_)

    # -- a look at everything

    async def _looks_at_all(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_SECONDS):
                    await self._is_look_due.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._is_look_due.clear()
            await self._guarded(self._look())
            self.first_look.set()

    async def _look(self) -> None:
        """At everything; while the engine is away its containers go on, and so do their leases."""
        try:
            await self._look_at_all()
        except EngineError:
            if self._spaces is not None:
                self._spaces.refresh()
                await self._lease_all({id_ for one in self._spaces for id_ in one.members.values()})
            raise

    async def _look_at_all(self) -> None:
        """Leases first, containers second. Namespaces are followed as soon as it is known who there is."""
        await self._caretaker.repair()
        networks = [leg.network for leg in self.known.legs]
        then = dict(self.known.containers)
        seen = await self._listing.ask(partial(_everything, names=networks))
        self._own = seen.own
        changed = self.known.replace(seen.containers, seen.networks, seen.unread, then=then)
        self.known.warn("engine", None)
        self._open_spaces()
        self._check_networks(seen.unclear)
        await self._lease_all(self.known.containers)
        for leg in self.known.legs:
            self._source.keep(leg.vlan, {wish.identity for wish in self.known.wishes(leg).values()})
        self._looks += 1
        for one in self._spaces or ():
            one.is_visited &= changed.isdisjoint(one.members.values())
        with suppress(RefusedError):  # of one network or container: the others are adopted all the same
            await self._visit_all("reconcile")
        self.known.looked_at = time.time()
        if self._adopts and (pause := await self._caretaker.tend(self._loop.time())) is not None:
            self._loop.call_later(pause, self._is_look_due.set)

    def _check_networks(self, unclear: Mapping[str, str]) -> None:
        filtered = _BR_NETFILTER.exists()
        for leg in self.known.legs:
            if (why := unclear.get(leg.network)) is not None:
                problem: Problem | None = checks.unclear_network(leg, why)
            else:
                problem = checks.network_problem(leg, self.known.networks.get(leg.network), filtered=filtered)
            self.known.warn(f"network {leg.network}", problem)

    def _open_spaces(self) -> None:
        if self._spaces is not None:
            self._spaces.refresh()
            return
        problem = None
        try:
            self._spaces = Spaces(self._netns, self._appeared, self._changed)
        except OSError as error:
            problem = Problem(f"containers cannot be pinned: {self._netns}: {error.strerror}", _CURE)
        self.known.warn("netns", problem)

    # -- leases

    async def _lease_all(self, ids: Collection[str]) -> None:
        """A lease for each of these containers on each VLAN, one commit for all."""
        for leg in self.known.legs:
            asked = self.known.wishes(leg).items()
            found = [(self.known.containers[id_], wish) for id_, wish in asked if id_ in ids]
            await asyncio.gather(*(self._lease(leg, one, wish, one.endpoints[leg.network].mac) for one, wish in found))

    async def _follow(self, vlan: str, identity: str) -> None:
        records = self.known.records.values()
        ids = {one.container for one in records if (one.leg.vlan, one.identity) == (vlan, identity)}
        await self._lease_all(ids)
        for one in self._spaces or ():
            if not ids.isdisjoint(one.members.values()):
                await self._visit(one, "reconcile")

    async def _lease(self, leg: Leg, one: Container, wish: Wish, mac: bytes) -> Record:
        """The container's lease on one VLAN, in its record. ``mac`` is empty while its link is not known."""
        record = self.known.record(leg, one)
        if is_transient(one):
            return record
        record.identity, record.mac = wish.identity, mac or record.mac
        address = await self._source.lease(leg.vlan, wish.identity, record.mac, wish.hostname, wish.address)
        if address != record.address:
            record.address, record.pinned_at = address, None
        record.problems = wish.problems
        if not self._source.is_waiting(leg.vlan, wish.identity):
            is_reserved = self._source.is_reserved(leg.vlan, wish.identity, record.address)
            record.problems += tuple(checks.lease_problems(leg, one.name, wish, record.address, reserved=is_reserved))
        if self._is_fought(one.id):
            what = f"something in container {one.name} changes its addresses or routes again and again"
            record.problems += (Problem(what, "end it: the lease is put back now and then only"),)
        self.known.warn(record.title, Problem.joined(record.problems))
        return record

    def _is_fought(self, id_: str) -> bool:
        """Whether what is repaired in a container's namespace does not last."""
        now = self._loop.time()
        return any(id_ in one.members.values() and one.repairs.is_fought(now) for one in self._spaces or ())

    # -- namespaces

    async def _visit(self, one: Tracked, path: str) -> None:
        if self._spaces is not None:
            await self._pinner.visit(self._spaces, one, path)
            if not one.is_visited and not one.is_busy and self._spaces.is_there(one):
                self._changed(one)  # by somebody else, while it was repaired
            if not self._lost.keys().isdisjoint(one.members.values()):
                self._check_lost(self._loop.time())

    async def _visit_all(self, path: str) -> None:
        """Look into the namespaces in which something may be wrong, and now and then into all."""
        missing = {record.container for record in self.known.records.values() if record.is_missing}
        for number, one in enumerate(self._spaces or ()):
            is_due = not one.is_visited or (number + self._looks) % ROUNDS_OF_ALL == 0
            if is_due or (missing and (not one.members or not missing.isdisjoint(one.members.values()))):
                await self._visit(one, path)
        if self._spaces is not None:
            self._check_lost(self._loop.time())

    def _in_no_space(self) -> dict[str, str]:
        """The containers that run without their lease and whose namespace is not known: their names by their ids."""
        there = {id_ for one in self._spaces or () for id_ in one.members.values()}
        missing = [one for one in self.known.records.values() if one.is_missing and one.address]
        return {one.container: one.name for one in missing if one.container not in there}

    def _seek(self) -> None:
        """Look at everything when a container is in no namespace still."""
        if not self._lost.keys().isdisjoint(self._in_no_space()):
            self._is_look_due.set()

    def _check_lost(self, now: float) -> None:
        """A container whose namespace is not there cannot be pinned, however often it is looked for."""
        found = self._in_no_space()
        if found.keys() - self._lost.keys():
            self._loop.call_later(LOST_SECONDS, self._seek)
        self._lost = {id_: self._lost.get(id_, now) for id_ in found}
        names = sorted(found[id_] for id_, since in self._lost.items() if since + LOST_SECONDS <= now)
        what = f"no namespace in {self._netns} has the link of {', '.join(names)}"
        self.known.warn("netns", Problem(what, _CURE) if names else None)


class _Seen(NamedTuple):
    """What the engine shows."""

    own: frozenset[bytes]
    """The router's own MACs."""
    containers: list[Container]
    """All but the router's own."""
    unread: dict[str, Problem]
    """What is wrong with the containers that cannot be read, by their names."""
    networks: list[Network]
    """Those of the VLANs that are there."""
    unclear: dict[str, str]
    """Why the engine does not say what a network is like."""


def _everything(engine: Engine, names: Iterable[str]) -> _Seen:
    """Of the networks, those of these names."""
    networks: list[Network] = []
    unclear: dict[str, str] = {}
    for name in names:
        try:
            network = engine.network(name)
        except RefusedError as error:
            unclear[name] = str(error)
        else:
            networks += [network] if network is not None else []
    own = frozenset(own_macs())
    containers, unread = engine.listing()
    return _Seen(own, _without_own(containers, own), unread, networks, unclear)


def _others(engine: Engine, own: frozenset[bytes], **filters: str) -> list[Container]:
    return _without_own(engine.containers(**filters), own)


def _without_own(found: Iterable[Container], own: frozenset[bytes]) -> list[Container]:
    """The containers but the router's own, which needs no lease: it is known by its id, or by its MACs."""
    id_ = own_id()
    others = [one for one in found if one.id != id_]
    return [one for one in others if not any(end.mac in own for end in one.endpoints.values())]
