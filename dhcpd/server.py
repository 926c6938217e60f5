"""One VLAN on the wire: drain the socket, decide, commit, send."""

from __future__ import annotations

import asyncio
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dhcpd.decision import NOTHING, Decision, Note
from dhcpd.engine import Engine
from dhcpd.leases import Row
from dhcpd.link import MAX_DATAGRAM, Link
from dhcpd.pool import dotted
from dhcpd.store import Batch, Done, Job, Store
from dhcpd.wire import arp_sender

MAX_DRAIN = 256
"""Datagrams read in one round; then other VLANs have theirs."""

MAX_DEFECTS_LOGGED = 20


class Host:
    """What the servers of one process share: the clock, the log, the store, and one reader of the event loop.

    ``clock`` gives service time, ``log`` takes the notes, ``committed`` is told a VLAN's rows that are on disk before
    their answers leave. A round serves every VLAN that has something to read, and all their leases are one commit.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        log: Callable[[Note], None],
        committed: Callable[[str, Sequence[Row]], None] = lambda _vlan, _rows: None,
    ) -> None:
        self.store = store
        self.log = log
        self.committed = committed
        self._clock = clock
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._jobs: list[Job] | None = None
        self._round_now = 0.0

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll, self._round)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll)
        self._epoll.close()

    def now(self) -> float:
        """Service time; all of one round is at one time."""
        return self._clock() if self._jobs is None else self._round_now

    def watch(self, one: socket.socket, callback: Callable[[], None]) -> None:
        """Call when there is something to read."""
        self._callbacks[one.fileno()] = callback
        self._epoll.register(one, select.EPOLLIN)

    def ignore(self, one: socket.socket) -> None:
        del self._callbacks[one.fileno()]
        self._epoll.unregister(one)

    def commit(self, batch: Batch, done: Done) -> None:
        if self._jobs is None:
            self.store.commit(batch, done)
        else:
            self._jobs.append((batch, done))

    def _round(self) -> None:
        self._round_now = self._clock()
        jobs = self._jobs = []
        try:
            for descriptor, _ in self._epoll.poll(0):
                if (callback := self._callbacks.get(descriptor)) is not None:
                    callback()
        finally:
            self._jobs = None
            if jobs:
                self.store.commit_all(jobs)


class Server:
    """The event loop's side of one `Engine`. Errors of a socket are counted in ``errors``, never raised."""

    def __init__(self, engine: Engine, link: Link, host: Host) -> None:
        self.engine = engine
        self.link = link
        self.errors: Counter[str] = Counter()
        self._host = host
        self._log = host.log
        self._vlan_id = host.store.vlan_id(engine.scope.name)
        self._is_reading = False

    def start(self) -> None:
        """Begin to read from the link; what waits in it already is answered now."""
        self._is_reading = True
        self._host.watch(self.link.udp, self._drain)
        self._host.watch(self.link.arp, self._listen)
        self._drain()

    def stop(self) -> None:
        """Read no more, if it does; the link stays open, for answers that wait for a commit or for another server."""
        if self._is_reading:
            self._is_reading = False
            self._host.ignore(self.link.udp)
            self._host.ignore(self.link.arp)

    async def lease_container(self, name: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """`Engine.lease_container`, and back when the lease is on the disk; None also when the disk refuses."""
        address, decision = self.engine.lease_container(name, mac, hostname, wanted, self._host.now())
        if not decision.rows:
            self._finish(decision)
            return address
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._host.commit([(self._vlan_id, row) for row in decision.rows], done.set_result)
        error = await asyncio.shield(done)
        self._committed([decision], error)
        return address if error is None else None

    def step(self, seconds: int) -> None:
        """The clock was set by so much."""
        if rows := self.engine.step(seconds, self._host.now()):
            self._carry_out([Decision(rows)])

    def tick(self) -> float | None:
        """Do what is due; returns the service second at which there is more to do."""
        now = self._host.now()
        deadline = self.engine.deadline()
        if deadline is not None and deadline <= now:
            self._carry_out(self.engine.tick(now))
        return self.engine.deadline()

    def _drain(self) -> None:
        """Read until the socket is empty: all leases of one round are one commit."""
        now = self._host.now()
        decisions = [self._decide(data, now) for data in self._received(self.link.udp)]
        self._carry_out([one for one in decisions if one is not NOTHING])

    def _listen(self) -> None:
        now = self._host.now()
        claims = map(arp_sender, self._received(self.link.arp))
        self._carry_out([self.engine.heard(*claim, now) for claim in claims if claim is not None])

    def _received(self, one: socket.socket) -> Iterator[bytes]:
        """What waits in a socket, up to `MAX_DRAIN` datagrams."""
        try:
            for _ in range(MAX_DRAIN):
                yield one.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed("receive", error)

    def _decide(self, data: bytes, now: float) -> Decision:
        try:
            return self.engine.handle(data, now)
        except Exception as error:  # noqa: BLE001 - one datagram that finds a defect must not stop the VLAN
            self.errors["defect"] += 1
            if self.errors["defect"] <= MAX_DEFECTS_LOGGED:
                fields = {"vlan": self.engine.scope.name, "error": repr(error), "datagram": data.hex()}
                self._log(Note("error", "defect", fields))
            return NOTHING

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        """At once what changes no lease, the rest when its rows are on disk."""
        waiting = []
        for decision in decisions:
            if decision.rows:
                waiting.append(decision)
            else:
                self._finish(decision)
        if waiting:
            batch = [(self._vlan_id, row) for decision in waiting for row in decision.rows]
            self._host.commit(batch, partial(self._committed, waiting))

    def _committed(self, decisions: Sequence[Decision], error: Exception | None) -> None:
        if error is not None:
            self.errors["commit"] += len(decisions)
            fields = {"vlan": self.engine.scope.name, "leases": len(decisions), "error": str(error)}
            self._log(Note("error", "commit_failed", fields))
            return
        self._host.committed(self.engine.scope.name, [row for decision in decisions for row in decision.rows])
        for decision in decisions:
            self._finish(decision)

    def _finish(self, decision: Decision) -> None:
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
        if decision.note is not None:
            self._log(decision.note)

    def _failed(self, what: str, error: OSError) -> None:
        """A full queue or an interface that is going away: the client asks again."""
        self.errors[what] += 1
        if self.errors[what] == 1:
            fields = {"vlan": self.engine.scope.name, "interface": self.link.interface, "error": str(error)}
            self._log(Note("warning", f"{what}_failed", fields))
