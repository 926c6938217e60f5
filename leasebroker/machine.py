"""One container's DHCP client as a pure object: RFC 2131 section 4.4, by the table in ``leasebroker.states``."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from random import Random
from typing import NamedTuple

from dhcpd.decision import Note
from dhcpd.identity import container_key
from dhcpd.leases import BOUND, Row
from dhcpd.pool import dotted
from dhcpd.replies import Times, lease_times
from dhcpd.settings import INFINITE
from dhcpd.wire import Type
from leasebroker import messages
from leasebroker.effects import Bound, Changed, Commit, Effect, Lease, Lost, Send
from leasebroker.messages import Reply, Station
from leasebroker.records import Records, is_live, moved
from leasebroker.states import TRANSITIONS, Event, State

FIRST_RETRY, LAST_RETRY = 1.0, 64.0
"""Seconds to the second message and the longest wait, which doubles in between. RFC 2131 section 4.1 starts at 4 for
any network; here a container waits, and the server is on the same link."""
REQUESTS = 4
"""REQUESTs without an answer before the client starts over, or takes its lease for good until T1 (section 3.1 step 5
and 3.2 step 3)."""
SPREAD = 2.0
"""Seconds over which leases are confirmed after a restart: all at once would overrun the server's socket."""
FUZZ = 1 / 16
"""The part of T1 and T2 by which a client may be early, so that those that were bound together renew apart (section
4.4.5)."""
MIN_PAUSE = 60.0
"""Seconds between two renewals (section 4.4.5), but a `FUZZ` of the lease when that is less: a short lease must not
hang on a single packet."""
GRACE = 5
"""Seconds for which a container keeps an address that its server took back while it asks for another: a server that
pings an address before it offers it takes up to 3. So an address follows a changed reservation without a gap."""
DECLINE_PAUSE = 10.0
"""Seconds between a DECLINE and the next DISCOVER, at least (section 3.1 step 5)."""


_ASKING = (State.SELECTING, State.REQUESTING)
_HEARD = {Type.OFFER: Event.OFFER, Type.ACK: Event.ACK, Type.NAK: Event.NAK}


def backoff(tries: int, random: Random) -> float:
    """Seconds to wait after so many messages, give or take one (RFC 2131 section 4.1) or a quarter."""
    wait = min(FIRST_RETRY * 2.0 ** min(tries - 1, 10), LAST_RETRY)
    return wait + random.uniform(-1, 1) * min(1.0, wait / 4)


class Shared(NamedTuple):
    """What the clients of one VLAN have in common."""

    vlan: str
    records: Records
    random: Random


