"""What holds for arbitrary messages, and for arbitrary histories of one VLAN."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dhcpd import opt
from dhcpd.engine import Engine
from dhcpd.identity import container_key
from dhcpd.pool import dotted
from dhcpd.settings import Reservation
from dhcpd.wire import HEADER_SIZE, MINIMUM_SIZE, Message, WireError, decode, encode
from tests.dhcpd.script import Client, Reply, Vlan, ip, mac

BYTE, WORD, LONG = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
CODES = st.integers(1, 254).filter(lambda code: code != opt.OVERLOAD)


def text(size: int) -> st.SearchStrategy[bytes]:
    """What ``sname`` and ``file`` can hold: it neither starts nor ends with a NUL."""
    return st.binary(max_size=size).filter(lambda value: value.strip(b"\0") == value)


MESSAGES = st.builds(
    Message, op=BYTE, htype=BYTE, hops=BYTE, xid=LONG, secs=WORD, flags=WORD, ciaddr=LONG, yiaddr=LONG, siaddr=LONG,
    giaddr=LONG, chaddr=st.binary(max_size=16), sname=text(64), file=text(128),
    options=st.dictionaries(CODES, st.binary(max_size=600), max_size=12),
)  # fmt: skip


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES, st.integers(MINIMUM_SIZE, 1500))
def test_a_limited_message_has_some_of_the_options_and_all_of_the_rest(message: Message, limit: int) -> None:
    data = encode(message, limit)
    found = decode(data)
    assert len(data) <= limit
    assert found.options.items() <= message.options.items()
    found.options = message.options
    assert found == message


@given(st.binary(max_size=700))
def test_arbitrary_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    for candidate in (data, encode(Message())[:HEADER_SIZE] + data):
        with suppress(WireError):
            assert decode(candidate)


@given(MESSAGES, st.integers(0, 1), st.integers(1, 8))
def test_the_engine_takes_any_message(message: Message, op: int, kind: int) -> None:
    """One that comes near to the real thing, so that it gets past the first checks."""
    vlan = Vlan(probe=True)
    message.op, message.htype, message.chaddr, message.giaddr = op, 1, mac(1), message.giaddr * op
    message.options[opt.MESSAGE_TYPE] = bytes((kind,))
    vlan.receive(encode(message))
    assert vlan.client(2).join()


FIRST, LAST = ip("10.0.1.100"), ip("10.0.1.105")
CLIENTS = 5
CONTAINERS = ("web", "db")
NUMBERS = st.integers(0, CLIENTS - 1)
ADDRESSES = st.integers(FIRST - 1, LAST + 1).map(lambda value: f"10.0.1.{value & 255}")
SPANS = st.tuples(st.integers(FIRST, LAST), st.integers(FIRST, LAST)).map(
    lambda ends: f"10.0.1.{min(ends) & 255}-10.0.1.{max(ends) & 255}"
)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration of the VLAN: pools, reservations without a common address, and switches."""
    addresses = draw(st.lists(st.integers(FIRST, LAST + 1), unique=True, max_size=3))
    owners = draw(st.permutations([*range(CLIENTS), *CONTAINERS]))
    reservations = tuple(
        Reservation(f"r{owner}", container=owner, address=address)
        if isinstance(owner, str)
        else Reservation(f"r{owner}", macs=(mac(owner),), address=address)
        for owner, address in zip(owners, addresses, strict=False)
    )
    return {
        "pools": draw(st.lists(SPANS, min_size=1, max_size=2)),
        "reservations": reservations,
        "lease_time": draw(st.sampled_from((200, 1000))),
        "authoritative": draw(st.booleans()),
        "match_client_id": draw(st.booleans()),
        "known_only": draw(st.integers(0, 9)) == 0,
    }


