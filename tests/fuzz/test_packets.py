"""Packets of real devices, packets made to do harm, and both of them mutated, against the pure engine.

The packets are not part of the repository: they are read from the folder that LANWARD_PACKETS names, else from
``shared/packets`` beside it.
"""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dhcpd import opt
from dhcpd.pool import Range
from dhcpd.settings import Reservation
from dhcpd.wire import HEADER_SIZE, Message, Type, WireError, decode, encode
from tests.dhcpd import oracle
from tests.dhcpd.script import ROUTER, Client, Reply, Vlan, ip, mac, packed

PACKETS = Path(os.environ.get("LANWARD_PACKETS") or Path(__file__).parents[2].parent / "shared" / "packets")
SEED = 2131
SLACK = 512 * 1024
"""Bytes by which memory may differ between two halves of a long run: caches and dictionaries grow in steps."""

needs_packets = pytest.mark.skipif(not PACKETS.is_dir(), reason=f"no packets of real devices in {PACKETS}")


@cache
def client_packets() -> list[bytes]:
    lines = (PACKETS / "client-packets.jsonl").read_text().splitlines()
    return [bytes.fromhex(json.loads(line)["p"]) for line in lines]


@cache
def hostile_packets() -> list[bytes]:
    """Every file as it is, and the payload of every packet of every capture."""
    found = []
    for path in sorted(one for one in (PACKETS / "hostile").rglob("*") if one.is_file()):
        found.append(path.read_bytes())
        if path.suffix in {".pcap", ".pcapng"}:
            found += [part for frame in oracle.frames(path) for part in (frame, frame[42:])]
    return found


def own_packets() -> list[bytes]:
    """One packet of each type, for a machine without the others."""
    lists = {opt.PARAMETER_LIST: bytes(range(1, 80)), opt.CLIENT_ID: b"\0id", opt.RELAY_AGENT: b"\x01\x04port"}
    wishes = {opt.REQUESTED_ADDRESS: packed("10.0.1.100"), opt.SERVER_ID: packed(ROUTER)}
    return [
        encode(Message(chaddr=mac(kind), ciaddr=ciaddr, options={opt.MESSAGE_TYPE: bytes((kind,))} | options))
        for kind in (Type.DISCOVER, Type.REQUEST, Type.DECLINE, Type.RELEASE, Type.INFORM)
        for ciaddr in (0, ip("10.0.1.100"))
        for options in (lists, wishes, lists | wishes)
    ]


def addresses_in(message: Message) -> list[int]:
    """All that a VLAN must contain for this message to be at home in it."""
    named = [int.from_bytes(message.options.get(code, b""), "big") for code in (opt.REQUESTED_ADDRESS, opt.SERVER_ID)]
    return [one for one in (message.ciaddr, message.giaddr, *named) if one]


def home_of(message: Message) -> Vlan:
    """A VLAN in which the message makes sense: its server is ours, the subnet has all its addresses, all are free."""
    inside = addresses_in(message) or [ip(ROUTER)]
    router = int.from_bytes(message.options.get(opt.SERVER_ID, b""), "big") or min(inside) - 1
    subnet = IPv4Network((router, 24), strict=False)
    while not all(int(subnet.network_address) < one < int(subnet.broadcast_address) for one in inside):
        subnet = subnet.supernet()
    pool = Range(int(subnet.network_address) + 1, int(subnet.broadcast_address) - 1)
    return Vlan(subnet=subnet, router=router, pools=(pool,))


def expected(message: Message) -> str:
    if message.chaddr[0] & 1:
        return "silence"  # a group address is nobody's: some captures are fuzzed themselves
    kind = message.options[opt.MESSAGE_TYPE][0]
    wants = message.ciaddr or opt.REQUESTED_ADDRESS in message.options
    by_kind = {Type.DISCOVER: "offer", Type.REQUEST: "ack" if wants else "silence", Type.INFORM: "ack"}
    return by_kind.get(kind, "silence")


def well_formed() -> Iterator[tuple[bytes, Message]]:
    for data in client_packets():
        try:
            yield data, decode(data)
        except WireError:
            continue


def check_reply(message: Message, reply: Reply) -> None:
    got, kind = reply.message, message.options[opt.MESSAGE_TYPE][0]
    assert (got.xid, got.chaddr, got.giaddr) == (message.xid, message.chaddr, message.giaddr)
    assert got.options.get(opt.CLIENT_ID) == message.options.get(opt.CLIENT_ID)
    assert got.options.get(opt.RELAY_AGENT) == message.options.get(opt.RELAY_AGENT)
    assert len(reply.payload) >= 300
    wanted = int.from_bytes(message.options.get(opt.REQUESTED_ADDRESS, b""), "big") or message.ciaddr
    if kind == Type.REQUEST or (kind == Type.DISCOVER and opt.REQUESTED_ADDRESS in message.options and wanted):
        assert got.yiaddr == wanted


