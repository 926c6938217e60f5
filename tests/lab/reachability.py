"""The table of who reaches whom on the truck of the README, as the design has it, and measured by ping."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from tests.lab.plan import Plan

_TABLE = """
from        container1  device1  router_vlan1  container2  device2  router_vlan2  internet
container1  -           yes      yes           no          no       no            yes
device1     yes         -        yes           no          no       no            yes
container2  no          no       no            -           yes      yes           yes
device2     no          no       no            yes         -        yes           yes
router      yes         yes      -             yes         yes      -             -
"""


class Row(NamedTuple):
    """One pair of the table; `measured` is None before it was."""

    source: str
    target: str
    expected: bool
    measured: bool | None = None


def rows() -> list[Row]:
    """The 28 pairs."""
    (_, *targets), *lines = [line.split() for line in _TABLE.split("\n") if line]
    return [
        Row(source, target, word == "yes")
        for source, *words in lines
        for target, word in zip(targets, words, strict=True)
        if word != "-"
    ]


def places(plan: Plan, nodes: Mapping[str, IPv4Address]) -> dict[str, IPv4Address]:
    """Where the table's targets are, given the addresses of devices and containers."""
    return {**nodes, **{f"router_{vlan.name}": vlan.router for vlan in plan.vlans}, "internet": plan.wan.far.ip}


def measure(enter: Callable[[str], list[str]], asked: Sequence[Row], addresses: Mapping[str, IPv4Address]) -> list[Row]:
    """The rows, each by a ping of at most one second, all at once; `enter` is the command prefix for a node."""
    prefixes = {node: enter(node) for node in {row.source for row in asked}}
    pings = [
        subprocess.Popen(
            [*prefixes[row.source], "busybox", "ping", "-c1", "-W1", str(addresses[row.target])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for row in asked
    ]
    return [row._replace(measured=ping.wait() == 0) for row, ping in zip(asked, pings, strict=True)]


def lines(measured: Sequence[Row]) -> list[str]:
    """The rows as text; one that is not as expected says so."""
    words = {True: "yes", False: "no", None: "-"}
    head = f"{'FROM':12}{'TO':15}{'EXPECTED':10}MEASURED"
    return [head] + [
        f"{row.source:12}{row.target.replace('_', ', '):15}{words[row.expected]:10}{words[row.measured]}"
        + ("" if row.expected == row.measured else "  DIFFERS")
        for row in measured
    ]
