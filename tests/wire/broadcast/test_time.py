"""The relay in the course of time: changes, repairs, speed."""

from __future__ import annotations

from threading import Thread

import pytest

from dhcpd.decision import Note
from router import relay as module
from router.nfnetlink import FirewallError
from router.relay import Counts, Relay
from tests.lab.netns import batch
from tests.lab.routed import Routed
from tests.router.test_relay import rule
from tests.wire.broadcast.nodes import (
    ALL_OTHERS,
    LIMITED,
    PORT,
    RATE,
    VLANS,
    Count,
    Setup,
    host,
    legs,
    listener,
    listeners,
    nft,
    numbered,
    payloads,
    read,
    send,
    sender,
)


def test_a_leg_that_comes_back_is_served_again(nodes: Routed, relaying: Setup) -> None:
    relay = relaying(rule("vlan1", "vlan2", "vlan3"))
    on, one = listeners(nodes, 3), sender(nodes, "node1")
    with nodes.on("router"):
        assert not relay.watch(1.0)
        nodes.ip("router", "link del leg2")
        assert relay.watch(2.0)
        one.sendto(b"without", (LIMITED, PORT))
        restore_leg2(nodes)
        assert relay.watch(3.0)
        one.sendto(b"with", (LIMITED, PORT))
        assert relay.counts()[0]["gps"] == Counts(received=2, sent=3, ignored=0)
    assert payloads(nodes, on) == [[b"without", b"with"], [b"with"], [b"without", b"with"]]
    assert (relay.repairs, relay.errors) == (0, 0)


def restore_leg2(nodes: Routed) -> None:
    ends = f"link add r-leg2 type veth peer name leg2 netns {nodes.truck.netns('router')}"
    batch([ends, "link set r-leg2 master br2 up"], host(nodes))
    nodes.ip("router", "addr add 10.0.2.1/24 dev leg2", "link set leg2 up")


@pytest.mark.parametrize("damage", ["flush table ip lanward_relay", "delete table ip lanward_relay", "flush ruleset"])
def test_a_changed_table_is_repaired(nodes: Routed, relaying: Setup, damage: str) -> None:
    relay, target = relaying(rule("vlan1", "vlan2")), listener(nodes, "node2")
    nft(nodes, damage)
    with nodes.on("router"):
        assert relay.watch(10.0)
        assert not relay.watch(20.0)
    sender(nodes, "node1").sendto(b"fix", (LIMITED, PORT))
    assert read(target)[0] == b"fix"
    assert relay.repairs == 1


def test_changes_of_other_tables_are_not_ours(nodes: Routed, relaying: Setup) -> None:
    relay = relaying(rule("vlan1", "vlan2"))
    nft(nodes, "add table inet other")
    with nodes.on("router"):
        assert not relay.watch(10.0)
    assert relay.repairs == 0


def test_a_reload_changes_the_targets_and_keeps_the_counts(nodes: Routed, relaying: Setup) -> None:
    relay = relaying(rule("vlan1", "vlan2"))
    on, one = listeners(nodes, 3), sender(nodes, "node1")
    one.sendto(b"before", (LIMITED, PORT))
    with nodes.on("router"):
        relay.check([rule("vlan1", "vlan3")], legs())
        relay.reload([rule("vlan1", "vlan3")], legs())
        one.sendto(b"after", (LIMITED, PORT))
        assert relay.counts()[0] == {"gps": Counts(received=2, sent=2, ignored=0)}
        relay.reload([], legs())
    one.sendto(b"end of rules", (LIMITED, PORT))
    assert payloads(nodes, on) == [[b"before", b"after", b"end of rules"], [b"before"], [b"after"]]


def test_it_goes_on_without_its_process_and_a_new_one_takes_over(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2", "vlan3")).stop()
    on, one = listeners(nodes, 3), sender(nodes, "node1")
    one.sendto(b"alone", (LIMITED, PORT))
    relaying(rule("vlan1", "vlan2"))
    one.sendto(b"taken over", (LIMITED, PORT))
    assert payloads(nodes, on) == [[b"alone", b"taken over"], [b"alone", b"taken over"], [b"alone"]]


def test_rules_that_the_kernel_refuses_change_nothing(nodes: Routed, relaying: Setup) -> None:
    relay, target = relaying(rule("vlan1", "vlan2")), listener(nodes, "node2")
    same = legs() | {"vlan3": legs()["vlan3"]._replace(interface="leg2")}
    with nodes.on("router"), pytest.raises(FirewallError, match="refuses the relay"):
        relay.reload([rule("vlan1", "vlan2", "vlan3")], same)
    sender(nodes, "node1").sendto(b"fix", (LIMITED, PORT))
    assert read(target)[0] == b"fix"


def test_a_thousand_datagrams_a_second_reach_eight_vlans_once(nodes: Routed, relaying: Setup, count: Count) -> None:
    number = count(2, 60) * RATE
    on = {node: one for node, one in listeners(nodes, VLANS).items() if node != "node1"}
    relay = relaying(rule("vlan1", *ALL_OTHERS))
    send(sender(nodes, "node1"), number)
    assert payloads(nodes, on) == [[numbered(index) for index in range(number)]] * 8
    with nodes.on("router"):
        assert relay.counts()[0]["gps"] == Counts(received=number, sent=8 * number, ignored=0)


def test_a_thousand_datagrams_a_second_to_eight_vlans_take_under_5_percent_of_a_processor(
    nodes: Routed, relaying: Setup, count: Count
) -> None:
    """The kernel makes the copies while the sender sends: the processor time of sending tells what they cost, up to
    the cables of the target legs, which are out: switching and receiving is not the relay's."""
    one, number = sender(nodes, "node1"), count(1, 10) * RATE
    batch([f"link set r-leg{n} down" for n in range(2, VLANS + 1)], host(nodes))
    alone = min(send(one, number) for _ in range(3))
    relaying(rule("vlan1", *ALL_OTHERS))
    copying = min(send(one, number) for _ in range(3))
    batch([f"link set r-leg{n} up" for n in range(2, VLANS + 1)], host(nodes))
    share = (copying - alone) / number * RATE
    print(f"{RATE} datagrams a second to 8 VLANs take {share:.1%} of a processor")
    assert share < 0.05


def test_a_relay_that_cannot_be_repaired_says_so_once_and_goes_on_trying(
    nodes: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise FirewallError("no")

    notes: list[Note] = []
    with nodes.on("router"):
        relay = Relay([rule("vlan1", "vlan2")], legs(), notes.append)
        relay.start()
        nft(nodes, "delete table ip lanward_relay")
        with monkeypatch.context() as patched:
            patched.setattr(module, "_nft", refuse)
            assert not relay.watch(10.0)
            assert not relay.watch(20.0)
        assert relay.watch(30.0)
        relay.reload([], legs())
        relay.stop()
    assert notes == [Note("error", "relay_failed", {"error": "no"})]
    assert (relay.errors, relay.repairs) == (2, 1)


def test_a_reload_under_load_neither_loses_nor_doubles(nodes: Routed, relaying: Setup) -> None:
    relay, number = relaying(rule("vlan1", "vlan2")), 1000
    on = {"node2": listener(nodes, "node2")}
    sending = Thread(target=send, args=(sender(nodes, "node1"), number))
    sending.start()
    changes = 0
    with nodes.on("router"):
        while sending.is_alive():
            changes += 1
            relay.reload([rule("vlan1", "vlan2", ALL_OTHERS[1 + changes % 2])], legs())
    sending.join()
    (got,) = payloads(nodes, on)
    assert changes > 5
    assert got == [numbered(index) for index in range(number)]
