"""`lanward verify`: what is asked, what is said of the answers, and the exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from router import NotRunningError, client, probe, verify
from router.__main__ import main
from router.policy import ICMP, ROUTER, End, Row
from router.settings import Docker, Kind, Ports
from tests.lab import netns
from tests.lab.inside import inside
from tests.router.test_rules import allow, configuration

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
    assert [(str(one), one.leased, one.is_container) for one in found] == [
        ("vlan1/device1", True, False),
        ("vlan1/web", False, True),
        ("vlan1/gps", True, False),
        ("vlan1/10.0.1.101", True, False),
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


def test_many_rows_are_asked_some_at_a_time(alone: probe.Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "AT_ONCE", 3)
    rows = [row(one, service) for service in (ICMP, Ports("tcp", 9, 9)) for one in (LOOPBACK, NOWHERE)] * 4
    assert probe.measure(rows, alone, 0.05) == [True, False] * 8


def test_no_more_are_asked_when_nobody_wants_to_know(alone: probe.Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "AT_ONCE", 3)
    wanted = iter([True, False, False])
    assert probe.measure([row(LOOPBACK)] * 8, alone, go_on=lambda: next(wanted)) == [True] * 3 + [False] * 5


def test_what_the_sources_own_rules_drop_is_not_answered(alone: probe.Enter) -> None:
    with alone[ROUTER]():
        subprocess.run(["nft", "table ip own { chain out { type filter hook output priority 0; drop; }; }"], check=True)
    rows = [row(LOOPBACK), row(LOOPBACK, Ports("tcp", 9, 9)), row(LOOPBACK, Ports("udp", 9, 9), expected=False)]
    assert probe.measure(rows, alone, 0.05) == [False, False, False]


def test_replies_that_nobody_asked_for_are_no_answer(alone: probe.Enter) -> None:
    probes = probe.Probes()
    with alone[ROUTER](), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as stranger:
        probes.send([(0, row(NOWHERE)), (1, row(LOOPBACK))])
        for data in (b"", b"short", bytes(12), probes._token, probes._token + b"\0\0", probes._token + bytes(5)):
            stranger.sendto(bytes(8) + data, ("127.0.0.1", 0))
    probes.wait(2, 0.05)
    probes.close()
    assert probes.answered == {1}


def test_a_node_that_is_switched_off_is_no_difference() -> None:
    rows = [row(LOOPBACK), row(NOWHERE), row(NOWHERE, source=LOOPBACK), row(LOOPBACK, source=NOWHERE)]
    assert verify.present(rows, [True, False, False, None], set()) == [True, None, None, None]
    assert verify.present(rows, [False, False, False, False], {LOOPBACK.address}) == [False, None, None, False]
    assert verify.present(rows, [True, True, False, True], set()) == [True, True, False, True]


def test_a_container_that_runs_and_is_silent_is_a_difference() -> None:
    rows = [row(NOWHERE), row(NOWHERE, source=LOOPBACK)]
    assert verify.present(rows, [False, False], set(), there={NOWHERE}) == [False, False]


def test_nothing_is_said_of_a_container_that_was_stopped() -> None:
    rows = [row(NOWHERE), row(LOOPBACK, source=NOWHERE), row(LOOPBACK)]
    known = {NOWHERE.address}
    assert verify.present(rows, [False, False, True], known, there={NOWHERE}, gone={NOWHERE}) == [None, None, True]


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


class Service:
    """What a running service answers, and what the router measures of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.docker: dict[str, Any] | None = None
        self.leases = [lease("10.0.1.20", hostname="device1")]
        self.config = configuration(1)
        self.places: dict[str, str] = {}
        self.answered = True
        known = {int(IPv4Address(one)) for one in ("10.0.1.20", "10.0.1.30")}
        monkeypatch.setattr(client, "get", self.get)
        monkeypatch.setattr(verify, "load", lambda *_: self.config)
        monkeypatch.setattr(verify, "neighbours", lambda: known)
        monkeypatch.setattr(verify, "measure", lambda rows, *_, **__: [self.answered for _ in rows])

    def get(self, _: Path, target: str) -> Any:
        status = {"config": "lanward.toml", "docker": self.docker, "firewall": {"nodes": self.places}}
        return {"/status": status, "/leases": self.leases}[target]

    def with_container(self, *containers: dict[str, Any], connected: bool = True) -> None:
        """The VLAN has a Docker network, and web a lease there."""
        vlan = self.config.vlans[0]
        self.config = replace(self.config, vlans=(replace(vlan, network="br0net"),))
        self.leases.append(lease("10.0.1.30", container="web"))
        self.docker = {"connected": connected, "containers": list(containers)}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """A running service with one device and no containers, whose router is answered by all."""
    return Service(monkeypatch)


