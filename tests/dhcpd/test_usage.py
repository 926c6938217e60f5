"""How much of its pools a VLAN has left for newcomers, counted without a look at every lease."""

from __future__ import annotations

import random

from dhcpd.leases import DECLINED
from dhcpd.pool import RangeSet
from dhcpd.settings import Reservation
from tests.dhcpd.script import Vlan, ip, mac


def counted(vlan: Vlan) -> tuple[int, int]:
    """The same by looking at everything."""
    engine, now = vlan.engine, vlan.now
    pool = RangeSet(engine.scope.pools)
    held = {one.address for one in engine.book if one.state == DECLINED or one.is_live(now)}
    taken = [one for one in held | engine.directory.by_address.keys() if one in pool]
    return len(taken), pool.size


def test_usage_is_what_a_look_at_every_lease_finds() -> None:
    rng = random.Random(1)
    reservations = (
        Reservation("in", macs=(mac(1),), address=ip("10.0.1.105")),
        Reservation("out", macs=(mac(2),), address=ip("10.0.1.20")),
        Reservation("idle", macs=(mac(3),), address=ip("10.0.1.106")),
    )
    vlan = Vlan(reservations=reservations, pools=("10.0.1.100-10.0.1.139",), lease_time=1000, probe=False)
    assert vlan.engine.allocator.usage() == counted(vlan) == (2, 40)
    clients = [vlan.client(number) for number in (1, 2, *range(10, 30))]
    for _ in range(300):
        client = rng.choice(clients)
        if client.address and rng.random() < 0.3:
            client.release()
            client.address = ""
        elif client.address and rng.random() < 0.05:
            client.decline()
            client.address = ""
        else:
            client.join()
        if rng.random() < 0.05:
            vlan.sleep(400)
        vlan.tick()
        assert vlan.engine.allocator.usage() == counted(vlan)


def test_leases_that_other_pools_have_left_behind_fill_no_pool() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.139",), probe=False)
    vlan.fill(20)
    vlan.reload(pools=("10.0.1.50-10.0.1.59",))
    outside = len(vlan.engine.pool.without(vlan.engine.allocator.strays(vlan.now)))
    assert vlan.engine.allocator.usage(outside) == counted(vlan) == (0, 10)


def test_addresses_in_quarantine_are_known_without_a_look_at_all() -> None:
    vlan = Vlan(quarantine=100)
    client = vlan.client(1)
    client.join()
    address = ip(client.address)
    client.decline()
    assert vlan.engine.book.declined == {address}
    vlan.restart()
    assert vlan.engine.book.declined == {address}
    vlan.sleep(101)
    vlan.tick()
    assert vlan.engine.book.declined == set()
