"""What the core may cost. Raising one of these numbers needs a reason."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import IPv4Network

from dhcpd import opt
from dhcpd.wire import Message, Type, encode
from tests.dhcpd.script import ALL_OPTIONS, ROUTER, Vlan, mac, packed

PAIR_BUDGET = 150e-6
"""Processor seconds of a DISCOVER and a REQUEST: several times what it takes, for a loaded machine."""
FOREIGN = ("aiohttp", "asyncio", "scapy", "socket", "sqlite3", "structlog")


def packet(number: int, kind: int, **options: bytes) -> bytes:
    given = {int(name[1:]): value for name, value in options.items()}
    values = {opt.MESSAGE_TYPE: bytes((kind,)), opt.PARAMETER_LIST: ALL_OPTIONS} | given
    return encode(Message(xid=number, chaddr=mac(number), options=values))


def cost_of_a_pair(vlan: Vlan, first: int, count: int) -> float:
    """Mean processor seconds that so many new clients cost, ticks included."""
    spent = 0.0
    for number in range(first, first + count):
        discover = packet(number, Type.DISCOVER)
        started = time.process_time()
        offer = vlan.engine.handle(discover, vlan.now)
        spent += time.process_time() - started
        assert offer.send is not None
        request = packet(number, Type.REQUEST, o50=offer.send.payload[16:20], o54=packed(ROUTER))
        started = time.process_time()
        ack = vlan.engine.handle(request, vlan.now)
        if number % 64 == 0:
            vlan.now += 0.01
            vlan.engine.tick(vlan.now)
        spent += time.process_time() - started
        assert ack.rows
    return spent / count


def big_vlan() -> Vlan:
    return Vlan(probe=True, subnet=IPv4Network("10.0.0.0/8"), pools=("10.16.0.0-10.31.255.255",))


def test_a_lease_costs_little() -> None:
    vlan = big_vlan()
    assert min(cost_of_a_pair(vlan, number * 1000, 1000) for number in range(3)) < PAIR_BUDGET


def test_a_lease_among_many_costs_no_more() -> None:
    vlan = big_vlan()
    few = min(cost_of_a_pair(vlan, number * 1000, 1000) for number in range(3))
    cost_of_a_pair(vlan, 3000, 27_000)
    many = min(cost_of_a_pair(vlan, 30_000 + number * 1000, 1000) for number in range(3))
    assert many < 2 * few


def test_the_core_imports_no_shell() -> None:
    """No socket, no loop, no database, no logger: the engine decides and nothing else."""
    program = f"import dhcpd.engine, sys; print(sorted(sys.modules.keys() & {set(FOREIGN)!r}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
