"""What holds for arbitrary packets, and for arbitrary histories of containers, server and wire."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dhcpd import opt
from dhcpd.engine import Engine
from dhcpd.settings import Reservation, Scope
from dhcpd.wire import BROADCAST_MAC, Message, decode, encode
from leasebroker.effects import Effect, Send
from leasebroker.states import State
from tests.dhcpd.script import ROUTER, ip, scope
from tests.leasebroker.script import SERVER, Lan

NAMES = ("web", "db", "cache")
LONG = st.integers(0, 2**32 - 1)
NEAR = st.integers(ip("10.0.1.0") - 1, ip("10.0.1.0") + 256)
CODES = st.sampled_from((1, 3, 26, 51, 52, 53, 54, 58, 59, 61))
VALUES = st.binary(max_size=5) | st.sampled_from(
    (b"\x02", b"\x05", b"\x06", b"\0\0\x0e\x10", b"\xff" * 4, b"\0\0\0\x04", b"\x0a\0\1\x02", b"\x0a\0\1\x03")
)


class Barrage(RuleBasedStateMachine):
    """A hostile server that knows the transaction ids, as every station on the VLAN does: they are broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.lan = Lan(random=random.Random(0), limit=len(NAMES))

    @rule(name=st.sampled_from((*NAMES, "four")), wish=st.none() | NEAR)
    def want(self, name: str, wish: int | None) -> None:
        self.lan.carry_out(self.lan.clients.want(name, name, wish, self.lan.now))

    @rule(name=st.sampled_from(NAMES), end=st.sampled_from(("forget", "decline")))
    def end(self, name: str, end: str) -> None:
        if end == "forget":
            self.lan.clients.forget(name)
        else:
            self.lan.decline(name)

    @rule(payload=st.binary(max_size=400))
    def noise(self, payload: bytes) -> None:
        self.lan.receive(payload)

    @precondition(lambda self: self.lan.messages)
    @rule(data=st.data(), kind=st.sampled_from((2, 5, 6)), address=NEAR | LONG, options=st.dictionaries(CODES, VALUES))
    def answer(self, data: st.DataObject, kind: int, address: int, options: dict[int, bytes]) -> None:
        asked = data.draw(st.sampled_from([self.lan.messages[name] for name in sorted(self.lan.messages)]))
        options = {53: bytes((kind,)), 51: b"\0\0\x0e\x10", 54: b"\x0a\0\1\x02"} | options
        payload = encode(Message(op=2, xid=asked.xid, chaddr=asked.chaddr, yiaddr=address, options=options))
        cut = data.draw(st.none() | st.integers(0, len(payload)))
        self.lan.receive(payload[:cut])

    @rule(pause=st.sampled_from((0.5, 5, 30, 1800, 4000, 90000)))
    def sleep(self, pause: float) -> None:
        self.lan.sleep(pause)

    @rule(jump=st.integers(-100_000, 100_000))
    def set_clock(self, jump: int) -> None:
        self.lan.set_clock(jump)

    @rule()
    def restart(self) -> None:
        self.lan.restart()

    @invariant()
    def an_address_has_one_holder(self) -> None:
        held = [lease.address for name in NAMES if (lease := self.lan.clients.lease(name)) is not None]
        assert len(held) == len(set(held))
        assert all(ip("10.0.1.0") < one < ip("10.0.1.240") and one != ip(ROUTER) for one in held)

    @invariant()
    def tables_are_capped_and_on_disk(self) -> None:
        assert len(self.lan.clients.states()) <= len(NAMES)
        assert {row.address: row for row in self.lan.clients.rows()} == self.lan.disk

    @invariant()
    def who_waits_has_a_deadline(self) -> None:
        waiting = [state for state in self.lan.clients.states().values() if state != State.BOUND]
        assert not waiting or self.lan.clients.deadline() is not None


