"""The relay of UDP broadcasts between VLANs: an nftables table of its own, in which the kernel does all the copying.

A datagram that a ``[[broadcast]]`` names is copied as it arrives (or, from the router, as it leaves) to the leg of each
target, once, whatever the number of rules that name it. No datagram wakes the service, and copying goes on while the
service is away. What a copy is:

- Payload and source port are the original's. A broadcast stays a broadcast: 255.255.255.255 as it is, the directed one
  of a subnet as that of the target's. A group stays the group.
- The source address is the original's too, as a router leaves it in a directed broadcast: who hears a device can tell
  it from another, and can answer it where an ``[[allow]]`` says so. A node takes such a datagram, although it is of
  another subnet and also with strict reverse path filtering, because its default route is the leg that it came from.
  What a process of the router's sends has the router's address in each target VLAN.
- One hop is taken from the time to live, as in forwarding, except from a 1, which is what most send to a group.
- A datagram that came in fragments is put together and cut again; one that came in one piece and is larger than the
  target's MTU is lost.

No loops. A copy from a VLAN has a source that is not of the target's subnet, so no relay takes it there for a broadcast
of that VLAN, neither we by another rule nor another router on the segment. A copy that the kernel loops back to us is
known by its state, untracked, and dropped. What the router's own addresses send is taken only as it leaves; to
another router it is a broadcast of a node of that VLAN. (Two routers with one and the same rule make two copies.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, NamedTuple

from dhcpd.pool import dotted
from router.elements import comment, quoted
from router.settings import Broadcast

FAMILY, TABLE = "ip", "lanward_relay"
HOOKS = {
    "prerouting": "type filter hook prerouting priority raw - 10; policy accept;",
    "output": "type filter hook output priority raw - 10; policy accept;",
    "postrouting": "type filter hook postrouting priority raw; policy accept;",
}
"""Before connection tracking, behind reassembly. They stay when the table is replaced: a base chain that goes drops
what it sees until it is gone."""

_EACH = 'comment "[[broadcast]]"'
_LIMITED = "255.255.255.255"
_NOBODYS_GROUP = "224.0.0.0"
"""As the next hop of a broadcast: the frame is made by the destination, so it is a broadcast; but what goes to a group
that the router is no member of is not looped back, and every broadcast is. Reserved (RFC 5771 section 4)."""


class Leg(NamedTuple):
    """The router's side of a VLAN."""

    interface: str
    subnet: IPv4Network
    router: int


Legs = Mapping[str, Leg]
"""By the name of the VLAN."""


class Counts(NamedTuple):
    """Datagrams of one ``[[broadcast]]``."""

    received: int
    sent: int
    """Copies handed to a leg. A leg without a carrier drops them like any other packet."""
    ignored: int
    """From the right VLAN, with a source address that is not of its subnet."""


@dataclass(slots=True)
class _Stream:
    """Datagrams with one origin and destination. Rules that name the same are one stream: a VLAN gets one copy."""

    source: str | None
    """The VLAN, None for the router."""
    port: int
    group: int | None
    rules: list[int] = field(default_factory=list)
    targets: dict[str, int] = field(default_factory=dict)
    """VLAN -> the rule that its copies are counted for."""

    @property
    def places(self) -> str:
        return _about(*self.rules)


def relay_table(rules: Sequence[Broadcast], legs: Legs) -> str:
    """The table as ``nft -f`` reads it. VLANs that are not in ``legs`` are away: nothing comes from or goes to them."""
    streams = _streams(rules, legs)
    if not streams:
        return _block(f"table {FAMILY} {TABLE}", _hooks({}))
    chains = {"arriving": _arriving(streams, legs)}
    for index, stream in enumerate(streams):
        chains[f"stream_{index}"] = [*_accepted(stream, legs), *_copies(stream, legs)]
    targets = [vlan for vlan in legs if any(vlan in stream.targets for stream in streams)]
    for vlan in targets:
        chains[f"to_{vlan}"] = _adapted(legs[vlan])
    base = {
        "prerouting": [f"meta pkttype {{ broadcast, multicast }} {_ports(streams)} goto arriving {_EACH}"],
        "output": _leaving(streams),
        "postrouting": list(_adapting(streams, legs, targets)),
    }
    blocks = [_block(f"chain {name}", lines) for name, lines in chains.items()]
    return _block(f"table {FAMILY} {TABLE}", [*_counters(rules), *blocks, *_hooks(base)])


def _streams(rules: Sequence[Broadcast], legs: Legs) -> list[_Stream]:
    found: dict[tuple[str | None, int, int | None], _Stream] = {}
    for index, rule in enumerate(rules):
        source = rule.source.vlan
        targets = [node.vlan for node in rule.targets if node.vlan is not None and node.vlan in legs]
        if not targets or (source is not None and source not in legs):
            continue
        stream = found.setdefault((source, rule.port, rule.group), _Stream(source, rule.port, rule.group))
        stream.rules.append(index)
        for vlan in targets:
            stream.targets.setdefault(vlan, index)
    return list(found.values())