class Client:
    """One container on one VLAN. What it hears must pass `objection` first; times are service seconds."""

    def __init__(self, shared: Shared, name: str, station: Station, hostname: str, wish: int | None) -> None:
        self.name = name
        self.station = station
        self.hostname = hostname
        self.wish = wish
        self.declined: int | None = None
        """The address that another station was found to have."""
        self.state = State.SELECTING
        self.lease: Lease | None = None
        self.xid: int | None = None
        """The exchange under way, None between two."""
        self._shared = shared
        self._server = 0
        """The only server whose answer counts in this exchange, 0 for any."""
        self._offered = 0
        self._t1 = self._t2 = self._retry = inf
        self._began = 0.0
        """When the first message of this kind was sent in this exchange: the lease counts from it."""
        self._secs = self._tries = self._failures = 0

    def start(self, now: float) -> list[Effect]:
        """INIT, or with a live lease from the store INIT-REBOOT: it is in use at once, and confirmed soon."""
        row = self._shared.records.get(self.name)
        if row is None or not is_live(row, now):
            return self._begin(now)
        self.lease = Lease(row.address, row.since, row.expires)
        self.state = State.REBOOTING
        seconds = INFINITE if row.expires is None else row.expires - row.since
        self._set_timers(row.since, lease_times(seconds, 0.5, 0.875))
        return [Bound(self.name, self.lease), *self._begin(now, self._shared.random.random() * SPREAD)]

    # -- what happens

    def objection(self, reply: Reply) -> str | None:
        """Why an answer changes nothing here, whatever its address."""
        if reply.client_id not in (None, self.station.client_id):
            return "another_client"
        if reply.xid != self.xid:
            return "another_exchange"
        if self._server not in (0, reply.server):
            return "another_server"
        return None if _HEARD[reply.kind] in TRANSITIONS[self.state] else "unexpected"

    def hear(self, reply: Reply, now: float) -> list[Effect]:
        before = self._move(_HEARD[reply.kind])
        if reply.kind == Type.OFFER:
            return self._select(reply, now)
        return self._bind(reply) if reply.kind == Type.ACK else self._refused(before, now)

    def tick(self, now: float) -> list[Effect]:
        """Do the most important of what is due."""
        event = next((event for event, due in self._timers() if due <= now), None)
        if event is None:
            return []
        before = self._move(event)
        if event == Event.EXPIRY:
            return self._expired(before, now)
        if event == Event.SILENCE:
            return self._unanswered(now)
        again = event == Event.RETRY and self.state not in (State.RENEWING, State.REBINDING)
        return [self._say(now)] if again else self._renew(now)

    def deadline(self) -> float:
        """The earliest time at which `tick` has something to do, infinite when nothing waits."""
        return min(due for _, due in self._timers())

    def decline(self, now: float) -> list[Effect]:
        """The address was found in use by another station (section 4.4.4)."""
        lease = self.lease
        if lease is None:
            return []
        self._move(Event.DECLINE)
        self.lease = None
        self.declined = lease.address
        self.wish = None if self.wish == lease.address else self.wish
        message = messages.decline(self.station, self._new_xid(), lease.address, lease.server)
        effects: list[Effect] = [Send(message, self.station.mac)] if lease.server else []
        effects += [*self._unrecord(), Lost(self.name, lease), self._note("warning", "declined", lease)]
        return effects + self._begin(now, DECLINE_PAUSE)

    def shift(self, seconds: int, started: int, now: float) -> None:
        """The clock was set (`leasebroker.records.moved`)."""
        self._began += seconds
        self._retry += seconds
        if (lease := self.lease) is not None:
            move = moved(lease.since, seconds, started, now)
            expires = None if lease.expires is None else lease.expires + move
            self.lease = lease._replace(since=lease.since + move, expires=expires)
            self._t1 += move
            self._t2 += move

    # -- what it does then; the state is the new one already

    def _move(self, event: Event) -> State:
        before, self.state = self.state, TRANSITIONS[self.state][event]
        return before

    def _timers(self) -> Iterator[tuple[Event, float]]:
        """What time will bring in this state, the most important first."""
        if self.lease is not None and self.lease.expires is not None:
            yield Event.EXPIRY, self.lease.expires
        if self.state in (State.BOUND, State.RENEWING):
            yield Event.T2, self._t2
        if self.state == State.BOUND:
            yield Event.T1, self._t1
        is_last = self._tries >= REQUESTS and self.state in (State.REQUESTING, State.REBOOTING)
        yield Event.SILENCE if is_last else Event.RETRY, self._retry

    def _begin(self, now: float, pause: float = 0.0) -> list[Effect]:
        """A new exchange, with any server."""
        self.xid = self._new_xid()
        self._server = self._tries = 0
        self._began = self._retry = now + pause
        return [] if pause else [self._say(now)]

    def _new_xid(self) -> int:
        return self._shared.random.getrandbits(32)

    def _say(self, now: float) -> Send:
        """The message of this state, which is repeated when no answer comes."""
        self._tries += 1
        self._retry = now + self._wait(now)
        who, name, xid = self.station, self.hostname, self.xid or 0
        if self.state == State.SELECTING:
            self._secs = int(now - self._began)
            return Send(messages.discover(who, name, xid, self._secs, self._wish()), who.mac)
        if self.state == State.REQUESTING:
            return Send(messages.select(who, name, xid, self._secs, self._offered, self._server), who.mac)
        return Send(messages.confirm(who, name, xid, 0 if self.lease is None else self.lease.address), who.mac)

    def _wait(self, now: float) -> float:
        lease = self.lease
        if lease is None or lease.expires is None or self.state not in (State.RENEWING, State.REBINDING):
            return backoff(self._tries, self._shared.random)
        end = self._t2 if self.state == State.RENEWING else lease.expires
        return max((end - now) / 2, min(MIN_PAUSE, (lease.expires - lease.since) * FUZZ))

    def _wish(self) -> int | None:
        """The address that the container is told to have, else the one that it had."""
        row = self._shared.records.get(self.name)
        return row.address if self.wish is None and row is not None else self.wish

    def _select(self, reply: Reply, now: float) -> list[Effect]:
        """The first OFFER is taken: a container waits."""
        self._offered, self._server = reply.address, reply.server
        self._tries = 0
        self._began = now
        return [self._say(now)]

    def _bind(self, reply: Reply) -> list[Effect]:
        since, seconds = int(self._began), reply.times.lease
        expires = None if seconds == INFINITE else since + seconds
        before, lease = self.lease, Lease(reply.address, since, expires, reply.server, reply.options)
        self.lease = lease
        self._set_timers(since, reply.times)
        self._rest()
        self._failures = 0
        who = self.station
        row = Row(lease.address, BOUND, container_key(self.name), who.mac, who.client_id, self.hostname, since, expires)
        effects: list[Effect] = [Commit(tuple(self._shared.records.put(self.name, row)))]
        if before is None:
            effects.append(Bound(self.name, lease))
        elif (before.address, before.mtu) != (lease.address, lease.mtu):
            effects.append(Changed(self.name, lease, before))
        renewed = before is not None and before.address == lease.address
        return [*effects, self._note("info", "renewed" if renewed else "granted", lease)]

    def _set_timers(self, since: int, times: Times) -> None:
        self._t1 = self._t2 = inf
        if times.lease != INFINITE:
            early = 1 - FUZZ * self._shared.random.random()
            self._t1, self._t2 = since + times.t1 * early, since + times.t2 * early

    def _rest(self) -> None:
        """Nothing is under way."""
        self.xid = None
        self._server = self._tries = 0
        self._retry = inf

    def _refused(self, before: State, now: float) -> list[Effect]:
        """A server that refuses what it has just offered must not be asked again at the speed of the wire."""
        lease = self.lease
        if before == State.REQUESTING or lease is None:
            self._failures += 1
            return self._begin(now, backoff(self._failures, self._shared.random))
        end = int(now) + GRACE
        self.lease = lease._replace(expires=end if lease.expires is None else min(end, lease.expires))
        return [*self._unrecord(), self._note("info", "refused", lease), *self._begin(now)]

    def _unrecord(self) -> list[Commit]:
        rows = tuple(self._shared.records.drop(self.name))
        return [Commit(rows)] if rows else []

    def _renew(self, now: float) -> list[Effect]:
        """Each message is an exchange of its own, so that the lease counts from the one that was answered."""
        said = self._begin(now)
        if self.state == State.RENEWING and self.lease is not None:
            self._server = self.lease.server
        return said

    def _unanswered(self, now: float) -> list[Effect]:
        """Start over; a lease that nobody confirms is good until it ends (section 3.2 step 3)."""
        if self.state == State.SELECTING:
            return self._begin(now)
        self._rest()
        return []

    def _expired(self, before: State, now: float) -> list[Effect]:
        lease, self.lease = self.lease, None
        if lease is None:
            return []
        lost: list[Effect] = [Lost(self.name, lease), self._note("warning", "lost", lease)]
        return lost if before in _ASKING else [*lost, *self._begin(now)]

    def _note(self, level: str, event: str, lease: Lease) -> Note:
        fields = {"vlan": self._shared.vlan, "address": dotted(lease.address), "container": self.name}
        if lease.server:
            fields["server"] = dotted(lease.server)
        return Note(level, event, fields)
