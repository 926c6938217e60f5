"""One VLAN on the wire: drain the socket, decide, commit, send."""

from __future__ import annotations

import asyncio
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from time import monotonic

from dhcpd.decision import NOTHING, Decision, Note
from dhcpd.engine import Engine
from dhcpd.histogram import Histogram
from dhcpd.leases import Row
from dhcpd.link import MAX_DATAGRAM, Link
from dhcpd.pool import dotted
from dhcpd.store import Store, StoreError
from dhcpd.throttle import Throttle
from dhcpd.wire import arp_sender

MAX_ROUND = 64
"""Datagrams read in one round, shared by the sockets that have some; then their leases go to the disk."""

MAX_WAITING = 5000
"""Rows that wait for the disk before it counts as one that refuses: a disk that hangs must not fill the memory."""

MAX_DEFECTS_LOGGED = 20

FLOODS = ("commit_failed", "refused")
"""The events that anybody on a VLAN can cause as often as it sends, and that are no lease."""

Decide = Callable[[bytes, float], Decision]
"""On a datagram, at a service time."""

Decided = tuple["Server", Decision]


class Host:
    """What the servers of one process share: the clock, the log, the store, and one reader of the event loop.

    ``clock`` gives service time, ``log`` takes the notes. Of a VLAN's rows that are on disk ``admit`` is told before
    their answers leave, for what has to be there with the lease, and ``tell`` after that. A round serves every VLAN
    that has something to read, and all their leases are one commit.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        log: Callable[[Note], None],
        admit: Callable[[str, Sequence[Row]], None] = lambda _vlan, _rows: None,
        tell: Callable[[str, Sequence[Row]], None] = lambda _vlan, _rows: None,
    ) -> None:
        self.store = store
        self.now = clock
        self.log = log
        self.admit = admit
        self.tell = tell
        self.commit_error: str | None = None
        """Why the last leases could not be written, None when they were."""
        self.offer_seconds, self.ack_seconds, self.commit_seconds = Histogram(), Histogram(), Histogram()
        """From when a round begins to read until what needs no commit (OFFERs above all), and its ACKs, have left, and
        how long commits take."""
        self._throttles = {event: Throttle() for event in FLOODS}
        self._waiting = 0
        """Rows of `carry_out` that the store has."""
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Server, socket.socket, Decide]] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll, self.round)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll)
        self._epoll.close()

    def watch(self, server: Server, one: socket.socket, decide: Decide) -> None:
        """Have the server decide on what there is to read."""
        self._watched[one.fileno()] = (server, one, decide)
        self._epoll.register(one, select.EPOLLIN)

    def ignore(self, one: socket.socket) -> None:
        del self._watched[one.fileno()]
        self._epoll.unregister(one)

    def round(self) -> None:
        """Serve all who wait. Where many have something to read, a datagram from each is read without a look at whether
        there is more: the next round comes at once."""
        began = monotonic()
        ready = self._epoll.poll(0)
        share = max(1, MAX_ROUND // max(1, len(ready)))
        now = self.now()
        decided: list[Decided] = []
        for descriptor, _ in ready:
            server, one, decide = self._watched[descriptor]
            for data in server.received(one, share):
                try:
                    decided.append((server, decide(data, now)))
                except Exception as error:  # noqa: BLE001 - one datagram that finds a defect must not stop a VLAN
                    server.defect(data, error)
        if offers := self.carry_out(decided, began):
            self.offer_seconds.observe(monotonic() - began, offers)

    def carry_out(self, decided: Sequence[Decided], began: float | None = None) -> int:
        """At once what changes no lease, the rest when its rows are on disk. Returns how many answers left at once;
        ``began``: when what led to them was read."""
        waiting = [one for one in decided if one[1].rows]
        if waiting and self._waiting >= MAX_WAITING:
            self._finish(waiting, StoreError(f"{self._waiting} changes wait for the disk"))
        elif waiting:
            batch = [(server.vlan_id, row) for server, decision in waiting for row in decision.rows]
            self._waiting += len(batch)
            done = partial(self._committed, waiting, len(batch), began, monotonic())
            self.store.commit(batch, done, alone=len(decided) == 1)
        sent = 0
        for server, decision in decided:
            if not decision.rows and decision is not NOTHING:
                server.finish(decision)
                sent += decision.send is not None
        return sent

    def _committed(
        self, waiting: Sequence[Decided], rows: int, began: float | None, handed: float, error: Exception | None
    ) -> None:
        self._waiting -= rows
        self.commit_seconds.observe(monotonic() - handed)
        self._finish(waiting, error)
        if began is not None and error is None:
            self.ack_seconds.observe(monotonic() - began, sum(one.send is not None for _, one in waiting))

    def say(self, note: Note) -> None:
        """Have a note logged, but of what comes in floods one a second."""
        throttle = self._throttles.get(note.event)
        told = note if throttle is None else throttle.put(note, monotonic())
        if told is not None:
            self.log(told)

    def tick(self) -> None:
        """Have the notes logged that were held back for a second."""
        now = monotonic()
        for throttle in self._throttles.values():
            if (told := throttle.tick(now)) is not None:
                self.log(told)

    def _finish(self, waiting: Sequence[Decided], error: Exception | None) -> None:
        for server, group in groupby(waiting, itemgetter(0)):
            server.committed([decision for _, decision in group], error)


class Server:
    """The event loop's side of one `Engine`. Errors of a socket are counted in ``errors``, never raised."""

    def __init__(self, engine: Engine, link: Link, host: Host) -> None:
        self.engine = engine
        self.link = link
        self.vlan_id = host.store.vlan_id(engine.scope.name)
        self.errors: Counter[str] = Counter()
        self.unwritten: dict[str, Decision] = {}
        """The last lease of each container whose lease is not on the disk, or not yet. The book has it already."""
        self.neighbour: Callable[[int, bytes], None] = lambda _address, _mac: None
        """Told who answers by ARP where another server serves the VLAN (``Scope.is_external``)."""
        self._host = host
        self._log = host.log
        self._is_reading = False

    def start(self) -> None:
        """Begin to read from the link; what waits in it already is answered now."""
        self._is_reading = True
        self._host.watch(self, self.link.udp, _ignore if self.engine.scope.is_external else self.engine.handle)
        self._host.watch(self, self.link.arp, self._heard)
        self._host.round()

    def stop(self) -> None:
        """Read no more, if it does; the link stays open, for answers that wait for a commit or for another server."""
        if self._is_reading:
            self._is_reading = False
            self._host.ignore(self.link.udp)
            self._host.ignore(self.link.arp)

    def is_serving(self) -> bool:
        """Whether it reads from its interface, and that is there."""
        return self._is_reading and self.link.is_there()

    def mirror(self, rows: Sequence[Row], then: Callable[[], None]) -> None:
        """`Engine.mirror`, and ``then`` when it is on the disk, in the order of the calls. That comes as well when the
        disk refuses: the book is the other server's, and ours saves a question after a restart."""
        self.engine.mirror(rows)

        def committed(error: Exception | None) -> None:
            if rows:  # no rows are on any disk, also on one that is full
                self.committed([Decision(rows)], error)
            then()

        self._host.store.commit([(self.vlan_id, row) for row in rows], committed)

    async def lease_container(self, name: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """`Engine.lease_container`, and back when the lease is on the disk; None also when the disk refuses."""
        now, again = self._host.now(), name in self.unwritten
        address, decision = self.engine.lease_container(name, mac, hostname, wanted, now, again=again)
        if not decision.rows:
            self.finish(decision)
            return address
        self.unwritten[name] = decision
        if not await self.commit(decision):
            return None
        if self.unwritten.get(name) is decision:
            del self.unwritten[name]
        return address

    async def commit(self, decision: Decision) -> bool:
        """Carry a decision out, and back when its rows are on the disk; False when the disk refuses."""
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._host.store.commit([(self.vlan_id, row) for row in decision.rows], done.set_result)
        error = await asyncio.shield(done)
        self.committed([decision], error)
        return error is None

    def step(self, seconds: int, since: int) -> None:
        """The clock was set by so much, see `dhcpd.clock.Clock`."""
        if rows := self.engine.step(seconds, since, self._host.now()):
            self._host.carry_out([(self, Decision(rows))])

    def tick(self) -> float | None:
        """Do what is due; returns the service second at which there is more to do."""
        self._host.tick()
        now = self._host.now()
        deadline = self.engine.deadline()
        if deadline is not None and deadline <= now:
            self._host.carry_out([(self, one) for one in self.engine.tick(now)])
        return self.engine.deadline()

    def received(self, one: socket.socket, most: int) -> Iterator[bytes]:
        """What waits in a socket, up to so many datagrams."""
        try:
            for _ in range(most):
                yield one.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed("receive", error)

    def _heard(self, frame: bytes, now: float) -> Decision:
        claim = arp_sender(frame)
        if claim is None:
            return NOTHING
        if self.engine.scope.is_external:
            self.neighbour(*claim)
            return NOTHING
        return self.engine.heard(*claim, now)

    def defect(self, data: bytes, error: Exception) -> None:
        """Count a defect of ours, and tell of the first ones."""
        self.errors["defect"] += 1
        if self.errors["defect"] <= MAX_DEFECTS_LOGGED:
            fields = {"vlan": self.engine.scope.name, "error": repr(error), "datagram": data.hex()}
            self._log(Note("error", "defect", fields))

    def committed(self, decisions: Sequence[Decision], error: Exception | None) -> None:
        """Finish what is on the disk, unless the disk refused it."""
        self._host.commit_error = None if error is None else str(error)
        if error is not None:
            self.errors["commit"] += len(decisions)
            fields = {"vlan": self.engine.scope.name, "leases": len(decisions), "error": str(error)}
            self._host.say(Note("error", "commit_failed", fields))
            return
        rows = [row for decision in decisions for row in decision.rows]
        self._host.admit(self.engine.scope.name, rows)
        for decision in decisions:
            self._send(decision)
        self._host.tell(self.engine.scope.name, rows)
        for decision in decisions:
            self._say(decision)

    def finish(self, decision: Decision) -> None:
        """Carry out what needs no commit."""
        self._send(decision)
        self._say(decision)

    def _say(self, decision: Decision) -> None:
        if decision.note is not None:
            self._host.say(decision.note)

    def _send(self, decision: Decision) -> None:
        link, send = self.link, decision.send
        try:
            if send is not None:
                if send.mac is not None:
                    link.send(send.mac, self.engine.scope.router, send.address, send.port, send.payload)
                else:
                    link.udp.sendto(send.payload, (dotted(send.address), send.port))
            for address in decision.probes:
                link.ask(address)
        except OSError as error:
            self._failed("send", error)

    def _failed(self, what: str, error: OSError) -> None:
        """A full queue or an interface that is going away: the client asks again."""
        self.errors[what] += 1
        if self.errors[what] == 1:
            fields = {"vlan": self.engine.scope.name, "interface": self.link.interface, "error": str(error)}
            self._log(Note("warning", f"{what}_failed", fields))


def _ignore(_data: bytes, _now: float) -> Decision:
    """What clients say to another server."""
    return NOTHING