class History(RuleBasedStateMachine):
    """Several clients and containers, one VLAN, and what they believe: ``beliefs`` and ``pinned`` are the leases that
    they were promised since the last reload, each until its end."""

    def __init__(self) -> None:
        super().__init__()
        self.vlan = Vlan(pools=("10.0.1.100-10.0.1.103",), lease_time=200, quarantine=300, max_offers=3, probe=True)
        ids = (None, b"\0one", None, b"\0three", None)
        self.clients = [self.vlan.client(number, client_id=ids[number]) for number in range(CLIENTS)]
        self.beliefs: dict[int, tuple[str, float]] = {}
        self.pinned: dict[str, tuple[str, float]] = {}
        self.offers: dict[int, Reply] = {}

    def hear(self, number: int, reply: Reply) -> None:
        """A client takes an answer to its REQUEST at its word."""
        if reply.kind == "nak":
            self.beliefs.pop(number, None)
        if reply.kind != "ack":
            return
        self.beliefs[number] = (reply.yiaddr, self.vlan.now + reply.seconds(51))
        assert self.may_have(number, reply.message.yiaddr)
        assert self.vlan.disk[reply.message.yiaddr].mac == self.clients[number].mac

    def may_have(self, number: int, address: int) -> bool:
        """In a pool and reserved for nobody, or reserved for this client."""
        reserved = {one.address: one.macs for one in self.vlan.scope.reservations}
        if address in reserved:
            return mac(number) in reserved[address]
        return self.is_in_a_pool(address)

    def is_in_a_pool(self, address: int) -> bool:
        return any(address in pool for pool in self.vlan.scope.pools)

    @rule(number=NUMBERS, wish=st.none() | ADDRESSES.map(ip))
    def discover(self, number: int, wish: int | None) -> None:
        reply = self.clients[number].discover(o50=None if wish is None else wish.to_bytes(4, "big"))
        if reply.kind == "offer":
            self.offers[number] = reply
            assert self.may_have(number, reply.message.yiaddr)

    @rule(number=NUMBERS)
    def join(self, number: int) -> None:
        self.discover(number, None)
        if number in self.offers:
            self.hear(number, self.clients[number].select(self.offers.pop(number)))

    @precondition(lambda self: self.offers)
    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.offers)))
        self.hear(number, self.clients[number].select(self.offers.pop(number)))

    @rule(number=NUMBERS, address=ADDRESSES, speak=st.sampled_from(("reboot", "renew")))
    def ask_for_something(self, number: int, address: str, speak: str) -> None:
        self.hear(number, getattr(self.clients[number], speak)(address))

    @precondition(lambda self: self.beliefs)
    @rule(data=st.data(), shorter=st.booleans())
    def renew(self, data: st.DataObject, shorter: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.beliefs)))
        wish = (130).to_bytes(4, "big") if shorter else None
        self.hear(number, self.clients[number].renew(self.beliefs[number][0], o51=wish))

    @rule(
        name=st.sampled_from(CONTAINERS), wish=st.none() | ADDRESSES, station=st.sampled_from((b"", mac(20), mac(21)))
    )
    def lease(self, name: str, wish: str | None, station: bytes) -> None:
        """A container gets what is reserved for it, else what it asks for, else what it had, and the same once more."""
        engine = self.vlan.engine
        reserved = next((one.address for one in self.vlan.scope.reservations if one.container == name), None)
        known = engine.address_of_container(name)
        address = self.vlan.container(name, wish or "", station)
        if address is None:
            assert known is None or self.vlan.scope.known_only
            assert self.pinned.pop(name, ("", 0))[1] <= self.vlan.now
            return
        if reserved is not None and self.vlan.state(dotted(reserved)) != "declined":
            assert ip(address) == reserved
        else:
            assert known is None or address in (dotted(known), wish)
            assert ip(address) not in engine.directory.by_address
            assert address == wish or self.is_in_a_pool(ip(address)) or ip(address) == known
        assert self.vlan.container(name, wish or "") == self.vlan.container(name) == address
        assert engine.address_of_container(name) == ip(address)
        assert not engine.is_anothers(name, ip(address))
        held = self.vlan.disk[ip(address)]
        assert held.client == container_key(name)
        assert (held.expires or 0) > self.vlan.now
        self.pinned[name] = (address, held.expires or 0)

    @rule(number=NUMBERS, address=ADDRESSES, end=st.sampled_from(("release", "decline")))
    def end_something(self, number: int, address: str, end: str) -> None:
        getattr(self.clients[number], end)(address)
        if self.beliefs.get(number, ("", 0))[0] == address:
            del self.beliefs[number]

    @rule(number=NUMBERS)
    def take_another_server(self, number: int) -> None:
        self.clients[number].take("10.0.1.100", "10.0.1.2")

    @rule(seconds=st.sampled_from((1, 30, 61, 150, 301)))
    def sleep(self, seconds: int) -> None:
        self.vlan.sleep(seconds)

    @rule(address=ADDRESSES)
    def squat(self, address: str) -> None:
        """A conflict costs the client that was just given the address its lease: two stations do have it."""
        self.vlan.answers(address, mac(0xBAD))
        if self.vlan.state(address) == "declined":
            self.beliefs = {number: one for number, one in self.beliefs.items() if one[0] != address}
            self.pinned = {name: one for name, one in self.pinned.items() if one[0] != address}

    @rule(plan=plans())
    def reload(self, plan: dict[str, Any]) -> None:
        """From here on only renewals count: a reservation takes an address from its holder."""
        rows = self.vlan.engine.rows()
        self.vlan.reload(**plan)
        assert {row.address for row in self.vlan.engine.rows()} == {row.address for row in rows}
        self.beliefs.clear()
        self.pinned.clear()
        self.offers.clear()

    @rule()
    def restart(self) -> None:
        self.vlan.restart()

    @invariant()
    def no_address_has_two_holders(self) -> None:
        promised = [*self.beliefs.values(), *self.pinned.values()]
        live = [address for address, until in promised if until > self.vlan.now]
        assert len(live) == len(set(live)), (self.beliefs, self.pinned)

    @invariant()
    def every_promise_is_in_the_book(self) -> None:
        for number, (address, until) in self.beliefs.items():
            if until > self.vlan.now:
                held = self.vlan.engine.book.by_address[ip(address)]
                assert held.mac == mac(number)
                assert held.expires >= until
        for name, (address, until) in self.pinned.items():
            if until > self.vlan.now:
                held = self.vlan.engine.book.by_address[ip(address)]
                assert held.client == container_key(name)
                assert held.expires >= until

    @invariant()
    def tables_agree_and_are_capped(self) -> None:
        engine = self.vlan.engine
        assert engine.offers == len(engine._offers._owners) <= self.vlan.scope.max_offers
        assert all(engine.book.by_address[one.address] is one for one in engine.book.by_owner.values())
        assert not [one for one in engine.book.idle if engine.book.by_address[one].is_live(self.vlan.now)]

    @invariant()
    def what_is_on_disk_is_what_is_in_the_book(self) -> None:
        """The engine built anew from the committed rows knows the same and offers the same."""
        engine = self.vlan.engine
        again = Engine(self.vlan.scope, list(self.vlan.disk.values()), self.vlan.now)
        assert again.rows() == engine.rows()
        assert {key: one.address for key, one in again.book.by_owner.items()} == {
            key: one.address for key, one in engine.book.by_owner.items()
        }

    def teardown(self) -> None:
        """However it went: when all time has passed, whoever may have an address gets one."""
        self.vlan.reload(pools=("10.0.1.100-10.0.1.106",), reservations=(), known_only=False)
        self.vlan.sleep(2000)
        newcomers = [Client(self.vlan, mac(50 + number)).join() for number in range(7)]
        assert len(set(newcomers)) == 7


def test_any_history_keeps_the_promises(count: Callable[[int, int], int]) -> None:
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=count(400, 10_000), stateful_step_count=40, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
