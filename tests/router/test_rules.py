"""Configuration to nftables text: golden cases, and what holds for every ruleset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.advice import warnings
from router.config import Config, parse
from router.elements import PAIRS, Pairs
from router.nftables import BASE_CHAINS, Ruleset, difference
from router.settings import Ports
from tests.router.cases import FOLDER, Case, compiled

CASES = sorted(FOLDER.glob("*.txt"))


def configuration(vlans: int, more: str = "", *, settings: str = "") -> Config:
    """VLANs 1 to `vlans`, each with a reservation `device1` at .20, and more tables."""
    tables = [
        f'[[vlan]]\nname = "vlan{n}"\ntag = {n}\nsubnet = "10.0.{n}.0/24"\nrouter = "10.0.{n}.1"\npools = []\n'
        f"{settings}\n"
        f'[[vlan.reservation]]\nname = "device1"\nmac = "02:00:00:00:{n:02x}:05"\naddress = "10.0.{n}.20"\n'
        for n in range(1, vlans + 1)
    ]
    return parse("".join(['[wan]\ninterface = "wan"\n', *tables, more]))


def allow(source: str, target: str, *ports: str) -> str:
    limited = f"ports = {list(ports)}\n" if ports else ""
    return f'[[allow]]\nfrom = "{source}"\nto = "{target}"\n{limited}'


def jumps(rules: Ruleset, chain: str) -> Iterator[str]:
    """The chains that a packet can pass after `chain`, for one value of each verdict map."""
    text = " ".join(rules.chains[chain])
    yield from re.findall(r"(?:goto|jump) (\w+)", text)
    for name in re.findall(r"vmap @(\w+)", text):
        for element in list(rules.sets[name].elements)[:1]:
            yield from re.findall(r"(?:goto|jump) (\w+)", element)


def passed(rules: Ruleset, chain: str) -> int:
    """The most rules that a packet can pass from `chain` on."""
    return len(rules.chains[chain]) + sum(passed(rules, one) for one in jumps(rules, chain))


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_a_golden_case(path: Path) -> None:
    case = Case.read(path)
    assert str(case.rules()) == case.expected


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_every_set_rule_and_element_says_what_it_is_for(path: Path) -> None:
    rules = Case.read(path).rules()
    comments = [
        *(one.comment for one in rules.sets.values()),
        *(places for one in rules.sets.values() for places in one.elements.values()),
        *(re.findall(r'comment "(.*)"$', rule)[0] for chain in rules.chains.values() for rule in chain),
    ]
    assert all(comments)
    assert max(map(len, comments)) < 128


def test_a_packet_passes_no_more_rules_with_64_vlans_and_1000_exceptions_than_with_2() -> None:
    few = compiled(configuration(2))
    exceptions = "".join(
        allow(f"vlan{n % 64 + 1}", f"10.0.{n // 16 + 1}.{n % 16 + 2}") for n in range(1000) if n % 64 != n // 16
    )
    many = compiled(configuration(64, exceptions))
    assert len(many.sets["vlan_to_node"].elements) > 900
    for chain in BASE_CHAINS:
        assert passed(many, chain) == passed(few, chain)


def test_the_same_values_give_the_same_text() -> None:
    assert str(compiled(configuration(3))) == str(compiled(configuration(3)))


def test_a_change_of_exceptions_is_a_change_of_elements() -> None:
    before, after = configuration(2), configuration(2, allow("vlan1", "vlan2") + allow("vlan2/printer", "wan"))
    assert difference(compiled(before), compiled(after)).splitlines() == [
        'add element inet lanward vlan_to_vlan { "leg1" . "leg2" . 0-255 . 0-65535 comment "allow[0]" }'
    ]


def test_a_node_that_moves_is_a_change_of_elements() -> None:
    config = configuration(2, '[[publish]]\nport = "tcp/80"\nto = "vlan1/web"\n')
    there, elsewhere = (compiled(config, {("vlan1", "web"): 0x0A000164 + n}) for n in (0, 1))
    assert difference(there, elsewhere).splitlines() == [
        "delete element inet lanward publish { tcp . 80 }",
        'add element inet lanward publish { tcp . 80 comment "publish[0]" : 10.0.1.101 }',
    ]


PORTS = st.builds(
    lambda protocol, first, size: Ports(protocol, first, min(first + size, 65535)),
    st.sampled_from(["tcp", "udp"]),
    st.integers(1, 60),
    st.integers(0, 20),
)


@given(st.lists(PORTS, min_size=1))
def test_the_ports_of_a_pair_do_not_overlap_and_are_all_there(wanted: list[Ports]) -> None:
    pairs = Pairs()
    for ports in wanted:
        pairs.add("leg1", "leg2", [ports], "allow[0]")
    found: list[tuple[str, int]] = []
    for element in pairs.elements()["vlan_to_vlan"]:
        protocol, span = element.split(" . ")[2:]
        first, _, last = span.partition("-")
        found += [(protocol, port) for port in range(int(first), int(last or first) + 1)]
    assert sorted(found) == sorted({(one.protocol, port) for one in wanted for port in range(one.first, one.last + 1)})


@pytest.mark.parametrize("name", PAIRS)
def test_without_ports_a_pair_is_open_whatever_else_is_said_of_it(name: str) -> None:
    ends: dict[str, tuple[str | int, str | int]] = {"vlan": ("leg1", "leg2"), "node": (1, 2)}
    source, target = name.split("_to_")
    pairs = Pairs()
    for ports in ([Ports("tcp", 80, 80)], [], [Ports("icmp")]):
        pairs.add(ends[source][0], ends[target][1], ports, "allow[0]")
    (element,) = pairs.elements()[name]
    assert element.endswith(" . 0-255 . 0-65535")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (allow("vlan1", "vlan2", "tcp/443"), []),
        (allow("vlan1/device1", "vlan2/device1"), []),
        (allow("vlan1", "vlan2"), ["allow[0]: opens all of vlan2 to vlan1, on all ports"]),
        (allow("wan", "vlan2"), ["allow[0]: opens all of vlan2 to the whole WAN, on all ports"]),
        (allow("wan", "router"), ["allow[0]: opens all ports of the router to the whole WAN"]),
        (allow("vlan1", "10.0.2.1", "icmp"), ["allow[0]: opens the router's address in vlan2 to vlan1"]),
        (allow("vlan1", "10.0.1.1", "tcp/80"), []),
        (
            allow("wan", "10.0.2.1", "tcp/22"),
            ["allow[0]: has no effect: from the WAN nothing gets to the router's address in vlan2"],
        ),
        (allow("router", "vlan1"), ["allow[0]: the router reaches everything without it"]),
        (allow("vlan1", "wan"), ["allow[0]: vlan1 reaches the WAN without it"]),
        (
            allow("vlan1", "10.0.1.9"),
            ["allow[0]: within vlan1 packets do not pass the router, so this changes nothing"],
        ),
        (
            '[[publish]]\nport = "tcp/80"\nto = "vlan1/web"\n',
            ["publish[0].to: no reservation is named vlan1/web; closed until a node of that name has a lease"],
        ),
    ],
)
def test_what_looks_like_an_accident_is_said(more: str, expected: list[str]) -> None:
    assert warnings(configuration(2, more)) == expected


def test_an_exception_to_the_wan_is_no_accident_where_only_encrypted_protocols_leave() -> None:
    assert not warnings(configuration(1, allow("vlan1", "wan", "udp/53"), settings="encrypted_only = true"))
