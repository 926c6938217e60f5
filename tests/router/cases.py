"""Golden cases of the rules: a sentence of intent, a configuration, what is known of the nodes, and the ruleset.

`python -m tests.router.cases` writes the rulesets of all cases anew; the difference is for a human to read.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from router.config import Config, parse
from router.nftables import Ruleset
from router.rules import ruleset

FOLDER = Path(__file__).parent / "golden"
_MARKS = ("--- configuration\n", "--- nodes\n", "--- ruleset\n")


@dataclass(frozen=True)
class Case:
    """One file of `FOLDER`."""

    intent: str
    configuration: str
    nodes: str
    expected: str

    @classmethod
    def read(cls, path: Path) -> Case:
        intent, configuration, nodes, expected = re.split("|".join(_MARKS), path.read_text())
        return cls(intent, configuration, nodes, expected)

    def rules(self) -> Ruleset:
        """The rules as they are compiled now; a node's line is `vlan1/name address`; `offload` and `no-uplink`
        stand alone."""
        lines = [line.split() for line in self.nodes.splitlines() if line]
        nodes = {_vlan_and_name(line[0]): int(IPv4Address(line[1])) for line in lines if len(line) == 2}
        uplink = None if ["no-uplink"] in lines else "wan"
        return compiled(parse(self.configuration), nodes, uplink=uplink, offload=["offload"] in lines)

    def __str__(self) -> str:
        return "".join([self.intent, _MARKS[0], self.configuration, _MARKS[1], self.nodes, _MARKS[2], self.expected])


def _vlan_and_name(text: str) -> tuple[str, str]:
    vlan, _, name = text.partition("/")
    return vlan, name


def compiled(
    config: Config,
    nodes: Mapping[tuple[str, str], int] | None = None,
    indexes: Mapping[str, int] | None = None,
    *,
    uplink: str | None = "wan",
    offload: bool = False,
) -> Ruleset:
    """The rules on the virtual truck, whose legs are named by their tags. ``uplink`` is None while it is not known."""
    legs = {vlan.scope.name: f"leg{vlan.tag}" for vlan in config.vlans}
    return ruleset(config, legs, uplink if config.wan else None, nodes or {}, indexes, offload=offload)


def wired(
    config: Config,
    nodes: Mapping[tuple[str, str], int] | None = None,
    *,
    uplink: str | None = "wan",
    offload: bool = False,
) -> Ruleset:
    """The rules for the kernel of this thread's network namespace; what is not there has a number that is nobody's."""
    there = {name: index for index, name in socket.if_nameindex()}
    names = ["wan", *(f"leg{vlan.tag}" for vlan in config.vlans)]
    indexes = {one: there.get(one, 1_000_000 + at) for at, one in enumerate(names)}
    return compiled(config, nodes, indexes, uplink=uplink, offload=offload)


def main() -> None:
    for path in sorted(FOLDER.glob("*.txt")):
        case = Case.read(path)
        path.write_text(str(Case(case.intent, case.configuration, case.nodes, str(case.rules()))))


if __name__ == "__main__":
    main()