def _arriving(streams: Sequence[_Stream], legs: Legs) -> list[str]:
    """What is broadcast on any interface to the port of some rule."""
    elements = [
        f"{quoted(legs[stream.source].interface)} . {stream.port} . {target} : goto stream_{index}"
        for index, stream in enumerate(streams)
        if stream.source is not None
        for target in _destinations(stream, legs[stream.source])
    ]
    return [
        'ct state untracked drop comment "our own copies, looped back"',
        'fib saddr type local accept comment "of the router, looped back"',
        *([f"iifname . udp dport . ip daddr vmap {{ {', '.join(elements)} }} {_EACH}"] if elements else []),
        'counter name "strays" comment "no rule is for this interface and destination"',
    ]


def _destinations(stream: _Stream, leg: Leg) -> tuple[str, ...]:
    return (_LIMITED, str(leg.subnet.broadcast_address)) if stream.group is None else (dotted(stream.group),)


def _accepted(stream: _Stream, legs: Legs) -> Iterator[str]:
    """Copies of what has arrived lose a hop in the kernel, and one without a hop left would not be sent."""
    if stream.source is not None:
        ignored = f'counter name "ignored_{stream.rules[0]}" accept {stream.places}'
        yield f"ip saddr != {legs[stream.source].subnet} {ignored}"
        yield f"fib saddr type != unicast {ignored}"
        yield f"ip ttl < 2 ip ttl set 2 {stream.places}"
    for rule in stream.rules:
        yield f'counter name "received_{rule}" {_about(rule)}'


def _copies(stream: _Stream, legs: Legs) -> Iterator[str]:
    """What a process sends itself on a leg is not sent there again."""
    gateway = _NOBODYS_GROUP if stream.group is None else dotted(stream.group)
    for vlan, rule in stream.targets.items():
        leg = quoted(legs[vlan].interface)
        unless = f"oifname != {leg} " if stream.source is None else ""
        yield f'{unless}dup to {gateway} device {leg} counter name "sent_{rule}" {_about(rule)}'


def _leaving(streams: Sequence[_Stream]) -> list[str]:
    lines = [
        f"udp dport {stream.port} {_sent_to(stream)} goto stream_{index} {stream.places}"
        for index, stream in enumerate(streams)
        if stream.source is None
    ]
    return ['ct state untracked accept comment "our own copies"', *lines] if lines else []


def _sent_to(stream: _Stream) -> str:
    return "fib daddr type broadcast" if stream.group is None else f"ip daddr {dotted(stream.group)}"


def _adapting(streams: Sequence[_Stream], legs: Legs, targets: Iterable[str]) -> Iterator[str]:
    """Which copies are changed when they leave; most are not."""
    exits = ", ".join(f"{quoted(legs[vlan].interface)} : goto to_{vlan}" for vlan in targets)
    directed = {str(legs[one.source].subnet.broadcast_address) for one in streams if one.source and one.group is None}
    if directed:
        yield f"ct state untracked ip daddr {{ {', '.join(sorted(directed))} }} oifname vmap {{ {exits} }} {_EACH}"
    if any(one.source is None for one in streams):
        yield f"ct state untracked {_ports(streams)} fib saddr type local oifname vmap {{ {exits} }} {_EACH}"


def _adapted(leg: Leg) -> list[str]:
    return [
        f"ip daddr != {_LIMITED} fib daddr type broadcast ip daddr set {leg.subnet.broadcast_address} {_EACH}",
        f"fib saddr type local ip saddr set {dotted(leg.router)} {_EACH}",
    ]


def _ports(streams: Iterable[_Stream]) -> str:
    return f"udp dport {{ {', '.join(str(port) for port in sorted({one.port for one in streams}))} }}"


def _counters(rules: Sequence[Broadcast]) -> Iterator[str]:
    yield "counter strays { }"
    for index in range(len(rules)):
        yield from (f"counter {what}_{index} {{ {_about(index)} }}" for what in Counts._fields)


def _hooks(rules: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, hook in HOOKS.items():
        yield _block(f"chain {name}", [hook, *rules.get(name, ())])


def _block(head: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{head} {{", *lines, "}"])


def _about(*rules: int) -> str:
    return f'comment "{comment(f"broadcast[{rule}]" for rule in rules)}"'


# -- how it replaces another


def transaction(table: str, listing: Iterable[dict[str, Any]]) -> str:
    """Everything of before goes, except the base chains; then the new table."""
    hooks = _block(f"table {FAMILY} {TABLE}", _hooks({}))
    return "\n".join([hooks, f"flush table {FAMILY} {TABLE}", *_removals(listing), table, ""])


def _removals(listing: Iterable[dict[str, Any]]) -> Iterator[str]:
    found = list(listing)
    for kind in ("set", "map", "chain", "counter"):
        for one in of_kind(kind, found):
            if one["name"] not in HOOKS:
                yield f"delete {kind} {FAMILY} {TABLE} {one['name']}"


def of_kind(kind: str, listing: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one[kind] for one in listing if kind in one]