@needs_packets
def test_every_real_device_gets_the_answer_it_waits_for() -> None:
    served = 0
    for data, message in well_formed():
        vlan = home_of(message)
        reply = vlan.receive(data)
        assert reply.kind == expected(message), (data.hex(), reply.kind, dict(vlan.dropped))
        if reply.kind == "silence":
            assert sum(vlan.dropped.values()) == 1
        else:
            check_reply(message, reply)
            served += 1
    assert served > 200


@needs_packets
def test_all_real_devices_share_one_network_after_a_discover() -> None:
    """Every DISCOVER of them in one VLAN: as many addresses as devices."""
    vlan = Vlan(pools=("10.0.1.2-10.0.1.254",))
    owners: dict[str, set[bytes]] = {}
    for data, message in well_formed():
        if message.options[opt.MESSAGE_TYPE] != bytes((Type.DISCOVER,)) or message.giaddr:
            continue
        reply = vlan.receive(data)
        owners.setdefault(reply.yiaddr, set()).add(message.options.get(opt.CLIENT_ID) or message.chaddr)
    assert len(owners) > 50
    assert {len(one) for one in owners.values()} == {1}


def is_accounted_for(vlan: Vlan, data: bytes) -> bool:
    """Handled without an exception, and counted: as received, as dropped, or as both."""
    engine = vlan.engine
    before = engine.received.total() + engine.dropped.total()
    vlan.receive(data)
    return engine.received.total() + engine.dropped.total() > before


@needs_packets
def test_hostile_packets_are_dropped_by_reason() -> None:
    vlan = Vlan()
    assert all(is_accounted_for(vlan, data) for data in hostile_packets())
    assert {"short", "no_magic_cookie", "truncated_option"} <= vlan.dropped.keys()
    assert len(vlan.dropped) < 20


@needs_packets
def test_hostile_packets_stop_no_client() -> None:
    vlan = Vlan(reservations=(Reservation("good", macs=(mac(1),), address=ip("10.0.1.20")),))
    for number, data in enumerate(hostile_packets()):
        vlan.receive(data)
        if number % 100 == 0:
            assert vlan.client(1).join() == "10.0.1.20"


def mutations(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Arbitrary damage to real packets: the same on every run."""
    chance = random.Random(SEED)
    for _ in range(count):
        data = bytearray(chance.choice(seeds)[:1500])
        for _ in range(chance.randint(1, 4)):
            damage(data, seeds, chance)
        yield bytes(data)


def damage(data: bytearray, seeds: list[bytes], chance: random.Random) -> None:
    """One of: another byte, a cut, a doubled part, another's options behind this header, a length made huge."""
    at = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0 | 1:
            data[at : at + 1] = bytes((chance.randrange(256),))
        case 2:
            del data[at:]
        case 3:
            data[at:at] = data[at : at + chance.randrange(64)]
        case 4:
            data[HEADER_SIZE:] = chance.choice(seeds)[HEADER_SIZE:1500]
        case _:
            data[at : at + 2] = bytes(
                (chance.choice((0, 50, 52, 53, 54, 55, 61, 82, 255)), chance.choice((0, 1, 4, 255)))
            )


def join_in_time(client: Client) -> None:
    """Within 10 ms, as far as the engine goes."""
    started = time.perf_counter()
    assert client.join() == "10.0.1.20"
    assert time.perf_counter() - started < 0.010


def test_mutated_packets_neither_break_nor_fill_anything(count: Callable[[int, int], int]) -> None:
    seeds = [*own_packets(), *(client_packets() + hostile_packets()[:200] if PACKETS.is_dir() else [])]
    good = Reservation("good", macs=(mac(0xC0FFEE),), address=ip("10.0.1.20"))
    vlan = Vlan(probe=True, reservations=(good,), max_offers=64, lease_time=600, max_lease_time=600, quarantine=60)
    rounds = count(20_000, 1_000_000)
    tracemalloc.start()
    try:
        sizes = []
        for number, data in enumerate(mutations(seeds, rounds)):
            vlan.receive(data)
            if number % 50 == 0:
                vlan.sleep(1)
                vlan.notes.clear()
            if number % (rounds // 4) == rounds // 4 - 1:
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[1] < SLACK, sizes
    assert vlan.engine.offers <= 64
    assert len(vlan.engine.book) <= vlan.engine.pool.size + 1
    assert len(vlan.dropped) < 25
    join_in_time(vlan.client(0xC0FFEE))
    assert vlan.engine.received.total() > rounds // 4