def run(machine: type[RuleBasedStateMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_no_barrage_breaks_the_client(count: Callable[[int, int], int]) -> None:
    run(Barrage, count(100, 5000))


@given(st.binary(max_size=700))
def test_arbitrary_bytes_change_nothing(data: bytes) -> None:
    lan = Lan()
    lan.want("web")
    lan.receive(data)
    lan.receive(encode(Message(op=2))[:240] + data)
    assert (lan.said, lan.told) == (["discover"], [])
    assert sum(lan.dropped.values()) == 2


class Served(Lan):
    """A VLAN on which our own engine is the server. Its word may be lost."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.is_deaf = False
        super().__init__(random=random.Random(0))
        self.serve(scope(router=ip(SERVER), probe=False, lease_time=200))

    def serve(self, plan: Scope) -> None:
        """Another configuration, the same leases."""
        rows = [] if self.engine is None else self.engine.rows()
        self.engine = Engine(plan, rows, self.now)

    def carry_out(self, effects: Any) -> None:
        super().carry_out(effects)
        for effect in effects:
            if isinstance(effect, Send) and not self.is_deaf:
                self._answer(effect)

    def _answer(self, send: Effect) -> None:
        assert self.engine is not None
        assert isinstance(send, Send)
        self.engine.tick(self.now)
        reply = self.engine.handle(send.payload, self.now).send
        if reply is not None:
            assert reply.mac == BROADCAST_MAC, "only a broadcast reaches the router's leg"
            self.receive(reply.payload)


class History(RuleBasedStateMachine):
    """Containers that come and go, a server that is changed and loses packets, a router that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.lan = Served()

    @rule(name=st.sampled_from(NAMES), wish=st.none() | st.integers(ip("10.0.1.99"), ip("10.0.1.104")))
    def want(self, name: str, wish: int | None) -> None:
        self.lan.carry_out(self.lan.clients.want(name, name, wish, self.lan.now))

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        self.lan.clients.forget(name)

    @rule(is_deaf=st.booleans())
    def wire(self, is_deaf: bool) -> None:
        self.lan.is_deaf = is_deaf

    @rule(owners=st.permutations(NAMES), number=st.integers(0, 3))
    def reserve(self, owners: list[str], number: int) -> None:
        reservations = tuple(
            Reservation(f"r{index}", macs=(self.lan.clients.station(name).mac,), address=ip(f"10.0.1.{100 + index}"))
            for index, name in enumerate(owners[:number])
        )
        assert self.lan.engine is not None
        self.lan.serve(replace(self.lan.engine.scope, reservations=reservations))

    @rule(pause=st.sampled_from((1, 6, 60, 100, 250)))
    def sleep(self, pause: float) -> None:
        self.lan.sleep(pause)

    @rule()
    def restart(self) -> None:
        self.lan.restart()

    @invariant()
    def a_confirmed_lease_is_in_the_servers_book(self) -> None:
        """For as long as the server has promised, unless it is configured anew."""
        assert self.lan.engine is not None
        for name, state in self.lan.clients.states().items():
            lease = self.lan.clients.lease(name)
            if state == State.BOUND and lease is not None and lease.server and not self.lan.engine.scope.reservations:
                held = self.lan.engine.book.by_address[lease.address]
                assert (held.mac, held.expires >= (lease.expires or 0)) == (self.lan.clients.station(name).mac, True)

    def teardown(self) -> None:
        """However it went: with the server there, all have a lease, and it is the reserved one."""
        self.lan.is_deaf = False
        for name in NAMES:
            self.want(name, None)
        self.lan.sleep(500)
        assert self.lan.engine is not None
        assert set(self.lan.clients.states().values()) <= {State.BOUND, State.RENEWING, State.REBINDING}
        for one in self.lan.engine.scope.reservations:
            name = next(name for name in NAMES if self.lan.clients.station(name).mac == one.macs[0])
            lease = self.lan.clients.lease(name)
            assert lease is not None
            assert lease.address == one.address
        addresses = {lease.address for lease in self.lan.clients.leases(self.lan.now).values()}
        assert len(addresses) == len(NAMES)


def test_any_history_ends_with_a_lease_for_each(count: Callable[[int, int], int]) -> None:
    run(History, count(100, 5000))


def test_the_server_is_told_apart_from_the_router() -> None:
    """The lab above is a real exchange: offered by option 54, broadcast, with the client's identifier."""
    lan = Served()
    lan.want("web")
    assert (lan.told, lan.lease("web").server) == (["bound web 10.0.1.100"], ip(SERVER))
    assert decode(encode(lan.messages["web"])).options[opt.SERVER_ID] == ip(SERVER).to_bytes(4, "big")
