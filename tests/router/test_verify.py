"""`lanward verify`: what is asked, what is said of the answers, and the exit code."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from router import NotRunningError, client, probe, verify
from router.__main__ import main
from router.policy import ICMP, ROUTER, End, Row
from router.settings import Config, Kind, Ports
from tests.lab import netns
from tests.lab.inside import inside
from tests.router.test_rules import configuration

LOOPBACK = End(Kind.NODE, int(IPv4Address("127.0.0.1")), "vlan1", "here")
NOWHERE = End(Kind.NODE, int(IPv4Address("10.0.1.77")), "vlan1", "nowhere")
HERE: probe.Enter = {ROUTER: nullcontext}


def lease(address: str, state: str = "bound", **more: Any) -> dict[str, Any]:
    return {"vlan": "vlan1", "address": address, "state": state, "hostname": None, "container": None} | more


def row(target: End, service: Ports = ICMP, *, expected: bool = True, source: End = ROUTER) -> Row:
    return Row(source, target, service, expected)


def test_leases_and_reservations_are_nodes_and_expired_ones_are_not() -> None:
    leases = [
        lease("10.0.1.20", "reserved"),
        lease("10.0.1.30", "reserved", container="web"),
        lease("10.0.1.100", hostname="gps"),
        lease("10.0.1.101"),
        lease("10.0.1.102", "expired"),
        lease("10.0.9.1", vlan="gone"),
    ]
    found = verify.nodes(configuration(1), leases)
    assert [(str(one), one.leased) for one in found] == [
        ("vlan1/device1", True),
        ("vlan1/web", False),
        ("vlan1/gps", True),
        ("vlan1/10.0.1.101", True),
    ]


def test_a_source_that_cannot_be_entered_is_not_measured() -> None:
    assert probe.measure([row(LOOPBACK, source=LOOPBACK)], HERE) == [None]


@pytest.fixture
def alone() -> Iterator[probe.Enter]:
    """The router in a network namespace that has only a loopback interface."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"{netns.prefix(os.getpid())}0-alone"
    netns.batch([f"netns add {name}"])
    netns.batch(["link set lo up"], name)
    yield {ROUTER: partial(inside, name)}
    netns.delete([name])


def test_a_refusal_is_an_answer(alone: probe.Enter) -> None:
    rows = [row(LOOPBACK), row(LOOPBACK, Ports("tcp", 9, 9)), row(LOOPBACK, Ports("udp", 9, 9))]
    assert probe.measure(rows, alone) == [True, True, True]


def test_what_has_no_route_does_not_answer(alone: probe.Enter) -> None:
    rows = [row(NOWHERE, expected=False), row(NOWHERE), row(NOWHERE, Ports("tcp", 9, 9))]
    assert probe.measure(rows, alone, 0.05) == [False, False, False]


def test_a_silent_udp_service_says_nothing(alone: probe.Enter) -> None:
    with alone[ROUTER](), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 9))
        rows = [row(LOOPBACK, Ports("udp", 9, 9)), row(LOOPBACK, Ports("udp", 9, 9), expected=False)]
        assert probe.measure(rows, alone, 0.05) == [None, False]


def test_a_node_that_is_switched_off_is_no_difference() -> None:
    rows = [row(LOOPBACK), row(NOWHERE), row(NOWHERE, source=LOOPBACK), row(LOOPBACK, source=NOWHERE)]
    assert verify.present(rows, [True, False, False, None], set()) == [True, None, None, None]
    assert verify.present(rows, [False, False, False, False], {LOOPBACK.address}) == [False, None, None, False]
    assert verify.present(rows, [True, True, False, True], set()) == [True, True, False, True]


def test_the_kernels_tables(tmp_path: Path) -> None:
    arp, route = tmp_path / "arp", tmp_path / "route"
    arp.write_text(
        "IP address HW type Flags HW address Mask Device\n"
        "10.0.1.20 0x1 0x2 02:00:00:00:01:05 * leg1\n10.0.1.30 0x1 0x0 00:00:00:00:00:00 * leg1\n"
    )
    route.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "leg1 0001000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\nwan 00000000 017100CB 0003 0 0 0 00000000 0 0 0\n"
    )
    assert verify.neighbours(arp) == {int(IPv4Address("10.0.1.20"))}
    assert verify.gateway(route) == IPv4Address("203.0.113.1")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A running service with one device, whose router measures what `service(answers)` says."""
    answers = {"/status": {"config": "lanward.toml"}, "/leases": [lease("10.0.1.20", hostname="device1")]}
    known: set[int] = {int(IPv4Address("10.0.1.20"))}

    def loaded(_: Path) -> Config:
        return configuration(1)

    def set_up(answered: bool) -> None:
        monkeypatch.setattr(client, "get", lambda _, target: answers[target])
        monkeypatch.setattr(verify, "load", loaded)
        monkeypatch.setattr(verify, "neighbours", lambda: known)
        monkeypatch.setattr(verify, "measure", lambda rows, _: [answered if r.source == ROUTER else None for r in rows])

    return set_up


@pytest.mark.parametrize(("answered", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_all_is_as_expected(
    answered: bool, code: int, service: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    service(answered)
    assert main(["verify", "--json", "--internet", "198.51.100.9"]) == code
    shown = json.loads(capsys.readouterr().out)
    assert shown[0] == {
        "source": "vlan1/device1",
        "target": "router, vlan1",
        "address": "10.0.1.1",
        "service": "icmp",
        "expected": True,
        "measured": None,
    }
    assert {"router": answered, "vlan1/device1": None} == {one["source"]: one["measured"] for one in shown}


def test_a_difference_stands_out(service: Callable[[bool], None], capsys: pytest.CaptureFixture[str]) -> None:
    service(False)
    assert main(["verify", "--internet", "198.51.100.9"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SOURCE", "TARGET", "ADDRESS", "SERVICE", "EXPECTED", "MEASURED"]
    assert [line.split()[-3:] for line in lines if line.startswith("router")] == [["yes", "no", "DIFFERS"]] * 2


def test_without_a_running_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--state", str(tmp_path)]) == 3
    assert "lanward is not running" in capsys.readouterr().err


def test_without_privilege(service: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    service(True)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(verify, "measure", refused)
    with pytest.raises(NotRunningError, match="NET_RAW"):
        verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=False)