def results(text: str) -> dict[tuple[str, str], bool | None]:
    return {(one["source"], one["target"]): one["measured"] for one in json.loads(text)}


@pytest.mark.parametrize(("answered", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_all_is_as_expected(
    answered: bool, code: int, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answered = answered
    assert main(["verify", "--json", "--internet", "198.51.100.9"]) == code
    printed = capsys.readouterr()
    shown = json.loads(printed.out)
    assert shown[0] == {
        "source": "vlan1/device1",
        "target": "router, vlan1",
        "address": "10.0.1.1",
        "service": "icmp",
        "expected": True,
        "measured": None,
    }
    assert {"router": answered, "vlan1/device1": None} == {one["source"]: one["measured"] for one in shown}
    assert printed.err == ""


def test_a_difference_stands_out(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answered = False
    assert main(["verify", "--internet", "198.51.100.9"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SOURCE", "TARGET", "ADDRESS", "SERVICE", "EXPECTED", "MEASURED"]
    assert [line.split()[-3:] for line in lines if line.startswith("router")] == [["yes", "no", "DIFFERS"]] * 2


WEB = {"vlan": "vlan1", "container": "web", "address": "10.0.1.30", "mac": "02:42:0a:00:01:f0", "state": "running"}


@pytest.mark.parametrize("containers", [[], [WEB | {"state": "exited"}]])
def test_a_container_that_does_not_run_is_not_measured(
    containers: list[dict[str, Any]], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.with_container(*containers)
    service.answered = False
    verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=True)
    printed = capsys.readouterr()
    found = results(printed.out)
    assert {result for pair, result in found.items() if "vlan1/web" in pair} == {None}
    assert found["router", "vlan1/device1"] is False
    assert printed.err == "not measured from vlan1/web: no such container runs\n"


def test_without_the_engine_a_container_is_like_a_device(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.with_container(connected=False)
    assert verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=True) == 0
    printed = capsys.readouterr()
    assert results(printed.out)["router", "vlan1/web"] is True
    assert printed.err == "not measured from vlan1/web: Docker does not answer the service; see lanward status\n"


def test_a_container_that_cannot_be_entered_is_told_once(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.with_container(WEB)
    service.config = replace(service.config, docker=Docker(netns=str(tmp_path / "absent")))
    assert verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=True) == 0
    printed = capsys.readouterr()
    found = results(printed.out)
    assert {result for (source, _), result in found.items() if source == "vlan1/web"} == {None}
    assert found["router", "vlan1/web"] is True
    (sentence,) = printed.err.splitlines()
    assert sentence.startswith(f"not measured from vlan1/web: {tmp_path}/absent: No such file or directory; mount")


def test_a_container_that_goes_meanwhile_is_no_difference(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.with_container(WEB)

    def goes(rows: Sequence[Row], *_: object, **__: object) -> list[bool]:
        service.docker = {"connected": True, "containers": [WEB | {"pinned": "later"}]}
        return [one.target.name != "web" for one in rows]

    monkeypatch.setattr(verify, "measure", goes)
    assert verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=True) == 0
    printed = capsys.readouterr()
    assert results(printed.out)["router", "vlan1/web"] is None
    assert "not measured from vlan1/web: the container was stopped or changed meanwhile\n" in printed.err


def test_a_name_is_that_of_the_node_that_the_rules_mean(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.config = configuration(2, allow("vlan1/cam", "vlan2"))
    service.leases = [
        lease("10.0.1.100", hostname="cam"),
        lease("10.0.1.101", hostname="cam"),
        lease("10.0.2.20", vlan="vlan2", hostname="device1"),
    ]
    both = {"vlan1/10.0.1.100", "vlan1/10.0.1.101"}
    for places, names, open_to in (
        ({"vlan1/cam": "10.0.1.100"}, {"vlan1/cam", "vlan1/10.0.1.101"}, {"vlan1/cam"}),
        ({}, both, set()),
    ):
        service.places = places
        verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=True)
        rows = [one for one in json.loads(capsys.readouterr().out) if one["target"] == "vlan2/device1"]
        assert {one["source"] for one in rows} == names | {"router"}
        assert {one["source"] for one in rows if one["expected"]} == open_to | {"router"}


def test_without_a_running_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--state", str(tmp_path)]) == 3
    assert "lanward is not running" in capsys.readouterr().err


@pytest.mark.usefixtures("service")
def test_without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(verify, "measure", refused)
    with pytest.raises(NotRunningError, match="NET_RAW"):
        verify.verify(Path(), IPv4Address("198.51.100.9"), as_json=False)
