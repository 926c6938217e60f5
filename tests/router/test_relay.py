"""Which datagrams go where, as the table says it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from dhcpd.values import address
from router.relay_rules import HOOKS, Leg, relay_table, transaction
from router.settings import Broadcast, Kind, Node

GROUP = address("239.1.2.3")
LEGS = {f"vlan{n}": Leg(f"leg{n}", IPv4Network(f"10.0.{n}.0/24"), address(f"10.0.{n}.1")) for n in (1, 2, 3)}


def rule(source: str, *targets: str, group: int | None = None, name: str = "gps", port: int = 10110) -> Broadcast:
    kind = Kind.ROUTER if source == "router" else Kind.VLAN
    origin = Node(kind, source, None if source == "router" else source)
    return Broadcast(name, port, origin, tuple(Node(Kind.VLAN, one, one) for one in targets), group)


def chain(table: str, name: str) -> list[str]:
    """The lines of a chain without their comments."""
    found = re.search(rf"^chain {name} {{\n(.*?)^}}", table, re.DOTALL | re.MULTILINE)
    assert found, f"no chain {name} in\n{table}"
    return [re.sub(' comment ".*"', "", line) for line in found[1].splitlines()]


def copies(rules: Sequence[Broadcast], stream: int = 0) -> list[str]:
    return [line for line in chain(relay_table(rules, LEGS), f"stream_{stream}") if "dup to" in line]


def test_a_broadcast_is_copied_to_each_target_and_counted() -> None:
    assert copies([rule("vlan1", "vlan2", "vlan3")]) == [
        'dup to 224.0.0.0 device "leg2" counter name "sent_0"',
        'dup to 224.0.0.0 device "leg3" counter name "sent_0"',
    ]


def test_both_kinds_of_broadcast_are_heard_on_the_leg_of_the_source_only() -> None:
    heard = next(line for line in chain(relay_table([rule("vlan1", "vlan2")], LEGS), "arriving") if "vmap" in line)
    assert heard.count("goto") == 2
    assert '"leg1" . 10110 . 255.255.255.255 : goto stream_0' in heard
    assert '"leg1" . 10110 . 10.0.1.255 : goto stream_0' in heard


def test_a_group_is_heard_instead_of_broadcasts_and_stays_the_group() -> None:
    rules = [rule("vlan1", "vlan2", group=GROUP)]
    heard = next(line for line in chain(relay_table(rules, LEGS), "arriving") if "vmap" in line)
    assert heard == 'iifname . udp dport . ip daddr vmap { "leg1" . 10110 . 239.1.2.3 : goto stream_0 }'
    assert copies(rules) == ['dup to 239.1.2.3 device "leg2" counter name "sent_0"']


def test_a_source_must_be_a_node_of_its_vlan() -> None:
    assert chain(relay_table([rule("vlan1", "vlan2")], LEGS), "stream_0")[:2] == [
        'ip saddr != 10.0.1.0/24 counter name "ignored_0" accept',
        'fib saddr type != unicast counter name "ignored_0" accept',
    ]


def test_what_the_router_sends_is_not_sent_again_where_it_went_out() -> None:
    rules = [rule("router", "vlan1", "vlan2")]
    assert copies(rules) == [
        f'oifname != "leg{n}" dup to 224.0.0.0 device "leg{n}" counter name "sent_0"' for n in (1, 2)
    ]
    assert chain(relay_table(rules, LEGS), "output")[1:] == [
        "ct state untracked accept",
        "udp dport 10110 fib daddr type broadcast goto stream_0",
    ]


def test_two_rules_for_the_same_datagrams_make_one_copy() -> None:
    rules = [rule("vlan1", "vlan2", name="one"), rule("vlan1", "vlan2", "vlan3", name="two")]
    assert copies(rules) == [
        'dup to 224.0.0.0 device "leg2" counter name "sent_0"',
        'dup to 224.0.0.0 device "leg3" counter name "sent_1"',
    ]
    counted = [line for line in chain(relay_table(rules, LEGS), "stream_0") if "received" in line]
    assert counted == ['counter name "received_0"', 'counter name "received_1"']


def test_rules_that_point_at_each_other_are_two_streams() -> None:
    rules = [rule("vlan1", "vlan2"), rule("vlan2", "vlan1", name="back")]
    assert copies(rules, 0) == ['dup to 224.0.0.0 device "leg2" counter name "sent_0"']
    assert copies(rules, 1) == ['dup to 224.0.0.0 device "leg1" counter name "sent_1"']


def test_a_copy_leaves_as_a_broadcast_of_the_target() -> None:
    assert chain(relay_table([rule("vlan1", "vlan2")], LEGS), "to_vlan2") == [
        "ip daddr != 255.255.255.255 fib daddr type broadcast ip daddr set 10.0.2.255",
        "fib saddr type local ip saddr set 10.0.2.1",
    ]


def test_vlans_that_are_away_are_left_out() -> None:
    rules = [rule("vlan1", "vlan2", "vlan3"), rule("vlan2", "vlan1", name="back")]
    table = relay_table(rules, {vlan: leg for vlan, leg in LEGS.items() if vlan != "vlan2"})
    assert "leg2" not in table
    assert "stream_1" not in table


def test_every_rule_says_which_line_of_the_file_it_is_for() -> None:
    table = relay_table([rule("vlan1", "vlan2"), rule("router", "vlan2", name="two", port=2)], LEGS)
    lines = [
        line for line in table.splitlines() if not line.startswith(("table", "chain", "type", "counter strays", "}"))
    ]
    assert [line for line in lines if "comment" not in line] == []
    assert 'comment "broadcast[1]"' in next(line for line in lines if "dup to" in line and "sent_1" in line)


def test_without_rules_only_empty_base_chains_are_left() -> None:
    table = relay_table([], LEGS)
    assert [chain(table, name) for name in HOOKS] == [[hook] for hook in HOOKS.values()]
    assert table.count("chain") == len(HOOKS)


def test_a_table_is_replaced_without_removing_its_base_chains() -> None:
    listing: list[dict[str, Any]] = [*({"chain": {"name": name}} for name in (*HOOKS, "stream_0"))]
    script = transaction(relay_table([], LEGS), [{"metainfo": {}}, *listing, {"counter": {"name": "sent_0"}}])
    deleted = [line for line in script.splitlines() if line.startswith("delete")]
    assert deleted == ["delete chain ip lanward_relay stream_0", "delete counter ip lanward_relay sent_0"]
