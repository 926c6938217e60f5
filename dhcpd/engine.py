"""RFC 2131 for one VLAN as a pure object: a datagram and ``now`` in, a `Decision` out.

``now`` is service time in seconds (``dhcpd.clock``). Nothing here reads a clock, opens a socket or logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from dhcpd import opt
from dhcpd.allocator import Allocator
from dhcpd.decision import NOTHING, Decision, Note
from dhcpd.identity import Node, container_of, host_name
from dhcpd.leases import BOUND, DECLINER, Binding, Columns, Row
from dhcpd.limits import MAX_STATIONS, MAX_STRANGER, Limits
from dhcpd.offers import Offer
from dhcpd.pool import dotted
from dhcpd.replies import Profile, Send, Times, compose, lease_times, refuse
from dhcpd.reports import Reports
from dhcpd.settings import INFINITE, Scope
from dhcpd.wire import (
    BOOTREQUEST,
    BROADCAST,
    BROADCAST_FLAG,
    BROADCAST_MAC,
    CLIENT_PORT,
    ETHERNET,
    SERVER_PORT,
    Message,
    Type,
    WireError,
    decode,
)

MAX_CONFLICTS_PER_MAC = 16
"""A station that answers for more free addresses than this does proxy ARP; believing it would empty the pool."""
MAX_DECLINES_PER_MAC = 8
"""A station that has declined so many addresses which are in quarantine still finds fault with any; believing it
further would empty the pool. It keeps its lease."""
FULL_SECONDS = 120


class Engine:
    """One VLAN's server. Its memory is bounded: leases by the pool, offers by ``Scope.max_offers``."""

    def __init__(self, scope: Scope, rows: Iterable[Columns], now: float) -> None:
        self.scope = scope
        self.allocator = allocator = Allocator(scope, rows, now)
        self.directory = allocator.directory
        self.book = allocator.book
        self.pool = allocator.pool
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._offers = allocator.offers
        self._prober = allocator.prober
        self.limits = Limits(now)
        self._conflicts, self._declines = Reports(), Reports()
        self._full_since: float | None = None
        self._profile = Profile(scope.router, scope.options, scope.boot)
        self._profiles = {
            id(one): Profile(scope.router, {**scope.options, **one.options}, one.boot or scope.boot)
            for one in scope.reservations
        }
        self._times = lease_times(scope.lease_time, scope.t1, scope.t2)
        self._handlers = {
            bytes((Type.DISCOVER,)): ("discover", self._discover),
            bytes((Type.REQUEST,)): ("request", self._request),
            bytes((Type.DECLINE,)): ("decline", self._decline),
            bytes((Type.RELEASE,)): ("release", self._release),
            bytes((Type.INFORM,)): ("inform", self._inform),
        }
        self._first, self._last = int(scope.subnet.network_address), int(scope.subnet.broadcast_address)

    # -- messages

    def handle(self, data: bytes, now: float) -> Decision:
        """Decide on one UDP payload. Never raises, whatever the bytes; what is not answered is counted by reason."""
        try:
            message = decode(data)
        except WireError as error:
            return self._drop(error.args[0])
        options, mac = message.options, message.chaddr
        handler = self._handlers.get(options.get(opt.MESSAGE_TYPE, b""))
        is_plain = message.htype == ETHERNET and len(mac) == 6 and not mac[0] & 1 and not message.giaddr
        if handler is None or message.op != BOOTREQUEST or not is_plain:
            reason = self._malformed(message)
            if handler is None or reason is not None:
                return self._drop(reason or "unsupported_type")
        name, decide = handler
        self.received[name] += 1
        node = self.directory.identify(message.htype, mac, options.get(opt.CLIENT_ID, b""))
        limits, station = self.limits, mac or node.owner
        counts = limits.counts
        count = counts[station] = counts.get(station, 0) + 1
        is_seldom = count <= MAX_STRANGER and now < limits.end and len(counts) <= MAX_STATIONS
        is_known = node.owner in self.book.by_owner or node.reservation is not None
        if is_seldom and is_known:
            pass
        elif is_seldom and limits.tokens >= 1:
            limits.tokens -= 1
        elif not limits.admits(station, is_known, now):
            return self._drop("too_often" if counts[station] > MAX_STRANGER else "too_many_strangers")
        return decide(message, node, now)

    def _malformed(self, message: Message) -> str | None:
        """Why a message with something unusual is none for a server of this VLAN."""
        kind, mac = message.options.get(opt.MESSAGE_TYPE, b""), message.chaddr
        if message.op != BOOTREQUEST:
            return "not_a_request"
        if len(kind) != 1:
            return "bad_message_type" if kind else "bootp"
        if message.htype == ETHERNET and (len(mac) != 6 or mac[0] & 1):
            return "bad_hardware_address"
        if not mac and not message.options.get(opt.CLIENT_ID):
            return "no_identity"
        if message.giaddr and not self._first < message.giaddr < self._last:
            return "foreign_relay"
        return None

    def _discover(self, message: Message, node: Node, now: float) -> Decision:
        """RFC 2131 section 4.3.1."""
        if self.scope.known_only and node.reservation is None:
            return self._drop("unknown_client")
        allocator, probe = self.allocator, False
        lease_time = message.options.get(opt.LEASE_TIME)
        address = allocator.rightful(node)
        if address is not None:
            binding = self.book.by_address.get(address)
            if binding is None or binding.owner != node.owner or not binding.is_live(now):
                probe = self._prober.watch(address, now)
                allocator.hold(node, address, now, lease_time)
        else:
            offer = self._offers.get(node.owner)
            if offer is None:
                wanted = int.from_bytes(message.options.get(opt.REQUESTED_ADDRESS, b""), "big")
                address, probe = allocator.choose(wanted, node, now)
            else:
                address = offer.address
            if address is None:
                return self._pool_full(now)
            allocator.hold(node, address, now, lease_time)
        times = self._lease_times(lease_time)
        send = self._reply(message, node, Type.OFFER, address, times)
        return Decision((), send, None, (address,) if probe else ())

    def _request(self, message: Message, node: Node, now: float) -> Decision:
        """RFC 2131 section 4.3.2, table 4: SELECTING has a server identifier, INIT-REBOOT a requested address only,
        RENEWING and REBINDING have ``ciaddr`` only. Without authority a client in INIT-REBOOT that we have no record of
        hears nothing. With it a free address is confirmed, and not probed: to the client that would be a conflict."""
        allocator = self.allocator
        server_id = message.options.get(opt.SERVER_ID)
        requested = message.options.get(opt.REQUESTED_ADDRESS)
        if server_id is not None and int.from_bytes(server_id, "big") != self.scope.router:
            allocator.withdraw(node.owner)
            return self._drop("other_server")
        address = int.from_bytes(requested, "big") if requested is not None else message.ciaddr
        if not address:
            return self._drop("no_address")
        if self.scope.known_only and node.reservation is None:
            return self._drop("unknown_client")
        offer = self._offers.get(node.owner)
        right = allocator.rightful(node)
        if server_id is not None and offer is not None and offer.address == address:
            return self._grant(message, node, address, now, offer.lease_time)
        if right is not None:
            if right == address:
                return self._grant(message, node, address, now)
            return self._nak(message, "another address is yours", known=True)
        known = server_id is not None or node.owner in self.book.by_owner
        if requested is not None and not (known or offer is not None or self.scope.authoritative):
            return self._drop("not_authoritative")
        if allocator.is_grantable(address, node) or (server_id is None and allocator.is_in_use_by(address, node)):
            return self._grant(message, node, address, now)
        if not self._first <= address <= self._last:
            return self._nak(message, "wrong network", known=known)
        return self._nak(message, "address not available", known=known)

    def _decline(self, message: Message, node: Node, now: float) -> Decision:
        """RFC 2131 section 4.3.3: the client found its address in use."""
        if self._is_for_another(message):
            return self._drop("other_server")
        binding = self.book.by_owner.get(node.owner)
        address = int.from_bytes(message.options.get(opt.REQUESTED_ADDRESS, b""), "big")
        if binding is None or binding.address != address:
            return self._drop("not_the_holder")
        station = node.mac or node.owner
        declined = self._declines.of(station) & self.book.declined
        if len(declined) >= MAX_DECLINES_PER_MAC:
            return self._drop("declines_too_often")
        self._declines.put(station, declined | {address})
        return self._quarantine(address, node.mac, now, "declined", DECLINER)

    def _release(self, message: Message, node: Node, now: float) -> Decision:
        """RFC 2131 section 4.3.4."""
        if self._is_for_another(message):
            return self._drop("other_server")
        binding = self.book.by_owner.get(node.owner)
        if binding is None or binding.address != message.ciaddr:
            return self._drop("not_the_holder")
        if not binding.is_live(now):
            return self._drop("already_released")
        row = self.book.release(binding, int(now))
        return Decision([row], None, self._note("info", "released", row))

    def _inform(self, message: Message, node: Node, _now: float) -> Decision:
        """RFC 2131 section 4.3.5: configuration for a client that has its address from elsewhere."""
        if message.ciaddr and not self._first < message.ciaddr < self._last:
            return self._drop("foreign_address")
        return Decision((), self._reply(message, node, Type.ACK, 0, None))

    def _is_for_another(self, message: Message) -> bool:
        server_id = message.options.get(opt.SERVER_ID)
        return server_id is not None and int.from_bytes(server_id, "big") != self.scope.router

    # -- decisions

    def _grant(self, message: Message, node: Node, address: int, now: float, offered: bytes | None = None) -> Decision:
        """Commit the lease, then ACK (RFC 2131 section 4.3.2). ``offered``: option 51 of the DISCOVER, if there was an
        offer."""
        options = message.options
        times = self._lease_times(options.get(opt.LEASE_TIME, offered))
        client_id = options.get(opt.CLIENT_ID, b"")
        rows, note = self._bind(node, address, client_id, host_name(options), times.lease, now)
        return Decision(rows, self._reply(message, node, Type.ACK, address, times), note)

    def _bind(
        self, node: Node, address: int, client_id: bytes, hostname: str, lease: int, now: float
    ) -> tuple[list[Row], Note]:
        """The rows and the note of a lease of so many seconds. A reservation's name goes before the node's own."""
        second = int(now)
        reservation = node.reservation
        previous = self.book.by_owner.get(node.owner)
        row = Row(
            address,
            BOUND,
            node.key,
            node.mac,
            client_id,
            reservation.name if reservation is not None and reservation.name else hostname,
            second,
            None if lease == INFINITE else second + lease,
        )
        if previous is None:
            self.limits.tokens += 2
        renewed = previous is not None and previous.address == address and previous.expires > now
        self.allocator.clear(node.owner, address)
        rows = self.book.grant(row, node.owner)
        if previous is not None and previous.address != address:
            self.allocator.leave(previous, now)
        if row.client != node.owner and (old := self.book.by_owner.get(row.client)) is not None and old.is_live(now):
            rows.append(self.book.release(old, second))
        return rows, self._note("info", "renewed" if renewed else "granted", row)

    def _lease_times(self, requested: bytes | None) -> Times:
        scope = self.scope
        if requested is None or len(requested) != 4:
            return self._times
        lease = min(max(int.from_bytes(requested, "big"), scope.min_lease_time), scope.max_lease_time)
        return self._times if lease == self._times.lease else lease_times(lease, scope.t1, scope.t2)

    def _reply(self, message: Message, node: Node, kind: int, yiaddr: int, times: Times | None) -> Send:
        """An OFFER or ACK, and where it goes (RFC 2131 section 4.1). Nothing outside the VLAN is ever written to."""
        profile = self._profile if node.reservation is None else self._profiles[id(node.reservation)]
        payload = compose(message, kind, profile, yiaddr, times)
        self.sent["offer" if kind == Type.OFFER else "ack"] += 1
        ciaddr = message.ciaddr
        if message.giaddr:
            return Send(payload, None, message.giaddr, SERVER_PORT)
        if message.htype != ETHERNET or node.mac in self.scope.always_broadcast:
            return Send(payload, BROADCAST_MAC, BROADCAST, CLIENT_PORT)
        if ciaddr and self._first < ciaddr < self._last:
            return Send(payload, node.mac, ciaddr, CLIENT_PORT)
        if message.flags & BROADCAST_FLAG:
            return Send(payload, BROADCAST_MAC, BROADCAST, CLIENT_PORT)
        return Send(payload, node.mac, yiaddr or BROADCAST, CLIENT_PORT)

    def _nak(self, message: Message, why: str, *, known: bool) -> Decision:
        """Tell a client that its address is wrong. Without authority only one that we know of (RFC 2131 4.3.2)."""
        if not (known or self.scope.authoritative):
            return self._drop("not_authoritative")
        self.sent["nak"] += 1
        payload = refuse(message, self.scope.router, why)
        if message.giaddr:
            send = Send(payload, None, message.giaddr, SERVER_PORT)
        else:
            send = Send(payload, BROADCAST_MAC, BROADCAST, CLIENT_PORT)
        requested = int.from_bytes(message.options.get(opt.REQUESTED_ADDRESS, b"")[:4], "big") or message.ciaddr
        fields = {"vlan": self.scope.name, "address": dotted(requested), "mac": message.chaddr.hex(":"), "why": why}
        return Decision(send=send, note=Note("info", "refused", fields))

    def _pool_full(self, now: float) -> Decision:
        """Silence to the client, and one warning a minute."""
        self.dropped["pool_full"] += 1
        if self._full_since is not None and now - self._full_since < 60:
            return NOTHING
        self._full_since = now
        return Decision(note=Note("warning", "pool_full", {"vlan": self.scope.name, "size": self.pool.size}))

    # -- time and conflicts

    def tick(self, now: float) -> list[Decision]:
        """What time brings: offers lapse, leases and quarantines end, free addresses are probed."""
        for owner in reversed(self._offers.lapsed(now)):
            self.allocator.withdraw(owner)
        decisions = [self._ended(binding) for binding in self.book.expire(now)]
        if probes := self._prober.tick(now):
            decisions.append(Decision(probes=probes))
        return decisions

    def deadline(self) -> float | None:
        """The earliest time at which `tick` has something to do, None when nothing waits."""
        times = (self._offers.deadline(), self.book.next_expiry(), self._prober.deadline())
        return min((one for one in times if one is not None), default=None)

    def _ended(self, binding: Binding) -> Decision:
        if binding.state == BOUND:
            note = self._note("info", "expired", binding.row())
            if (container := container_of(binding.client)) is not None:
                note.fields["container"] = container
            return Decision(note=note)
        return self._forget(binding, "quarantine_ended")

    def heard(self, address: int, mac: bytes, now: float) -> Decision:
        """Somebody at ``mac`` answers for ``address`` by ARP. The holder of the address may; anybody else is a squatter
        when the address is free, or was when the probe went out that this answers."""
        answers = self._conflicts.of(mac)
        if len(answers) > MAX_CONFLICTS_PER_MAC or not self._prober.heard(address, mac, now):
            return NOTHING
        owner, offer = self._offers.owner(address), self._offers.of(address)
        if offer is not None and offer.mac == mac:
            return NOTHING
        holder = self.book.by_address.get(address)
        if holder is not None and holder.mac == mac:
            if owner is not None and owner != holder.owner:
                self.allocator.withdraw(owner)
                if address in self.book.idle:
                    self.book.idle.move_to_end(address)
            return NOTHING
        answers |= {address}
        self._conflicts.put(mac, answers)
        if len(answers) > MAX_CONFLICTS_PER_MAC:
            return self._proxy_arp(address, mac)
        return self._quarantine(address, mac, now, "conflict")

    def _proxy_arp(self, address: int, mac: bytes) -> Decision:
        """From now on that station is not believed."""
        if self.allocator.is_free(address):
            self._prober.give_back(address)
        fields = {"vlan": self.scope.name, "mac": mac.hex(":"), "cure": "switch off proxy ARP on that station"}
        return Decision(note=Note("warning", "proxy_arp", fields))

    def _quarantine(self, address: int, mac: bytes, now: float, why: str, client: bytes = b"") -> Decision:
        if (owner := self._offers.owner(address)) is not None:
            self._offers.pop(owner)
        second = int(now)
        rows = self.book.quarantine(address, mac, second, second + self.scope.quarantine, client)
        return Decision(rows, None, self._note("warning", why, rows[0]))

    # -- containers

    def lease_container(
        self, name: str, mac: bytes, hostname: str, wanted: int | None, now: float, *, again: bool = False
    ) -> tuple[int | None, Decision]:
        """The address of the container of that name, and what to commit before it is used.

        The same for every call, a new lease at the first, a longer one when half of it is over. ``mac``: its
        interface's, ``b""`` when not known yet. ``wanted``: the address that it asks for; it gets that if it is free,
        and may. None when there is none for it: the pool is full, or the VLAN serves reservations only.
        ``again``: the lease of the last call may not be on the disk, so there is one to commit in any case.
        """
        node = self.directory.identify_container(name)._replace(mac=mac)
        if self.scope.known_only and node.reservation is None:
            return None, self._drop("unknown_client")
        address, probe = self.allocator.place_container(node, wanted, now)
        if address is None:
            return None, self._pool_full(now)
        held = self.book.by_owner.get(node.owner)
        if not again and held is not None and held.address == address and self._is_fresh(held, node, now):
            return address, NOTHING
        node = node._replace(mac=mac or (b"" if held is None else held.mac))
        rows, note = self._bind(node, address, b"", hostname, self._times.lease, now)
        return address, Decision(rows, None, note, (address,) if probe else ())

    def _is_fresh(self, held: Binding, node: Node, now: float) -> bool:
        """Whether a container's lease needs no renewal: the same interface has it, and its T1 is not reached."""
        remaining = held.expires - now
        return (
            held.is_live(now)
            and node.mac in (b"", held.mac)
            and held.client == node.key
            and remaining > (1 - self.scope.t1) * (held.expires - held.since)
        )

    def mirror(self, rows: Iterable[Row]) -> None:
        """Have in the book what another server has granted, or taken back (``Scope.is_external``)."""
        for row in rows:
            if row.state == BOUND:
                self.book.grant(row, self.directory.owner_of(row))
            elif (held := self.book.by_address.get(row.address)) is not None:
                self.book.forget(held)

    # -- the operator's hand

    def drop(self, address: int) -> Decision | None:
        """Forget whose an address is or was; what is reserved stays so. Its holder goes on until it renews, and has it
        again then if it is still free. None when it is nobody's, or quarantined."""
        binding = self.book.by_address.get(address)
        if binding is None or binding.state != BOUND:
            return None
        self.allocator.withdraw(binding.owner)
        return self._forget(binding, "lease_dropped")

    def clear(self, address: int) -> Decision | None:
        """End the quarantine of an address; None when it is in none. Whoever still answers for it is heard again."""
        binding = self.book.by_address.get(address)
        return None if binding is None or binding.state == BOUND else self._forget(binding, "quarantine_cleared")

    def _forget(self, binding: Binding, event: str) -> Decision:
        note = self._note("info", event, binding.row())
        row = self.book.forget(binding)
        self.allocator.give_back(binding.address)
        return Decision([row], None, note)

    # -- the operator's questions

    def is_anothers(self, name: str, address: int) -> bool:
        """Whether an address is leased to or reserved for somebody else than the container of that name."""
        return self.allocator.is_anothers(self.directory.identify_container(name).owner, address)

    def is_reserved(self, name: str, address: int) -> bool:
        """Whether an address is written down for the container of that name."""
        reservation = self.directory.identify_container(name).reservation
        return reservation is not None and reservation.address == address

    def address_of_container(self, name: str) -> int | None:
        """The address that the container of that name has or had."""
        return self.allocator.rightful(self.directory.identify_container(name))

    @property
    def offers(self) -> int:
        """Offers that stand."""
        return len(self._offers)

    def inherit(self, old: Engine) -> None:
        """Go on where the engine of the previous configuration stopped: its counts, what it knows of stations, and the
        offers that still fit."""
        self.received, self.sent, self.dropped = old.received, old.sent, old.dropped
        self.limits = old.limits
        self._conflicts, self._declines = old._conflicts, old._declines
        self._prober.inherit(old._prober)
        for owner, offer in old.standing_offers():
            if self.allocator.is_dynamic(offer.address) and self._offers.surplus(offer.mac) is None:
                self._offers.restore(owner, offer)
                self.book.idle.pop(offer.address, None)

    def standing_offers(self) -> list[tuple[bytes, Offer]]:
        """The offers by their clients' keys, in the order in which they end."""
        return self._offers.items()

    def is_full(self, now: float) -> bool:
        """Whether somebody went without an address within the last minutes."""
        return self._full_since is not None and 0 <= now - self._full_since < FULL_SECONDS

    def proxies(self) -> list[bytes]:
        """The stations that answer by ARP for more addresses than any one has."""
        return self._conflicts.stations(more_than=MAX_CONFLICTS_PER_MAC)

    def step(self, seconds: int, since: int, now: float) -> list[Row]:
        """The clock was set: move the leases granted at or after ``since`` along, and what waits. Leases that are live
        again end the offers of their addresses to others."""
        rows = self.book.shift(seconds, since, now)
        self._offers.shift(seconds)
        for owner, offer in self._offers.items():
            held = self.book.by_address.get(offer.address)
            if held is not None and held.owner != owner and held.is_live(now):
                self._offers.pop(owner)
        self._full_since = None
        self._prober.shift(seconds)
        return rows

    def rows(self) -> list[Row]:
        """All there is in the book, by ascending address."""
        return [self.book.by_address[address].row() for address in sorted(self.book.by_address)]

    def _drop(self, reason: str) -> Decision:
        self.dropped[reason] += 1
        return NOTHING

    def _note(self, level: str, event: str, row: Row) -> Note:
        fields: dict[str, Any] = {"vlan": self.scope.name, "address": dotted(row.address), "mac": row.mac.hex(":")}
        if row.hostname:
            fields["hostname"] = row.hostname
        return Note(level, event, fields)
