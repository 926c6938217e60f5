"""Forwarding: our rules beside the article's iptables commands, each in a router of its own.

For each rule set there is a path: a client in VLAN 1, a router and a server behind the WAN, joined by veth. All of a
path runs on one processor, in the sender's thread: its system calls forward what they send. The figures are packets
and bytes per second **of processor time** (of the thread and of the processor's ksoftirqd), not of wall time, which
swings by tens of percent on a machine that does anything else. They have the cost of the sender in them, the same on
all paths: frames from a packet socket, or TCP to a receiver in the same thread.

The paths take turns of a few milliseconds, because the processor's own speed drifts within seconds; a round's ratio is
the median of the ratios of its turns. Each round builds its paths anew, in another order, because where the kernel's
memory happens to lie makes some percent too; a row's ratio is the median of the rounds. The routers differ in their
rules, and in that ours have the settings that a service makes (`router.sysctls`) and the others those that a container
gets on a Debian host. Legs that carry no packets are names in the rules only.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from router import sysctls
from router.config import Config, parse
from router.firewall import Firewall, has_flowtables
from router.nftables import Ruleset
from router.rules import ruleset
from tests.lab import netns
from tests.lab.inside import inside

from .paths import Hops, Rates, build, byte_rates, connection_rates, packet_rates, paths
from .report import Row, number
from .scenarios import Plan

VLANS, EXCEPTIONS = 64, 1_000
TURNS_PER_SECOND = 100
APPLY_MS = 200


def forward(plan: Plan) -> list[Row]:
    """The rows of the scenario; a round takes about 5 times `plan.seconds`."""
    turns = int(TURNS_PER_SECOND * plan.seconds)
    binary = build()
    seen: list[Round] = []
    took: list[float] = []
    for one in range(plan.rounds):
        order = VARIANTS[one % len(VARIANTS) :] + VARIANTS[: one % len(VARIANTS)]
        with paths(len(order)) as there:
            applied = {variant: apply(variant, hops) for variant, hops in zip(order, there, strict=True)}
            took.append(applied[OURS_LARGE])
            figures = {kind: measure(there, binary, turns) for kind, measure in KINDS.items()}
        seen.append({kind: dict(zip(order, rates, strict=True)) for kind, rates in figures.items()})
    return [*_rows(seen), _apply_row(took)]


# -- the rules


@dataclass(frozen=True)
class Variant:
    """One of the rule sets compared."""

    title: str
    vlans: int
    exceptions: int
    ours: bool


OURS = Variant("2 VLANs", 2, 0, ours=True)
THEIRS = Variant("iptables", 2, 0, ours=False)
OURS_LARGE = Variant(f"{VLANS} VLANs", VLANS, EXCEPTIONS, ours=True)
THEIRS_LARGE = Variant("iptables", VLANS, EXCEPTIONS, ours=False)
VARIANTS = [OURS, THEIRS, OURS_LARGE, THEIRS_LARGE]

Round = Mapping[str, Mapping[Variant, Rates]]
"""By kind of measurement."""


def exceptions(variant: Variant) -> Iterator[tuple[int, str]]:
    """The (VLAN, address) pairs that are let through to TCP port 443: all of them between VLANs."""
    for n in range(variant.exceptions):
        target = (n + 1 + n // variant.vlans % (variant.vlans - 1)) % variant.vlans
        yield n % variant.vlans + 1, f"10.0.{target + 1}.{n % 200 + 2}"


def configuration(variant: Variant) -> str:
    vlans = [
        f'[[vlan]]\nname = "vlan{n}"\ntag = {n}\nsubnet = "10.0.{n}.0/24"\nrouter = "10.0.{n}.1"\npools = []\n'
        for n in range(1, variant.vlans + 1)
    ]
    allows = [
        f'[[allow]]\nfrom = "vlan{source}"\nto = "{target}"\nports = ["tcp/443"]\n'
        for source, target in exceptions(variant)
    ]
    return "\n".join(['[wan]\ninterface = "wan"\n', *vlans, *allows])


def our_rules(config: Config) -> Ruleset:
    """As the service has them; a flowtable takes only legs that are there."""
    legs = {vlan.scope.name: f"leg{vlan.tag}" for vlan in config.vlans}
    if offload := has_flowtables():
        netns.batch(f"link add {leg} type bridge" for leg in list(legs.values())[1:])
    there = {name: index for index, name in socket.if_nameindex()}
    indexes = {leg: there.get(leg, 1_000_000 + at) for at, leg in enumerate(["wan", *legs.values()])}
    return ruleset(config, legs, "wan", {}, indexes, offload=offload)


def iptables_rules(variant: Variant) -> str:
    """The article's commands (from empty tables: the policy, replies, an exit for each VLAN, masquerade) as a script
    for ``iptables-nft-restore``, and a rule for each exception after the exits."""
    exits = [f"-A FORWARD -i leg{n} -o wan -j ACCEPT" for n in range(1, variant.vlans + 1)]
    allows = [
        f"-A FORWARD -i leg{source} -d {target} -p tcp --dport 443 -j ACCEPT" for source, target in exceptions(variant)
    ]
    replies = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    nat = ["*nat", "-A POSTROUTING -o wan -j MASQUERADE", "COMMIT"]
    return "\n".join(["*filter", ":FORWARD DROP [0:0]", replies, *exits, *allows, "COMMIT", *nat, ""])


def apply(variant: Variant, hops: Hops) -> float:
    """Give the path's router its rules; the milliseconds from the configuration to the rules in the kernel."""
    with inside(hops.router):
        if not variant.ours:
            subprocess.run(["iptables-nft-restore"], input=iptables_rules(variant), text=True, check=True)
            return 0.0
        sysctls.prepare(["leg1"], "wan")
        config = parse(configuration(variant))
        with closing(Firewall()) as firewall:
            begin = time.perf_counter()
            firewall.apply(our_rules(config), now=0.0)
            return (time.perf_counter() - begin) * 1000


KINDS: dict[str, Callable[[Sequence[Hops], Path, int], list[Rates]]] = {
    "packets": packet_rates,
    "connections": connection_rates,
    "bytes": byte_rates,
}


# -- the rows


def _rows(seen: Sequence[Round]) -> Iterator[Row]:
    large = f"{VLANS} VLANs, {EXCEPTIONS:,} exceptions"
    for kind in KINDS:
        what = f"forwarded {kind}/processor s"
        yield _row(f"{what}, 2 VLANs", [one[kind] for one in seen], OURS, THEIRS, 1.0)
        yield _row(f"{what}, {large}", [one[kind] for one in seen], OURS_LARGE, THEIRS_LARGE, None)
        yield _row(f"{what}, {large}", [one[kind] for one in seen], OURS_LARGE, OURS, 0.95)


def _row(
    what: str, rounds: Sequence[Mapping[Variant, Rates]], ours: Variant, other: Variant, least: float | None
) -> Row:
    """The ratio is the median of the rounds' ratios, not that of the medians beside it."""
    mine, theirs = (median(median(one[variant]) for one in rounds) for variant in (ours, other))
    ratio = median(median(a / b for a, b in zip(one[ours], one[other], strict=True)) for one in rounds)
    target, ok = ("", None) if least is None else (f">= {least:g}", ratio >= least)
    return Row(what, number(mine), f"{other.title} {number(theirs)}", ratio, target, ok)


def _apply_row(milliseconds: Sequence[float]) -> Row:
    took = median(milliseconds)
    what = f"rules of {VLANS} VLANs, {EXCEPTIONS:,} exceptions applied, ms"
    return Row(what, number(took), target=f"< {APPLY_MS} ms", ok=took < APPLY_MS)
